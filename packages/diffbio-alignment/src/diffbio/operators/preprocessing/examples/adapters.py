"""The conformance examples of adapters, overlaps and merging; the limits try one place after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from diffbio.io.sequence.alphabets import DNA, encode
from diffbio.operators.preprocessing.adapters import AdapterTrimming, AdapterTrimmingConfig
from diffbio.operators.preprocessing.merging import ReadMerging, ReadMergingConfig
from diffbio.operators.preprocessing.pairs import PairedAdapterTrimming, PairedAdapterTrimmingConfig
from diffbio.testing import Example, Limit

_ADAPTERS = ("GATCGG", "CCN")
_READS = ("TTACGATCGGA", "ACGTACCTGAT", "GTTGATCAGGT", "AAAAAAAAAAA")
_PAIRS = (("ACGGTCATGA", "ATGACCGTCC"), ("TTGCATCGAC", "CTAGTCGATG"), ("ACACGTGTAA", "GGATTCTTAG"))


def adapter_trimming() -> Example:
    """Return four reads: with an adapter, a part of another one, one with an insertion, and none."""
    config = AdapterTrimmingConfig(adapters=_ADAPTERS, error_rate=0.25, min_overlap=3, temperature=0.5)
    data = {
        "reads": _uncertain(_READS, 0),
        "read_lengths": np.array([11, 8, 11, 10], np.int32),
    }

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        kept = np.zeros((4, 11), np.float32)
        reads = zip(kept, np.asarray(data["reads"]), np.asarray(data["read_lengths"]), strict=True)
        for row, read, size in reads:
            row[: _cut(read[:size])] = 1
        return {"base_weights": kept}

    return Example(AdapterTrimming(config), data, limit=Limit(_sharpened, reference, atol=1e-4))


def paired_adapter_trimming() -> Example:
    """Return three pairs: an insert shorter than the reads, a longer one, and reads that don't overlap."""
    operator = PairedAdapterTrimming(
        PairedAdapterTrimmingConfig(min_overlap=4, max_differences=1.0, max_difference_share=0.3, temperature=0.5)
    )
    data = _pairs()

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        lengths = [_insert(*pair) for pair in zip(*(np.asarray(data[key]) for key in _BOTH), strict=True)]
        ends = np.array([20 if length is None else length for length in lengths])
        kept = (np.arange(10) < ends[:, None]).astype(np.float32)
        return {"base_weights": kept, "mate_base_weights": kept}

    return Example(operator, data, limit=Limit(_sharpened, reference, atol=1e-4))


def read_merging() -> Example:
    """Return the same pairs, with qualities."""
    operator = ReadMerging(
        ReadMergingConfig(min_overlap=4, max_differences=1.0, max_difference_share=0.3, temperature=0.5)
    )
    random = np.random.default_rng(1)
    qualities = {key: random.uniform(5, 35, (3, 10)).astype(np.float32) for key in ("qualities", "mate_qualities")}

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        lengths = [_insert(*pair) for pair in zip(*(np.asarray(data[key]) for key in _BOTH), strict=True)]
        ends = np.array([0 if length is None else length for length in lengths])
        there = (np.arange(20) < ends[:, None]).astype(np.float32)
        return {"merged_base_weights": there, "merged_pass": (ends > 0).astype(np.float32)}

    return Example(operator, {**_pairs(), **qualities}, limit=Limit(_sharpened, reference, atol=1e-4))


_BOTH = ("reads", "mate_reads")


def _pairs() -> dict[str, np.ndarray]:
    both = zip(*_PAIRS, strict=True)
    return {key: _uncertain(reads, seed) for seed, (key, reads) in enumerate(zip(_BOTH, both, strict=True))}


def _uncertain(reads: tuple[str, ...], seed: int) -> np.ndarray:
    """Return reads each of whose bases is somewhat uncertain."""
    noise = np.random.default_rng(seed).dirichlet(np.ones(4), (len(reads), len(reads[0])))
    return (0.97 * encode(reads, DNA).letters + 0.03 * noise).astype(np.float32)


def _sharpened(operator: Any) -> Any:
    operator.softness.set(1e-4)
    return operator


def _known(read: np.ndarray) -> np.ndarray:
    return read * ((4 * np.square(read).sum(-1, keepdims=True) - 1) / 3)


def _cut(read: np.ndarray) -> int:
    """Return where the best adapter begins, or the end of the read."""
    places = []
    for adapter in _ADAPTERS:
        letters = (encode([adapter], DNA).letters[0] > 0).astype(float)
        best: tuple[float, int] | None = None
        for start in range(len(read)):
            score, errors, counted, overlap = _aligned(letters, _known(read), 0, start)
            accepted = errors <= 0.25 * counted and overlap >= 3
            if accepted and (best is None or (start <= best[1] + len(adapter) // 2 and score > best[0])):
                best = (score, start)
        places += [] if best is None else [best]
    return max(places)[1] if places else len(read)


def _aligned(letters: np.ndarray, read: np.ndarray, base: int, position: int) -> tuple[float, float, float, int]:
    """Return score, errors and lengths of the best alignment of the rest of the adapter with the rest of the read."""
    if base == len(letters) or position == len(read):
        return 0.0, 0.0, 0.0, 0
    match = float(letters[base] @ read[position])
    counted = float(not letters[base].all())
    steps = (
        (1, 1, 2 * match - 1, 1 - match, counted, 1),
        (1, 0, -2.15, 1.0, counted, 1),
        (0, 1, -2.15, 1.0, 0.0, 0),
    )
    ways = []
    for down, right, *gains in steps:
        rest = _aligned(letters, read, base + down, position + right)
        ways.append(tuple(gain + after for gain, after in zip(gains, rest, strict=True)))
    return max(ways)


def _insert(read: np.ndarray, mate: np.ndarray) -> int | None:
    """Return the length of the insert, or `None` where the reads don't overlap."""
    read, turned = _known(read), _known(mate)[::-1, ::-1]
    for length in (*range(10, 21), *range(9, -1, -1)):
        first, last = max(0, length - 10), min(10, length)
        differences = (1 - (read[first:last] * turned[first + 10 - length : last + 10 - length]).sum(1)).sum()
        overlap = last - first
        if overlap > 4 and differences <= min(1.0, 0.3 * overlap) + 0.05:
            return length
    return None
