"""Diffusion components: the slowest modes of a random walk among cells, as Palantir takes them.

Neighbours at distance d have the affinity exp(-d / sigma_i), with sigma_i the distance of cell i to one of its nearest
neighbours. K + K^T is the kernel, D its row sums. The components are the right eigenvectors of the walk
D^-1 (K + K^T) with the largest eigenvalues, but for the constant one. In the multiscale space each is weighted by
lambda / (1 - lambda), the sum over walks of all lengths.

Eigenvectors are found by Chebyshev-filtered subspace iteration on the neighbour lists, so that no array is cells x
cells. Their gradient is that of perturbation theory: within the wanted subspace by the gaps of the eigenvalues, outside
of it by a linear solve. Which cells are neighbours and how many components are kept (up to the largest gap) are hard
decisions, constant to the gradient.

References:
    Coifman and Lafon, Diffusion maps, Applied and Computational Harmonic Analysis 2006.
    Setty et al., Characterization of cell fate probabilities in single-cell data with Palantir, Nature Biotechnology
    2019 (the kernel, the multiscale space, the gap).
    Zhou and Saad, A Chebyshev-Davidson algorithm for large symmetric eigenproblems, SIAM Journal on Matrix Analysis
    and Applications 2007 (the filter).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, Float, Int

from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.neighbor_graph import symmetric_matmul, symmetric_sums
from diffbio.operators.singlecell.neighbors import nearest_neighbors

_GUARD = 10  # vectors beyond the wanted ones: the more, the wider the gap that sets the speed
_DEGREE = 12  # of the filter
_ROUNDS = 100  # of filter and projection; some 5 to 20 are needed
_RESTED = 16.0  # units of rounding: the residual at which eigenvectors are as good as they get
_SOLVED = 1e-6  # relative residual of the linear solve in the gradient


class DiffusionComponents(NamedTuple):
    """The slowest modes of the walk, without the constant one.

    Attributes:
        eigenvalues: In falling order, at most 1 (components,).
        components: Right eigenvectors of the walk, of unit length and either sign (cells, components).
    """

    eigenvalues: Float[Array, " components"]
    components: Float[Array, "cells components"]


@partial(jax.jit, static_argnames=("n_components", "n_neighbors"))
def diffusion_components(
    embeddings: Float[Array, "cells features"], *, n_components: int = 10, n_neighbors: int = 30
) -> DiffusionComponents:
    """Return the slowest components of the walk among the cells.

    Args:
        embeddings: Coordinates (cells, features); their unit does not matter.
        n_components: Eigenvectors to find, the constant one counted; at least 3.
        n_neighbors: Size of a neighbourhood, the cell itself counted; a third of it sets the bandwidth. At least 6.

    Returns:
        Eigenvalues (n_components - 1,) and components (cells, n_components - 1). Memory grows as cells x (features +
        neighbors + components).

    Raises:
        ContractError: There are too few cells.

    References:
        `palantir.utils.run_diffusion_maps`.

    Example:
        >>> line = jnp.arange(30.0)[:, None]
        >>> found = diffusion_components(line, n_components=3, n_neighbors=6)
        >>> steps = jnp.diff(found.components[jnp.array([3, 10, 20, 26]), 0])  # along the line, or back
        >>> bool((steps > 0).all() | (steps < 0).all())
        True
    """
    n_cells = embeddings.shape[0]
    if n_cells <= max(n_components, n_neighbors - 1):
        raise ContractError(
            f"{n_components} components of neighbourhoods of {n_neighbors} cells can't be had among {n_cells} cells; "
            f"lower n_components to less than {n_cells} and n_neighbors to at most {n_cells}, or give more cells"
        )
    neighbors = nearest_neighbors(embeddings, n_neighbors - 1)
    longest = lax.stop_gradient(jnp.max(neighbors.distances))
    distances = neighbors.distances / jnp.where(longest > 0, longest, 1.0)
    bandwidths = distances[:, n_neighbors // 3 - 1]
    ratios = distances / jnp.where(bandwidths > 0, bandwidths, 1.0)[:, None]
    # duplicates as near as the bandwidth's neighbour leave no bandwidth: then only they are similar
    alike = jnp.where(distances > 0, 0.0, 1.0)
    affinities = jnp.where(bandwidths[:, None] > 0, jnp.exp(-ratios), alike)
    start = _spread_out(lax.stop_gradient(embeddings), min(n_components + _GUARD, n_cells))
    eigenvalues, vectors = leading_eigenvectors(affinities, neighbors.indices, start, n_components)
    components = vectors / jnp.sqrt(_degrees(affinities, neighbors.indices))[:, None]
    components = components / jnp.sqrt(jnp.sum(components**2, axis=0))
    return DiffusionComponents(eigenvalues[1:], components[:, 1:])


def before_eigengap(eigenvalues: Float[Array, " components"]) -> Bool[Array, " components"]:
    """Return which components come before the largest gap between eigenvalues; at least the first two.

    Args:
        eigenvalues: Without the constant component's, in falling order (components,).

    Returns:
        True for the first components up to the gap. If the gap comes before the second, the next largest counts.

    References:
        `palantir.utils.determine_multiscale_space`.

    Example:
        >>> before_eigengap(jnp.array([0.99, 0.98, 0.97, 0.5, 0.4])).tolist()
        [True, True, True, False, False]
    """
    values = lax.stop_gradient(jnp.concatenate([jnp.ones_like(eigenvalues[:1]), eigenvalues]))
    gaps = values[:-1] - values[1:]  # gap i is before component i
    largest, second = lax.top_k(gaps, 2)[1]
    n_kept = jnp.maximum(jnp.where(largest < 2, second, largest), 2)
    return jnp.arange(eigenvalues.shape[0]) < n_kept


def multiscale_space(found: DiffusionComponents) -> Float[Array, "cells components"]:
    """Return the components before the gap, weighted by lambda / (1 - lambda); the others are zero.

    Args:
        found: The slowest components of a walk.

    Returns:
        Coordinates (cells, components) whose distances are those of walks of all lengths.

    Example:
        >>> found = DiffusionComponents(jnp.array([0.9, 0.8, 0.1]), jnp.ones((1, 3)))
        >>> multiscale_space(found).round(1).tolist()
        [[9.0, 4.0, 0.0]]
    """
    loss = jnp.maximum(1 - found.eigenvalues, jnp.finfo(found.eigenvalues.dtype).eps)
    weights = jnp.where(before_eigengap(found.eigenvalues), found.eigenvalues / loss, 0.0)
    return found.components * weights


@partial(jax.jit, static_argnames="n_vectors")
def leading_eigenvectors(
    affinities: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    start: Float[Array, "cells block"],
    n_vectors: int,
) -> tuple[Float[Array, " vectors"], Float[Array, "cells vectors"]]:
    """Return the largest eigenvalues of D^-1/2 (K + K^T) D^-1/2 and their orthonormal eigenvectors.

    Args:
        affinities: Non-negative entries of K (cells, neighbors).
        indices: Their columns (cells, neighbors).
        start: Vectors to start from, more than are wanted (cells, block).
        n_vectors: How many are wanted.

    Returns:
        Eigenvalues in falling order and eigenvectors, of either sign. The gradient is exact where eigenvalues differ;
        that within a pair which rounding can't tell apart is zero, as only their plane is defined.

    Example:
        >>> indices = jnp.array([[1], [0], [1]])  # a path of three cells: 1, 0 and -1
        >>> values, _ = leading_eigenvectors(jnp.ones((3, 1)), indices, jnp.eye(3), 2)
        >>> bool(jnp.allclose(values, jnp.array([1.0, 0.0]), atol=1e-5))
        True
    """
    return _with_gradient(affinities, indices, start, n_vectors)


def _leading(
    affinities: Array, indices: Array, start: Array, n_vectors: int
) -> tuple[Float[Array, " vectors"], Float[Array, "cells vectors"]]:
    """Filter and project until the residuals are rounding."""
    walk = _walk(affinities, indices)

    def project(block: Array) -> tuple[Array, Array, Array]:
        basis = jnp.linalg.qr(block)[0]
        moved = walk(basis)
        values, rotation = jnp.linalg.eigh(jnp.matmul(basis.T, moved, precision=lax.Precision.HIGHEST))
        values, rotation = values[::-1], rotation[:, ::-1]
        vectors = jnp.matmul(basis, rotation, precision=lax.Precision.HIGHEST)
        residuals = jnp.matmul(moved, rotation, precision=lax.Precision.HIGHEST) - vectors * values
        return values, vectors, jnp.max(jnp.sqrt(jnp.sum(residuals[:, :n_vectors] ** 2, axis=0)))

    def is_rough(state: tuple[Array, tuple[Array, Array, Array]]) -> Array:
        rounds, (_, _, residual) = state
        return (rounds < _ROUNDS) & (residual > _RESTED * float(jnp.finfo(start.dtype).eps))

    def refine(state: tuple[Array, tuple[Array, Array, Array]]) -> tuple[Array, tuple[Array, Array, Array]]:
        rounds, (values, vectors, _) = state
        return rounds + 1, project(_filtered(walk, vectors, values[-1]))

    zero = jnp.zeros((), jnp.int32)
    values, vectors, _ = lax.while_loop(is_rough, refine, (zero, project(start)))[1]
    return values[:n_vectors], vectors[:, :n_vectors]


def _leading_forward(
    affinities: Array, indices: Array, start: Array, n_vectors: int
) -> tuple[tuple[Array, Array], tuple]:
    found = _leading(affinities, indices, start, n_vectors)
    return found, (affinities, indices, start, found)


def _leading_backward(n_vectors: int, saved: tuple, cotangents: tuple[Array, Array]) -> tuple[Array, None, Array]:
    """Pull back by first-order perturbation theory."""
    del n_vectors
    affinities, indices, start, (values, vectors) = saved
    value_bar, vector_bar = cotangents
    walk = _walk(affinities, indices)
    product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    inside = product(vectors.T, vector_bar)  # entry (j, k) is the part of cotangent k along vector j
    gaps = values - values[:, None]
    blur = float(jnp.finfo(values.dtype).eps) ** 0.75  # gaps as narrow as this are rounding
    weights = jnp.where(jnp.eye(len(values), dtype=bool), 0.0, gaps / (gaps**2 + blur**2))

    def outside(block: Array) -> Array:
        return block - product(vectors, product(vectors.T, block))

    def shifted(block: Array) -> Array:
        return outside((values + blur) * block - walk(block))

    solution, _ = cg(shifted, outside(vector_bar), tol=_SOLVED, maxiter=500)
    left = product(vectors, weights * inside + jnp.diag(value_bar)) + outside(solution)
    _, pull = jax.vjp(lambda entries: _walk(entries, indices)(vectors), affinities)
    return pull(left)[0], None, jnp.zeros_like(start)


_with_gradient = jax.custom_vjp(_leading, nondiff_argnums=(3,))
_with_gradient.defvjp(_leading_forward, _leading_backward)


def _degrees(affinities: Array, indices: Array) -> Float[Array, " cells"]:
    """Return the row sums of K + K^T, 1 for a cell without any."""
    degrees = symmetric_sums(affinities, indices)
    return jnp.where(degrees > 0, degrees, 1.0)


def _walk(affinities: Array, indices: Array) -> Callable[[Array], Float[Array, "cells block"]]:
    """Return the product of D^-1/2 (K + K^T) D^-1/2 with a block of vectors; the degrees are summed once for all."""
    roots = jnp.sqrt(_degrees(affinities, indices))[:, None]
    return lambda block: symmetric_matmul(affinities, indices, block / roots) / roots


def _filtered(walk: Callable[[Array], Array], block: Array, edge: Array) -> Float[Array, "cells block"]:
    """Return a Chebyshev polynomial of the walk, small on [-1, edge] and 1 at 1, times the block."""
    centre, radius = (edge - 1) / 2, jnp.maximum((edge + 1) / 2, 1e-2)
    first = radius / (1 - centre)

    def climb(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        before, now, ratio = state
        following = 1 / (2 / first - ratio)
        moved = (walk(now) - centre * now) * (2 * following / radius)
        return (now, moved - ratio * following * before, following), None

    start = (block, (walk(block) - centre * block) * (first / radius), first)
    return lax.scan(climb, start, length=_DEGREE - 1)[0][1]


def _spread_out(embeddings: Array, n_vectors: int) -> Float[Array, "cells block"]:
    """Return one-hot columns of cells far from each other: together they touch every mode, and nothing is drawn."""
    scaled = embeddings - embeddings.mean(axis=0)
    largest = jnp.max(jnp.abs(scaled))
    scaled = scaled / jnp.where(largest > 0, largest, 1.0)

    def squared_to(centre: Array) -> Array:
        return jnp.sum((scaled - centre) ** 2, axis=1)

    def choose(nearest: Array, _: None) -> tuple[Array, Array]:
        cell = jnp.argmax(nearest)
        return jnp.minimum(nearest, squared_to(scaled[cell])).at[cell].set(-1.0), cell

    _, cells = lax.scan(choose, squared_to(jnp.zeros_like(scaled[0])), length=n_vectors)
    return jax.nn.one_hot(cells, embeddings.shape[0], dtype=embeddings.dtype, axis=0)
