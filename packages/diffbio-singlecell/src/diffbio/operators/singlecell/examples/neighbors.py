"""The conformance example of the neighbour search."""

from __future__ import annotations

import numpy as np

from diffbio.operators.normalization.examples.cells import RELAXES_NOTHING
from diffbio.operators.singlecell.neighbors import NearestNeighbors, NearestNeighborsConfig
from diffbio.testing import Example


def nearest_neighbors() -> Example:
    """Return ten cells, the last hidden; cells can't be permuted, for the indices that come out are their rows."""
    embeddings = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    return Example(
        NearestNeighbors(NearestNeighborsConfig(n_neighbors=3)),
        {"embeddings": embeddings, "cell_mask": np.arange(10) < 9},
        symmetric=("features",),
        masks={"cell_mask": "cells"},
        exempt=RELAXES_NOTHING,
    )
