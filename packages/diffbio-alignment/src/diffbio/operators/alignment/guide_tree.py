"""The order in which a progressive alignment joins sequences: average linkage of their similarities (UPGMA).

References:
    Sokal and Michener, A statistical method for evaluating systematic relationships, University of Kansas Science
    Bulletin 1958.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from diffbio.operators.alignment.semirings import NEVER


def average_linkage(similarity: Float[Array, "sequences sequences"]) -> Int[Array, "joins 2"]:
    """Return which two groups are joined, most similar ones first, each named by one of its sequences.

    Args:
        similarity: Of each two sequences, symmetric; the diagonal is not read.

    Returns:
        Two groups per join, the first of which gives its name to both together. Time grows as the cube of the number of
        sequences.

    Example:
        >>> average_linkage(jnp.array([[0.0, 0.1, 0.9], [0.1, 0.0, 0.3], [0.9, 0.3, 0.0]])).tolist()
        [[0, 2], [0, 1]]
    """
    n_sequences = similarity.shape[0]
    diagonal = jnp.eye(n_sequences, dtype=bool)

    def join(groups: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        linked, sizes = groups
        first, second = sorted_pair(jnp.argmax(linked), n_sequences)
        total = sizes[first] + sizes[second]
        mean = (sizes[first] * linked[first] + sizes[second] * linked[second]) / total
        gone = linked.at[second].set(NEVER).at[:, second].set(NEVER)
        mean = jnp.where(gone[first] <= NEVER / 2, NEVER, mean)  # with groups that are joined already
        linked = jnp.where(diagonal, NEVER, gone.at[first].set(mean).at[:, first].set(mean))
        return (linked, sizes.at[first].set(total)), jnp.stack([first, second])

    start = jnp.where(diagonal, NEVER, similarity), jnp.ones(n_sequences, similarity.dtype)
    return lax.scan(join, start, None, length=n_sequences - 1)[1]


def branches(joins: Int[Array, "joins 2"]) -> Bool[Array, "joins 2 sequences"]:
    """Return for both branches of each join which sequences are at their ends.

    Args:
        joins: By `average_linkage`.

    Example:
        >>> branches(jnp.array([[0, 2], [0, 1]])).astype(int).tolist()
        [[[1, 0, 0], [0, 0, 1]], [[1, 0, 1], [0, 1, 0]]]
    """

    def join(group: Array, pair: Array) -> tuple[Array, Array]:
        return jnp.where(group == pair[1], pair[0], group), group == pair[:, None]

    return lax.scan(join, jnp.arange(len(joins) + 1), joins)[1]


def sorted_pair(place: Array, size: int) -> tuple[Array, Array]:
    """Return row and column of a place in a square matrix, the smaller one first."""
    row, column = jnp.divmod(place, size)
    return jnp.minimum(row, column), jnp.maximum(row, column)
