"""The conformance example of soft segmentation; the limit is the best of all segmentations."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.variant.change_points import SegmentationConfig, SoftSegmentation
from diffbio.testing import Example, Limit

PENALTY, STD = 3.0, 0.2


def soft_segmentation() -> Example:
    """Return nine bins of two chromosomes, of which the first has a gain."""
    data = {
        "log2_ratio": np.array([0.05, -0.1, 0.7, 0.61, 0.55, 0.1, -0.9, -1.0, 0.1], np.float32),
        "bin_mask": np.array([1, 1, 1, 0, 1, 1, 1, 1, 1], bool),
        "segment_start": np.array([1, 0, 0, 0, 0, 1, 0, 0, 0], bool),
    }
    config = SegmentationConfig(penalty=PENALTY, noise_std=STD, max_segment=4, n_candidates=8)

    def sharpen(operator: SoftSegmentation) -> SoftSegmentation:
        operator.softness.set(1e-2)
        return operator

    def best_of_all(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        values, counted, first = (np.asarray(data[name]) for name in ("log2_ratio", "bin_mask", "segment_start"))
        places = np.flatnonzero(counted & ~first)
        options = [chosen for size in range(len(places) + 1) for chosen in combinations(places.tolist(), size)]
        costs, means = zip(*(_cost_and_means(values, counted, first, chosen) for chosen in options), strict=True)
        best = int(np.argmin(costs))
        return {
            "breakpoint_probability": np.isin(np.arange(len(values)), options[best]).astype(np.float32),
            "segment_mean": means[best],
            "segmentation_cost": costs[best],
        }

    return Example(
        SoftSegmentation(config), data, limit=Limit(sharpen, best_of_all, atol=1e-3), masks={"bin_mask": "bins"}
    )


def _cost_and_means(
    values: np.ndarray, counted: np.ndarray, first: np.ndarray, chosen: tuple[int, ...]
) -> tuple[float, np.ndarray]:
    """Return the cost of a segmentation in nats, and the mean of each bin's segment."""
    segments = np.cumsum(first | np.isin(np.arange(len(values)), chosen))
    means = np.array([values[counted & (segments == segment)].mean() for segment in segments])
    squares = ((values - means)[counted] ** 2).sum()
    return float(squares / (2 * STD**2) + PENALTY * len(chosen)), means
