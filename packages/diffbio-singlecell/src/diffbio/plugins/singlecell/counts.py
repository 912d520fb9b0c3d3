"""Declarations: counts transformed in other ways than by the library size, and genes chosen."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="MedianOfRatiosNormalization",
        target="diffbio.operators.normalization:MedianOfRatiosNormalization",
        summary="Size factors by the soft median of ratios, after DESeq2.",
        reads=("counts",),
        writes=("normalized", "size_factors"),
        example="diffbio.operators.normalization.examples.size_factors:median_of_ratios_normalization",
    ),
    OperatorDeclaration(
        name="CenteredLogRatio",
        target="diffbio.operators.normalization:CenteredLogRatio",
        summary="Centered log-ratios of counts, for surface proteins (CLR).",
        reads=("counts",),
        writes=("normalized",),
        example="diffbio.operators.normalization.examples.size_factors:centered_log_ratio",
    ),
    OperatorDeclaration(
        name="PearsonResiduals",
        target="diffbio.operators.normalization:PearsonResiduals",
        summary="Counts to analytic Pearson residuals, with a learnable overdispersion.",
        reads=("counts",),
        writes=("pearson_residuals",),
        example="diffbio.operators.normalization.examples.pearson_residuals:pearson_residuals",
    ),
    OperatorDeclaration(
        name="ArcsinhTransform",
        target="diffbio.operators.normalization:ArcsinhTransform",
        summary="Intensities of cytometry by arcsinh, with a learnable cofactor per channel.",
        reads=("intensities",),
        writes=("transformed",),
        example="diffbio.operators.normalization.examples.arcsinh:arcsinh_transform",
    ),
    OperatorDeclaration(
        name="QuantileNormalization",
        target="diffbio.operators.normalization:QuantileNormalization",
        summary="The same distribution for every cell, by soft ranks.",
        reads=("counts",),
        writes=("quantile_normalized",),
        example="diffbio.operators.normalization.examples.quantile_normalization:quantile_normalization",
    ),
    OperatorDeclaration(
        name="TfidfLsi",
        target="diffbio.operators.normalization:TfidfLsi",
        summary="TF-IDF and latent semantic indexing, for chromatin accessibility.",
        reads=("counts",),
        writes=("tfidf", "embeddings"),
        example="diffbio.operators.normalization.examples.tfidf:tfidf_lsi",
    ),
    OperatorDeclaration(
        name="StochasticGateSelection",
        target="diffbio.operators.normalization:StochasticGateSelection",
        summary="A small panel of genes, by noisy gates that are trained with the task (STG).",
        reads=("scaled",),
        writes=("gene_gate", "gate_probability", "gated"),
        example="diffbio.operators.normalization.examples.stochastic_gates:stochastic_gate_selection",
    ),
)
