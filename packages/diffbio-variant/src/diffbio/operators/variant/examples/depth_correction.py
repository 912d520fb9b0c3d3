"""The conformance example of depth correction; the limit is written out in NumPy, bin by bin."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.variant.depth_correction import DepthCorrection, DepthCorrectionConfig
from diffbio.testing import Example, Limit

GC_BANDWIDTH, MAPPABILITY_BANDWIDTH, MIN_MAPPABILITY = 0.1, 0.2, 0.8


def depth_correction() -> Example:
    """Return twelve bins whose depth falls with GC content, of which one has no reads and two are hard to map."""
    random = np.random.default_rng(0)
    gc = random.uniform(0.3, 0.6, 12).astype(np.float32)
    mappability = random.uniform(0.87, 1.0, 12).astype(np.float32)
    mappability[[3, 7]] = 0.79, 0.7
    depth = (60 * (1.5 - gc) * mappability * random.uniform(0.9, 1.1, 12)).astype(np.float32)
    depth[5] = 0
    data = {
        "depth": depth,
        "gc": gc,
        "mappability": mappability,
        "bin_mask": np.arange(12) != 8,
        "reference_depth": random.uniform(0.9, 1.1, 12).astype(np.float32),
    }
    config = DepthCorrectionConfig(
        gc_bandwidth=GC_BANDWIDTH,
        mappability_bandwidth=MAPPABILITY_BANDWIDTH,
        min_mappability=MIN_MAPPABILITY,
        n_robust=0,
        temperature=0.05,
    )

    def sharpen(operator: DepthCorrection) -> DepthCorrection:
        operator.softness.set(1e-4)
        return operator

    return Example(
        DepthCorrection(config), data, limit=Limit(sharpen, _corrected, atol=5e-3), masks={"bin_mask": "bins"}
    )


def _corrected(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
    """Return what hard thresholds and local linear regressions give."""
    names = ("depth", "gc", "mappability", "reference_depth")
    depth, gc, mappability, reference = (np.asarray(data[name], float) for name in names)
    mask = np.asarray(data["bin_mask"])
    counted = mask & (depth > 0) & (mappability > MIN_MAPPABILITY)
    ratio = depth / reference
    log2_ratio = np.log2(np.maximum(ratio / np.median(ratio[counted]), 2**-6))
    for places, bandwidth in ((gc, GC_BANDWIDTH), (mappability, MAPPABILITY_BANDWIDTH)):
        log2_ratio = log2_ratio - [_regression(log2_ratio[counted], places[counted], at, bandwidth) for at in places]
    log2_ratio -= np.median(log2_ratio[counted])
    return {
        "log2_ratio": np.where(mask, log2_ratio, 0.0),
        "bin_weight": counted.astype(np.float32),
        "bin_mask": counted,
    }


def _regression(values: np.ndarray, places: np.ndarray, place: float, bandwidth: float) -> float:
    """Return the local linear regression at a place."""
    design = np.stack([np.ones_like(places), places - place], axis=1)
    root = np.exp(-0.25 * ((places - place) / bandwidth) ** 2)  # of the weights
    return float(np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0][0])
