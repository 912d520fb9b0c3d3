"""Metric multidimensional scaling: points whose distances are as near as can be to given ones.

The stress sum_ij (d_ij(Y) - delta_ij)^2 is lowered by majorization (SMACOF) from the classical solution. The result is
turned to its principal axes, so that it is a function of the distances alone. At a minimum the gradient of the stress
vanishes, and the derivative of Y follows from the implicit function: H dY = -(d gradient / d delta) d delta, with the
Hessian H of the stress, which conjugate gradients invert. Nothing is relaxed.

References:
    de Leeuw, Applications of convex analysis to multidimensional scaling, 1977 (SMACOF).
    de Leeuw and Heiser, Multidimensional scaling with restrictions on the configuration, 1980 (relaxed steps).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.conjugate_gradients import conjugate_gradients

_RELAXATION = 1.9  # steps of twice the length halve their number; below 2 the stress still falls
_TIE = 1e-5  # of the largest: principal axes with variances closer than that have no order


@partial(jax.jit, static_argnames=("n_components", "max_iterations"))
def metric_mds(
    distances: Float[Array, "cells cells"], n_components: int = 2, *, max_iterations: int = 1000
) -> Float[Array, "cells components"]:
    """Return points in `n_components` dimensions whose distances are near the given ones.

    Args:
        distances: Symmetric, at least 0, 0 on the diagonal (cells, cells).
        n_components: Dimensions, at most the number of cells.
        max_iterations: Most steps of SMACOF; it ends when no point moves by more than rounding.

    Returns:
        Centred coordinates along their principal axes (cells, n_components), in the unit of the distances; on each
        axis the entry of largest magnitude is positive. Time grows as cells^2 for each step, and as cells^3 for the
        classical start. The derivative is that of a minimum, and good as far as the descent has come to rest.

    Raises:
        ContractError: There are fewer cells than dimensions.

    References:
        scikit-learn `manifold.smacof` with `init` from classical scaling.

    Example:
        >>> line = jnp.abs(jnp.arange(3.0)[:, None] - jnp.arange(3.0))
        >>> jnp.abs(metric_mds(line, 1)).ravel().round(3).tolist()
        [1.0, 0.0, 1.0]
    """
    n_cells = distances.shape[0]
    if not 1 <= n_components <= n_cells:
        raise ContractError(
            f"{n_components} dimensions were asked for {n_cells} cells; ask for 1 to {n_cells}, or give more cells"
        )
    longest = jnp.max(lax.stop_gradient(distances))
    unit = jnp.where(longest > 0, longest, 1.0)
    wanted = distances / unit
    fixed = lax.stop_gradient(wanted)
    points = _smacof(fixed, classical_mds(fixed, n_components), max_iterations)
    slope = jax.grad(_stress)(points, wanted)
    right = lax.stop_gradient(slope) - slope  # zero, with the derivative by the distances

    def hessian(direction: Array) -> Array:
        return jax.jvp(lambda y: jax.grad(_stress)(y, fixed), (points,), (direction.reshape(points.shape),))[1].reshape(
            -1, 1
        )

    moved = lax.custom_linear_solve(hessian, right.reshape(-1, 1), conjugate_gradients, symmetric=True)
    return unit * principal_axes(points + moved.reshape(points.shape))


def classical_mds(distances: Float[Array, "cells cells"], n_components: int = 2) -> Float[Array, "cells components"]:
    """Return the classical solution: the principal coordinates of -1/2 J D^2 J, with J the centring matrix.

    Args:
        distances: Symmetric, at least 0, 0 on the diagonal (cells, cells).
        n_components: Dimensions, at most the number of cells.

    Returns:
        Centred coordinates (cells, n_components), by falling variance. Constant to differentiation.

    References:
        Torgerson, Multidimensional scaling: I. Theory and method, Psychometrika 1952.

    Example:
        >>> line = jnp.abs(jnp.arange(3.0)[:, None] - jnp.arange(3.0))
        >>> jnp.abs(classical_mds(line, 1)).ravel().round(3).tolist()
        [1.0, 0.0, 1.0]
    """
    squared = lax.stop_gradient(distances) ** 2
    centred = squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean()
    values, vectors = jnp.linalg.eigh(-centred / 2)
    values, vectors = values[::-1][:n_components], vectors[:, ::-1][:, :n_components]
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))


def principal_axes(points: Float[Array, "cells components"]) -> Float[Array, "cells components"]:
    """Return the points, centred and turned to their principal axes, by falling variance.

    Args:
        points: Coordinates (cells, components).

    Returns:
        The same points up to a rigid motion; on each axis the entry of largest magnitude is positive. Axes of equal
        variance have no derivative: that term is left out.

    Example:
        >>> turned = principal_axes(jnp.array([[0.0, 0.0], [0.0, 3.0], [0.0, 1.5], [0.0, 0.0]]))
        >>> bool(jnp.allclose(turned[:, 0], jnp.array([-1.125, 1.875, 0.375, -1.125])))
        True
    """
    centred = points - points.mean(axis=0)
    moments = centred.T @ centred
    values, axes = jnp.linalg.eigh(lax.stop_gradient(moments))
    values, axes = values[::-1], axes[:, ::-1]
    turned = lax.stop_gradient(centred) @ axes
    largest = jnp.take_along_axis(turned, jnp.argmax(jnp.abs(turned), axis=0)[None], axis=0)
    axes = axes * jnp.where(largest < 0, -1.0, 1.0)
    gaps = values[None, :] - values[:, None]
    apart = jnp.abs(gaps) > _TIE * jnp.maximum(values[0], jnp.finfo(values.dtype).tiny)
    change = axes.T @ (moments - lax.stop_gradient(moments)) @ axes
    rotation = change * jnp.where(apart, 1 / jnp.where(apart, gaps, 1.0), 0.0)
    return centred @ (axes + axes @ rotation)


def _distances(points: Array) -> Float[Array, "cells cells"]:
    """Return the distances between all points, with derivative 0 where two coincide."""
    squared = sum((points[:, None, i] - points[None, :, i]) ** 2 for i in range(points.shape[1]))
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def _stress(points: Array, wanted: Array) -> Float[Array, ""]:
    return jnp.sum((_distances(points) - wanted) ** 2) / 4


def _smacof(wanted: Array, start: Array, max_iterations: int) -> Float[Array, "cells components"]:
    """Return the points at which majorization comes to rest."""
    tolerance = 8 * jnp.finfo(wanted.dtype).eps

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        count, points, before = state
        return (count < max_iterations) & (jnp.max(jnp.abs(points - before)) > tolerance)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, points, _ = state
        distances = _distances(points)
        apart = distances > 0
        ratios = jnp.where(apart, wanted / jnp.where(apart, distances, 1.0), 0.0)
        majorized = (ratios.sum(axis=1)[:, None] * points - ratios @ points) / len(points)
        return count + 1, points + _RELAXATION * (majorized - points), points

    points = lax.while_loop(unfinished, step, (jnp.int32(0), start, jnp.full_like(start, jnp.inf)))[1]
    return points - points.mean(axis=0)
