"""Progressive alignment: groups of sequences are joined along a guide tree, so that most pairs are right on average.

Two groups are aligned column by column, with the mean probability that the residues of two columns belong together as
score and no cost of gaps: the alignment that has the most right pairs in expectation.

References:
    Feng and Doolittle, Progressive sequence alignment as a prerequisite to correct phylogenetic trees, Journal of
    Molecular Evolution 1987.
    Do, Mahabhashyam, Brudno and Batzoglou, ProbCons, Genome Research 2005.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.best_path import GAP_IN_X, GAP_IN_Y, NOTHING, PAIR, Path, best_path
from diffbio.operators.alignment.ends import GLOBAL
from diffbio.operators.alignment.recurrence import Pair


class Columns(NamedTuple):
    """Where the residues of an alignment stand.

    Attributes:
        column: Of each residue; `n_columns` beyond the lengths (sequences, positions).
        n_needed: How many columns the alignment has. If more than `n_columns`, there was no room for it.
    """

    column: Int[Array, "sequences positions"]
    n_needed: Int[Scalar, ""]


def progressive_alignment(
    posteriors: Float[Array, "sequences sequences positions positions"],
    lengths: Int[Array, " sequences"],
    joins: Int[Array, "joins 2"],
    n_columns: int,
) -> Columns:
    """Return the columns of an alignment of all sequences.

    Args:
        posteriors: Probability that two positions of two sequences are aligned.
        lengths: How many positions count.
        joins: Which groups are joined, by `average_linkage`.
        n_columns: Room for columns; at least as many as there are positions.

    Returns:
        Columns; no derivative. Time grows as sequences² x positions² + sequences x columns².

    Example:
        >>> itself = jnp.eye(2)[None, None] * jnp.eye(2)[:, :, None, None]
        >>> posteriors = itself.at[0, 1, 1, 0].set(1).at[1, 0, 0, 1].set(1)  # the second of x with the first of y
        >>> progressive_alignment(posteriors, jnp.array([2, 2]), jnp.array([[0, 1]]), 4).column.tolist()
        [[0, 1], [1, 2]]
    """
    n_sequences, _, n_positions, _ = posteriors.shape
    positions = jnp.arange(n_positions)
    column = jnp.where(positions < lengths[:, None], positions, n_columns)
    no_cost = jnp.zeros((), posteriors.dtype)

    def join(at: tuple[Array, Array, Array], pair: Array) -> tuple[tuple[Array, Array, Array], None]:
        column, counts, group = at
        first, second = group == pair[0], group == pair[1]
        scores = _between(posteriors, column, first, second, n_columns)
        sizes = jnp.minimum(counts[pair], n_columns)
        path = best_path(Pair(scores, no_cost, no_cost, sizes), GLOBAL)
        moved, count = _moved(path, n_columns)
        column = jnp.where(first[:, None], moved[0][column], jnp.where(second[:, None], moved[1][column], column))
        return (column, counts.at[pair[0]].set(count), jnp.where(second, pair[0], group)), None

    start = column, lengths, jnp.arange(n_sequences)
    (column, counts, _), _ = lax.scan(join, start, joins)
    return Columns(column, counts.max())


def _between(posteriors: Array, column: Array, first: Array, second: Array, n_columns: int) -> Float[Array, "x y"]:
    """Return the mean probability of pairs of residues in two columns of two groups."""
    members = [jnp.argsort(~group, stable=True) for group in (first, second)]
    sizes = [group.sum() for group in (first, second)]

    def add(number: Array, sums: Array) -> Array:
        x, y = members[0][number // sizes[1]], members[1][number % sizes[1]]
        return sums.at[column[x][:, None], column[y]].add(posteriors[x, y], mode="drop")

    sums = jnp.zeros((n_columns, n_columns), posteriors.dtype)
    sums = lax.fori_loop(0, sizes[0] * sizes[1], add, sums)
    return sums / jnp.maximum(sizes[0] * sizes[1], 1)


def _moved(path: Path, n_columns: int) -> tuple[Int[Array, "2 columns"], Int[Scalar, ""]]:
    """Return where the columns of two groups go, `n_columns` for those beyond their ends, and how many there are."""
    steps = path.operations[::-1]  # from the first to the last, after those that are nothing
    number = jnp.cumsum(steps != NOTHING) - 1
    count = number[-1] + 1
    moved = []
    for consuming in ((PAIR, GAP_IN_Y), (PAIR, GAP_IN_X)):
        consumes = (steps == consuming[0]) | (steps == consuming[1])
        own = jnp.where(consumes, jnp.cumsum(consumes) - 1, n_columns)
        places = jnp.full(n_columns + 1, n_columns, jnp.int32)
        moved.append(places.at[own].set(jnp.minimum(number, n_columns), mode="drop").at[n_columns].set(n_columns))
    return jnp.stack(moved), count
