"""Soft quantiles, percentiles and the median.

The hard quantile interpolates between two entries of the sorted row. Each of these, the entry with j smaller ones, is
the threshold that lets j + 1/2 entries pass below it, and so its relaxation is the root b of

    sum over i of F((b - x_i) / softness) = j + 1/2

with F the step function of the mode (see `threshold`): O(n) time and memory, no order is made, as smooth in x as F is.
Its gradient is a distribution over the entries near b, and this is what `argquantile` returns. Far from a tie the
threshold is within the softness of the entry; two equal entries draw it off by at most 1.1 softness. As
softness -> 0 the quantile is jnp.quantile's. Instead of the threshold, `method` may be a row of the soft permutation
matrix of SoftSort or NeuralSort (see `permutation`), and the quantile then the mean under it.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.modes import Mode, checked_method, checked_mode
from diffbio.core.soft_ops.order_statistic import order_statistic
from diffbio.core.soft_ops.rows import Axis, Rows, Scale, rows_of
from diffbio.core.soft_ops.scaling import SoftIndex, as_float, keep, known
from diffbio.core.soft_ops.selection import expectation
from diffbio.core.soft_ops.sorting import weights_at_places
from diffbio.core.soft_ops.threshold import excess_over_threshold, threshold, threshold_weights

QuantileMethod = Literal["auto", "threshold", "softsort", "neuralsort"]
_METHODS = ("threshold", "softsort", "neuralsort")
Interpolation = Literal["linear", "lower", "higher", "nearest", "midpoint"]


class ValueOptions(TypedDict, total=False):
    """The keyword arguments of `quantile`."""

    softness: ArrayLike
    mode: Mode
    method: QuantileMethod
    interpolation: Interpolation
    keepdims: bool
    where: ArrayLike | None
    scale: Scale


class IndexOptions(ValueOptions, total=False):
    """The keyword arguments of `argquantile`."""

    log: bool


def quantile(
    x: ArrayLike,
    q: ArrayLike,
    axis: Axis = None,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    method: QuantileMethod = "auto",
    interpolation: Interpolation = "linear",
    keepdims: bool = False,
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
) -> Float[Array, "..."]:
    """Return the soft quantiles of `x`.

    Args:
        x: Any shape with at least one entry along `axis`.
        q: Quantiles in [0, 1], any shape; may be traced and learned. A traced `q` out of range counts as the nearest
            in range.
        axis: One axis, several, or `None` for all of `x`.
        softness: In the units of `x`, above 0; a scalar or one per row.
        mode: The step function, as in `greater`; `hard` is jnp.quantile.
        method: `threshold` (what `auto` is), or the mean under the rows of `softsort` or `neuralsort`, O(n) and
            O(n log n).
        interpolation: Between the two entries next to the quantile, as `method` of jnp.quantile.
        keepdims: Keep the reduced axes with length 1.
        where: Mask that broadcasts with `x`; a masked entry does not count. A fully masked row gives 0.
        scale: The unit of `softness`: `absolute`, or `robust` for the robust spread of each row.

    Returns:
        The shape of `q`, then that of `x` without `axis`; -> jnp.quantile. NaN where an entry is.

    Raises:
        ValueError: The axis is empty; `q` is known to be out of range; the softness is not above 0; an unknown mode,
            method, interpolation or scale.

    Example:
        >>> quantile(jnp.arange(5.0), jnp.array([0.25, 0.5]), softness=1e-3).tolist()
        [1.0, 2.0]
    """
    rows = rows_of(x, axis, softness, where, scale)
    places = _places(rows, q, interpolation)
    return rows.reduced(_value(rows, places, checked_mode(mode), checked_method(method, _METHODS)), keepdims=keepdims)


def argquantile(
    x: ArrayLike,
    q: ArrayLike,
    axis: Axis = None,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    method: QuantileMethod = "auto",
    interpolation: Interpolation = "linear",
    keepdims: bool = False,
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
    log: bool = False,
) -> SoftIndex:
    """Return how much of the quantile each entry is.

    Args:
        x: As in `quantile`, like all that is not named here.
        q: Quantiles in [0, 1], any shape.
        axis: One axis, several, or `None` for all of `x`.
        softness: In the units of `x`, above 0.
        mode: The step function; in mode `hard` the two entries next to the quantile, the first where several are equal.
        method: `threshold` (what `auto` is) gives the gradient of the threshold; `softsort` or `neuralsort` rows of
            these matrices.
        interpolation: Between the two entries next to the quantile.
        keepdims: Keep the reduced axes with length 1.
        where: Mask that broadcasts with `x`. A fully masked row is all 0.
        scale: The unit of `softness`.
        log: Return the logarithm of the distribution.

    Returns:
        The shape of `q`, then that of `x` without `axis`, then the n entries of `axis`; a distribution over these. NaN
        where an entry is.

    Raises:
        ValueError: As in `quantile`.

    Example:
        >>> argquantile(jnp.array([30.0, 10.0, 20.0]), 0.5).tolist()
        [0.0, 0.0, 1.0]
    """
    rows = rows_of(x, axis, softness, where, scale)
    places = _places(rows, q, interpolation)
    weights = _index(rows, places, checked_mode(mode), checked_method(method, _METHODS))
    if log:
        weights = jnp.where(weights > 0, jnp.log(jnp.where(weights > 0, weights, 1)), -jnp.inf)
    return rows.indices(weights, keepdims=keepdims)


def median(x: ArrayLike, axis: Axis = None, **options: Unpack[ValueOptions]) -> Float[Array, "..."]:
    """Return the soft median: `quantile` at 1/2, with the same keyword arguments.

    Example:
        >>> round(float(median(jnp.array([1.0, 2.0, 3.0, 4.0, 100.0]))), 3)
        3.0
    """
    return quantile(x, 0.5, axis, **options)


def argmedian(x: ArrayLike, axis: Axis = None, **options: Unpack[IndexOptions]) -> SoftIndex:
    """Return how much of the median each entry is: `argquantile` at 1/2, with the same keyword arguments.

    Example:
        >>> argmedian(jnp.array([1.0, 2.0, 4.0, 3.0])).tolist()
        [0.0, 0.5, 0.0, 0.5]
    """
    return argquantile(x, 0.5, axis, **options)


def percentile(x: ArrayLike, p: ArrayLike, axis: Axis = None, **options: Unpack[ValueOptions]) -> Float[Array, "..."]:
    """Return the soft percentiles: `quantile` at p / 100, with the same keyword arguments.

    Example:
        >>> round(float(percentile(jnp.arange(101.0), 90.0)), 3)
        90.0
    """
    return quantile(x, _share(p), axis, **options)


def argpercentile(x: ArrayLike, p: ArrayLike, axis: Axis = None, **options: Unpack[IndexOptions]) -> SoftIndex:
    """Return how much of the percentile each entry is: `argquantile` at p / 100, with the same keyword arguments.

    Example:
        >>> argpercentile(jnp.array([1.0, 2.0]), 100.0).tolist()
        [0.0, 1.0]
    """
    return argquantile(x, _share(p), axis, **options)


class _Places(NamedTuple):
    """The two entries next to each quantile, by how many lie below, and the share of the upper one."""

    entries: Float[Array, "2 ... 1"]
    upper: Float[Array, "... 1"]

    def mean(self, pair: Float[Array, "2 ..."]) -> Array:
        """Return the interpolation between what belongs to both; an infinite one counts only if it has a share."""
        lower, upper = pair
        inside = (self.upper > 0) & (self.upper < 1)
        share = jnp.where(inside, self.upper, 0.5)
        blend = (1 - share) * lower + share * upper
        return jnp.where(inside, blend, jnp.where(self.upper > 0, upper, lower))


def _places(rows: Rows, q: ArrayLike, interpolation: str) -> _Places:
    if rows.n == 0:
        raise ValueError(f"quantile of an empty axis (x has shape {rows.shape}): there is no entry to choose")
    if known(q) and not np.all((np.asarray(q) >= 0) & (np.asarray(q) <= 1)):
        raise ValueError(f"q is {q}; it must be between 0 and 1 (between 0 and 100 as a percentile)")
    share = jnp.asarray(q, rows.entries.dtype)
    share = share.reshape(*share.shape, *([1] * rows.entries.ndim))
    last = jnp.maximum(rows.count - 1, 0)
    place = jnp.clip(share, 0, 1) * last
    lower = jax.lax.stop_gradient(jnp.floor(place))
    between = place - lower
    upper = {
        "linear": between,
        "lower": jnp.zeros_like(between),
        "higher": jnp.sign(between),
        "nearest": (between > 0.5).astype(between.dtype),
        "midpoint": jnp.sign(between) / 2,
    }.get(interpolation)
    if upper is None:
        raise ValueError(
            f"interpolation is {interpolation!r}; it must be 'linear', 'lower', 'higher', 'nearest' or 'midpoint'"
        )
    return _Places(jnp.stack([lower, jnp.minimum(lower + 1, last)]), upper)


@functools.partial(jax.jit, static_argnames=("mode", "method"))
def _value(rows: Rows, places: _Places, mode: Mode, method: str) -> Float[Array, "..."]:
    value = places.mean(_entries(rows, places.entries, mode, method))
    return rows.nan_shown(jnp.where(rows.count > 0, value, 0))[..., 0]


@functools.partial(jax.jit, static_argnames=("mode", "method"))
def _index(rows: Rows, places: _Places, mode: Mode, method: str) -> Float[Array, "... n"]:
    weights = places.mean(_weights(rows, places.entries, mode, method))
    return rows.nan_shown(jnp.where(rows.count > 0, weights, 0))


def _entries(rows: Rows, below: Array, mode: Mode, method: str) -> Float[Array, "2 ... 1"]:
    """Return the soft entry that has `below` others below it."""
    if mode == "hard":
        return order_statistic(rows.entries, _from_above(rows, below), rows.mask)
    if method == "threshold":
        return threshold(rows.entries, rows.softness, _target(rows, below), rows.mask, mode)
    return expectation(_weights(rows, below, mode, method), rows.entries)[..., None]


def _weights(rows: Rows, below: Array, mode: Mode, method: str) -> Float[Array, "2 ... n"]:
    """Return the distribution over the entries for the one that has `below` others below it."""
    if mode == "hard":
        equal = keep(rows.entries == order_statistic(rows.entries, _from_above(rows, below), rows.mask), rows.mask)
        return jax.nn.one_hot(jnp.argmax(equal, axis=-1), rows.n, dtype=rows.entries.dtype)
    if method == "threshold":
        excess: Any = excess_over_threshold(rows.entries, rows.softness, _target(rows, below), rows.mask, mode)
        return threshold_weights(excess, rows.mask, mode)
    anchors = order_statistic(rows.entries, _from_above(rows, below), rows.mask)
    return weights_at_places(rows, anchors, below, mode, method)[..., 0, :]


def _target(rows: Rows, below: Array) -> Array:
    """Return how many steps there are above the entry, its own counted half."""
    count = rows.count
    return jnp.where(count > 0, count - below - 0.5, 0.5)


def _from_above(rows: Rows, below: Array) -> Array:
    return jnp.maximum(rows.count - below, 1).astype(jnp.int32)


def _share(p: ArrayLike) -> ArrayLike:
    return p / 100 if isinstance(p, int | float) else as_float(p) / 100
