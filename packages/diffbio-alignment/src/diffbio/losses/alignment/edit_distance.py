"""The edit distance of two sequences with a softness.

Hard, Levenshtein's: the fewest substitutions, insertions and deletions that make one of the other. Relaxed, over all
alignments a with that many edits each, -tau log sum_a exp(-edits_a / tau), which is at most the hard one. As tau -> 0
the two are equal; the difference is at most tau times the logarithm of the number of alignments.

References:
    Levenshtein, Binary codes capable of correcting deletions, insertions and reversals, Soviet Physics Doklady 1966.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Scalar

from diffbio.core.reading import read
from diffbio.operators.alignment.ends import GLOBAL
from diffbio.operators.alignment.partition import log_partition
from diffbio.operators.alignment.recurrence import Pair

SOFTNESS = 0.1
"""That of the loss, in edits."""


def soft_edit_distance(
    x: Float[Array, "x letters"],
    y: Float[Array, "y letters"],
    lengths: Int[Array, "2"],
    *,
    softness: ArrayLike,
) -> Float[Scalar, ""]:
    """Return the edit distance of two sequences.

    Args:
        x: Distributions over the letters; the chance that two letters differ is what a substitution costs.
        y: Likewise.
        lengths: How many positions of each count.
        softness: tau > 0, in edits.

    Returns:
        A scalar, at most Levenshtein's distance.

    Example:
        >>> x, y = jnp.eye(3)[jnp.array([0, 1, 2])], jnp.eye(3)[jnp.array([0, 2, 2])]
        >>> round(float(soft_edit_distance(x, y, jnp.array([3, 3]), softness=0.01)), 3)
        1.0
    """
    softness = jnp.asarray(softness, x.dtype)
    pair = Pair((x @ y.T - 1) / softness, 1 / softness, 1 / softness, lengths)
    return -softness * log_partition(pair, GLOBAL)


def edit_distance(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the mean edit distance of queries and targets, softened by a tenth of an edit.

    Args:
        data: Holds `query` (*pairs, query, letters) and `target` (*pairs, target, letters), distributions over the
            letters, and `query_length` and `target_length` (*pairs,).

    Returns:
        A scalar, in edits.

    Raises:
        MissingKeyError: One of the four keys is missing.

    Example:
        >>> letters = jnp.eye(2)[None, jnp.array([0, 1, 1])]
        >>> data = {"query": letters, "target": letters, "query_length": jnp.array([3])}
        >>> round(float(edit_distance({**data, "target_length": jnp.array([2])})), 1)  # one letter less: two ways
        0.9
    """
    query, target, *lengths = read("edit_distance", data, "query", "target", "query_length", "target_length")
    distance = partial(soft_edit_distance, softness=SOFTNESS)
    for _ in query.shape[:-2]:
        distance = jax.vmap(distance)
    return distance(query, target, jnp.stack(lengths, axis=-1)).mean()
