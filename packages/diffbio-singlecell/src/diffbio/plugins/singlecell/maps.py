"""Declarations: neighbour graphs and maps of cells."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="NearestNeighbors",
        target="diffbio.operators.singlecell.neighbors:NearestNeighbors",
        summary="Exact nearest other cells of each cell, with differentiable distances.",
        reads=("embeddings", "cell_mask"),
        writes=("neighbor_indices", "neighbor_distances"),
        example="diffbio.operators.singlecell.examples.neighbors:nearest_neighbors",
    ),
    OperatorDeclaration(
        name="FuzzyGraph",
        target="diffbio.operators.normalization.fuzzy_graph:FuzzyGraph",
        summary="The fuzzy neighbour graph of UMAP, the connectivities of scanpy.",
        reads=("embeddings", "cell_mask"),
        writes=("fuzzy_indices", "fuzzy_memberships"),
        example="diffbio.operators.normalization.examples.fuzzy_graph:fuzzy_graph",
    ),
    OperatorDeclaration(
        name="UMAP",
        target="diffbio.operators.normalization.umap:UMAP",
        summary="UMAP of given cells, whose coordinates are parameters.",
        reads=("embeddings",),
        writes=("umap", "fuzzy_indices", "fuzzy_memberships"),
        example="diffbio.operators.normalization.examples.umap:umap",
    ),
    OperatorDeclaration(
        name="ParametricUMAP",
        target="diffbio.operators.normalization.parametric_umap:ParametricUMAP",
        summary="UMAP by a network, which maps new cells too.",
        reads=("embeddings",),
        writes=("umap",),
        example="diffbio.operators.normalization.examples.umap:parametric_umap",
    ),
    OperatorDeclaration(
        name="DiffusionMap",
        target="diffbio.operators.normalization.diffusion_map:DiffusionMap",
        summary="Leading eigenvectors of a random walk among cells, on the sparse graph.",
        reads=("embeddings",),
        writes=("diffusion_map", "diffusion_eigenvalues"),
        example="diffbio.operators.normalization.examples.diffusion_map:diffusion_map",
    ),
    OperatorDeclaration(
        name="PHATE",
        target="diffbio.operators.normalization.phate:PHATE",
        summary="Map of the potential distances between random walks.",
        reads=("embeddings",),
        writes=("phate",),
        example="diffbio.operators.normalization.examples.phate:phate",
    ),
    OperatorDeclaration(
        name="TSNE",
        target="diffbio.operators.normalization.tsne:TSNE",
        summary="t-SNE of given cells, whose coordinates are parameters.",
        reads=("embeddings",),
        writes=("tsne", "tsne_indices", "tsne_affinities"),
        example="diffbio.operators.normalization.examples.tsne:tsne",
    ),
)
