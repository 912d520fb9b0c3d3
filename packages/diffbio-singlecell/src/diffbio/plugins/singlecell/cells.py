"""Declarations: what is done with cells once they have counts or embeddings."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="SoftKMeansClustering",
        target="diffbio.operators.singlecell:SoftKMeansClustering",
        summary="k-means whose assignments are a distribution over clusters.",
        reads=("embeddings",),
        writes=("cluster_assignments", "cluster_centroids"),
        example="diffbio.operators.singlecell.examples.clustering:soft_kmeans_clustering",
    ),
    OperatorDeclaration(
        name="DiffusionImputation",
        target="diffbio.operators.singlecell:DiffusionImputation",
        summary="Fills dropouts by diffusion on the graph of cells, after MAGIC.",
        reads=("counts", "graph_embeddings"),
        writes=("imputed_counts",),
        example="diffbio.operators.singlecell.examples.imputation:diffusion_imputation",
    ),
    OperatorDeclaration(
        name="DiffusionPseudotime",
        target="diffbio.operators.singlecell:DiffusionPseudotime",
        summary="Orders cells along a trajectory from a root cell (DPT).",
        reads=("embeddings",),
        writes=("pseudotime",),
        example="diffbio.operators.singlecell.examples.pseudotime:diffusion_pseudotime",
    ),
    OperatorDeclaration(
        name="CellTypeClassifier",
        target="diffbio.operators.singlecell:CellTypeClassifier",
        summary="Linear or multilayer classifier of cell types.",
        reads=("embeddings",),
        writes=("cell_type_logits", "cell_type_probabilities"),
        example="diffbio.operators.singlecell.examples.annotation:cell_type_classifier",
        objective="cell_type_cross_entropy",
    ),
)
