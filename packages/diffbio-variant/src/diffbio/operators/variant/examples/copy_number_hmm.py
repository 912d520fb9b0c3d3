"""The conformance example of the copy-number HMM; the limit is Viterbi's path, found among all paths."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.variant.copy_number_hmm import CopyNumberHMM, CopyNumberHMMConfig
from diffbio.testing import Example, Limit


def copy_number_hmm() -> Example:
    """Return seven bins of two chromosomes, of which the first has a gain; two have no B-allele frequency."""
    operator = CopyNumberHMM(CopyNumberHMMConfig(n_states=4, tied_std=False, change_probability=0.1))
    data = {
        "log2_ratio": np.array([0.05, -0.1, 0.55, 0.61, 0.1, -0.9, -1.0], np.float32),
        "bin_mask": np.array([1, 1, 1, 1, 0, 1, 1], bool),
        "segment_start": np.array([1, 0, 0, 0, 1, 0, 0], bool),
        "bin_position": np.array([0, 1, 2, 4, 0, 1, 2], np.int32) * 1_000_000,
        "baf": np.array([0.52, 0.47, 0.64, 0.3, 0.55, 0.1, 0.92], np.float32),
        "baf_mask": np.array([1, 0, 1, 1, 1, 1, 0], bool),
    }

    def sharpen(operator: CopyNumberHMM) -> CopyNumberHMM:
        operator.softness.set(1e-2)
        return operator

    def best_of_all(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        steps = np.asarray(operator.chain(**jax.tree.map(jnp.asarray, dict(data))))[np.asarray(data["bin_mask"])]
        paths = np.array(list(product(range(4), repeat=len(steps))))
        from_states = np.concatenate([np.zeros((len(paths), 1), int), paths[:, :-1]], axis=1)
        weights = steps[np.arange(len(steps)), from_states, paths].sum(axis=1)
        best = np.insert(paths[weights.argmax()], 4, paths[weights.argmax()][3])  # the masked bin has that before it
        return {
            "expected_copy_number": best.astype(np.float32),
            "copy_number_posterior": np.eye(4, dtype=np.float32)[best],
            "copy_number_log_likelihood": weights.max(),
        }

    return Example(
        operator,
        data,
        limit=Limit(sharpen, best_of_all, atol=1e-2),
        masks={"bin_mask": "bins"},
    )
