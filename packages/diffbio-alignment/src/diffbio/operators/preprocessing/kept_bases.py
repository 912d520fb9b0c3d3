"""Which bases of a read are kept: weights from 0 to 1, which trimmers hand to each other.

A hard trimmer keeps an interval of the read. A soft one has a distribution over the places at which the interval begins
and ends; the weight of a base is the probability that it is inside. A trimmer that comes later multiplies the weights
by its own, and looks at bases that have been dropped as little as at those beyond the end of the read.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

HALF_A_UNIT = 0.5
"""Added to whole numbers, so that those equal to a limit are clearly on the side on which the field's tools put
them."""


class Interval(NamedTuple):
    """What is kept of each read: the bases from `begin` up to, but not with, `end`.

    Attributes:
        begin: First base that is kept, 0 where none is (*reads,).
        end: One behind the last base that is kept, 0 where none is (*reads,).
    """

    begin: Int[Array, "*reads"]
    end: Int[Array, "*reads"]


def starting_weights(
    like: Float[Array, "*reads positions"],
    read_lengths: Int[Array, "*reads"] | None = None,
    base_weights: Float[Array, "*reads positions"] | None = None,
) -> Float[Array, "*reads positions"]:
    """Return the weights that a trimmer begins with: those given, and 0 beyond the end of each read.

    Args:
        like: Any array with a number for each base.
        read_lengths: How many bases of each read count; all by default.
        base_weights: From an earlier trimmer; 1 by default.

    Example:
        >>> starting_weights(jnp.zeros((2, 3)), jnp.array([1, 3])).tolist()
        [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    weights = jnp.ones_like(like) if base_weights is None else base_weights
    if read_lengths is None:
        return weights
    return jnp.where(jnp.arange(like.shape[-1]) < read_lengths[..., None], weights, 0.0)


def kept_from(begin: Float[Array, "*reads positions"]) -> Float[Array, "*reads positions"]:
    """Return the probability that each base is at or behind the first one that is kept.

    Args:
        begin: Probability that a base is the first one kept; what is missing to 1 is that none is.

    Example:
        >>> kept_from(jnp.array([0.25, 0.5, 0.0])).tolist()
        [0.25, 0.75, 0.75]
    """
    return _from_0_to_1(jnp.cumsum(begin, axis=-1))


def kept_until(end: Float[Array, "*reads positions"]) -> Float[Array, "*reads positions"]:
    """Return the probability that each base is before the first one that is dropped.

    Args:
        end: Probability that a base is the first one dropped; what is missing to 1 is that none is.

    Example:
        >>> kept_until(jnp.array([0.25, 0.5, 0.0])).tolist()
        [0.75, 0.25, 0.25]
    """
    return _from_0_to_1(1 - jnp.cumsum(end, axis=-1))


def first_true(truth: Float[Array, "*reads positions"]) -> Float[Array, "*reads positions"]:
    """Return the probability that each entry is the first one that is true, if all are independent.

    Products, and not sums of logarithms: an entry that is surely true has the logarithm of 0 in front of it.

    Args:
        truth: Probability that each is true.

    Returns:
        truth_i times the product of 1 - truth_j over all j before i; sums to at most 1.

    Example:
        >>> first_true(jnp.array([0.0, 0.5, 1.0, 1.0])).tolist()
        [0.0, 0.5, 0.5, 0.0]
    """
    none_yet = jnp.cumprod(1 - truth, axis=-1)
    return truth * jnp.concatenate([jnp.ones_like(truth[..., :1]), none_yet[..., :-1]], axis=-1)


def first_from(begin: Float[Array, "*reads positions"], go_on: Float[Array, "*reads positions"]) -> Array:
    """Return where a walk to the right stops that goes on over some of the bases.

    Args:
        begin: Probability that it begins at a base.
        go_on: Probability that it goes over a base to the next.

    Returns:
        Probability that it stops at each base (*reads, positions); the rest leaves the read.

    Example:
        >>> first_from(jnp.array([1.0, 0.0, 0.0]), jnp.array([1.0, 0.5, 0.0])).tolist()
        [0.0, 0.5, 0.5]
    """

    def step(arrived: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        here, over = at
        arrived = arrived + here
        return arrived * over, arrived * (1 - over)

    along = (jnp.moveaxis(begin, -1, 0), jnp.moveaxis(go_on, -1, 0))
    _, stops = lax.scan(step, jnp.zeros_like(begin[..., 0]), along)
    return jnp.moveaxis(stops, 0, -1)


def certainty(reads: Float[Array, "*reads positions letters"]) -> Float[Array, "*reads positions"]:
    """Return how sure each base is: 1 for one letter, 0 for N, which is all of them alike.

    Args:
        reads: Distributions over the letters; 0 where they are zeros, as beyond the end.

    Returns:
        (sum of p^2 - 1 / letters) / (1 - 1 / letters), the complement of the Gini impurity.

    Example:
        >>> certainty(jnp.array([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])).tolist()
        [1.0, 0.0]
    """
    even = 1 / reads.shape[-1]
    return (jnp.square(reads).sum(-1) - even * jnp.square(reads.sum(-1))) / (1 - even)


def kept_interval(base_weights: Float[Array, "*reads positions"]) -> Interval:
    """Return the bases that are kept more likely than not; the integers have no gradient.

    Args:
        base_weights: From 0 to 1.

    Example:
        >>> kept_interval(jnp.array([[0.1, 0.9, 1.0, 0.2], [0.0, 0.0, 0.0, 0.0]]))._asdict()["end"].tolist()
        [3, 0]
    """
    kept = base_weights > 0.5
    some = kept.any(-1)
    size = base_weights.shape[-1]
    begin = jnp.argmax(kept, axis=-1)
    end = size - jnp.argmax(jnp.flip(kept, -1), axis=-1)
    return Interval(*(jnp.where(some, place, 0).astype(jnp.int32) for place in (begin, end)))


def windowed_mean(values: Float[Array, "*reads positions"], size: int) -> Float[Array, "*reads windows"]:
    """Return the mean of the window that begins at each position; windows that fit.

    Args:
        values: A number for each base.
        size: Bases of a window, at most as many as there are positions.

    Example:
        >>> windowed_mean(jnp.array([1.0, 2.0, 6.0]), 2).tolist()
        [1.5, 4.0]
    """
    window = (*(1 for _ in values.shape[:-1]), size)
    return lax.reduce_window(values, np.zeros((), values.dtype), lax.add, window, (1,) * values.ndim, "VALID") / size


def complement(reads: Float[Array, "*reads positions letters"]) -> Float[Array, "*reads positions letters"]:
    """Return the complement of each base of A, C, G, T; the order of positions stays.

    Example:
        >>> complement(jnp.array([[1.0, 0.0, 0.0, 0.0]])).tolist()
        [[0.0, 0.0, 0.0, 1.0]]
    """
    return jnp.flip(reads, -1)


def _from_0_to_1(weights: Array) -> Array:
    """Return weights without what rounding has put outside; derivatives are those of the sums, also at 0 and 1."""
    return weights + lax.stop_gradient(jnp.clip(weights, 0, 1) - weights)
