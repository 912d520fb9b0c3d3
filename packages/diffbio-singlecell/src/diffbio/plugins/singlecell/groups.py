"""Declarations: groups of cells, what marks them, and what they are called."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="GaussianMixture",
        target="diffbio.operators.singlecell.gaussian_mixture:GaussianMixture",
        summary="Clusters with a size, a place and a shape, by expectation-maximization.",
        reads=("embeddings",),
        writes=("cluster_assignments", "cluster_log_likelihood"),
        example="diffbio.operators.singlecell.examples.gaussian_mixture:gaussian_mixture",
    ),
    OperatorDeclaration(
        name="ModularityClustering",
        target="diffbio.operators.singlecell.modularity:ModularityClustering",
        summary="Communities of the neighbour graph by soft modularity, as Leiden finds them.",
        reads=("embeddings", "neighbor_indices"),
        writes=("cluster_assignments", "modularity"),
        example="diffbio.operators.singlecell.examples.modularity:modularity_clustering",
    ),
)
