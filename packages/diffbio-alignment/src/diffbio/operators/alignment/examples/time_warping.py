"""The conformance example of soft time warping; the limit is DTW, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.alignment.time_warping import SoftTimeWarping, TimeWarpingConfig
from diffbio.testing import Example, Limit


def soft_time_warping() -> Example:
    """Return three pairs of short random walks of two features, of which each has another length."""
    random = np.random.default_rng(0)
    series, reference = (
        np.asarray(random.normal(scale=0.5, size=(3, size, 2)).cumsum(axis=1), np.float32) for size in (5, 6)
    )
    lengths = {"series_length": np.array([5, 4, 3], np.int32), "reference_length": np.array([6, 5, 4], np.int32)}

    def sharpen(operator: SoftTimeWarping) -> SoftTimeWarping:
        operator.softness.set(1e-3)
        return operator

    def reference_distances(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        names = ("series", "reference_series", "series_length", "reference_length")
        pairs = zip(*(np.asarray(data[name]) for name in names), strict=True)
        return {"warping_distance": np.array([_dtw(x[:n], y[:m]) for x, y, n, m in pairs])}

    return Example(
        SoftTimeWarping(TimeWarpingConfig(band=3)),
        {"series": series, "reference_series": reference, **lengths},
        limit=Limit(sharpen, reference_distances, atol=1e-3),
    )


def _dtw(x: np.ndarray, y: np.ndarray) -> float:
    """Return the least cost of a path within the band of 3."""
    best = np.full((len(x) + 1, len(y) + 1), np.inf)
    best[0, 0] = 0
    for i in range(1, len(x) + 1):
        for j in range(max(1, i - 3), min(len(y), i + 3) + 1):
            before = min(best[i - 1, j - 1], best[i - 1, j], best[i, j - 1])
            best[i, j] = before + ((x[i - 1] - y[j - 1]) ** 2).sum()
    return float(best[-1, -1])
