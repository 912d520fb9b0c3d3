"""The conformance examples of the complexity filter and of tails of one letter; the limits are loops over the bases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.preprocessing.complexity import ComplexityFilter, ComplexityFilterConfig
from diffbio.operators.preprocessing.poly_x import PolyXTrimming, PolyXTrimmingConfig
from diffbio.testing import Example, Limit

_LENGTHS = np.array([16, 14, 16, 9], np.int32)


def complexity_filter() -> Example:
    """Return four reads, one of whose letters seldom change."""
    texts = ["ACGTTGCAACGTACGG", "AAAAAAAACCCCCAAA", "GATTACAGATTACCCA", "CCCCCCCCGAAAAAAA"]
    config = ComplexityFilterConfig(threshold=0.4, temperature=0.1, learnable=True)

    def sharpen(operator: ComplexityFilter) -> ComplexityFilter:
        operator.softness.set(1e-4)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        rows = zip(np.asarray(data["reads"]).argmax(-1), np.asarray(data["read_lengths"]), strict=True)
        changes = [(row[1:size] != row[: size - 1]).mean() for row, size in rows]
        passes = np.array([float(change >= 0.4) for change in changes])
        return {"complexity_pass": passes, "read_weights": passes * np.asarray(data["read_weights"])}

    data = {
        "reads": _uncertain(texts),
        "read_lengths": _LENGTHS,
        "read_mask": np.ones(4, bool),
        "read_weights": np.array([1.0, 0.8, 0.9, 0.7], np.float32),
    }
    return Example(
        ComplexityFilter(config),
        data,
        limit=Limit(sharpen, reference, atol=1e-4),
        symmetric=("reads",),
        masks={"read_mask": "reads"},
    )


def poly_x_trimming() -> Example:
    """Return four reads, two of which end in a tail of one letter with another one in it."""
    texts = ["ACGTTGGGAGGGGGGG", "CAAAAAAAAAAAAATT", "GATTACAGATTACGGG", "GGGGGGGGGGGGGGGG"]
    config = PolyXTrimmingConfig(
        letters="AG", min_length=6, bases_per_mismatch=5, max_mismatches=2, unknown_fits=True, temperature=0.5
    )

    def sharpen(operator: PolyXTrimming) -> PolyXTrimming:
        operator.softness.set(1e-2)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        codes = np.asarray(data["reads"]).argmax(-1)
        kept = np.asarray(data["base_weights"]).copy()
        for row, code, size in zip(kept, codes, np.asarray(data["read_lengths"]), strict=True):
            ends = [tail_begin(code[:size] == letter, 6, 5, 2) for letter in (0, 2)]
            row[min(ends) :] = 0
        return {"base_weights": kept}

    data = {
        "reads": _uncertain(texts),
        "read_lengths": _LENGTHS,
        "base_weights": np.ones((4, 16), np.float32),
    }
    return Example(PolyXTrimming(config), data, limit=Limit(sharpen, reference, atol=0.1), symmetric=("reads",))


def tail_begin(
    is_letter: np.ndarray, min_length: int = 10, bases_per_mismatch: int = 8, max_mismatches: int = 5
) -> int:
    """Return where the tail of one letter begins; the length of the read if it has none.

    Args:
        is_letter: Whether each base of the read is that letter.
        min_length: Bases of the shortest tail.
        bases_per_mismatch: Bases of a tail for which one of another letter is allowed.
        max_mismatches: Bases of another letter in any tail.
    """
    size, begin, mismatches, length = len(is_letter), len(is_letter), 0, 0
    for place in reversed(range(size)):
        mismatches += not is_letter[place]
        allowed = min((length + 1) // bases_per_mismatch, max_mismatches)
        if mismatches > max_mismatches or (mismatches > allowed and length + 1 >= min_length):
            break
        length += 1
        if is_letter[place]:
            begin = place
    return begin if length >= min_length else size


def _uncertain(texts: list[str]) -> np.ndarray:
    """Return distributions over A, C, G, T, each near the letter of a text."""
    random = np.random.default_rng(0)
    certain = np.eye(4)[[["ACGT".index(letter) for letter in text] for text in texts]]
    return (0.99 * certain + 0.01 * random.dirichlet(np.ones(4), certain.shape[:2])).astype(np.float32)
