"""The conformance example of fate probabilities."""

from __future__ import annotations

import numpy as np

from diffbio.operators.normalization.examples.cells import RELAXES_NOTHING
from diffbio.operators.singlecell.absorbing_chain import FateProbabilities, FateProbabilitiesConfig
from diffbio.testing import Example


def fate_probabilities() -> Example:
    """Return a walk among nine cells that ends in a set of two cells or in a single one."""
    random = np.random.default_rng(0)
    others = np.array([np.delete(np.arange(9), cell) for cell in range(9)])
    return Example(
        FateProbabilities(FateProbabilitiesConfig(n_fates=2)),
        {
            "transition_weights": random.gamma(2.0, size=(9, 4)).astype(np.float32),
            "neighbor_indices": random.permuted(others, axis=1)[:, :4].astype(np.int32),
            "terminal_labels": np.array([-1, 0, -1, -1, 1, -1, 0, -1, -1], np.int32),
        },
        exempt=RELAXES_NOTHING,
    )
