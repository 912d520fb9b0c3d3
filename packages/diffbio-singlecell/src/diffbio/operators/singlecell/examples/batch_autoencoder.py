"""The conformance examples of the autoencoders that take batches out."""

from __future__ import annotations

import numpy as np
from flax import nnx

from diffbio.operators.singlecell.batch_autoencoder import (
    AdversarialBatchCorrection,
    AdversarialBatchCorrectionConfig,
    MMDBatchCorrection,
    MMDBatchCorrectionConfig,
)
from diffbio.testing import Example

_EXEMPT = {"limit_is_hard_reference": "relaxes no hard algorithm"}
_REVERSED = {"gradients_match_finite_differences": "the gradient is reversed on purpose, behind the discriminator"}


def mmd_batch_correction() -> Example:
    """Return seven cells of three batches, one of them without."""
    config = MMDBatchCorrectionConfig(n_features=4, n_batches=3, n_latents=2, hidden_sizes=(5,))
    return Example(MMDBatchCorrection(config, rngs=nnx.Rngs(0)), _cells(), symmetric=("cells",), exempt=_EXEMPT)


def adversarial_batch_correction() -> Example:
    """Return the same cells, and a small discriminator."""
    config = AdversarialBatchCorrectionConfig(
        n_features=4, n_batches=3, n_latents=2, hidden_sizes=(5,), discriminator_sizes=(4,)
    )
    operator = AdversarialBatchCorrection(config, rngs=nnx.Rngs(0))
    return Example(operator, _cells(), symmetric=("cells",), exempt=_EXEMPT | _REVERSED)


def _cells() -> dict[str, np.ndarray]:
    embeddings = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    return {"embeddings": embeddings, "batch_labels": np.array([0, 1, 2, 0, 1, -1, 2], np.int32)}
