"""Soft argmax, max, sort and top-k.

One idea serves all: the hard answer at a position is the entry nearest to an anchor, and its relaxation is
a softmax over the distances to that anchor, in units of the softness (SoftSort, Prillo & Eisenschlos 2020).
For the maximum, the anchor is above all entries, and the weights are softmax(x / softness).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


class TopK(NamedTuple):
    """The `k` largest values and where they are."""

    values: Float[Array, "... k"]
    indices: Float[Array, "... k n"]


def argmax(x: ArrayLike, axis: int = -1, *, softness: ArrayLike = 0.1, where: Any = None) -> Float[Array, "..."]:
    """Return the distribution softmax(x / softness) over the entries of `axis`, moved to the last axis.

    Args:
        x: Any shape with at least one axis.
        axis: The axis whose largest entry is sought.
        softness: In the units of `x`, above 0. Equal entries share the mass equally at every softness.
        where: Mask that broadcasts with `x`; a masked entry gets no mass. A fully masked row is all 0.

    Returns:
        A distribution over the last axis (a soft index); -> one-hot of the largest entry.

    Example:
        >>> argmax(jnp.array([1.0, 2.0]), softness=1e-3).tolist()
        [0.0, 1.0]
    """
    scores = jnp.moveaxis(jnp.asarray(x) / softness, axis, -1)
    if where is None:
        return jax.nn.softmax(scores, axis=-1)
    mask = jnp.moveaxis(jnp.broadcast_to(where, jnp.shape(x)), axis, -1)
    return jax.nn.softmax(scores, axis=-1, where=mask)


def max(  # noqa: A001 - the name of jnp
    x: ArrayLike, axis: int = -1, *, softness: ArrayLike = 0.1, where: Any = None
) -> Float[Array, "..."]:
    """Return softness * logsumexp(x / softness), which exceeds the maximum by at most softness * log(n).

    Args:
        x: Any shape with at least one axis.
        axis: The axis to reduce.
        softness: In the units of `x`, above 0.
        where: Mask that broadcasts with `x`; a masked entry counts for nothing.

    Returns:
        The soft maximum along `axis`; its gradient is `argmax` at the same softness.

    Example:
        >>> round(float(max(jnp.array([1.0, 2.0]), softness=1e-3)), 4)
        2.0
    """
    scores = jnp.asarray(x) / softness
    return jnp.asarray(softness * jax.nn.logsumexp(scores, axis=axis, where=where))


def sort(x: ArrayLike, axis: int = -1, *, softness: ArrayLike = 0.1) -> Float[Array, "..."]:
    """Return the entries in ascending order, each as a mean of the entries near it in value.

    Args:
        x: Any shape with at least one axis.
        axis: The axis to sort.
        softness: In the units of `x`, above 0: entries further apart than this do not mix.

    Returns:
        The shape of `x`; -> jnp.sort.

    References:
        Prillo and Eisenschlos, SoftSort, ICML 2020.

    Example:
        >>> sort(jnp.array([3.0, 1.0, 2.0]), softness=1e-3).tolist()
        [1.0, 2.0, 3.0]
    """
    entries = jnp.moveaxis(jnp.asarray(x), axis, -1)
    weights = _nearest_entries(entries, jnp.sort(entries, axis=-1), softness)
    return jnp.moveaxis(jnp.einsum("...kn,...n->...k", weights, entries), -1, axis)


def top_k(x: ArrayLike, k: int, *, softness: ArrayLike = 0.1) -> TopK:
    """Return the `k` largest entries of the last axis in descending order, with their soft indices.

    Args:
        x: Shape (..., n).
        k: Between 1 and n.
        softness: In the units of `x`, above 0.

    Returns:
        `values` (..., k) and `indices` (..., k, n), a distribution over the n entries for each place.

    Raises:
        ValueError: `k` is not between 1 and n.

    Example:
        >>> top_k(jnp.array([3.0, 1.0, 2.0]), 2, softness=1e-3).values.tolist()
        [3.0, 2.0]
    """
    entries = jnp.asarray(x)
    check_k(k, entries.shape[-1])
    weights = _nearest_entries(entries, jax.lax.top_k(entries, k)[0], softness)
    return TopK(jnp.einsum("...kn,...n->...k", weights, entries), weights)


def check_k(k: int, n: int) -> None:
    """Raise a ValueError unless 1 <= k <= n."""
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}; it must be between 1 and the {n} entries of the axis")


def _nearest_entries(entries: Array, anchors: Array, softness: ArrayLike) -> Array:
    """Return for each anchor a softmax over the entries by their distance to it."""
    distances = jnp.abs(anchors[..., :, None] - entries[..., None, :])
    return jax.nn.softmax(-distances / softness, axis=-1)
