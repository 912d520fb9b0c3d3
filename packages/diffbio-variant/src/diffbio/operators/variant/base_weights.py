"""How much each base of a read counts: what trimming and filters left of it, softly above thresholds of quality.

Reads are laid against windows of the reference; any number of axes before those of the reads are windows.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import soft_ops

_HALF_A_UNIT = 0.5
"""Qualities are whole numbers: the threshold stands between two, so that a base exactly at it is clearly kept."""


def counting_bases(
    like: Float[Array, "*windows reads positions"],
    read_lengths: Int[Array, "*windows reads"] | None = None,
    read_mask: Bool[Array, "*windows reads"] | None = None,
    base_weights: Float[Array, "*windows reads positions"] | None = None,
    read_weights: Float[Array, "*windows reads"] | None = None,
) -> Float[Array, "*windows reads positions"]:
    """Return the weights of bases before qualities are looked at: those of earlier operators, 0 beyond the reads.

    Args:
        like: Any array with a number for each base.
        read_lengths: How many bases of each read count; all by default.
        read_mask: Which rows hold a read; all by default.
        base_weights: Of trimmers, 0 to 1.
        read_weights: Of filters, 0 to 1.

    Example:
        >>> counting_bases(jnp.zeros((2, 3)), jnp.array([1, 3]), read_weights=jnp.array([1.0, 0.5])).tolist()
        [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
    """
    weights = jnp.ones_like(like) if base_weights is None else base_weights
    if read_weights is not None:
        weights = weights * read_weights[..., None]
    if read_mask is not None:
        weights = jnp.where(read_mask[..., None], weights, 0.0)
    if read_lengths is not None:
        weights = jnp.where(jnp.arange(like.shape[-1]) < read_lengths[..., None], weights, 0.0)
    return weights


def above_thresholds(
    qualities: Float[Array, "*windows reads positions"],
    mapping_qualities: Float[Array, "*windows reads"] | None,
    *,
    min_base_quality: ArrayLike,
    min_mapping_quality: ArrayLike,
    softness: ArrayLike,
) -> Float[Array, "*windows reads positions"]:
    """Return how far each base is at or above both thresholds, 0 to 1.

    Args:
        qualities: Phred.
        mapping_qualities: Phred; `None` where they are not known, so that all pass.
        min_base_quality: Phred.
        min_mapping_quality: Phred.
        softness: tau > 0, Phred.

    Example:
        >>> qualities = jnp.array([[12.0, 13.0, 20.0]])
        >>> limits = {"min_base_quality": 13.0, "min_mapping_quality": 20.0}
        >>> above_thresholds(qualities, jnp.array([60.0]), **limits, softness=0.01).round(2).tolist()
        [[0.0, 1.0, 1.0]]
    """
    good = soft_ops.greater(qualities + _HALF_A_UNIT, min_base_quality, softness=softness)
    if mapping_qualities is None:
        return good
    mapped = soft_ops.greater(mapping_qualities + _HALF_A_UNIT, min_mapping_quality, softness=softness)
    return good * mapped[..., None]


def over_windows[T](function: Callable[..., T], axes: int) -> Callable[..., T]:
    """Return a function of one window, mapped over so many axes of windows."""
    for _ in range(axes):
        function = jax.vmap(function)
    return function
