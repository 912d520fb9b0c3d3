"""The conformance examples of trimming and filtering by quality; the limits are loops over the bases of a read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.preprocessing.quality_filter import QualityFilter, QualityFilterConfig
from diffbio.operators.preprocessing.quality_trimming import QualityTrimming, QualityTrimmingConfig
from diffbio.operators.preprocessing.window_trimming import WindowTrimming, WindowTrimmingConfig
from diffbio.testing import Example, Limit

QUALITIES = np.array(
    [
        [12, 31, 33, 14, 30, 35, 29, 11, 17, 2],
        [30, 33, 36, 32, 21, 16, 25, 10, 5, 0],
        [9, 8, 15, 27, 30, 31, 22, 29, 34, 26],
        [3, 5, 11, 9, 10, 7, 2, 4, 3, 2],
    ],
    np.float32,
)
LENGTHS = np.array([10, 8, 10, 9], np.int32)


def quality_trimming() -> Example:
    """Return four reads, both of whose ends are trimmed."""
    config = QualityTrimmingConfig(front=15.0, tail=20.0, temperature=4.0, learnable=True)

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        kept = np.zeros_like(QUALITIES)
        for row, quality, size in zip(kept, np.asarray(data["qualities"]), LENGTHS, strict=True):
            front = _running_sum_cut(quality[:size], 15.0)
            row[front : size - _running_sum_cut(quality[:size][::-1], 20.0)] = 1
        return {"base_weights": kept * np.asarray(data["base_weights"])}

    return Example(QualityTrimming(config), _data(), limit=Limit(_sharpened, reference, atol=1e-4))


def window_trimming() -> Example:
    """Return the same reads, from the front on and up to the first bad window."""
    config = WindowTrimmingConfig(front=20.0, right=18.0, window_size=3, temperature=4.0, learnable=True)

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        kept = np.zeros_like(QUALITIES)
        for row, quality, size in zip(kept, np.asarray(data["qualities"]), LENGTHS, strict=True):
            begins = [i for i in range(size - 3) if quality[i : i + 3].mean() >= 20]
            if not begins:
                continue
            begin = begins[0] + 2 if begins[0] else 0
            bad = [i for i in range(begin, size - 3) if quality[i : i + 3].mean() < 18]
            end = next(i for i in range(bad[0], size) if quality[i] < 18) if bad else size
            row[begin:end] = 1
        return {"base_weights": kept}

    data = {key: value for key, value in _data().items() if key != "base_weights"}
    return Example(WindowTrimming(config), data, limit=Limit(_sharpened, reference, atol=1e-4))


def window_trimming_of_the_tail() -> Example:
    """Return the same reads, of which the last good window is sought."""
    config = WindowTrimmingConfig(tail=21.0, window_size=3, temperature=4.0, learnable=True)

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        kept = np.zeros_like(QUALITIES)
        for row, quality, size in zip(kept, np.asarray(data["qualities"]), LENGTHS, strict=True):
            ends = [i for i in range(size, 3, -1) if quality[i - 3 : i].mean() >= 21]
            row[: (size if ends[0] == size else ends[0] - 2) if ends else 1] = 1
        return {"base_weights": kept}

    data = {key: value for key, value in _data().items() if key != "base_weights"}
    return Example(WindowTrimming(config), data, limit=Limit(_sharpened, reference, atol=1e-4))


def quality_filter() -> Example:
    """Return the same reads, filtered by everything."""
    config = QualityFilterConfig(
        min_mean_quality=20.0,
        qualified=14.0,
        max_unqualified=30.0,
        max_unknown=2.0,
        max_expected_errors=1.0,
        min_length=7.0,
        max_length=9.5,
        temperature=0.2,
        learnable=True,
    )

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        weights = np.asarray(data["base_weights"]) * (np.arange(10) < LENGTHS[:, None])
        quality, letters = np.asarray(data["qualities"]), np.asarray(data["reads"])
        length, unknown = weights.sum(1), (4 / 3) * (1 - np.square(letters).sum(2))
        passes = {
            "mean_quality_pass": (weights * quality).sum(1) / length >= 20,
            "unqualified_pass": (weights * (quality < 14)).sum(1) <= 0.3 * length,
            "unknown_pass": (weights * unknown).sum(1) <= 2.5,
            "expected_errors_pass": (weights * 10 ** (-quality / 10)).sum(1) <= 1,
            "length_pass": (length + 0.5 >= 7) & (length - 0.5 <= 9.5),
        }
        kept = np.all(list(passes.values()), axis=0) * np.asarray(data["read_mask"])
        return {key: value.astype(np.float32) for key, value in {**passes, "read_weights": kept}.items()}

    letters = np.random.default_rng(2).dirichlet(np.full(4, 0.1), (4, 10)).astype(np.float32)
    data = {**_data(), "reads": letters, "read_mask": np.array([True, True, True, False])}
    return Example(
        QualityFilter(config),
        data,
        limit=Limit(_sharpened, reference, atol=1e-4),
        masks={"read_mask": "reads"},
    )


def _data() -> dict[str, np.ndarray]:
    weights = np.ones_like(QUALITIES)
    weights[:, 0] = (0.3, 0.9, 0.6, 0.8)  # by an earlier trimmer
    return {"qualities": QUALITIES, "read_lengths": LENGTHS, "base_weights": weights}


def _sharpened(operator: Any) -> Any:
    operator.softness.set(1e-4)
    return operator


def _running_sum_cut(quality: np.ndarray, cutoff: float) -> int:
    """Return how many bases at the beginning are cut."""
    total = best = cut = 0
    for place, value in enumerate(quality):
        total += cutoff - value
        if total < 0:
            break
        if total > best:
            best, cut = total, place + 1
    return cut
