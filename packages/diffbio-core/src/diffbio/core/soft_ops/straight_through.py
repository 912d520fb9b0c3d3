"""Straight-through estimators: the hard value going forward, the gradient of the relaxation going back.

`st` makes one from any function with a `mode`, `grad_replace` from two values of a function of one's own. The hard
value is passed on untouched, to the bit, whatever the relaxation gives (it may even be NaN); the relaxation is only
differentiated.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffbio.core.soft_ops import comparison, elementwise, extrema, quantiles, ranking, sorting, threshold, topk

P = ParamSpec("P")
T = TypeVar("T")


def st(function: Callable[P, T]) -> Callable[P, T]:
    """Return the straight-through form of a function that takes `mode`.

    Args:
        function: Takes `mode` as a keyword argument; returns an array or a tree of arrays, of the same shapes in mode
            `hard` and in the soft modes.

    Returns:
        A function of the same signature, whose value is that of mode `hard` and whose derivatives are those of the
        mode given, `smooth` by default.

    References:
        Bengio, Leonard and Courville, arXiv:1308.3432.

    Example:
        >>> step_up = st(elementwise.heaviside)
        >>> float(step_up(0.1, softness=1.0)), round(float(jax.grad(lambda x: step_up(x, softness=1.0))(0.1)), 3)
        (1.0, 0.249)
    """

    @functools.wraps(function)
    def straight_through(*args: P.args, **kwargs: P.kwargs) -> T:
        soft = function(*args, **kwargs)
        hard: Any = cast("Any", function)(*args, **{**kwargs, "mode": "hard"})
        return jax.tree.map(_with_gradient_of, hard, soft)

    name = getattr(function, "__name__", "function")
    straight_through.__name__ = straight_through.__qualname__ = f"{name}_st"
    straight_through.__doc__ = (
        f"Return `{name}` in mode `hard`, with the derivatives of the soft mode given: its straight-through form.\n\n"
        f"Takes the same arguments as `{name}`, returns the same shapes and raises the same errors."
    )
    return straight_through


def grad_replace(function: Callable[..., T]) -> Callable[..., T]:
    """Return a function with the value of one branch and the derivatives of another.

    Args:
        function: Takes a keyword argument `forward`; with True it returns the value, with False what is
            differentiated in its place, of the same shapes.

    Returns:
        The function without the argument `forward`.

    Example:
        >>> @grad_replace
        ... def rounded(x, *, forward):
        ...     return jnp.round(x) if forward else x
        >>> float(rounded(1.7)), float(jax.grad(rounded)(1.7))
        (2.0, 1.0)
    """

    @functools.wraps(function)
    def replaced(*args: Any, **kwargs: Any) -> T:
        value = function(*args, **kwargs, forward=True)
        return jax.tree.map(_with_gradient_of, value, function(*args, **kwargs, forward=False))

    signature = inspect.signature(function)
    shown = [parameter for name, parameter in signature.parameters.items() if name != "forward"]
    vars(replaced)["__signature__"] = signature.replace(parameters=shown)
    return replaced


def _with_gradient_of(value: Array, carrier: Array) -> Array:
    value, carrier = jnp.asarray(value), jnp.asarray(carrier)
    if value.shape != carrier.shape:
        raise ValueError(
            f"the value has shape {value.shape} and what is differentiated in its place {carrier.shape}; "
            "they must be the same"
        )
    return _substituted(jax.lax.stop_gradient(value).astype(carrier.dtype), carrier)


@jax.custom_jvp
def _substituted(value: Array, carrier: Array) -> Array:
    """Return `value`; its tangent is that of `carrier`."""
    del carrier
    return value


@_substituted.defjvp
def _substituted_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # through the function again, so that second derivatives are those of the carrier too
    return _substituted(*primals), tangents[1]


abs_st = st(elementwise.abs)
argmax_st = st(extrema.argmax)
argmedian_st = st(quantiles.argmedian)
argmin_st = st(extrema.argmin)
argpercentile_st = st(quantiles.argpercentile)
argquantile_st = st(quantiles.argquantile)
argsort_st = st(sorting.argsort)
clip_st = st(elementwise.clip)
equal_st = st(comparison.equal)
greater_equal_st = st(comparison.greater_equal)
greater_st = st(comparison.greater)
heaviside_st = st(elementwise.heaviside)
isclose_st = st(comparison.isclose)
less_equal_st = st(comparison.less_equal)
less_st = st(comparison.less)
max_st = st(extrema.max)
median_st = st(quantiles.median)
min_st = st(extrema.min)
not_equal_st = st(comparison.not_equal)
percentile_st = st(quantiles.percentile)
quantile_st = st(quantiles.quantile)
rank_st = st(ranking.rank)
relu_st = st(elementwise.relu)
round_st = st(elementwise.round)
sign_st = st(elementwise.sign)
sort_st = st(sorting.sort)
top_k_mask_st = st(threshold.top_k_mask)
top_k_st = st(topk.top_k)
