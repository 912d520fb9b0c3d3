"""What diffbio-singlecell brings to the registry: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import (
    Declaration,
    OperatorDeclaration,
    Plugin,
    ReaderDeclaration,
    WriterDeclaration,
    hookimpl,
)

_OPERATORS = (
    OperatorDeclaration(
        name="LibrarySizeNormalization",
        target="diffbio.operators.normalization:LibrarySizeNormalization",
        summary="Counts to log-normalized expression, with a learnable exponent and pseudocount.",
        reads=("counts",),
        writes=("normalized", "size_factors"),
        example="diffbio.operators.normalization.examples:library_size_normalization",
    ),
    OperatorDeclaration(
        name="Scaling",
        target="diffbio.operators.normalization:Scaling",
        summary="Genes to mean 0 and variance 1 by stored statistics.",
        reads=("normalized",),
        writes=("scaled",),
        example="diffbio.operators.normalization.examples:scaling",
    ),
    OperatorDeclaration(
        name="GeneSelection",
        target="diffbio.operators.normalization:GeneSelection",
        summary="Soft, learnable selection of highly variable genes (seurat, seurat_v3).",
        reads=("scaled",),
        writes=("gene_gate", "gated"),
        example="diffbio.operators.normalization.examples:gene_selection",
    ),
    OperatorDeclaration(
        name="PCAProjection",
        target="diffbio.operators.normalization:PCAProjection",
        summary="Projection onto principal components, fixed or learnable from there.",
        reads=("scaled",),
        writes=("embeddings",),
        example="diffbio.operators.normalization.examples:pca_projection",
    ),
    OperatorDeclaration(
        name="SoftKMeansClustering",
        target="diffbio.operators.singlecell:SoftKMeansClustering",
        summary="k-means whose assignments are a distribution over clusters.",
        reads=("embeddings",),
        writes=("cluster_assignments", "cluster_centroids"),
        example="diffbio.operators.singlecell.examples:soft_kmeans_clustering",
    ),
    OperatorDeclaration(
        name="DiffusionImputation",
        target="diffbio.operators.singlecell:DiffusionImputation",
        summary="Fills dropouts by diffusion on the graph of cells, after MAGIC.",
        reads=("counts", "graph_embeddings"),
        writes=("imputed_counts",),
        example="diffbio.operators.singlecell.examples:diffusion_imputation",
    ),
    OperatorDeclaration(
        name="DiffusionPseudotime",
        target="diffbio.operators.singlecell:DiffusionPseudotime",
        summary="Orders cells along a trajectory from a root cell (DPT).",
        reads=("embeddings",),
        writes=("pseudotime",),
        example="diffbio.operators.singlecell.examples:diffusion_pseudotime",
    ),
    OperatorDeclaration(
        name="CellTypeClassifier",
        target="diffbio.operators.singlecell:CellTypeClassifier",
        summary="Linear or multilayer classifier of cell types.",
        reads=("embeddings",),
        writes=("cell_type_logits", "cell_type_probabilities"),
        example="diffbio.operators.singlecell.annotation_example:cell_type_classifier",
    ),
)


@hookimpl
def diffbio_plugin() -> Plugin:
    """Return the single-cell operators, files, losses, recipes, plots and the demo."""
    return Plugin(
        api=1,
        operators=_OPERATORS,
        readers=(
            ReaderDeclaration(
                name="single-cell",
                target="diffbio.io.singlecell:read",
                summary="AnnData (.h5ad, .zarr), 10x (.h5, .mtx folders).",
                suffixes=(".h5ad", ".zarr", ".h5", ".mtx", "/"),
            ),
        ),
        writers=(
            WriterDeclaration(
                name="h5ad",
                target="diffbio.io.singlecell:write",
                summary="AnnData with the results added.",
                suffixes=(".h5ad",),
            ),
        ),
        losses=(
            Declaration(
                name="cell_type_cross_entropy",
                target="diffbio.losses.singlecell:cell_type_cross_entropy",
                summary="Cross-entropy of cell-type logits on labelled cells.",
            ),
            Declaration(
                name="cluster_compactness",
                target="diffbio.losses.singlecell:cluster_compactness",
                summary="Soft within-cluster sum of squares per cell.",
            ),
        ),
        recipes=(
            Declaration(
                name="annotation",
                target="diffbio.pipelines.singlecell:annotation_recipe",
                summary="Scaling, soft gene selection, learnable PCA, linear cell-type classifier.",
            ),
        ),
        plots=(
            Declaration(
                name="annotation",
                target="diffbio.plots.singlecell:annotation_figures",
                summary="The embedding by predicted cell type; the confusion matrix where cells are labelled.",
            ),
        ),
        commands=(
            Declaration(
                name="demo",
                target="diffbio.pipelines.singlecell.demo:demo",
                summary="Train a pipeline on real cells, frozen against joint, and draw it.",
            ),
        ),
    )
