"""Progressive alignment: groups of sequences are joined along a guide tree, so that most pairs are right on average.

Two groups are aligned column by column, with the mean probability that the residues of two columns belong together as
score and no cost of gaps: the alignment that has the most right pairs in expectation.

A join is never taken back, though later sequences say more about it. So the alignment is refined: each branch of the
tree parts the sequences in two groups, which are aligned anew as they are. The alignment that they had is one of those
to choose from, so that the number of right pairs in expectation never falls. Branches come in the order of the joins:
nothing is left to chance.

References:
    Feng and Doolittle, Progressive sequence alignment as a prerequisite to correct phylogenetic trees, Journal of
    Molecular Evolution 1987.
    Barton and Sternberg, A strategy for the rapid multiple alignment of protein sequences, Journal of Molecular
    Biology 1987: refinement.
    Do, Mahabhashyam, Brudno and Batzoglou, ProbCons, Genome Research 2005.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.best_path import GAP_IN_X, GAP_IN_Y, NOTHING, PAIR, Path, best_path
from diffbio.operators.alignment.ends import GLOBAL
from diffbio.operators.alignment.guide_tree import branches
from diffbio.operators.alignment.recurrence import Pair
from diffbio.operators.alignment.sparse_posteriors import Posteriors


class Columns(NamedTuple):
    """Where the residues of an alignment stand.

    Attributes:
        column: Of each residue; `n_columns` beyond the lengths (sequences, positions).
        n_needed: How many columns the alignment has. If more than `n_columns`, there was no room for it.
    """

    column: Int[Array, "sequences positions"]
    n_needed: Int[Scalar, ""]


def progressive_alignment(
    posteriors: Posteriors,
    lengths: Int[Array, " sequences"],
    joins: Int[Array, "joins 2"],
    n_columns: int,
    *,
    refinement_rounds: int = 0,
) -> Columns:
    """Return the columns of an alignment of all sequences.

    Args:
        posteriors: The pairs of positions that are likely.
        lengths: How many positions count.
        joins: Which groups are joined, by `average_linkage`.
        n_columns: Room for columns; at least as many as there are positions.
        refinement_rounds: How often the alignment is parted at each branch of the tree, and aligned again.

    Returns:
        Columns; no derivative. Time grows as sequences² x positions + sequences x columns², and in each round of
        refinement as sequences³ x positions + 2 x sequences x columns².

    Example:
        >>> from diffbio.operators.alignment.sparse_posteriors import sparse_posteriors
        >>> itself = jnp.eye(2)[None, None] * jnp.eye(2)[:, :, None, None]
        >>> posteriors = itself.at[0, 1, 1, 0].set(1).at[1, 0, 0, 1].set(1)  # the second of x with the first of y
        >>> posteriors = sparse_posteriors(posteriors)
        >>> progressive_alignment(posteriors, jnp.array([2, 2]), jnp.array([[0, 1]]), 4).column.tolist()
        [[0, 1], [1, 2]]
    """
    positions = jnp.arange(posteriors.value.shape[2], dtype=jnp.int32)
    ends = branches(joins)
    parts = jnp.tile(ends.reshape(-1, len(lengths))[:-1], (refinement_rounds, 1))  # the last branch has two ends
    groups = jnp.concatenate([ends, jnp.stack([parts, ~parts], axis=1)])

    def align(columns: Columns, groups: Array) -> tuple[Columns, None]:
        column, counts = columns.column, []
        for group in groups:
            column, count = _closed_up(column, group, n_columns)
            counts.append(count)
        scores = _between(posteriors, column, groups, n_columns)
        no_cost = jnp.zeros((), scores.dtype)
        moved, count = _moved(best_path(Pair(scores, no_cost, no_cost, jnp.stack(counts)), GLOBAL), n_columns)
        for group, place in zip(groups, moved, strict=True):
            column = jnp.where(group[:, None], place[column], column)
        return Columns(column, jnp.maximum(columns.n_needed, count)), None

    start = Columns(jnp.where(positions < lengths[:, None], positions, n_columns), lengths.max().astype(jnp.int32))
    return lax.scan(align, start, groups)[0]


def _closed_up(column: Array, group: Array, n_columns: int) -> tuple[Array, Array]:
    """Return the columns of a group without those that only others have, and how many these are."""
    used = jnp.zeros(n_columns, column.dtype).at[jnp.where(group[:, None], column, n_columns)].set(1, mode="drop")
    place = jnp.append(jnp.cumsum(used, dtype=column.dtype) - 1, n_columns)
    return jnp.where(group[:, None], place[column], column), used.sum(dtype=column.dtype)


def _between(posteriors: Posteriors, column: Array, groups: Array, n_columns: int) -> Float[Array, "x y"]:
    """Return the mean probability of pairs of residues in two columns of two groups."""
    members = jnp.argsort(~groups, axis=-1, stable=True)
    sizes = groups.sum(axis=-1)

    def add(number: Array, sums: Array) -> Array:
        x, y = members[0][number // sizes[1]], members[1][number % sizes[1]]
        partner = column[y][posteriors.position[x, y]]
        return sums.at[column[x][:, None], partner].add(posteriors.value[x, y], mode="drop")

    sums = jnp.zeros((n_columns, n_columns), posteriors.value.dtype)
    sums = lax.fori_loop(0, sizes[0] * sizes[1], add, sums)
    return sums / jnp.maximum(sizes[0] * sizes[1], 1)


def _moved(path: Path, n_columns: int) -> tuple[Int[Array, "2 columns"], Int[Scalar, ""]]:
    """Return where the columns of two groups go, `n_columns` for those beyond their ends, and how many there are."""
    steps = path.operations[::-1]  # from the first to the last, after those that are nothing
    number = jnp.cumsum(steps != NOTHING, dtype=jnp.int32) - 1
    count = number[-1] + 1
    moved = []
    for consuming in ((PAIR, GAP_IN_Y), (PAIR, GAP_IN_X)):
        consumes = (steps == consuming[0]) | (steps == consuming[1])
        own = jnp.where(consumes, jnp.cumsum(consumes) - 1, n_columns)
        places = jnp.full(n_columns + 1, n_columns, jnp.int32)
        moved.append(places.at[own].set(jnp.minimum(number, n_columns), mode="drop").at[n_columns].set(n_columns))
    return jnp.stack(moved), count
