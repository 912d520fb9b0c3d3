"""The log of the sum over all alignments, whose derivative is known in closed form, and its expectations.

For Z = sum over alignments of exp(score), d log Z / d score[i,j] is the probability that i and j are aligned, and
-d log Z / d gap_open the expected number of gaps. The derivative of these is symmetric (it is the second derivative of
log Z), so that its product with a cotangent is a directional derivative: no derivative keeps a tape.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Scalar

from diffbio.operators.alignment.chains import in_chains
from diffbio.operators.alignment.diagonals import layout_of
from diffbio.operators.alignment.ends import Ends
from diffbio.operators.alignment.posterior import Expectations, backward
from diffbio.operators.alignment.recurrence import Front, Pair, forward
from diffbio.operators.alignment.semirings import LOG, Semiring


def log_partition(pair: Pair, ends: Ends, band: int | None = None) -> Float[Scalar, ""]:
    """Return log of the sum of exp(score) over all alignments.

    Args:
        pair: Scores and costs, in nats.
        ends: Which ends are free.
        band: Largest |i - j| of aligned positions, or `None`.

    Returns:
        A scalar. Memory of the value is linear in the lengths; of the gradient, about 10 bytes per cell.

    Example:
        >>> import jax.numpy as jnp
        >>> pair = Pair(jnp.zeros((2, 2)), jnp.array(0.0), jnp.array(0.0), jnp.array([2, 2]))
        >>> round(float(jnp.exp(log_partition(pair, Ends()))), 3)  # there are (2 + 2)! / (2! 2!) alignments
        6.0
    """
    return cast("Array", _log_partition(pair, ends, band))


def expectations(pair: Pair, ends: Ends, band: int | None = None) -> Expectations:
    """Return what alignments have on average, each with the weight exp(score).

    Args:
        pair: Scores and costs, in nats.
        ends: Which ends are free.
        band: Largest |i - j| of aligned positions, or `None`.
    """
    return sum_and_expectations(pair, ends, band)[1]


def sum_and_expectations(pair: Pair, ends: Ends, band: int | None = None) -> tuple[Float[Scalar, ""], Expectations]:
    """Return `log_partition` and `expectations`, by one recurrence for both.

    Args:
        pair: Scores and costs, in nats.
        ends: Which ends are free.
        band: Largest |i - j| of aligned positions, or `None`.
    """
    return cast("tuple[Array, Expectations]", _sum_and_expectations(pair, ends, band))


def total(pair: Pair, ends: Ends, ring: Semiring, band: int | None = None) -> Float[Scalar, ""]:
    """Return the sum over all alignments in any semiring; gaps are weights, which `times` takes.

    Args:
        pair: Weights of aligned positions and of gaps.
        ends: Which ends are free.
        ring: The semiring.
        band: Largest |i - j| of aligned positions, or `None`.
    """
    return forward(jax.tree.map(lambda values: values[None], pair), layout_of(pair.scores, band), ends, ring)[0][0]


def _sums(pairs: Pair, ends: Ends, band: int | None) -> tuple[Float[Array, " pairs"], Front]:
    weights = pairs._replace(gap_open=-pairs.gap_open, gap_extend=-pairs.gap_extend)
    return forward(weights, layout_of(pairs.scores, band), ends, LOG)


def _sums_and_expectations(pairs: Pair, ends: Ends, band: int | None) -> tuple[Float[Array, " pairs"], Expectations]:
    log_sums, fronts = _sums(pairs, ends, band)
    return log_sums, backward(pairs, layout_of(pairs.scores, band), ends, fronts=fronts, log_sums=log_sums)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _log_partition(pair: Pair, ends: Ends, band: int | None) -> Array:
    return in_chains(lambda pairs: _sums(pairs, ends, band)[0], band)(pair)


def _log_partition_forward(pair: Pair, ends: Ends, band: int | None) -> tuple[Array, tuple[Pair, Expectations]]:
    log_sum, expected = sum_and_expectations(pair, ends, band)
    return log_sum, (pair, expected)


def _log_partition_backward(
    ends: Ends, band: int | None, saved: tuple[Pair, Expectations], cotangent: Array
) -> tuple[Pair]:
    pair, expected = saved
    return (_cotangent(pair, jax.tree.map(lambda values: cotangent * values, expected)),)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _sum_and_expectations(pair: Pair, ends: Ends, band: int | None) -> tuple[Array, Expectations]:
    return in_chains(lambda pairs: _sums_and_expectations(pairs, ends, band), band)(pair)


def _sum_and_expectations_forward(
    pair: Pair, ends: Ends, band: int | None
) -> tuple[tuple[Array, Expectations], tuple[Pair, Expectations]]:
    pair = Pair(*(leaf.value for leaf in pair))  # pyright: ignore[reportAttributeAccessIssue]
    found = sum_and_expectations(pair, ends, band)
    return found, (pair, found[1])


def _sum_and_expectations_backward(
    ends: Ends, band: int | None, saved: tuple[Pair, Expectations], cotangent: tuple[Array, Expectations]
) -> tuple[Pair]:
    pair, expected = saved
    of_sum, of_expected = cotangent

    def change(pairs: Pair, direction: tuple[Array, Array, Array]) -> Expectations:
        """Return the directional derivative, which, as the second derivative is symmetric, is the product with it."""

        def found(scores: Array, gap_open: Array, gap_extend: Array) -> Expectations:
            return _sums_and_expectations(Pair(scores, gap_open, gap_extend, pairs.lengths), ends, band)[1]

        return jax.jvp(found, pairs[:3], direction)[1]

    factor = 0.0 if isinstance(of_sum, SymbolicZero) else of_sum
    slopes = jax.tree.map(lambda values: factor * values, expected)
    if not all(isinstance(part, SymbolicZero) for part in of_expected):
        matches, opens, extends = (
            jnp.zeros(part.shape, part.dtype) if isinstance(part, SymbolicZero) else part for part in of_expected
        )
        changed = in_chains(change, band)(pair, (matches, -opens, -extends))
        slopes = jax.tree.map(jnp.add, slopes, changed)
    return (_cotangent(pair, slopes),)


def _cotangent(pair: Pair, expected: Expectations) -> Pair:
    """Return the derivative of log Z by what it depends on, or its product with a factor."""
    no_derivative = np.zeros(np.shape(pair.lengths), jax.dtypes.float0)
    return Pair(expected.matches, -expected.opens, -expected.extends, cast("Array", no_derivative))


_log_partition.defvjp(_log_partition_forward, _log_partition_backward)
_sum_and_expectations.defvjp(_sum_and_expectations_forward, _sum_and_expectations_backward, symbolic_zeros=True)
