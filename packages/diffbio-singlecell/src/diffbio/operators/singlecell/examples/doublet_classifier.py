"""The conformance example of the classifier of doublets."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.operators.singlecell.doublet_classifier import DoubletClassifier, DoubletClassifierConfig
from diffbio.testing import Example


def doublet_classifier() -> Example:
    """Return nine cells, seen by two principal components and their depth."""
    counts = np.random.default_rng(0).poisson(4.0, size=(9, 5)).astype(np.float32)
    config = DoubletClassifierConfig(n_genes=5, n_components=2, hidden_sizes=(4,), expected_doublet_rate=0.1)
    operator = DoubletClassifier(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(counts))
    return Example(
        operator,
        {"counts": counts},
        symmetric=("cells",),
        exempt={"limit_is_hard_reference": "relaxes no hard algorithm"},
    )
