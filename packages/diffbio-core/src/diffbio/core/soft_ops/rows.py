"""Axes, masks and scales: an operation over some axis becomes one over the last axis of rows, and back."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from diffbio.core.soft_ops.order_statistic import how_many, robust_spread
from diffbio.core.soft_ops.scaling import Mask, as_float, checked_softness, in_compute_dtype, keep

Axis = int | tuple[int, ...] | None
Scale = Literal["absolute", "robust"]
"""The unit of a softness: that of `x`, or the robust standard deviation of each row of `x`."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["entries", "mask", "softness"],
    meta_fields=["dtype", "shape", "axes"],
)
@dataclass(frozen=True)
class Rows:
    """The entries that compete with each other, along the last axis.

    A tree of JAX, so that functions of rows can be compiled: called outside of `jit`, an operation is then one
    program, which is compiled once for all softnesses.

    Attributes:
        entries: In the dtype to compute in.
        mask: Which entries count; `None` for all.
        softness: In the units of the entries, above 0, one per row.
        dtype: The dtype of results.
        shape: The shape of the input.
        axes: The axes of the input that became the last one, in ascending order.
    """

    entries: Float[Array, "... n"]
    mask: Mask
    softness: Float[Array, "... 1"]
    dtype: Any
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def n(self) -> int:
        """The number of entries of a row, masked ones included."""
        return self.entries.shape[-1]

    @property
    def counts(self) -> Bool[Array, "... n"]:
        """Which entries count, as an array."""
        return keep(jnp.ones(self.entries.shape, bool), self.mask)

    @property
    def count(self) -> Float[Array, "... 1"]:
        """How many entries of each row count."""
        return how_many(self.counts, None)

    def numbers(self) -> Rows:
        """Return the rows with NaN among the entries that do not count."""
        number = ~jnp.isnan(self.entries)
        return replace(self, entries=keep(self.entries, number), mask=self.counts & number)

    def nan_shown(self, values: Float[Array, "... m"]) -> Float[Array, "... m"]:
        """Return `values`, but NaN in each row in which an entry that counts is NaN."""
        unknown = keep(jnp.isnan(self.entries), self.mask).any(-1, keepdims=True)
        return jnp.where(unknown, jnp.nan, values)

    def reduced(self, values: Float[Array, "..."], *, keepdims: bool = False) -> Float[Array, "..."]:
        """Return one value per row as the result of a reduction; axes in front of the rows stay in front."""
        return (self._with_kept_axes(values, at=values.ndim) if keepdims else values).astype(self.dtype)

    def indices(self, weights: Float[Array, "... n"], *, keepdims: bool = False) -> Float[Array, "... n"]:
        """Return one distribution per row as a soft index: the candidates stay on the last axis."""
        return (self._with_kept_axes(weights, at=weights.ndim - 1) if keepdims else weights).astype(self.dtype)

    def restored(self, values: Float[Array, "... m"]) -> Float[Array, "..."]:
        """Return one value per place of a row with the places back on the one axis that the rows came from."""
        return jnp.moveaxis(values, -1, self._place()).astype(self.dtype)

    def restored_indices(self, weights: Float[Array, "... m n"]) -> Float[Array, "... n"]:
        """Return one distribution per place, the places back on their axis and the candidates last."""
        return jnp.moveaxis(weights, -2, self._place()).astype(self.dtype)

    def _place(self) -> int:
        if self.entries.ndim == 1:  # all of the input is one row
            return 0
        if len(self.axes) != 1:
            raise TypeError(f"axis={self.axes}: an order needs one axis, or None for all entries as one row")
        return self.axes[0]

    def _with_kept_axes(self, values: Array, *, at: int) -> Array:
        """Put axes of length 1 where the input had its axes; the dimensions of the rows end at `at`."""
        front = at - (len(self.shape) - len(self.axes))
        return jnp.expand_dims(values, [front + axis for axis in self.axes])


def rows_of(
    x: ArrayLike,
    axis: Axis,
    softness: ArrayLike,
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
) -> Rows:
    """Return the rows of `x` along `axis`.

    Args:
        x: Any shape; integers and booleans become floats.
        axis: One axis, several (a row runs over all of them), or `None` for all of `x` as one row.
        softness: Above 0; a scalar, or of the shape of `x` with length 1 in `axis` (one per row).
        where: Mask that broadcasts to `x`; entries that are false do not count.
        scale: `"absolute"`: the softness is in the units of `x`. `"robust"`: in units of each row's interquartile
            range / 1.349, which neither outliers nor masked entries change.

    Raises:
        ValueError: The softness is not above 0, or has a shape that does not fit; the scale is unknown.
    """
    x = as_float(x)
    axes = _checked_axes(axis, x.ndim)
    where = None if where is None else jnp.broadcast_to(where, x.shape).astype(bool)
    x = keep(x, where)  # a masked NaN would come back in gradients as 0 * NaN
    # computed once: a program that computes them again where it compares them with each other rounds differently
    entries = jax.lax.optimization_barrier(_to_last(in_compute_dtype(x), axes))
    mask = None if where is None else _to_last(where, axes)
    soft = checked_softness(softness, entries.dtype)
    if soft.ndim:
        reduced = tuple(1 if at in axes else length for at, length in enumerate(x.shape))
        try:
            soft = _to_last(jnp.broadcast_to(soft, reduced), axes)
        except ValueError:
            raise ValueError(
                f"softness has shape {soft.shape}; for x of shape {x.shape} and axis={axis} it must be a scalar, "
                f"or broadcast to {reduced}: one per row"
            ) from None
    else:
        soft = jnp.broadcast_to(soft, (*entries.shape[:-1], 1))
    if scale == "robust":
        if entries.size:
            soft = soft * robust_spread(entries, mask)
    elif scale != "absolute":
        raise ValueError(f"scale is {scale!r}; it must be 'absolute' (units of x) or 'robust' (units of its spread)")
    return Rows(entries, mask, soft, x.dtype, x.shape, axes)


def _checked_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(sorted(_checked_axis(one, ndim) for one in given))
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis={axis} names an axis twice")
    return axes


def _checked_axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} is out of bounds for array of dimension {ndim}")
    return axis % ndim


def _to_last(x: Array, axes: tuple[int, ...]) -> Array:
    kept = [at for at in range(x.ndim) if at not in axes]
    length = math.prod(x.shape[at] for at in axes)
    return jnp.transpose(x, (*kept, *axes)).reshape(*(x.shape[at] for at in kept), length)
