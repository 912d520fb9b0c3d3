"""The conformance example of the semi-supervised variational autoencoder."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.singlecell.scanvi import SemiSupervisedVAE, SemiSupervisedVAEConfig
from diffbio.testing import Example, Limit


def semi_supervised_vae() -> Example:
    """Return seven cells, some labelled, of two batches; the limit is the cell type with the largest logit."""
    counts = np.random.default_rng(0).poisson(4.0, size=(7, 6)).astype(np.float32)
    config = SemiSupervisedVAEConfig(
        n_genes=6, n_classes=3, n_latent=2, hidden_sizes=(5,), classifier_sizes=(4,), n_batches=2, target_sum=20.0
    )
    operator = SemiSupervisedVAE(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(counts))
    labels = np.array([0, 1, -1, 2, -1, -1, 0], np.int32)
    batches = np.array([0, 1, 0, 0, 1, -1, 1], np.int32)

    def sharpen(model: SemiSupervisedVAE) -> SemiSupervisedVAE:
        model.softness.set(1e-4)
        return model

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        result, _, _ = operator.apply(dict(data), {}, None, key=jax.random.key(1))  # logits depend on no key
        return {"cell_type_probabilities": np.eye(3, dtype=np.float32)[result["cell_type_logits"].argmax(1)]}

    data = {"counts": counts, "labels": labels, "batch_labels": batches}
    return Example(operator, data, limit=Limit(sharpen, reference, atol=1e-5))
