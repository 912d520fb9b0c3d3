"""The conformance examples of UMAP and parametric UMAP."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.operators.normalization.examples.cells import RELAXES_NOTHING
from diffbio.operators.normalization.parametric_umap import ParametricUMAP, ParametricUMAPConfig
from diffbio.operators.normalization.umap import UMAP, UMAPConfig
from diffbio.testing import Example


def umap() -> Example:
    """Return a dozen cells after a short descent; cells can't be permuted, for their coordinates are parameters."""
    embeddings = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    operator = UMAP(UMAPConfig(n_cells=12, n_neighbors=5, n_epochs=20), rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(embeddings), key=jax.random.key(0))
    return Example(operator, {"embeddings": embeddings}, symmetric=("features",), exempt=RELAXES_NOTHING)


def parametric_umap() -> Example:
    """Return a dozen cells and a small network after a short training."""
    embeddings = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    config = ParametricUMAPConfig(n_features=3, hidden_sizes=(4,), n_neighbors=5, n_steps=20, batch_size=8)
    operator = ParametricUMAP(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(embeddings), key=jax.random.key(0))
    return Example(operator, {"embeddings": embeddings}, symmetric=("cells",), exempt=RELAXES_NOTHING)
