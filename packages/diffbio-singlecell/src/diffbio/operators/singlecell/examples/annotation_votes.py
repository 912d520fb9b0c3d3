"""The conformance example of majority voting."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.singlecell.annotation_votes import MajorityVote, MajorityVoteConfig
from diffbio.testing import Example, Limit


def majority_vote() -> Example:
    """Return nine cells of three types in two soft clusters; the limit counts the votes."""
    random = np.random.default_rng(2)
    data = {
        "cell_type_probabilities": random.dirichlet(np.ones(3), 9).astype(np.float32),
        "cluster_assignments": random.dirichlet(np.ones(2), 9).astype(np.float32),
    }
    operator = MajorityVote(
        MajorityVoteConfig(
            min_probability=0.6, min_share=0.5, temperature=0.7, majority_temperature=0.2, threshold_temperature=0.1
        )
    )

    def sharpen(vote: MajorityVote) -> MajorityVote:
        for softness in (vote.softness, vote.majority_softness, vote.threshold_softness):
            softness.set(1e-5)
        return vote

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        probabilities, assignments = (np.asarray(array, np.float64) for array in data.values())
        votes = np.eye(3)[probabilities.argmax(axis=1)]
        shares = assignments.T @ votes / assignments.sum(axis=0)[:, None]
        return {
            "voted_probabilities": assignments @ np.eye(3)[shares.argmax(axis=1)],
            "unassigned": (probabilities.max(axis=1) < 0.6).astype(float),
            "heterogeneous": (assignments @ shares.max(axis=1) < 0.5).astype(float),
        }

    return Example(
        operator, data, limit=Limit(sharpen, reference, atol=1e-4), symmetric=("cells", "classes", "clusters")
    )
