"""The layout of a matrix by anti-diagonals: all cells i + j = d at once, a lane for each row.

Diagonals are as wide as the first sequence is long, or, within a band |i - j| <= w, as wide as the band; its frame then
moves down by one row every other diagonal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

_LANES_AT_ONCE = 16


class Diagonals(NamedTuple):
    """Which cells the lanes of a diagonal hold; row 0 and column 0 stand before the sequences.

    Attributes:
        x_size: Rows of the matrix, without row 0.
        y_size: Columns of it, without column 0.
        band: Largest |i - j|, or `None`.
    """

    x_size: int
    y_size: int
    band: int | None = None

    @property
    def n_diagonals(self) -> int:
        """The number of diagonals."""
        return self.x_size + self.y_size + 1

    @property
    def lanes(self) -> int:
        """The number of lanes of each; a multiple of 16, so that registers are full."""
        wanted = (self.x_size if self.band is None else self.band) + 1
        return -(-wanted // _LANES_AT_ONCE) * _LANES_AT_ONCE

    def segments(self) -> Int[Array, "segments diagonals"]:
        """Return the diagonals in about as many segments as each is long; the last may go beyond the matrix."""
        length = math.isqrt(self.n_diagonals - 1) + 1
        n_segments = -(-self.n_diagonals // length)
        return jnp.arange(n_segments * length).reshape(n_segments, length)

    def first_row(self, diagonal: Array | int) -> Array | int:
        """Return the row in lane 0."""
        return 0 if self.band is None else (diagonal - self.band + 1) // 2

    def cells(self, diagonal: Array) -> tuple[Array, Array, Array]:
        """Return row and column of each lane, and whether it is a cell of the matrix, with row and column 0."""
        rows = self.first_row(diagonal) + jnp.arange(self.lanes)
        columns = diagonal - rows
        return rows, columns, self.holds(rows, columns)

    def holds(self, rows: Array, columns: Array) -> Array:
        """Return which are cells of the matrix, with row 0 and column 0, and of the band."""
        inside = (rows >= 0) & (columns >= 0) & (rows <= self.x_size) & (columns <= self.y_size)
        return inside if self.band is None else inside & (jnp.abs(rows - columns) <= self.band)

    def seen(self, diagonal: Array, values: Array, *, back: int, up: int, fill: float) -> Array:
        """Return for each lane the value `up` rows above it, of the diagonal `back` before; below and after if < 0.

        Args:
            diagonal: The diagonal of the lanes.
            values: Those of the diagonal `back` before (lanes,).
            back: 1 or 2, or -1 or -2.
            up: How many rows above.
            fill: What is seen beyond the edge.
        """
        shift = self.first_row(diagonal) - self.first_row(diagonal - back) - up
        if self.band is None or back % 2 == 0:  # known while tracing
            return shifted(values, -up if self.band is None else back // 2 - up, fill)
        least = back // 2 - up
        return jnp.where(shift == least, shifted(values, least, fill), shifted(values, least + 1, fill))

    @property
    def stored(self) -> int:
        """The number of diagonals for which a `sheet` has room.

        A row of the matrix crosses y_size + 1 diagonals in sequence; those as far apart as that share no row, and with
        it no lane, so that they can stand in one line.
        """
        return self.y_size + 1 if self.band is None else self.n_diagonals

    def sheet(self, dtype: DTypeLike) -> Float[Array, "stored lanes"]:
        """Return room for a value of each cell: half of what diagonals side by side would take."""
        return jnp.zeros((self.stored, self.lanes), dtype)

    def put(self, sheet: Float[Array, "stored lanes"], diagonal: Array, values: Array) -> Float[Array, "stored lanes"]:
        """Return a sheet with the values of a diagonal's cells."""
        _, _, inside = self.cells(diagonal)
        line = diagonal % self.stored
        return sheet.at[line].set(jnp.where(inside, values, sheet[line]))

    def matrix(self, sheet: Float[Array, "stored lanes"]) -> Float[Array, "x y"]:
        """Return the values of a sheet as a matrix, without row 0 and column 0; 0 outside of the band."""
        rows, columns = jnp.arange(1, self.x_size + 1)[:, None], jnp.arange(1, self.y_size + 1)
        diagonal = rows + columns
        lane = jnp.clip(rows - self.first_row(diagonal), 0, self.lanes - 1)
        return jnp.where(self.holds(rows, columns), sheet[diagonal % self.stored, lane], 0.0)


def layout_of(matrix: Float[Array, "x y"], band: int | None) -> Diagonals:
    """Return the layout of a matrix; a band that holds all of it is none."""
    x_size, y_size = matrix.shape
    return Diagonals(x_size, y_size, None if band is None or band >= max(x_size, y_size) else band)


def shifted(values: Array, lanes: int, fill: float) -> Array:
    """Return the values that stand so many lanes further on, and `fill` from beyond the edge.

    Example:
        >>> shifted(jnp.arange(4), 1, -1).tolist(), shifted(jnp.arange(4), -1, -1).tolist()
        ([1, 2, 3, -1], [-1, 0, 1, 2])
    """
    if lanes == 0:
        return values
    edge = jnp.full((abs(lanes),), fill, values.dtype)
    return jnp.concatenate([values[lanes:], edge] if lanes > 0 else [edge, values[:lanes]])
