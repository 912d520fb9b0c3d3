"""Sums over all paths of a hidden Markov chain: the forward and the backward algorithm, in blocks.

A path goes through one state in each bin, and its weight is the product of those of its steps. The step into a bin is a
matrix (states, states), whose product over bins sums over all paths. So a chain is cut into about sqrt(bins) blocks:
the products of all blocks are found side by side, then what reaches the first bin of each block, and then, again side
by side, what reaches each bin. It takes sqrt(bins) steps one after the other in place of bins.

All weights are logarithms, and messages are normalized in each bin, so that long chains lose no digits.

References:
    Rabiner, A tutorial on hidden Markov models, Proceedings of the IEEE 1989.
    Särkkä and García-Fernández, Temporal parallelization of Bayesian smoothers, IEEE Transactions on Automatic Control
    2021: the matrices of a chain are associative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Scalar

NEVER = -1e30
"""Log-weight of what must not be: finite, so that differences of two of them have no NaN, and far below any weight."""


class PathSums(NamedTuple):
    """What all paths of a chain give.

    Attributes:
        log_sum: Log of the sum of the weights of all paths ().
        posterior: Share of the paths that are in a state (bins, states).
    """

    log_sum: Float[Scalar, ""]
    posterior: Float[Array, "bins states"]


@jax.jit
def path_sums(steps: Float[Array, "bins states states"]) -> PathSums:
    """Return the sum over all paths, and where they pass.

    Args:
        steps: Log-weight of a step from a state of the bin before (axis 1) to one of this bin (axis 2). The first bin
            is entered from all states alike, each with the weight 1 / states.

    Returns:
        Log-sum () and posterior (bins, states), whose rows sum to 1. Time grows as bins x states^3, memory, also that
        of the gradient, as bins x states^2.

    Example:
        >>> steps = jnp.log(jnp.array([[[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.1, 0.3]]]))
        >>> found = path_sums(steps)
        >>> round(float(jnp.exp(found.log_sum)), 3), [round(share, 3) for share in found.posterior[1].tolist()]
        (0.7, [0.714, 0.286])
    """
    messages = _messages(steps, jax.nn.logsumexp)
    posterior = jax.nn.softmax(messages.forward + messages.backward, axis=-1)
    return PathSums(jnp.sum(messages.scales), posterior)


@jax.jit
def best_path(steps: Float[Array, "bins states states"]) -> Int[Array, " bins"]:
    """Return the states of the path of largest weight (Viterbi); the lowest state of several as good. No gradient.

    Args:
        steps: Log-weights of steps; see `path_sums`.

    Example:
        >>> steps = jnp.log(jnp.array([[[0.5, 0.5], [0.5, 0.5]], [[0.2, 0.1], [0.1, 0.3]]]))
        >>> best_path(steps).tolist()
        [1, 1]
    """
    n_bins, n_states, _ = steps.shape
    forward = _messages(steps, jnp.max).forward
    earlier = jnp.concatenate([jnp.zeros((1, n_states), steps.dtype), forward[:-1]])
    before = _blocks((earlier[:, :, None] + steps).argmax(1), jnp.arange(n_states))

    def through(states: Array, before: Array) -> tuple[Array, None]:
        return jnp.take_along_axis(before, states, axis=-1), None

    def back(state: Array, before: Array) -> tuple[Array, Array]:
        return jnp.take_along_axis(before, state[..., None], axis=-1)[..., 0], state

    # where a path entered a block, for each state in which it left
    entered = lax.scan(through, jnp.broadcast_to(jnp.arange(n_states), before.shape[1:]), before, reverse=True)[0]
    left = lax.scan(back, forward[-1].argmax(), entered, reverse=True)[1]
    return _bins(lax.scan(back, left, before, reverse=True)[1], n_bins)


def chain_steps(
    log_density: Float[Array, "bins states"],
    log_transition: Float[Array, "states states"],
    log_start: Float[Array, " states"],
    *,
    softness: ArrayLike = 1.0,
    bin_mask: Bool[Array, " bins"] | None = None,
    segment_start: Bool[Array, " bins"] | None = None,
    distance: Int[Array, " bins"] | Float[Array, " bins"] | None = None,
) -> Float[Array, "bins states states"]:
    """Return the log-weights of all steps of the chain, divided by the softness.

    Args:
        log_density: Of what is seen in each bin, given the state.
        log_transition: Log-probability to go from a state (axis 0) to another (axis 1), over a distance of 1.
        log_start: Log-probability of the first state of a chromosome.
        softness: tau > 0.
        bin_mask: Which bins count; the others are passed as if they were not there.
        segment_start: Which bins are the first of a chromosome; the first bin always is.
        distance: Position of each bin, in units in which that from bin to bin is about 1, growing from bin to bin of a
            chromosome. A state is left at a constant rate: it stays for a distance d with probability p^d. By default
            all distances are 1.

    Returns:
        Log-weights (bins, states, states), as `path_sums` and `best_path` take them.

    Example:
        >>> half = jnp.log(jnp.full((2, 2), 0.5))
        >>> steps = chain_steps(jnp.zeros((3, 2)), half, half[0], distance=jnp.array([0, 1, 4]))
        >>> jnp.exp(steps[1:, 0]).tolist()
        [[0.5, 0.5], [0.125, 0.875]]
    """
    n_bins, n_states = log_density.shape
    counted = jnp.ones(n_bins, bool) if bin_mask is None else bin_mask
    index = jnp.arange(n_bins)
    chromosome = jnp.zeros(n_bins, int) if segment_start is None else jnp.cumsum(segment_start.at[0].set(False))
    # the last bin before this one that counts; -1 for none
    last = jnp.concatenate([jnp.array([-1]), lax.cummax(jnp.where(counted, index, -1))[:-1]])
    first = (last < 0) | (chromosome != chromosome[last])
    moves = log_transition[None]
    if distance is not None:
        moves = _over_distance(log_transition, jnp.where(first, 1, distance - distance[last]).astype(log_density.dtype))
    moves = jnp.where(first[:, None, None], log_start, moves)
    steps = (moves + jnp.where(counted[:, None], log_density, 0)[:, None, :]) / softness
    stay = jnp.where(jnp.eye(n_states, dtype=bool), jnp.zeros((), steps.dtype), NEVER)
    return jnp.where(counted[:, None, None], steps, stay)


def _over_distance(log_transition: Array, distance: Float[Array, " bins"]) -> Float[Array, "bins states states"]:
    """Return the log-probabilities of transitions over distances: diagonal p^d, the others in proportion."""
    same = jnp.eye(len(log_transition), dtype=bool)
    left = jax.nn.logsumexp(jnp.where(same, NEVER, log_transition), axis=1, keepdims=True)
    # of the many digits of 1 - p and the few of p near 1, the former
    rate = jnp.where(left < -1, -jnp.log1p(-jnp.exp(jnp.minimum(left, -1))), -jnp.diagonal(log_transition)[:, None])
    stayed = -jnp.maximum(distance[:, None, None] * rate, 1e-30)
    return jnp.where(same, stayed, log_transition - left + jnp.log(-jnp.expm1(stayed)))


class _Messages(NamedTuple):
    """What reaches each state of each bin from before, with the total 1, its total before that, and from behind."""

    forward: Float[Array, "bins states"]
    scales: Float[Array, " bins"]
    backward: Float[Array, "bins states"]


def _messages(steps: Array, total: Callable[..., Array]) -> _Messages:
    """Return the messages of the forward and the backward algorithm.

    Args:
        steps: See `path_sums`.
        total: How paths are joined: `logsumexp`, or `max`.
    """
    n_bins, n_states, _ = steps.shape
    stay = jnp.where(jnp.eye(n_states, dtype=bool), jnp.zeros((), steps.dtype), NEVER)
    blocks = _blocks(steps, stay)

    @jax.checkpoint
    def multiply(product: Array, step: Array) -> tuple[Array, None]:
        product = total(product[..., :, :, None] + step[..., None, :, :], axis=-2)
        # what counts of a product are its ratios
        return product - product.max((-2, -1), keepdims=True), None

    @jax.checkpoint
    def forth(message: Array, step: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        reached = total(message[..., :, None] + step, axis=-2)
        scale = total(reached, axis=-1)
        following = reached - scale[..., None]
        return following, (message, following, scale)

    @jax.checkpoint
    def back(message: Array, step: Array) -> tuple[Array, Array]:
        before = total(step + message[..., None, :], axis=-1)
        return before - total(before, axis=-1)[..., None], message

    products = lax.scan(multiply, blocks[0], blocks[1:])[0]
    even = jnp.full(n_states, -math.log(n_states), steps.dtype)
    entering = lax.scan(forth, even, products)[1][0]
    leaving = lax.scan(back, even, products, reverse=True)[1]
    _, forward, scales = lax.scan(forth, entering, blocks)[1]
    backward = lax.scan(back, leaving, blocks, reverse=True)[1]
    return _Messages(*(_bins(found, n_bins) for found in (forward, scales, backward)))


def _blocks(steps: Array, neutral: Array) -> Array:
    """Return what belongs to bins as (positions, blocks, ...), filled up with what changes nothing."""
    n_bins = len(steps)
    length = math.isqrt(max(n_bins - 1, 0)) + 1
    missing = -n_bins % length
    filled = jnp.concatenate([steps, jnp.broadcast_to(neutral, (missing, *neutral.shape)).astype(steps.dtype)])
    return filled.reshape(-1, length, *steps.shape[1:]).swapaxes(0, 1)


def _bins(blocks: Array, n_bins: int) -> Array:
    """Return what `_blocks` laid out bin by bin."""
    return blocks.swapaxes(0, 1).reshape(-1, *blocks.shape[2:])[:n_bins]
