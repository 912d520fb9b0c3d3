"""The best alignment of two strings, written out: CIGAR and aligned letters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from diffbio.operators.alignment.best_path import GAP_IN_X, GAP_IN_Y, PAIR, Path

_CONSUMES_QUERY, _CONSUMES_TARGET = (PAIR, GAP_IN_Y), (PAIR, GAP_IN_X)


@dataclass(frozen=True)
class HardAlignment:
    """One alignment of a query and a target.

    Attributes:
        score: In the unit of the substitution scores.
        cigar: Run lengths of `=` (the same letter), `X` (another letter), `I` (of the query alone), `D` (of the target
            alone), from `query_begin` and `target_begin` on.
        query: The aligned part of the query, with `-` in gaps.
        target: The aligned part of the target, with `-` in gaps.
        query_begin: Letters of the query before the alignment.
        query_end: Letters of the query before its end.
        target_begin: Letters of the target before the alignment.
        target_end: Letters of the target before its end.
    """

    score: float
    cigar: str
    query: str
    target: str
    query_begin: int
    query_end: int
    target_begin: int
    target_end: int

    def __str__(self) -> str:
        """Return three lines: the query, bars between equal letters, the target."""
        bars = "".join("|" if a == b else " " for a, b in zip(self.query, self.target, strict=True))
        return f"{self.query}\n{bars}\n{self.target}"


def written_out(path: Path, query: str, target: str) -> HardAlignment:
    """Return the alignment that a path stands for.

    Args:
        path: Of one pair, by `best_path`.
        query: The letters of x.
        target: The letters of y.

    Example:
        >>> path = Path(np.float32(3), np.array([1, 3, 1, 0]), np.array([0, 0]), np.array([2, 3]))
        >>> alignment = written_out(path, "AC", "AGC")
        >>> alignment.cigar
        '1=1D1='
        >>> print(alignment)
        A-C
        | |
        AGC
    """
    operations = np.asarray(path.operations)
    operations = operations[operations > 0][::-1]
    (query_begin, target_begin), (query_end, target_end) = (np.asarray(place).tolist() for place in path[2:])
    aligned_query = _spread(query[query_begin:query_end], np.isin(operations, _CONSUMES_QUERY))
    aligned_target = _spread(target[target_begin:target_end], np.isin(operations, _CONSUMES_TARGET))
    symbols = [
        "D" if a == "-" else "I" if b == "-" else "=" if a == b else "X"
        for a, b in zip(aligned_query, aligned_target, strict=True)
    ]
    cigar = "".join(f"{len(list(run))}{symbol}" for symbol, run in groupby(symbols))
    return HardAlignment(
        float(path.score), cigar, aligned_query, aligned_target, query_begin, query_end, target_begin, target_end
    )


def _spread(letters: str, consumed: np.ndarray) -> str:
    """Return letters at the steps that consume one, and gaps elsewhere."""
    spread = np.full(len(consumed), "-")
    spread[consumed] = list(letters)
    return "".join(spread)
