"""Diffusion pseudotime: how far a cell is from the root for a random walker among the cells.

Neighbours i, j at distance d have the affinity sqrt(2 s_i s_j / (s_i^2 + s_j^2)) exp(-d^2 / (s_i^2 + s_j^2)), with
s_i^2 the median of the squared distances of cell i to its neighbours. Divided by the densities of both cells and made
symmetric, it is the matrix T of a random walk that follows the geometry of the cells and not their sampling. Deflated
of the stationary state, T' = T - psi psi^T, its walks of all lengths sum to M = sum_t T'^t = (I - T')^-1 - I, and the
pseudotime of a cell is |M(cell, .) - M(root, .)|, scaled to a largest value of 1.

The sum is taken in closed form by solving with I - T', which is positive definite, so that values and gradients are
well defined where eigenvectors, the usual way, are not unique. The only hard step is which cells are neighbours.
scanpy counts states of eigenvalue above 0.9994 as stationary; here they count in full, which keeps the order of cells
along processes so long that these are the slowest.

References:
    Haghverdi et al., Diffusion pseudotime robustly reconstructs lineage branching, Nature Methods 2016;
    conventions as in scanpy (`sc.pp.neighbors(method="gauss")`, `sc.tl.dpt`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jax import lax
from jax.scipy.linalg import solve
from jaxtyping import Array, Bool, Float

from diffbio.core import Operator, OperatorConfig
from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.neighbor_graph import reachable_cells
from diffbio.operators.singlecell.neighbors import Neighbors, nearest_neighbors

_NO_EDGE = 1e-20  # a weaker affinity could not be told from none beside another in float32
_NARROWEST = 1e-4  # of the mean bandwidth: the least bandwidth, met only among duplicates
_LOSS = 1e-6  # chance that the walker stops at a step: bounds the sum where parts hardly connect


@dataclass(frozen=True, kw_only=True)
class DiffusionPseudotimeConfig(OperatorConfig):
    """Configuration of diffusion pseudotime.

    Args:
        n_neighbors: Size of a neighbourhood, the cell itself counted as in `sc.pp.neighbors`.
        root_cell: Row of the cell from which pseudotime counts.
    """

    n_neighbors: Annotated[int, Ge(2)] = 15
    root_cell: Annotated[int, Ge(0)] = 0


class Pseudotime(NamedTuple):
    """Order of the cells along a process.

    Attributes:
        pseudotime: From 0 at the root to 1 at the farthest cell (cells,); infinite, with zero gradient,
            for a cell that no path of neighbours connects with the root.
    """

    pseudotime: Float[Array, " cells"]


def diffusion_pseudotime(
    embeddings: Float[Array, "cells features"], root_cell: int | Array, *, n_neighbors: int = 15
) -> Pseudotime:
    """Return the diffusion distance of every cell from the root cell, scaled to at most 1.

    It solves a dense linear system. Memory grows as cells^2: four arrays cells x cells, eleven with the gradient. Time
    grows as cells^3: some 10,000 cells are feasible.

    Args:
        embeddings: Coordinates (cells, features); their unit does not matter.
        root_cell: Row of the root; may be traced.
        n_neighbors: Size of a neighbourhood, the cell itself counted; at least 2.

    Returns:
        Pseudotime of each cell.

    Raises:
        ContractError: There are fewer cells than a neighbourhood has, or no cell `root_cell`.

    Example:
        >>> line = jnp.arange(20.0)[:, None]
        >>> order = diffusion_pseudotime(line, 0, n_neighbors=5).pseudotime
        >>> bool(order[0] < order[5] < order[10] < order[15])
        True
    """
    n_cells = embeddings.shape[0]
    if n_neighbors > n_cells:
        raise ContractError(
            f"a neighbourhood of n_neighbors={n_neighbors} cells can't be had among {n_cells}; "
            f"lower it to at most {n_cells}, or give more cells"
        )
    if isinstance(root_cell, int) and not 0 <= root_cell < n_cells:
        raise ContractError(
            f"the root is cell {root_cell}, but there are {n_cells} cells; name one from 0 to {n_cells - 1}"
        )
    return Pseudotime(_scaled_distances(embeddings, root_cell, n_neighbors))


def gaussian_affinities(neighbors: Neighbors) -> Float[Array, "cells neighbors"]:
    """Return Gaussian affinities with a bandwidth for each cell: the median distance of its neighbours.

    Args:
        neighbors: Neighbours of each cell (cells, neighbors).

    Returns:
        Affinities in [0, 1], the same for a pair in either direction.

    Example:
        >>> pair = Neighbors(jnp.array([[1], [0]]), jnp.array([[2.0], [2.0]]))
        >>> jnp.log(gaussian_affinities(pair)).round(3).tolist()
        [[-0.5], [-0.5]]
    """
    longest = jnp.max(lax.stop_gradient(neighbors.distances))
    squared = (neighbors.distances / jnp.where(longest > 0, longest, 1.0)) ** 2
    last = squared.shape[1] - 1
    variances = (squared[:, last // 2] + squared[:, (last + 1) // 2]) / 2  # the median of a sorted row
    typical = lax.stop_gradient(jnp.mean(variances))
    least = jnp.where(typical > 0, _NARROWEST**2 * typical, 1.0)
    variances = jnp.maximum(variances, least)
    own, other = variances[:, None], variances[neighbors.indices]
    total = own + other
    return jnp.sqrt(2 * jnp.sqrt(own) * jnp.sqrt(other) / total) * jnp.exp(-squared / total)


@partial(jax.jit, static_argnames="n_neighbors")
def _scaled_distances(embeddings: Array, root_cell: int | Array, n_neighbors: int) -> Float[Array, " cells"]:
    """Return the diffusion distances from the root over the largest of them, and infinity out of its reach."""
    neighbors = nearest_neighbors(embeddings, n_neighbors - 1)
    affinities = gaussian_affinities(neighbors)
    reachable = reachable_cells(lax.stop_gradient(affinities) > _NO_EDGE, neighbors.indices, root_cell)
    walk, stationary = _random_walk(_dense(affinities, neighbors.indices), reachable)
    distances = _diffusion_distances(walk, stationary, root_cell)
    longest = jnp.max(jnp.where(reachable, distances, 0.0))
    scaled = distances / jnp.where(longest > 0, longest, 1.0)
    # a compiled division may be a product with the reciprocal, which takes the furthest cell to 1 - 2^-24
    scaled = jnp.where((distances == longest) & (longest > 0), 1.0, scaled)
    return jnp.where(reachable, scaled, jnp.inf)


def _dense(affinities: Array, indices: Array) -> Float[Array, "cells cells"]:
    """Return the symmetric matrix that has an entry wherever either cell is a neighbour of the other."""
    n_cells = affinities.shape[0]
    kept = jnp.where(lax.stop_gradient(affinities) > _NO_EDGE, affinities, 0.0)
    directed = jnp.zeros((n_cells, n_cells), kept.dtype)
    directed = directed.at[jnp.arange(n_cells)[:, None], indices].set(kept, unique_indices=True)
    return jnp.maximum(directed, directed.T)  # both entries of a mutual pair are equal


def _random_walk(
    affinities: Float[Array, "cells cells"], reachable: Bool[Array, " cells"]
) -> tuple[Float[Array, "cells cells"], Float[Array, " cells"]]:
    """Return the symmetric transition matrix T among reachable cells and its unit eigenvector of eigenvalue 1."""
    within = jnp.where(reachable[:, None] & reachable, affinities, 0.0)
    density = _or_one(within.sum(axis=1))
    normalized = within / density[:, None] / density
    degrees = normalized.sum(axis=1)
    roots = jnp.sqrt(_or_one(degrees))
    stationary = jnp.where(degrees > 0, roots, 0.0) / jnp.sqrt(_or_one(degrees.sum()))
    return normalized / roots[:, None] / roots, stationary


def _diffusion_distances(
    walk: Float[Array, "cells cells"], stationary: Float[Array, " cells"], root: int | Array
) -> Float[Array, " cells"]:
    """Return |M(cell, .) - M(root, .)|, with the stationary state counted once as scanpy does."""
    identity = jnp.eye(walk.shape[0], dtype=walk.dtype)
    deflated = (1 - _LOSS) * (walk - jnp.outer(stationary, stationary))
    walks = solve(identity - deflated, identity, assume_a="pos") - identity
    squared = jnp.sum((walks - walks[root]) ** 2, axis=1) + (stationary - stationary[root]) ** 2
    apart = (squared > 0) & (jnp.arange(len(squared)) != root)
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def _or_one(sums: Array) -> Array:
    """Return sums that can be divided by: 1 where nothing was summed."""
    return jnp.where(sums > 0, sums, 1.0)


class DiffusionPseudotime(Operator[DiffusionPseudotimeConfig]):
    """Order cells by their diffusion distance from a root cell.

    Reads `embeddings` (cells, features); writes `pseudotime` (cells,). It has no parameters. See
    `diffusion_pseudotime` for its cost.

    Args:
        config: Size of a neighbourhood, root cell.
        rngs: Not used.

    Example:
        >>> order = DiffusionPseudotime(DiffusionPseudotimeConfig(n_neighbors=4, root_cell=9))
        >>> data, _, _ = order.apply({"embeddings": jnp.arange(10.0)[:, None]}, {}, None)
        >>> int(data["pseudotime"].argmin()), float(data["pseudotime"].min()), float(data["pseudotime"].max())
        (9, 0.0, 1.0)
    """

    def compute(self, embeddings: Float[Array, "cells features"]) -> Pseudotime:
        """Return the pseudotime of each cell."""
        return diffusion_pseudotime(embeddings, self.config.root_cell, n_neighbors=self.config.n_neighbors)
