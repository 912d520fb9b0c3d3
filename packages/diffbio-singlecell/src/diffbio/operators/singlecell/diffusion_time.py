"""How many steps of diffusion are enough: where one more changes the imputed values only little.

The first steps take the noise of single cells away, later ones differences between cells. After each step the
imputed values are compared with those before, both centred and scaled to norm one, by the Procrustes disparity

    1 - (sum of the singular values of Y_(t-1)^T Y_t)^2

which is 1 - R^2 of the one set of values regressed on the other turned and scaled at will. The time is one step after
the first change below a threshold, as in MAGIC. It is a hard choice, and carries no gradient.

References:
    van Dijk et al., Recovering gene interactions from single-cell data using data diffusion, Cell 2018.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import soft_ops
from diffbio.operators.singlecell.imputation import diffusion_graph
from diffbio.operators.singlecell.random_walk import random_walk

_ROUNDING = 8.0  # in units of the last digit: what a step leaves of values that are all the same


class DiffusionTime(NamedTuple):
    """A number of steps, and what it was chosen by.

    Attributes:
        time: Steps of the walk: for `DiffusionImputationConfig.diffusion_time`.
        disparities: Change of the values in each step, from the first to the last that was tried, in [0, 1] (steps).
    """

    time: int
    disparities: Float[Array, " steps"]


def choose_diffusion_time(
    counts: Float[Array, "cells genes"],
    embeddings: Float[Array, "cells features"],
    *,
    n_neighbors: int = 5,
    max_neighbors: int | None = None,
    decay: ArrayLike = 1.0,
    threshold: float = 0.001,
    max_time: int = 20,
) -> DiffusionTime:
    """Return after how many steps of diffusion the imputed values have come near to rest.

    Args:
        counts: What is imputed, in the unit in which it will be (cells, genes). A few hundred genes are enough, and
            the time grows as their third power: give some of the columns.
        embeddings: Coordinates on which neighbours are sought (cells, features).
        n_neighbors: The neighbour whose distance is the bandwidth.
        max_neighbors: Neighbours that have any affinity; `None` means three times `n_neighbors`.
        decay: Sharpness of the affinity, above zero.
        threshold: Disparity below which a step changes little.
        max_time: The longest walk that is tried; it is the answer where no step changes little.

    Returns:
        One more than the first step that changes the values by less than the threshold, and all disparities. Not for
        use under `jit`, as the time is an integer of Python.

    Raises:
        ContractError: There are no more than `n_neighbors` cells.

    Example:
        >>> cells = jnp.array([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]])
        >>> chosen = choose_diffusion_time(cells, cells, n_neighbors=1, threshold=0.05)
        >>> chosen.time, chosen.disparities.shape
        (2, (20,))
    """
    affinities, indices = diffusion_graph(embeddings, n_neighbors=n_neighbors, max_neighbors=max_neighbors, decay=decay)
    changes = _disparities(jnp.asarray(counts), affinities, indices, max_time=max_time)
    little = [step for step, change in enumerate(changes.tolist(), start=1) if change < threshold]
    return DiffusionTime(min(little[0] + 1, max_time) if little else max_time, changes)


def procrustes_disparity(x: Float[Array, "cells genes"], y: Float[Array, "cells genes"]) -> Float[Array, ""]:
    """Return what is left of `y` when the centred and scaled `x` is turned and scaled to fit it best.

    Args:
        x: Values (cells, genes).
        y: Values of the same cells (cells, genes).

    Returns:
        Between 0, the same shape, and 1; 0 where either varies by no more than rounding.

    References:
        Gower, Generalized Procrustes analysis, Psychometrika 1975.

    Example:
        >>> x = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> abs(round(float(procrustes_disparity(x, 2 * x[:, ::-1] + 7)), 5))
        0.0
    """
    (x, x_varies), (y, y_varies) = _standardized(x), _standardized(y)
    overlap = jnp.matmul(x.T, y, precision=lax.Precision.HIGHEST)
    fit = jnp.linalg.svd(overlap, compute_uv=False).sum()
    return jnp.where(x_varies & y_varies, 1 - fit**2, 0.0)


def _standardized(x: Array) -> tuple[Array, Array]:
    """Return `x` with mean zero and norm one, and whether it varies by more than rounding."""
    centred = x - x.mean(axis=0)
    size = soft_ops.norm(centred)
    varies = size > _ROUNDING * jnp.finfo(x.dtype).eps * soft_ops.norm(x)
    return centred / jnp.where(varies, size, 1.0), varies


@partial(jax.jit, static_argnames="max_time")
def _disparities(counts: Array, affinities: Array, indices: Array, *, max_time: int) -> Float[Array, " steps"]:
    walk = random_walk(affinities, indices)

    def step(current: Array, _: None) -> tuple[Array, Array]:
        moved = walk(current)
        return moved, procrustes_disparity(current, moved)

    return lax.scan(step, counts, length=max_time)[1]
