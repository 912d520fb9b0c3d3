"""The conformance example of t-SNE."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.operators.normalization.examples.cells import RELAXES_NOTHING
from diffbio.operators.normalization.tsne import TSNE, TSNEConfig
from diffbio.testing import Example


def tsne() -> Example:
    """Return a dozen cells after a short descent; cells can't be permuted, for their coordinates are parameters."""
    embeddings = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    config = TSNEConfig(n_cells=12, perplexity=2.0, n_iterations=20, learning_rate=1.0)
    operator = TSNE(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(embeddings))
    return Example(operator, {"embeddings": embeddings}, symmetric=("features",), exempt=RELAXES_NOTHING)
