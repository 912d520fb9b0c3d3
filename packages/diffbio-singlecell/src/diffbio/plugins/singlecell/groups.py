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
    OperatorDeclaration(
        name="DoubletScorer",
        target="diffbio.operators.singlecell.doublets:DoubletScorer",
        summary="Scores droplets by their simulated doublet neighbours, after Scrublet.",
        reads=("counts",),
        writes=("doublet_scores", "predicted_doublets", "simulated_doublet_scores"),
        example="diffbio.operators.singlecell.examples.doublets:doublet_scorer",
    ),
    OperatorDeclaration(
        name="MarkerRanking",
        target="diffbio.operators.singlecell.marker_ranking:MarkerRanking",
        summary="Marker genes of soft clusters by AUROC, Wilcoxon test and fold change.",
        reads=("normalized", "cluster_assignments"),
        writes=("marker_auroc", "marker_z_scores", "marker_log_p_values", "marker_log2_fold_changes"),
        example="diffbio.operators.singlecell.examples.marker_ranking:marker_ranking",
    ),
    OperatorDeclaration(
        name="DifferentialDistribution",
        target="diffbio.operators.singlecell.differential_distribution:DifferentialDistribution",
        summary="Kolmogorov-Smirnov and Wasserstein distance of each gene between two conditions.",
        reads=("normalized", "condition", "cell_weight"),
        writes=("ks_statistics", "ks_log_p_values", "wasserstein_distances"),
        example="diffbio.operators.singlecell.examples.differential_distribution:differential_distribution",
    ),
    OperatorDeclaration(
        name="MarkerAnnotation",
        target="diffbio.operators.singlecell.marker_annotation:MarkerAnnotation",
        summary="Cell types from known marker genes by a negative binomial mixture, after CellAssign.",
        reads=("counts", "size_factors", "batch_labels"),
        writes=("cell_type_logits", "cell_type_probabilities", "cell_type_log_likelihood"),
        example="diffbio.operators.singlecell.examples.marker_annotation:marker_annotation",
    ),
    OperatorDeclaration(
        name="MajorityVote",
        target="diffbio.operators.singlecell.annotation_votes:MajorityVote",
        summary="Gives cells the majority type of their cluster, after CellTypist.",
        reads=("cell_type_probabilities", "cluster_assignments"),
        writes=("voted_probabilities", "unassigned", "heterogeneous"),
        example="diffbio.operators.singlecell.examples.annotation_votes:majority_vote",
    ),
)
