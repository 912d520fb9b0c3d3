"""Selection by soft truth values and soft indices: the expectation of what the hard index would pick.

A soft index is a distribution over the candidates on its last axis. The result is the mean of the candidates under
it: linear in the weights and in the values, so that one-hot weights give exactly what jnp or lax give for the hard
index. A candidate of weight 0 contributes nothing even if it is infinite or NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.scaling import SoftBool, SoftIndex, as_float, in_compute_dtype


def where(condition: SoftBool | ArrayLike, x: ArrayLike, y: ArrayLike) -> Float[Array, "..."]:
    """Return condition * x + (1 - condition) * y.

    Args:
        condition: Truth values in [0, 1], any shape that broadcasts with `x` and `y`.
        x: What is picked where the condition is true.
        y: What is picked where it is false, in the units of `x`.

    Returns:
        The mean of both, of the broadcast shape; jnp.where(condition, x, y) on 0 and 1.

    Raises:
        ValueError: The shapes do not broadcast.

    Example:
        >>> where(jnp.array([1.0, 0.25, 0.0]), 8.0, 4.0).tolist()
        [8.0, 5.0, 4.0]
    """
    truth = in_compute_dtype(as_float(condition))
    x, y = jnp.asarray(x), jnp.asarray(y)
    dtype = jnp.result_type(x, y, 0.0)
    values = jnp.stack(jnp.broadcast_arrays(x.astype(dtype), y.astype(dtype)), axis=-1)
    return expectation(jnp.stack([truth, 1 - truth], axis=-1), values)


def take_along_axis(x: ArrayLike, soft_index: SoftIndex, axis: int | None = -1) -> Float[Array, "..."]:
    """Return entries of `x` along `axis`, picked separately at each place of the other axes.

    Args:
        x: Any shape with at least one axis.
        soft_index: The shape that jnp.take_along_axis wants of its indices (the number of picks in `axis`, elsewhere
            that of `x` or 1), then the n candidates: one axis more than `x`.
        axis: The axis of the n candidates; `None` for all of `x`, flattened, with soft_index (picks, n).

    Returns:
        The shape of `soft_index` without its last axis, broadcast with `x`; jnp.take_along_axis for one-hot indices.

    Raises:
        ValueError: `axis` or the shape of `soft_index` does not fit.

    Example:
        >>> x = jnp.array([[1.0, 2.0, jnp.inf]])
        >>> take_along_axis(x, jnp.array([[[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]])).tolist()
        [[2.0, 1.5]]
    """
    values, axis = _candidates(x, axis)
    index = _checked_index(soft_index, values.shape[-1])
    wanted: list = [*values.shape[:axis], "picks", *values.shape[axis:]]
    pairs = zip(index.shape, wanted, strict=False)
    if index.ndim != len(wanted) or not all(
        one == other or 1 in (one, other) or other == "picks" for one, other in pairs
    ):
        raise ValueError(
            f"soft_index has shape {index.shape}; for x of shape {jnp.shape(x)} it must have {len(wanted)} axes that "
            f"broadcast with ({', '.join(map(str, wanted))})"
        )
    return jnp.moveaxis(expectation(jnp.moveaxis(index, axis, -2), values[..., None, :]), -1, axis)


def take(x: ArrayLike, soft_index: SoftIndex, axis: int | None = None) -> Float[Array, "..."]:
    """Return slices of `x` along `axis`, the same picks everywhere.

    Args:
        x: Any shape with at least one axis.
        soft_index: The shape of the hard indices, any, then the n candidates.
        axis: The axis of the n candidates; `None` for all of `x`, flattened.

    Returns:
        The shape of `x` with that of the hard indices in place of `axis`; jnp.take for one-hot indices.

    Raises:
        ValueError: `axis` or the shape of `soft_index` does not fit.

    Example:
        >>> take(jnp.array([[1.0, 2.0], [3.0, 6.0]]), jnp.array([0.5, 0.5]), axis=0).tolist()
        [2.0, 4.0]
    """
    values, axis = _candidates(x, axis)
    index = _checked_index(soft_index, values.shape[-1])
    *rest, n = values.shape
    front, picks, back = rest[:axis], index.shape[:-1], rest[axis:]
    means = _shared_expectation(index.reshape(math.prod(picks), n), values.reshape(math.prod(rest), n))
    return jnp.moveaxis(means.reshape(*rest, -1), -1, axis).reshape(*front, *picks, *back)


def choose(soft_index: SoftIndex, choices: ArrayLike | Sequence[ArrayLike]) -> Float[Array, "..."]:
    """Return at each place the entry of one of several arrays.

    Args:
        soft_index: The shape of the hard indices, which broadcasts with each choice, then the n candidates.
        choices: A sequence of n arrays that broadcast with each other, or one array with the choices on axis 0.

    Returns:
        The broadcast shape of the hard indices and a choice; jnp.choose for one-hot indices.

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> choose(jnp.array([[1.0, 0.0], [0.5, 0.5]]), [jnp.array([1.0, 2.0]), 10.0]).tolist()
        [1.0, 6.0]
    """
    if isinstance(choices, Sequence):
        values = jnp.stack(jnp.broadcast_arrays(*map(jnp.asarray, choices)), axis=-1)
    else:
        values, _ = _candidates(choices, 0)
    return expectation(_checked_index(soft_index, values.shape[-1]), values)


def dynamic_index_in_dim(
    x: ArrayLike, soft_index: SoftIndex, axis: int = 0, *, keepdims: bool = True
) -> Float[Array, "..."]:
    """Return one slice of `x` along `axis`.

    Args:
        x: Any shape with at least one axis.
        soft_index: Shape (n,), a distribution over the n entries of `axis`.
        axis: The axis of the candidates.
        keepdims: Whether `axis` stays, with length 1.

    Returns:
        The slice; lax.dynamic_index_in_dim for a one-hot index.

    Raises:
        ValueError: `axis` or the shape of `soft_index` does not fit.

    Example:
        >>> dynamic_index_in_dim(jnp.array([1.0, 2.0, 4.0]), jnp.array([0.0, 0.5, 0.5])).tolist()
        [3.0]
    """
    values, axis = _candidates(x, axis)
    index = _checked_index(soft_index, values.shape[-1], one=True)
    return take(x, index[None] if keepdims else index, axis)


def dynamic_slice_in_dim(
    x: ArrayLike, soft_start_index: SoftIndex, slice_size: int, axis: int = 0
) -> Float[Array, "..."]:
    """Return a window of consecutive entries along `axis`.

    Args:
        x: Any shape with at least one axis.
        soft_start_index: Shape (n,), a distribution over the n entries of `axis` as the first of the window. As in
            lax, no window passes the end: later starts count for the last one possible.
        slice_size: The length of the window, from 0 to n.
        axis: The axis of the candidates.

    Returns:
        The shape of `x` with `slice_size` in `axis`; lax.dynamic_slice_in_dim for a one-hot start.

    Raises:
        ValueError: `axis`, the size or the shape of `soft_start_index` does not fit.

    Example:
        >>> dynamic_slice_in_dim(jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([0.5, 0.5, 0.0, 0.0]), 2).tolist()
        [1.5, 3.0]
    """
    values, axis = _candidates(x, axis)
    n = values.shape[-1]
    index = in_compute_dtype(_checked_index(soft_start_index, n, name="soft_start_index", one=True))
    if not 0 <= slice_size <= n:
        raise ValueError(f"slice_size is {slice_size}; it must be between 0 and {n}, the length of axis {axis} of x")
    last = n - slice_size
    starts = jnp.append(index[:last], index[last:].sum())
    # Entry j of the window is picked by the distribution of the start moved by j.
    padded = jnp.pad(starts, slice_size)
    moved = slice_size + jnp.arange(n) - jnp.arange(slice_size)[:, None]
    return take(x, padded[moved], axis)


def dynamic_slice(
    x: ArrayLike, soft_start_indices: Sequence[SoftIndex], slice_sizes: Sequence[int]
) -> Float[Array, "..."]:
    """Return a block of consecutive entries along every axis.

    Args:
        x: Any shape.
        soft_start_indices: One distribution per axis over its entries, as in `dynamic_slice_in_dim`; the starts along
            different axes are independent.
        slice_sizes: The length of the block along each axis.

    Returns:
        The shape `slice_sizes`; lax.dynamic_slice for one-hot starts.

    Raises:
        ValueError: There is not one start and one size per axis; otherwise as in `dynamic_slice_in_dim`.

    Example:
        >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        >>> dynamic_slice(x, (jnp.array([0.0, 1.0]), jnp.array([0.5, 0.5])), (1, 1)).tolist()
        [[3.5]]
    """
    block = as_float(x)
    if not len(soft_start_indices) == len(slice_sizes) == block.ndim:
        raise ValueError(
            f"there are {len(soft_start_indices)} soft_start_indices and {len(slice_sizes)} slice_sizes; "
            f"x of shape {block.shape} needs {block.ndim} of each"
        )
    for axis, (start, size) in enumerate(zip(soft_start_indices, slice_sizes, strict=True)):
        block = dynamic_slice_in_dim(block, start, size, axis)
    return block


def expectation(weights: Float[Array, "... n"], values: Float[Array, "... n"]) -> Float[Array, "..."]:
    """Return the sum of weights * values over the last axis, without the non-finite values of weight 0.

    The derivative in a weight is its value; only where that is not finite, it is 0.
    """
    values = as_float(values)
    weights, wide = in_compute_dtype(as_float(weights)), in_compute_dtype(values)
    finite = jnp.isfinite(wide)
    used = jnp.where((weights == 0) & ~finite, 0, wide)
    return jnp.sum(jnp.where(finite, weights, jax.lax.stop_gradient(weights)) * used, axis=-1).astype(values.dtype)


def _shared_expectation(weights: Float[Array, "k n"], values: Float[Array, "m n"]) -> Float[Array, "m k"]:
    """Return what `expectation` returns for each row of `values` with each row of `weights`, as a matrix product."""
    wide, weights = in_compute_dtype(values), in_compute_dtype(weights)
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    mean = product(jnp.where(jnp.isfinite(wide), wide, 0), weights.T)
    # In a product, 0 * inf is NaN. Count instead which values that are not finite have weight, and with which sign.
    wide, signs = jax.lax.stop_gradient((wide, jnp.sign(weights).T))
    number = product((~jnp.isfinite(wide)).astype(wide.dtype), jnp.abs(signs))
    balance = product(jnp.where(jnp.isinf(wide), jnp.sign(wide), 0), signs)
    infinite = jnp.where(jnp.abs(balance) == number, jnp.sign(balance) * jnp.inf, jnp.nan)
    return (mean + jnp.where(number == 0, 0, infinite)).astype(values.dtype)


def _candidates(x: ArrayLike, axis: int | None) -> tuple[Float[Array, "... n"], int]:
    """Return `x` with the candidates on the last axis, and where that axis was, counted from the front."""
    values = jnp.ravel(as_float(x)) if axis is None else as_float(x)
    axis = 0 if axis is None else axis
    if not -values.ndim <= axis < values.ndim:
        raise ValueError(f"axis is {axis}; x of shape {values.shape} has {values.ndim} axes")
    return jnp.moveaxis(values, axis, -1), axis % values.ndim


def _checked_index(soft_index: ArrayLike, n: int, *, name: str = "soft_index", one: bool = False) -> SoftIndex:
    """Return a distribution over `n` candidates, or with `one` exactly one, as floats; refuse another shape."""
    index = as_float(soft_index)
    if index.ndim == 0 or index.shape[-1] != n or (one and index.ndim > 1):
        wanted = f"({n},)" if one else f"(..., {n})"
        raise ValueError(f"{name} has shape {index.shape}; it must be {wanted}: a distribution over {n} candidates")
    return index
