"""Mates that overlap read the same molecule: where both are aligned to a position, one of them counts.

The base of the higher quality is kept, of equals that of the mate that comes first. What errors before sequencing did,
both mates show, so that counting both would take one error for two witnesses.

References:
    Li, A statistical framework for SNP calling, mutation discovery, association mapping and population genetical
    parameter estimation from sequencing data, Bioinformatics 2011.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

_NO_BASE = -1.0


def mate_rows(names: Sequence[str], paired: Bool[np.ndarray, " reads"]) -> Int[np.ndarray, "pairs 2"]:
    """Return which rows are mates.

    Args:
        names: Of the reads.
        paired: Which reads may have a mate: primary alignments of proper pairs.

    Returns:
        The rows of each pair of reads of one name.

    Example:
        >>> mate_rows(["a", "b", "a", "b", "a"], np.array([True, False, True, True, True])).tolist()
        [[0, 2]]
    """
    first: dict[str, int] = {}
    pairs = []
    for row in np.flatnonzero(paired).tolist():
        other = first.setdefault(names[row], row)
        if other not in (row, -1):
            pairs.append((other, row))
            first[names[row]] = -1
    return np.array(pairs, np.int64).reshape(-1, 2)


def overlap_weights(
    pairs: Int[np.ndarray, "pairs 2"],
    base_positions: Int[np.ndarray, "reads positions"],
    qualities: Float[np.ndarray, "reads positions"],
    window: int,
) -> Float[np.ndarray, "reads positions"]:
    """Return weights that are 0 for the bases of one mate where both are aligned to a column, else 1.

    Args:
        pairs: The rows of each pair, as `mate_rows` gives them.
        base_positions: Column of each base; -1 for those that are aligned to none.
        qualities: Phred.
        window: Columns.

    Returns:
        Weights, float32.

    Example:
        >>> positions, qualities = np.array([[0, 1, 2], [2, 3, -1]]), np.array([[9.0, 9, 9], [30, 30, 30]])
        >>> overlap_weights(np.array([[0, 1]]), positions, qualities, 4).tolist()
        [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    """
    weights = np.ones(base_positions.shape, np.float32)
    if len(pairs):
        of_columns = [_by_column(base_positions[rows], qualities[rows], window) for rows in pairs.T]
        both = (of_columns[0] != _NO_BASE) & (of_columns[1] != _NO_BASE)
        first_loses = of_columns[0] < of_columns[1]
        for rows, loses in zip(pairs.T, (both & first_loses, both & ~first_loses), strict=True):
            columns = base_positions[rows]
            weights[rows] = ~(np.take_along_axis(loses, np.maximum(columns, 0), 1) & (columns >= 0))
    return weights


def _by_column(
    base_positions: Int[np.ndarray, "pairs positions"], qualities: Float[np.ndarray, "pairs positions"], window: int
) -> Float[np.ndarray, "pairs window"]:
    """Return the quality of the base at each column."""
    of_columns = np.full((len(base_positions), window), _NO_BASE, np.float32)
    rows, places = np.nonzero(base_positions >= 0)
    of_columns[rows, base_positions[rows, places]] = qualities[rows, places]
    return of_columns
