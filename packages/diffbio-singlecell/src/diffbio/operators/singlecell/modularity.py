"""Communities of the neighbour graph by modularity, the objective of Leiden and Louvain clustering.

Modularity is the share of edges inside communities less what the degrees d alone would give. With a distribution s_i
over communities for each cell in place of a label, edge weights A and the resolution gamma,

    Q = sum_k [ sum_ij A_ij s_ik s_jk / 2m - gamma (sum_i d_i s_ik / 2m)^2 ]        2m = sum_i d_i

At one-hot assignments this is the hard modularity (Reichardt and Bornholdt 2006), which leidenalg calls
RBConfiguration. It is maximized once, by annealed mean-field steps s_i = softmax(f_i / tau) with

    f_ik = sum_j A_ij s_jk / d_i - gamma sum_(j != i) d_j s_jk / 2m,

the gain of moving cell i to community k as a share of its edges; then hardened, communities merged as long as that
pays, and single cells moved. The gains at the end are parameters, and the assignments softmax(gains / tau): soft for
cells between communities, one-hot as tau -> 0.

References:
    Newman and Girvan, Finding and evaluating community structure in networks, Physical Review E 2004.
    Reichardt and Bornholdt, Statistical mechanics of community detection, Physical Review E 2006.
    Traag, Waltman and van Eck, From Louvain to Leiden, Scientific Reports 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs, soft_ops
from diffbio.operators.singlecell.clustering import kmeans_plus_plus, soft_kmeans
from diffbio.operators.singlecell.communities import communities, move_gains
from diffbio.operators.singlecell.neighbor_graph import is_neighbor, symmetric_matmul, symmetric_sums
from diffbio.operators.singlecell.neighbors import nearest_neighbors, neighbor_distances

_SEEDS_PER_CLUSTER = 4  # many small groups that merge find better optima than few that must split


@dataclass(frozen=True, kw_only=True)
class ModularityClusteringConfig(OperatorConfig):
    """Sizes, the graph, the resolution and how communities are sought.

    Args:
        n_cells: Number of cells: each has parameters of its own.
        n_clusters: Communities at most; fewer are found where that has the larger modularity.
        n_neighbors: Neighbours of each cell in the graph.
        resolution: gamma; communities are smaller, and more, where it is larger.
        temperature: Softness of the assignments, as a share of a cell's edges.
        n_starts: Starts of which `initialize` keeps that of the largest modularity.
    """

    n_cells: Annotated[int, Ge(2)]
    n_clusters: Annotated[int, Ge(1)] = 20
    n_neighbors: Annotated[int, Ge(1)] = 15
    resolution: Annotated[float, Gt(0)] = 1.0
    temperature: Annotated[float, Gt(0)] = 0.05
    n_starts: Annotated[int, Ge(1)] = 5


class Communities(NamedTuple):
    """Soft communities of cells.

    Attributes:
        cluster_assignments: A distribution over the communities for each cell (cells, clusters).
        modularity: Q of these assignments on the graph, at most 1 ().
    """

    cluster_assignments: Float[Array, "cells clusters"]
    modularity: Float[Array, ""]


def adaptive_shares(
    distances: Float[Array, "cells neighbors"], indices: Int[Array, "cells neighbors"]
) -> Float[Array, "cells neighbors"]:
    """Return the graph A = (W + W^T) / 2 with W_ij = exp(-(d_ij / r_i)^2), r_i the reach of cell i's list.

    Args:
        distances: To each neighbour, at least 0 (cells, neighbors).
        indices: Rows of the neighbours; the cell's own row where there is none (cells, neighbors).

    Returns:
        The shares W / 2 of A (cells, neighbors), as `neighbor_graph` stores symmetric matrices: between 1 / 2e, for
        the farthest neighbour, and 1 / 2, for a duplicate.

    Example:
        >>> shares = adaptive_shares(jnp.array([[0.0, 2.0]] * 3), jnp.array([[1, 2], [0, 2], [0, 1]]))
        >>> [round(share, 3) for share in shares[0].tolist()]
        [0.5, 0.184]
    """
    unit = lax.stop_gradient(distances.max(axis=1, keepdims=True))  # the derivative of a quotient squares its divisor
    distances = distances / jnp.where(unit > 0, unit, 1.0)
    reach = distances.max(axis=1, keepdims=True)
    weights = jnp.exp(-jnp.square(distances / jnp.where(reach > 0, reach, 1.0)))
    return jnp.where(is_neighbor(indices), weights / 2, 0.0)


@jax.jit
def modularity(
    assignments: Float[Array, "cells clusters"],
    shares: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    *,
    resolution: ArrayLike = 1.0,
) -> Float[Array, ""]:
    """Return the modularity of soft communities.

    Args:
        assignments: A distribution over communities for each cell (cells, clusters).
        shares: Edge weights C of the graph A = C + C^T, at least 0 (cells, neighbors).
        indices: The cell at the other end of each edge (cells, neighbors).
        resolution: gamma, above 0.

    Returns:
        Q, at most 1; 0 for a graph without edges. Time grows as edges x clusters, memory as cells x clusters.

    References:
        leidenalg `RBConfigurationVertexPartition.quality() / 2m`; igraph `Graph.modularity` at resolution 1.

    Example:
        >>> pairs = jnp.array([[1], [0], [3], [2]])  # two pairs of cells
        >>> one_hot = jnp.repeat(jnp.eye(2), 2, axis=0)
        >>> float(modularity(one_hot, jnp.full((4, 1), 0.5), pairs))
        0.5
    """
    degrees = symmetric_sums(shares, indices)
    total = degrees.sum()
    total = jnp.where(total > 0, total, 1.0)
    inside = jnp.sum(assignments * symmetric_matmul(shares, indices, assignments)) / total
    by_chance = jnp.square(jnp.matmul(degrees / total, assignments, precision=lax.Precision.HIGHEST)).sum()
    return inside - resolution * by_chance


class ModularityClustering(Operator[ModularityClusteringConfig]):
    """Clusters cells by the modularity of their neighbour graph, as Leiden does, with soft assignments.

    Reads `embeddings` (cells, features) and, where it is there, `neighbor_indices` (cells, neighbors), else the exact
    neighbours are searched; writes `cluster_assignments` (cells, clusters) and `modularity` (), whose negative is the
    loss. Edges weigh by distance, so modularity has a gradient by the embeddings. The parameters belong to these very
    cells; for new cells train a classifier by `diffbio.losses.singlecell.modularity.modularity_loss`.

    Args:
        config: Sizes, graph, resolution, temperature, starts.
        rngs: Source of the first logits.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> config = ModularityClusteringConfig(n_cells=6, n_clusters=3, n_neighbors=2)
        >>> clusterer = ModularityClustering(config, rngs=nnx.Rngs(0))
        >>> cells = jnp.array([[0.0], [1.0], [2.5], [20.0], [21.0], [22.5]])
        >>> clusterer.initialize(cells, key=jax.random.key(0))
        >>> data, _, _ = clusterer.apply({"embeddings": cells}, {}, None)
        >>> data["cluster_assignments"].argmax(1).tolist(), round(float(data["modularity"]), 3)
        ([0, 0, 0, 1, 1, 1], 0.5)
    """

    def __init__(self, config: ModularityClusteringConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        shape = (config.n_cells, config.n_clusters)
        self.logits = nnx.Param(config.temperature * jax.random.normal(rngs.params(), shape))
        self.softness = Softness(config.temperature)

    def initialize(
        self,
        embeddings: Float[Array, "cells features"],
        neighbor_indices: Int[Array, "cells neighbors"] | None = None,
        *,
        key: Array,
    ) -> None:
        """Set the logits to the gains at the communities of the largest modularity that is found.

        Args:
            embeddings: Coordinates (cells, features).
            neighbor_indices: The graph, if it is there already (cells, neighbors).
            key: Random key of the starts.

        Raises:
            ContractError: There are no more cells than neighbours.
        """
        shares, indices = self._graph(embeddings, neighbor_indices)
        self.logits[...] = _best_of_starts(embeddings, shares, indices, key, self.config)

    def compute(
        self,
        embeddings: Float[Array, "cells features"],
        neighbor_indices: Int[Array, "cells neighbors"] | None = None,
    ) -> Communities:
        """Return the soft communities of the cells and their modularity."""
        shares, indices = self._graph(embeddings, neighbor_indices)
        assignments = soft_ops.argmax(self.logits[...], axis=-1, softness=self.softness())
        return Communities(assignments, modularity(assignments, shares, indices, resolution=self.config.resolution))

    def _graph(self, embeddings: Array, indices: Array | None) -> tuple[Array, Array]:
        """Return the graph of the cells as shares and neighbour lists."""
        if indices is None:
            found = nearest_neighbors(embeddings, self.config.n_neighbors)
            return adaptive_shares(found.distances, found.indices), found.indices
        return adaptive_shares(neighbor_distances(embeddings, indices), indices), indices


@partial(jax.jit, static_argnames="config")
def _best_of_starts(
    embeddings: Array, shares: Array, indices: Array, key: Array, config: ModularityClusteringConfig
) -> Float[Array, "cells clusters"]:
    """Return the gains at the best communities that were found from several starts of k-means."""
    n_seeds = min(_SEEDS_PER_CLUSTER * config.n_clusters, len(embeddings))
    hard = 1e-6 * embeddings.var(0).mean() + jnp.finfo(embeddings.dtype).tiny

    def found(key: Array) -> tuple[Array, Array]:
        seed_key, key = jax.random.split(key)
        seeds = kmeans_plus_plus(embeddings, n_seeds, key=seed_key)
        start = soft_kmeans(embeddings, seeds, softness=hard, n_iterations=0).cluster_assignments
        labels = communities(start, shares, indices, config.n_clusters, resolution=config.resolution, key=key)
        one_hot = jax.nn.one_hot(labels, config.n_clusters, dtype=shares.dtype)
        return labels, modularity(one_hot, shares, indices, resolution=config.resolution)

    every, values = lax.map(found, jax.random.split(key, config.n_starts))
    one_hot = jax.nn.one_hot(every[jnp.argmax(values)], config.n_clusters, dtype=shares.dtype)
    return move_gains(one_hot, shares, indices, resolution=config.resolution)
