"""Declarations: cells of several batches in one space."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="Harmony",
        target="diffbio.operators.singlecell.harmony:Harmony",
        summary="Takes batch effects out of an embedding by soft clusters and ridge regression (Harmony).",
        reads=("embeddings", "batch_labels"),
        writes=("corrected_embeddings", "harmony_assignments"),
        example="diffbio.operators.singlecell.examples.harmony:harmony",
    ),
    OperatorDeclaration(
        name="ReferenceMapping",
        target="diffbio.operators.singlecell.reference_mapping:ReferenceMapping",
        summary="Places query cells among the corrected cells of a reference that does not move (Symphony).",
        reads=("embeddings", "batch_labels"),
        writes=("corrected_embeddings", "harmony_assignments"),
        example="diffbio.operators.singlecell.examples.reference_mapping:reference_mapping",
    ),
    OperatorDeclaration(
        name="MMDBatchCorrection",
        target="diffbio.operators.singlecell.batch_autoencoder:MMDBatchCorrection",
        summary="Autoencoder whose latent space a kernel discrepancy frees of batches.",
        reads=("embeddings", "batch_labels"),
        writes=("latent", "reconstructed_embeddings", "corrected_embeddings"),
        example="diffbio.operators.singlecell.examples.batch_autoencoder:mmd_batch_correction",
        objective="mmd_batch_correction",
    ),
    OperatorDeclaration(
        name="AdversarialBatchCorrection",
        target="diffbio.operators.singlecell.batch_autoencoder:AdversarialBatchCorrection",
        summary="Autoencoder whose latent space a discriminator frees of batches.",
        reads=("embeddings", "batch_labels"),
        writes=("latent", "reconstructed_embeddings", "corrected_embeddings", "batch_logits", "batch_slopes"),
        example="diffbio.operators.singlecell.examples.batch_autoencoder:adversarial_batch_correction",
        objective="adversarial_batch_correction",
    ),
)
