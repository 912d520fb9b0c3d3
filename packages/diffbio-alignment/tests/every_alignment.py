"""All alignments of two short sequences, written out one by one: the definition that the recurrence is held to."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from diffbio.operators.alignment import Ends


class OneAlignment(NamedTuple):
    """An alignment: its score, its pairs of positions, its gaps and their further positions."""

    score: float
    pairs: tuple[tuple[int, int], ...]
    opens: int
    extends: int


def every_alignment(
    scores: np.ndarray, gap_open: float, gap_extend: float, ends: Ends, band: int | None = None
) -> Iterator[OneAlignment]:
    """Yield each alignment once."""
    n_rows, n_columns = scores.shape

    def may_end(row: int, column: int, state: str) -> bool:
        if ends.local:
            return state == "match"
        corner = (row, column) == (n_rows, n_columns)
        x_free = ends.x_end and column == n_columns and row > 0 and column > 0
        y_free = ends.y_end and row == n_rows and row > 0 and column > 0
        if state == "gap in y":
            return (corner or y_free) and not x_free
        if state == "gap in x":
            return (corner or x_free) and not y_free
        return corner or x_free or y_free

    def go_on(row: int, column: int, state: str, so_far: OneAlignment) -> Iterator[OneAlignment]:
        if band is not None and abs(row - column) > band:
            return
        if may_end(row, column, state):
            yield so_far
        score, pairs, opens, extends = so_far
        if row < n_rows and column < n_columns:
            pair = OneAlignment(score + scores[row, column], (*pairs, (row, column)), opens, extends)
            yield from go_on(row + 1, column + 1, "match", pair)
        if state == "begin" and ends.local:
            return
        opened = OneAlignment(score - gap_open, pairs, opens + 1, extends)
        extended = OneAlignment(score - gap_extend, pairs, opens, extends + 1)
        if row < n_rows and state != "gap in x" and not (state == "begin" and ends.x_begin and column == 0):
            yield from go_on(row + 1, column, "gap in y", extended if state == "gap in y" else opened)
        if column < n_columns and not (state == "begin" and ends.y_begin and row == 0):
            yield from go_on(row, column + 1, "gap in x", extended if state == "gap in x" else opened)

    nothing = OneAlignment(0.0, (), 0, 0)
    if ends.local:
        yield nothing
    for row in range(n_rows + 1):
        for column in range(n_columns + 1):
            at_x, at_y = ends.x_begin and column == 0, ends.y_begin and row == 0
            if ends.local or (row, column) == (0, 0) or at_x or at_y:
                yield from go_on(row, column, "begin", nothing)
