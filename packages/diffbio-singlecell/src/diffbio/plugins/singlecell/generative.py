"""Declarations: generative models of counts, and what is trained on them."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="VAENormalizer",
        target="diffbio.operators.normalization.vae_normalization:VAENormalizer",
        summary="Normalization by a variational autoencoder of counts (scVI), conditioned on batches.",
        reads=("counts", "batch_labels", "covariate_labels"),
        writes=(
            "latent",
            "latent_mean",
            "latent_logvar",
            "normalized",
            "reconstruction_log_likelihood",
            "kl_divergence",
            "kl_weight",
        ),
        example="diffbio.operators.normalization.examples.vae_normalization:vae_normalization",
        objective="negative_elbo",
    ),
    OperatorDeclaration(
        name="MaskedDenoiser",
        target="diffbio.operators.singlecell.denoising:MaskedDenoiser",
        summary="Denoises counts by a network that trains itself on hidden molecules (molecular cross-validation).",
        reads=("counts",),
        writes=("imputed_counts", "hidden_counts", "hidden_mean", "hidden_mask", "inverse_dispersion"),
        example="diffbio.operators.singlecell.examples.denoising:masked_denoiser",
        objective="masked_values",
    ),
    OperatorDeclaration(
        name="SemiSupervisedVAE",
        target="diffbio.operators.singlecell.scanvi:SemiSupervisedVAE",
        summary="Cell types from few labels, by a variational autoencoder of the counts of all cells (scANVI).",
        reads=("counts", "labels", "batch_labels"),
        writes=(
            "latent",
            "latent_mean",
            "latent_logvar",
            "normalized",
            "cell_type_logits",
            "cell_type_probabilities",
            "reconstruction_log_likelihood",
            "kl_divergence",
            "kl_weight",
        ),
        example="diffbio.operators.singlecell.examples.scanvi:semi_supervised_vae",
        objective="semi_supervised_elbo",
    ),
    OperatorDeclaration(
        name="DoubletClassifier",
        target="diffbio.operators.singlecell.doublet_classifier:DoubletClassifier",
        summary="Doublets by a classifier trained on simulated ones (Solo); calibrated probabilities.",
        reads=("counts",),
        writes=("doublet_logits", "doublet_probabilities"),
        example="diffbio.operators.singlecell.examples.doublet_classifier:doublet_classifier",
        objective="doublet_cross_entropy",
    ),
)
