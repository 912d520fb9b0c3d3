"""Imputation by diffusion over the graph of cells (MAGIC).

Each cell's counts become a weighted mean over the cells that a random walk of t steps reaches on the graph
of nearest neighbours. The affinity of neighbours at distance d is exp(-(d / sigma_i)^decay), with sigma_i the
distance of cell i to its k-th neighbour, and 1 of a cell to itself; K is made symmetric as (K + K^T) / 2, its rows
are divided by their sums, and the imputed counts are (D^-1 K)^t counts.

The softness is tau = 1 / decay. As tau -> 0 the affinity becomes the hard k-nearest-neighbour graph: 1 for neighbours
nearer than the k-th, 0 for those beyond it (and 1 / e for the k-th itself, which lies on the boundary at every tau).

References:
    van Dijk et al., Recovering gene interactions from single-cell data using data diffusion, Cell 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.singlecell.neighbors import nearest_neighbors
from diffbio.operators.singlecell.random_walk import diffuse

_VANISHING = math.log(100.0)  # exp(-100) is 0 in float32; beyond it the exponent's powers would overflow


@dataclass(frozen=True, kw_only=True)
class DiffusionImputationConfig(OperatorConfig):
    """Configuration of diffusion imputation; the defaults are MAGIC's.

    Args:
        n_neighbors: The neighbour whose distance is the bandwidth of a cell, the cell itself not counted
            (MAGIC's `knn`).
        max_neighbors: Neighbours that have any affinity, at least `n_neighbors` (MAGIC's `knn_max`); `None` means
            three times `n_neighbors`. Where there are fewer cells, all count.
        decay: How sharply the affinity falls at the bandwidth; its inverse is the softness.
        diffusion_time: Steps of the random walk; 0 returns the counts.
        learnable_decay: Whether training changes the decay.

    Raises:
        ConfigError: A value is out of range.
    """

    n_neighbors: Annotated[int, Ge(1)] = 5
    max_neighbors: Annotated[int, Ge(1)] | None = None
    decay: Annotated[float, Gt(0)] = 1.0
    diffusion_time: Annotated[int, Ge(0)] = 3
    learnable_decay: bool = False

    def __post_init__(self) -> None:
        """Check that the bandwidth lies within the neighbours."""
        super().__post_init__()
        if self.max_neighbors is not None and self.max_neighbors < self.n_neighbors:
            raise ConfigError(
                f"DiffusionImputationConfig.max_neighbors is {self.max_neighbors}; it must be at least "
                f"n_neighbors, which is {self.n_neighbors}"
            )


class ImputedCounts(NamedTuple):
    """Counts after diffusion.

    Attributes:
        imputed_counts: Means over the neighbourhood of each cell, in the unit of the counts (cells, genes).
    """

    imputed_counts: Float[Array, "cells genes"]


def square_root_proportions(
    counts: Float[Array, "cells genes"],
) -> Float[Array, "cells genes"]:
    """Return the square roots of each gene's share of its cell's counts, as MAGIC measures distances on.

    Their Euclidean distances are (up to a factor) Hellinger distances between cells; MAGIC's common library size
    would multiply all of them alike, which adaptive bandwidths cancel.

    Args:
        counts: Non-negative (cells, genes).

    Returns:
        Values in [0, 1]; a cell without counts is all zero. The slope of the root at a count of zero, which is
        infinite, is taken as zero.

    Example:
        >>> counts = jnp.array([[5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 7.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
        >>> square_root_proportions(counts).tolist()
        [[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    total = counts.sum(axis=1, keepdims=True)
    proportions = counts / jnp.where(total > 0, total, 1.0)
    present = proportions > 0
    return jnp.where(present, jnp.sqrt(jnp.where(present, proportions, 1.0)), 0.0)


def alpha_decay(
    distances: Float[Array, "cells neighbors"], n_neighbors: int, *, decay: ArrayLike
) -> Float[Array, "cells neighbors"]:
    """Return the affinities exp(-(d / sigma)^decay), sigma being the distance to neighbour `n_neighbors`.

    Args:
        distances: In rising order along each row (cells, neighbors).
        n_neighbors: Which neighbour sets the bandwidth, from 1.
        decay: Above zero.

    Returns:
        Affinities in [0, 1]: 1 to a duplicate, 1 / e at the bandwidth.

    Example:
        >>> affinities = alpha_decay(jnp.array([[0.0, 1.0, 2.0]]), 2, decay=2.0)
        >>> jnp.log(affinities).round(3).tolist()
        [[0.0, -1.0, -4.0]]
    """
    tiny = jnp.finfo(distances.dtype).tiny
    apart = distances > 0
    log_distances = jnp.log(jnp.where(apart, distances, 1.0))
    bandwidths = distances[:, n_neighbors - 1 : n_neighbors]
    open_ = bandwidths > 0
    log_bandwidths = jnp.where(open_, jnp.log(jnp.where(open_, bandwidths, 1.0)), math.log(tiny))
    exponents = jnp.minimum(decay * (log_distances - log_bandwidths), _VANISHING)
    return jnp.where(apart, jnp.exp(-jnp.exp(exponents)), 1.0)


class DiffusionGraph(NamedTuple):
    """Which cells the walk steps between.

    Attributes:
        affinities: Of each cell to its neighbours, in [0, 1] (cells, neighbors).
        indices: Rows of the neighbours (cells, neighbors).
    """

    affinities: Float[Array, "cells neighbors"]
    indices: Int[Array, "cells neighbors"]


@partial(jax.jit, static_argnames=("n_neighbors", "max_neighbors"))
def diffusion_graph(
    embeddings: Float[Array, "cells features"],
    *,
    n_neighbors: int = 5,
    max_neighbors: int | None = None,
    decay: ArrayLike = 1.0,
) -> DiffusionGraph:
    """Return the affinities of cells to their nearest neighbours.

    Args:
        embeddings: Coordinates on which neighbours are sought (cells, features).
        n_neighbors: The neighbour whose distance is the bandwidth.
        max_neighbors: Neighbours that have any affinity; `None` means three times `n_neighbors`.
        decay: Sharpness of the affinity, above zero.

    Returns:
        The graph before it is made symmetric, smooth in the embeddings through the affinities.

    Raises:
        ContractError: There are no more than `n_neighbors` cells.

    Example:
        >>> diffusion_graph(jnp.arange(4.0)[:, None], n_neighbors=1).indices.shape
        (4, 3)
    """
    n_cells = embeddings.shape[0]
    if n_neighbors >= n_cells:
        raise ContractError(
            f"the bandwidth is the distance to neighbour {n_neighbors}, but there are {n_cells} cells; "
            f"lower n_neighbors to at most {n_cells - 1}, or give more cells"
        )
    neighbors = nearest_neighbors(embeddings, min(max_neighbors or 3 * n_neighbors, n_cells - 1))
    return DiffusionGraph(alpha_decay(neighbors.distances, n_neighbors, decay=decay), neighbors.indices)


@partial(jax.jit, static_argnames=("n_neighbors", "max_neighbors", "n_steps"))
def diffusion_imputation(
    counts: Float[Array, "cells genes"],
    embeddings: Float[Array, "cells features"],
    *,
    n_neighbors: int = 5,
    max_neighbors: int | None = None,
    decay: ArrayLike = 1.0,
    n_steps: int = 3,
) -> ImputedCounts:
    """Return counts averaged over a walk on the nearest-neighbour graph of the embeddings.

    Args:
        counts: What is imputed (cells, genes).
        embeddings: Coordinates on which neighbours are sought (cells, features).
        n_neighbors: The neighbour whose distance is the bandwidth.
        max_neighbors: Neighbours that have any affinity; `None` means three times `n_neighbors`.
        decay: Sharpness of the affinity, above zero.
        n_steps: Steps of the walk.

    Returns:
        Imputed counts (cells, genes). They depend smoothly on the counts and, through the affinities, on the
        embeddings. Memory is cells x (genes + features + neighbors).

    Raises:
        ContractError: There are no more than `n_neighbors` cells.

    Example:
        >>> line = jnp.arange(4.0)[:, None]
        >>> diffusion_imputation(line, line, n_neighbors=1).imputed_counts.shape
        (4, 1)
    """
    graph = diffusion_graph(embeddings, n_neighbors=n_neighbors, max_neighbors=max_neighbors, decay=decay)
    return ImputedCounts(diffuse(counts, graph.affinities, graph.indices, n_steps=n_steps))


class DiffusionImputation(Operator[DiffusionImputationConfig]):
    """Impute counts by diffusion over the graph of cells.

    Reads `counts` (cells, genes), non-negative, raw or normalized (MAGIC's authors impute the square roots of counts
    scaled to a common library size), and optionally `graph_embeddings` (cells, features), on which the graph is built
    (`.reads(graph_embeddings="embeddings")`); without them it is built on `square_root_proportions` of the counts.
    Writes `imputed_counts` (cells, genes). Its decay is the only parameter, if learnable.

    Args:
        config: Neighbours, decay, diffusion time.
        rngs: Not used.

    Example:
        >>> imputer = DiffusionImputation(DiffusionImputationConfig(n_neighbors=1))
        >>> counts = jnp.array([[4.0, 0.0], [2.0, 1.0], [0.0, 5.0], [1.0, 9.0]])
        >>> data, _, _ = imputer.apply({"counts": counts}, {}, None)
        >>> data["imputed_counts"].shape
        (4, 2)
    """

    def __init__(self, config: DiffusionImputationConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(1.0 / config.decay, learnable=config.learnable_decay)

    def compute(
        self,
        counts: Float[Array, "cells genes"],
        graph_embeddings: Float[Array, "cells features"] | None = None,
    ) -> ImputedCounts:
        """Return the imputed counts."""
        if graph_embeddings is None:
            graph_embeddings = square_root_proportions(counts)
        return diffusion_imputation(
            counts,
            graph_embeddings,
            n_neighbors=self.config.n_neighbors,
            max_neighbors=self.config.max_neighbors,
            decay=1.0 / self.softness(),
            n_steps=self.config.diffusion_time,
        )
