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
)
