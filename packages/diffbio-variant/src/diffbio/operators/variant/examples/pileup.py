"""The conformance example of the pileup; the limit counts base by base."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.variant.pileup import Pileup, PileupConfig
from diffbio.testing import Example, Limit


def laid_reads() -> dict[str, np.ndarray]:
    """Return three windows of 12 positions with five reads of eight bases each, of which some have gaps."""
    random = np.random.default_rng(0)
    shape = 3, 5, 8
    reads = np.eye(4, dtype=np.float32)[random.integers(4, size=shape)]
    start = random.integers(-2, 8, size=shape[:2])[..., None]
    columns = start + np.arange(8)
    insertions, deletions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    deletions[:, 1, 3], columns[:, 1, 4:] = 2, columns[:, 1, 4:] + 2
    insertions[:, 2, 3], columns[:, 2, 4:] = 1, columns[:, 2, 4:] - 1
    columns[:, 2, 4] = -1
    inside = (columns >= 0) & (columns < 12)
    return {
        "reads": reads,
        "qualities": np.asarray(random.integers(5, 40, size=shape), np.float32),
        "base_positions": np.where(inside, columns, -1).astype(np.int32),
        "reference": np.eye(4, dtype=np.float32)[random.integers(4, size=(3, 12))],
        "insertions": insertions,
        "deletions": deletions,
        "mapping_qualities": np.asarray(random.integers(10, 60, size=shape[:2]), np.float32),
        "reverse_strand": random.random(shape[:2]) < 0.5,
        "read_lengths": np.asarray(random.integers(6, 9, size=shape[:2]), np.int32),
    }


def pileup() -> Example:
    """Return three windows, and a pileup that learns its thresholds."""

    def sharpen(operator: Pileup) -> Pileup:
        operator.softness.set(1e-3)
        return operator

    def reference_counts(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        arrays = {name: np.asarray(values) for name, values in data.items()}
        good = (arrays["qualities"] >= 13) & (arrays["mapping_qualities"] >= 20)[..., None]
        good &= np.arange(8) < arrays["read_lengths"][..., None]
        counts = np.zeros((3, 12, 2, 4))
        for window, read, place in np.argwhere(good & (arrays["base_positions"] >= 0)):
            column = arrays["base_positions"][window, read, place]
            strand = int(arrays["reverse_strand"][window, read])
            counts[window, column, strand, arrays["reads"][window, read, place].argmax()] += 1
        return {"base_counts": counts}

    config = PileupConfig(min_mapping_quality=20.0, temperature=2.0, learnable=True)
    return Example(Pileup(config), laid_reads(), limit=Limit(sharpen, reference_counts, atol=1e-4))
