"""The recurrence that finds an adapter in a read: the best alignment that begins at each position, with its errors.

The adapter begins at a position of the read and ends within it, or the read ends first. With m adapter bases left to
align from read position j on,

    A[m,j] = the best of    A[m-1,j+1] + match or mismatch,    A[m-1,j] + indel,    A[m,j+1] + indel

and A = 0 where no adapter base is left or the read has ended. Relaxed, "the best" is the mean of the three, weighted by
softmax of the scores over tau, and errors and lengths of the alignments are averaged with the same weights. Cells are
computed by anti-diagonals, all m at once, from the end of the read to its begin.

References:
    Martin, Algorithms and tools for the analysis of high-throughput DNA sequencing data, dissertation, Dortmund 2014,
    chapter 2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.preprocessing.kept_bases import certainty

MATCH, MISMATCH, INDEL = 1.0, -1.0, -2.15
"""Scores of cutadapt since version 4; an indel costs so much more than 2 that a mismatch is better if all else is
equal."""

_FEWER_ERRORS = 1e-3
"""Cost of an error beside its score: of two alignments with the same score, that with fewer errors is better."""


class Adapter(NamedTuple):
    """An adapter as arrays, with room behind its end.

    Attributes:
        letters: 1 for each letter that a base may be; zeros beyond the end (bases, letters).
        counted: 1 for each base that counts in the error rate, which N does not (bases,).
        size: Number of bases.
    """

    letters: Float[Array, "bases letters"]
    counted: Float[Array, " bases"]
    size: Int[Scalar, ""]


class Occurrences(NamedTuple):
    """The best alignment of an adapter that begins at each position of a read.

    Attributes:
        score: With matches +1, mismatches -1, indels -2.15 (positions,).
        errors: Mismatches and indels (positions,).
        counted: Adapter bases aligned that count in the error rate (positions,).
        overlap: Adapter bases aligned (positions,).
    """

    score: Float[Array, " positions"]
    errors: Float[Array, " positions"]
    counted: Float[Array, " positions"]
    overlap: Float[Array, " positions"]


def adapter_occurrences(
    read: Float[Array, "positions letters"],
    weights: Float[Array, " positions"],
    adapter: Adapter,
    *,
    indels: bool,
    softness: Float[Scalar, ""] | float,
) -> Occurrences:
    """Return the best alignment of an adapter that begins at each position.

    Args:
        read: Distributions over the letters (positions, letters).
        weights: With which each base is kept, 0 to 1; where one is 0 the read has ended (positions,).
        adapter: What is sought.
        indels: Whether bases may be missing in the read, or be there in excess.
        softness: tau > 0, in the unit of the scores.

    Returns:
        Scores, errors and lengths; an unknown base of the read matches nothing. Time grows as (positions + bases) x
        bases, memory of gradients likewise.

    Example:
        >>> letters = jnp.eye(4)[jnp.array([0, 1, 2])]
        >>> adapter = Adapter(letters, jnp.ones(3), jnp.array(3))
        >>> read = jnp.eye(4)[jnp.array([3, 0, 1, 2, 3, 0])]
        >>> found = adapter_occurrences(read, jnp.ones(6), adapter, indels=True, softness=0.01)
        >>> found.score.round(2).tolist()[1], found.overlap.round(2).tolist()[5]
        (3.0, 1.0)
    """
    n_positions, n_bases = len(read), len(adapter.letters)
    known = read * certainty(read)[:, None]
    # lane m has m bases left to align, the first of which is the adapter's base size - m
    left = jnp.arange(n_bases + 1)
    base = jnp.clip(adapter.size - left, 0, n_bases - 1)
    letters, counted = adapter.letters[base], adapter.counted[base]
    some_left = (left > 0).astype(read.dtype)
    around = ((n_bases, n_bases), (0, 0))
    padded, there = jnp.pad(known, around), jnp.pad(weights, around[0])
    blank = jnp.zeros((4, n_bases + 1), read.dtype)

    def fewer(values: Array) -> Array:
        return jnp.pad(values, ((0, 0), (1, 0)))[:, :-1]

    @jax.checkpoint
    def step(carry: tuple[Array, Array], diagonal: Array) -> tuple[tuple[Array, Array], Array]:
        after, after_next = carry
        bases = lax.dynamic_slice_in_dim(padded, diagonal, n_bases + 1)
        match = (bases * letters).sum(-1)
        ones = jnp.ones_like(match)
        gains = jnp.stack([match * MATCH + (1 - match) * MISMATCH, 1 - match, counted, ones])
        ways = [fewer(after_next) + gains]
        if indels:
            gap = jnp.stack([INDEL * ones, ones, 0 * ones, 0 * ones])
            ways += [fewer(after) + gap.at[2].set(counted).at[3].set(1.0), after + gap]
        ways = jnp.stack(ways)
        shares = jax.nn.softmax((ways[:, 0] - _FEWER_ERRORS * ways[:, 1]) / softness, axis=0)
        best = (shares[:, None] * ways).sum(0)
        here = best * some_left * lax.dynamic_slice_in_dim(there, diagonal, n_bases + 1)
        return (here, after), here[:, adapter.size]

    # position j of the read with m bases left is on diagonal j + size - m, counted here from n_bases - m + j
    _, found = lax.scan(step, (blank, blank), jnp.arange(n_positions + n_bases), reverse=True)
    return Occurrences(*lax.dynamic_slice_in_dim(found, n_bases - adapter.size, n_positions).T)
