"""Diffusion components: the slowest modes of a random walk among cells, as Palantir takes them.

Neighbours at distance d have the affinity exp(-d / sigma_i), with sigma_i the distance of cell i to one of its nearest
neighbours. K + K^T is the kernel, D its row sums. The components are the right eigenvectors of the walk
D^-1 (K + K^T) with the largest eigenvalues, but for the constant one. In the multiscale space each is weighted by
lambda / (1 - lambda), the sum over walks of all lengths.

Eigenvectors and their gradients are those of `graph_spectrum`, on the neighbour lists: no array is cells x cells. Which
cells are neighbours and how many components are kept (up to the largest gap) are hard decisions, constant to the
gradient.

References:
    Coifman and Lafon, Diffusion maps, Applied and Computational Harmonic Analysis 2006.
    Setty et al., Characterization of cell fate probabilities in single-cell data with Palantir, Nature Biotechnology
    2019 (the kernel, the multiscale space, the gap).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.graph_spectrum import leading_eigenpairs
from diffbio.operators.singlecell.neighbor_graph import symmetric_sums
from diffbio.operators.singlecell.neighbors import nearest_neighbors


class DiffusionComponents(NamedTuple):
    """The slowest modes of the walk, without the constant one.

    Attributes:
        eigenvalues: In falling order, at most 1 (components,).
        components: Right eigenvectors of the walk, of unit length (cells, components).
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
    degrees = symmetric_sums(affinities, neighbors.indices)
    roots = jnp.sqrt(jnp.where(degrees > 0, degrees, 1.0))
    shares = affinities / roots[:, None] / roots[neighbors.indices]
    eigenvalues, vectors = leading_eigenpairs(shares, neighbors.indices, n_components)
    components = vectors / roots[:, None]
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
