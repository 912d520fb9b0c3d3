"""The layout of matrices by anti-diagonals: all cells i + j = d at once, a lane for each row.

Diagonals are as wide as the first sequence is long, or, within a band |i - j| <= w, as wide as the band; its frame then
moves down by one row every other diagonal.

Of one matrix half of the lanes are idle: those before its first and after its last column. Matrices of one size
therefore follow each other as a chain. In each lane the first column of the next comes after the last of the one
before, so that it has begun in the upper lanes while the lower ones still finish:

    lane 0    00 01 02 -- 00 01 02 --
    lane 1       10 11 12 -- 10 11 12 --
    lane 2          20 21 22 -- 20 21 22 --     d = 0, 1, 2 ... to the right
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

_LANES_AT_ONCE = 16


class Cells(NamedTuple):
    """What the lanes of a diagonal hold.

    Attributes:
        pair: Number of the matrix.
        row: Of the cell in it.
        column: Of the cell in it.
        inside: Whether there is such a cell, in row 0 or column 0 among them.
    """

    pair: Array | int
    row: Array
    column: Array
    inside: Array


class Diagonals(NamedTuple):
    """Which cells the lanes of a diagonal hold; row 0 and column 0 stand before the sequences.

    Attributes:
        x_size: Rows of a matrix, without row 0.
        y_size: Columns of it, without column 0.
        band: Largest |i - j|, or `None`.
        pairs: How many matrices follow each other; 1 within a band.
    """

    x_size: int
    y_size: int
    band: int | None = None
    pairs: int = 1

    @property
    def pitch(self) -> int:
        """How many diagonals after one matrix the next one begins.

        So many that no diagonal holds parts of more than two, with a column between them for nothing to pass.
        """
        return self.y_size + 1 if self.pairs == 1 else max(self.x_size, self.y_size + 1) + 1

    @property
    def n_diagonals(self) -> int:
        """The number of diagonals."""
        return (self.pairs - 1) * self.pitch + self.x_size + self.y_size + 1

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

    def cells(self, diagonal: Array) -> Cells:
        """Return what each lane holds."""
        rows = self.first_row(diagonal) + jnp.arange(self.lanes)
        if self.pairs == 1:
            columns = diagonal - rows
            return Cells(0, rows, columns, self.holds(rows, columns))
        latest, columns = self.latest(diagonal), diagonal % self.pitch - rows
        earlier = columns < 0
        columns = jnp.where(earlier, columns + self.pitch, columns)
        pair = jnp.where(earlier, latest - 1, latest)
        return Cells(pair, rows, columns, self.holds(rows, columns) & (pair >= 0) & (pair < self.pairs))

    def latest(self, diagonal: Array) -> Array | int:
        """Return which matrix lane 0 holds; the lower lanes hold that one, or the one before."""
        return 0 if self.pairs == 1 else diagonal // self.pitch

    def in_lanes(self, values: Shaped[Array, "pairs ..."], diagonal: Array) -> Shaped[Array, "*lanes"]:
        """Return for each lane the value of its matrix; if there is but one, its value for all."""
        if self.pairs == 1:
            return values[0]
        latest = self.latest(diagonal)
        last = self.pairs - 1  # beyond are no cells
        own, before = (values[jnp.clip(number, 0, last)] for number in (latest, latest - 1))
        return jnp.where(diagonal % self.pitch < jnp.arange(self.lanes), before, own)

    def in_column(self, column: int, diagonal: Array, values: Shaped[Array, "lanes ..."]) -> Shaped[Array, "..."]:
        """Return the value of the one lane that is in a column."""
        return values[jnp.clip((diagonal - column) % self.pitch, 0, self.lanes - 1)]

    def down_column(self, column: int, values: Shaped[Array, "diagonals ..."]) -> Shaped[Array, "pairs rows ..."]:
        """Return the values of each row, from what `in_column` returns for each diagonal."""
        first = column + self.pitch * jnp.arange(self.pairs)
        return values[first[:, None] + jnp.arange(self.x_size + 1)]

    def holds(self, rows: Array, columns: Array) -> Array:
        """Return which are cells of a matrix, with row 0 and column 0, and of the band."""
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

        A lane holds cells on that many diagonals in sequence; those as far apart as that share no lane, so that they
        can stand in one line.
        """
        return self.pairs * self.pitch if self.band is None else self.n_diagonals

    def sheet(self, dtype: DTypeLike) -> Float[Array, "stored lanes"]:
        """Return room for a value of each cell: half of what diagonals side by side would take."""
        return jnp.zeros((self.stored, self.lanes), dtype)

    def put(self, sheet: Float[Array, "stored lanes"], diagonal: Array, values: Array) -> Float[Array, "stored lanes"]:
        """Return a sheet with the values of a diagonal's cells."""
        line = diagonal % self.stored
        return sheet.at[line].set(jnp.where(self.cells(diagonal).inside, values, sheet[line]))

    def matrices(self, sheet: Float[Array, "stored lanes"]) -> Float[Array, "pairs x y"]:
        """Return the values of a sheet as matrices, without row 0 and column 0; 0 outside of the band."""
        rows, columns = jnp.arange(1, self.x_size + 1)[:, None], jnp.arange(1, self.y_size + 1)
        diagonal = self.pitch * jnp.arange(self.pairs)[:, None, None] + rows + columns
        lane = jnp.clip(rows - self.first_row(diagonal), 0, self.lanes - 1)
        return jnp.where(self.holds(rows, columns), sheet[diagonal % self.stored, lane], 0.0)


def layout_of(matrices: Float[Array, "*pairs x y"], band: int | None) -> Diagonals:
    """Return the layout of a matrix, or of a chain of them; a band that holds all of it is none."""
    *pairs, x_size, y_size = matrices.shape
    return Diagonals(x_size, y_size, None if band is None or band >= max(x_size, y_size) else band, math.prod(pairs))


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
