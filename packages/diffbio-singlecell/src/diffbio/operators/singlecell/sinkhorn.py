"""Sinkhorn's algorithm for entropic optimal transport, balanced or not, on blocks of cells.

The plan P_ij = exp((f_i + g_j - |x_i - y_j|^2) / tau) has the marginals a and b for potentials f and g at which

    f_i = t_a tau (log a_i - log sum_j exp((g_j - |x_i - y_j|^2) / tau)), and g_j in the same way,

with t = rho / (rho + tau) for the weight rho of a marginal's divergence, 1 for an exact one. The iteration runs in the
logarithmic domain, and from a warm softness down to tau. No array is cells x cells. The gradient is that of the fixed
point: a solve with the curvature of the concave dual problem.

References:
    Cuturi, Sinkhorn distances, NeurIPS 2013; Schmitzer, Stabilized sparse scaling algorithms, SIAM Journal on
    Scientific Computing 2019 (the logarithmic domain, the cooling).
    Chizat et al., Scaling algorithms for unbalanced optimal transport problems, Mathematics of Computation 2018.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

_RESTED = 0.25  # units of rounding of the potentials: a smaller mean change between two rounds is none
_FINEST = 1e-10  # relative; a change that is smaller matters in no precision
_COOLING = 0.9  # of the softness from round to round, from 1 down
_RESIDUAL = 1e-6  # relative, at which the linear system of the gradient counts as solved
_CG_ITERATIONS = 1000


def sinkhorn_potentials(
    source: Float[Array, "source features"],
    target: Float[Array, "target features"],
    masses: Float[Array, " source"],
    *,
    softness: ArrayLike,
    tau_source: float = 1.0,
    tau_target: float = 1.0,
    max_iterations: int = 2000,
    block_size: int = 256,
) -> tuple[Float[Array, " source"], Float[Array, " target"]]:
    """Return the dual potentials of the transport of masses at `source` to equal masses at `target`.

    Args:
        source: Coordinates near the origin, and of a size of about 1 (source, features).
        target: Coordinates of the same kind (target, features).
        masses: Above 0, in sum 1 (source,).
        softness: tau > 0, in units of squared distance.
        tau_source: Above 0, at most 1; how far the masses are kept.
        tau_target: Above 0, at most 1; how far the masses at `target` are kept equal.
        max_iterations: Rounds; it stops before where the potentials rest.
        block_size: Cells compared with all others at once; it changes time and memory, not the result.

    Returns:
        Potentials f (source,) and g (target,), in units of squared distance.

    Example:
        >>> cells = jnp.array([[-0.5], [0.5]])
        >>> f, g = sinkhorn_potentials(cells, cells, jnp.array([0.5, 0.5]), softness=0.1)
        >>> plan = jnp.exp((f[:, None] + g - jax.vmap(squared_distances, (0, None))(cells, cells)) / 0.1)
        >>> plan.sum(1).round(3).tolist()
        [0.5, 0.5]
    """
    settings = _Settings(tau_source, tau_target, max_iterations, block_size)
    return _with_gradient(settings, source, target, masses, jnp.asarray(softness, source.dtype))


def squared_distances(
    cell: Float[Array, " features"], others: Float[Array, "others features"]
) -> Float[Array, " others"]:
    """Return the squared distances of a cell from others, by a product, which `vmap` over cells makes one of matrices.

    Args:
        cell: Coordinates, near the origin: products lose what is small beside them (features,).
        others: Coordinates of the other cells (others, features).

    Returns:
        Squared distances (others,).

    Example:
        >>> squared_distances(jnp.zeros(2), jnp.array([[3.0, 4.0]])).tolist()
        [25.0]
    """
    products = jnp.matmul(cell, others.T, precision=lax.Precision.HIGHEST)
    return jnp.sum(cell**2) + jnp.sum(others**2, axis=1) - 2 * products


class _Settings(NamedTuple):
    """What does not change while a program runs."""

    tau_source: float
    tau_target: float
    max_iterations: int
    block_size: int


def _fixed_point(
    settings: _Settings, source: Array, target: Array, masses: Array, softness: Array
) -> tuple[Float[Array, " source"], Float[Array, " target"]]:
    """Return the dual potentials at which Sinkhorn's iteration rests."""
    log_masses, log_share = jnp.log(masses), -math.log(target.shape[0])
    tolerance = max(_RESTED * float(jnp.finfo(source.dtype).eps), _FINEST)

    def moves(state: tuple[Array, Array, Array, Array, Array]) -> Array:
        rounds, f, _, change, _ = state
        rests = change <= tolerance * (softness + jnp.max(jnp.abs(f)))
        return (rounds < settings.max_iterations) & ~rests

    def balance(state: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
        rounds, f, _, _, warmth = state
        log_sums = partial(_log_sums, softness=warmth, block_size=settings.block_size)
        g = settings.tau_target * warmth * (log_share - log_sums(target, source, f))
        following = settings.tau_source * warmth * (log_masses - log_sums(source, target, g))
        # where potentials rest at a warmer softness says nothing
        change = jnp.where(warmth > softness, jnp.inf, jnp.sum(masses * jnp.abs(following - f)))
        return rounds + 1, following, g, change, jnp.maximum(_COOLING * warmth, softness)

    f, g = jnp.zeros_like(source[:, 0]), jnp.zeros_like(target[:, 0])
    warmest = jnp.maximum(softness, 1.0).astype(source.dtype)
    start = (jnp.zeros((), jnp.int32), f, g, jnp.full((), jnp.inf, source.dtype), warmest)
    _, f, g, _, _ = lax.while_loop(moves, balance, start)
    return f, g


def _forward(settings: _Settings, *arguments: Array) -> tuple[tuple[Array, Array], tuple]:
    potentials = _fixed_point(settings, *arguments)
    return potentials, (potentials, arguments)


def _backward(settings: _Settings, saved: tuple, cotangents: tuple[Array, Array]) -> tuple[Array, ...]:
    """Pull back by the implicit function theorem; as the dual problem is concave, conjugate gradients solve it."""
    potentials, arguments = saved
    _, _, masses, softness = arguments
    _, pull_potentials = jax.vjp(lambda *moved: _misfit(settings, moved, *arguments), *potentials)

    def curvature(direction: tuple[Array, Array]) -> tuple[Array, Array]:
        return jax.tree.map(jnp.negative, pull_potentials(direction))  # it is symmetric

    right = cotangents
    if settings.tau_source == settings.tau_target == 1:  # a shift between both potentials changes nothing
        excess = (right[0].sum() - right[1].sum()) / (len(right[0]) + len(right[1]))
        right = (right[0] - excess, right[1] + excess)
    # the diagonal of the curvature is about the masses over the softness
    scales = (softness / masses, softness * jnp.full_like(right[1], len(right[1])))
    scaled = partial(jax.tree.map, jnp.multiply, scales)
    solution, _ = cg(curvature, right, tol=_RESIDUAL, maxiter=_CG_ITERATIONS, M=scaled)
    _, pull_arguments = jax.vjp(lambda *moved: _misfit(settings, potentials, *moved), *arguments)
    return pull_arguments(solution)


_with_gradient = jax.custom_vjp(_fixed_point, nondiff_argnums=(0,))
_with_gradient.defvjp(_forward, _backward)


def _misfit(
    settings: _Settings, potentials: tuple[Array, Array], *arguments: Array
) -> tuple[Float[Array, " source"], Float[Array, " target"]]:
    """Return by how much the marginals of the plan miss what they should be: the gradient of the dual problem."""
    f, g = potentials
    source, target, masses, softness = arguments
    log_sums = partial(_log_sums, softness=softness, block_size=settings.block_size)

    def wanted(mass: Array | float, potential: Array, tau: float) -> Array:
        return mass * jnp.exp(-potential * ((1 - tau) / tau) / softness)

    return (
        wanted(masses, f, settings.tau_source) - jnp.exp(f / softness + log_sums(source, target, g)),
        wanted(1 / len(g), g, settings.tau_target) - jnp.exp(g / softness + log_sums(target, source, f)),
    )


def _log_sums(
    cells: Array, others: Array, potential: Array, *, softness: Array, block_size: int
) -> Float[Array, " cells"]:
    """Return log sum_j exp((potential_j - |cell - other_j|^2) / softness) for each cell."""

    @jax.checkpoint  # else the gradient would keep an array cells x others
    def log_sum(cell: Array) -> Array:
        return logsumexp((potential - squared_distances(cell, others)) / softness)

    return lax.map(log_sum, cells, batch_size=min(block_size, len(cells)))
