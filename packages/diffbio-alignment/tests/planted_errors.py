"""Reads of a real genome with planted errors, of which the truth is known."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest


class Planted(NamedTuple):
    """Reads, and what they should be.

    Attributes:
        reads: As distributions over A, C, G, T, one letter each (reads, positions, 4).
        true: Codes of the letters of the genome (reads, positions).
        wrong: Where a letter was exchanged (reads, positions).
        qualities: Phred, low more often where a letter was exchanged (reads, positions).
    """

    reads: np.ndarray
    true: np.ndarray
    wrong: np.ndarray
    qualities: np.ndarray


def bacillus(begin: int, size: int) -> np.ndarray:
    """Return a part of a contig of a Bacillus genome, as codes; it comes with pyhmmer."""
    pyhmmer = pytest.importorskip("pyhmmer")
    folder = Path(pyhmmer.__file__).parent / "tests" / "data" / "seqs"
    return _codes(folder / "1390.SAMEA104415756.OFHT01000022.fna", begin, size)


def human(begin: int, size: int) -> np.ndarray:
    """Return a part of human chromosome 1, as codes; it comes with the Debian package hmmer-examples."""
    path = Path("/usr/share/doc/hmmer/examples/tutorial/dna_target.fa")
    if not path.exists():
        pytest.skip(f"no {path}: install the Debian package hmmer-examples")
    return _codes(path, begin, size)


def planted(genome: np.ndarray, *, rate: float, length: int = 100, coverage: int = 30, seed: int = 0) -> Planted:
    """Return reads of both strands with substitutions at random places."""
    random = np.random.default_rng(seed)
    starts = random.integers(0, len(genome) - length + 1, coverage * len(genome) // length)
    true = genome[starts[:, None] + np.arange(length)]
    turned = random.random(len(true)) < 0.5
    true[turned] = 3 - true[turned][:, ::-1]
    wrong = random.random(true.shape) < rate
    read = np.where(wrong, (true + random.integers(1, 4, true.shape)) % 4, true)
    qualities = np.where(wrong, random.integers(2, 35, true.shape), random.integers(20, 41, true.shape))
    return Planted(np.eye(4, dtype=np.float32)[read], true, wrong, qualities.astype(np.float32))


def _codes(path: Path, begin: int, size: int) -> np.ndarray:
    lines = path.read_text().splitlines()
    sequence = "".join(line.strip() for line in lines if not line.startswith(">")).upper()[begin : begin + size]
    return np.array(["ACGT".index(letter) for letter in sequence])
