"""Reads to be recalibrated: random ones, and simulated ones of the lambda genome whose qualities promise too much."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

GENOME = Path("/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa.gz")


class Sequenced(NamedTuple):
    """Reads laid against the whole genome as one window, and the truth.

    Attributes:
        data: As operators read them.
        true_error: Probability that a base is wrong, given all that is seen of it (reads, positions).
    """

    data: dict[str, np.ndarray]
    true_error: np.ndarray


def genome() -> np.ndarray:
    """Return the letters of the lambda genome, 0 to 3; skips where its package is missing."""
    if not GENOME.exists():
        pytest.skip("needs the genome of the Debian package bowtie2-examples")
    lines = gzip.decompress(GENOME.read_bytes()).decode().splitlines()
    text = "".join(line for line in lines if not line.startswith(">"))
    return np.array(["ACGT".find(letter) for letter in text])


def sequenced(n_reads: int, n_cycles: int, reported: tuple[int, ...], seed: int = 0) -> Sequenced:
    """Return reads of both strands and both reads of pairs, with qualities that promise up to 6 Phred too much."""
    random = np.random.default_rng(seed)
    codes = genome()
    columns = random.integers(0, len(codes) - n_cycles, size=n_reads)[:, None] + np.arange(n_cycles)
    reverse, second = random.random((2, n_reads)) < 0.5

    def turned(array: np.ndarray) -> np.ndarray:
        return np.where(reverse[:, None], array[:, ::-1], array)

    def complemented(array: np.ndarray) -> np.ndarray:
        return np.where(reverse[:, None], 3 - array, array)

    true = complemented(turned(codes[columns]))  # as the sequencer goes
    qualities = random.choice(reported, size=(n_reads, n_cycles))
    of_pair = np.random.default_rng(7).permutation(np.linspace(-1, 3, 16)).reshape(4, 4)
    place = np.arange(n_cycles) / n_cycles
    of_cycle = np.where(second[:, None], 1 + 2 * place, 3 * place**2)
    shown, true_error = true.copy(), np.empty(true.shape)
    for at in range(n_cycles):
        before = shown[:, at - 1] if at else np.zeros(n_reads, int)
        # of each true letter, (reads, 4); the first base has none before it
        lost = of_cycle[:, at, None] + (of_pair[before] if at else np.ones((n_reads, 4)))
        error = 10 ** (-(qualities[:, at, None] - lost) / 10)
        wrong = random.random(n_reads) < error[np.arange(n_reads), true[:, at]]
        shown[:, at] = np.where(wrong, (true[:, at] + random.integers(1, 4, n_reads)) % 4, true[:, at])
        chances = np.array([np.bincount(true[:, at][before == letter], minlength=4) for letter in range(4)], float)
        chances = (chances / np.maximum(chances.sum(1, keepdims=True), 1))[before]
        is_shown = np.arange(4) == shown[:, at, None]
        from_others = np.where(is_shown, 0, chances * error / 3).sum(1)
        true_error[:, at] = from_others / (from_others + np.where(is_shown, chances * (1 - error), 0).sum(1))
    data = {
        "reads": np.eye(4, dtype=np.float32)[turned(complemented(shown))],
        "qualities": turned(qualities).astype(np.float32),
        "base_positions": columns.astype(np.int32),
        "reference": np.eye(4, dtype=np.float32)[codes],
        "reverse_strand": reverse,
        "second_in_pair": second,
    }
    return Sequenced(data, turned(true_error))


def laid_with_everything(seed: int = 0, n_reads: int = 300) -> dict[str, np.ndarray]:
    """Return reads of two read groups with unknown letters, parts of reads, margins and known variants."""
    random = np.random.default_rng(seed)
    codes, n_positions = random.integers(5, size=200), 12
    columns = random.integers(-5, 195, size=n_reads)[:, None] + np.arange(n_positions)
    inside = (columns >= 0) & (columns < 200)
    letters = np.where(random.random(columns.shape) < 0.2, random.integers(5, size=columns.shape), 0)
    letters = np.where(letters == 0, codes[np.clip(columns, 0, 199)], letters)
    one_hot = np.concatenate([np.eye(4), np.zeros((1, 4))]).astype(np.float32)
    return {
        "reads": one_hot[letters],
        "qualities": random.integers(0, 45, size=columns.shape).astype(np.float32),
        "base_positions": np.where(inside, columns, -1).astype(np.int32),
        "reference": one_hot[codes],
        "known_variant": random.random(200) < 0.1,
        "own_columns": np.arange(200) >= 10,
        "reverse_strand": random.random(n_reads) < 0.5,
        "second_in_pair": random.random(n_reads) < 0.5,
        "read_groups": random.integers(-1, 2, size=n_reads).astype(np.int32),
        "read_lengths": random.integers(1, n_positions + 1, size=n_reads).astype(np.int32),
        "read_offsets": random.integers(4, size=n_reads).astype(np.int32),
        "full_lengths": random.integers(15, 20, size=n_reads).astype(np.int32),
        "read_mask": random.random(n_reads) < 0.9,
        "base_weights": random.integers(2, size=columns.shape).astype(np.float32),
    }
