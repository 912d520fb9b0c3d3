"""Soft k-means: Lloyd's algorithm with a softmax in place of the nearest centroid.

The assignment a_ik = softmax_k(-|x_i - c_k|^2 / tau) and the update c_k = sum_i a_ik x_i / sum_i a_ik are one step
of expectation-maximization for a mixture of equal spheres of variance tau / 2. As tau -> 0 the assignments become
one-hot and the steps Lloyd's (scikit-learn's KMeans). Above the critical tau, twice the largest variance of the data
along any direction, all centroids merge at the mean (Rose, Proceedings of the IEEE 1998).
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
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs, soft_ops
from diffbio.core.errors import ContractError

_NO_MASS = 1e-12  # of one cell: below, a quotient of two such sums has no meaning in float32
_CONVERGED = 1e-4  # of the spread of the data: the largest move of a centroid
_MAX_ITERATIONS = 300


@dataclass(frozen=True, kw_only=True)
class SoftClusteringConfig(OperatorConfig):
    """Configuration of soft k-means.

    Args:
        n_clusters: Number of clusters.
        n_features: Number of coordinates of an embedding.
        temperature: The softness tau, in units of squared distance between embeddings. Two centroids
            share a cell whose squared distances to them differ by less than about tau.
        n_iterations: Steps of expectation-maximization in each call. With 0 the centroids stay as they are, and each
            cell is assigned by itself: so new cells are mapped to known clusters, and the whole gradient reaches the
            centroids. Each step forgets more of where the centroids were.
        learnable_temperature: Whether gradient descent changes the temperature.
    """

    n_clusters: Annotated[int, Ge(1)]
    n_features: Annotated[int, Ge(1)]
    temperature: Annotated[float, Gt(0)] = 1.0
    n_iterations: Annotated[int, Ge(0)] = 0
    learnable_temperature: bool = False


class Clusters(NamedTuple):
    """Soft clusters of cells.

    Attributes:
        cluster_assignments: A distribution over the clusters for each cell (cells, clusters).
        cluster_centroids: The centroids that the assignments refer to (clusters, features).
    """

    cluster_assignments: Float[Array, "cells clusters"]
    cluster_centroids: Float[Array, "clusters features"]


@partial(jax.jit, static_argnames="n_iterations")
def soft_kmeans(
    embeddings: Float[Array, "cells features"],
    centroids: Float[Array, "clusters features"],
    *,
    softness: ArrayLike,
    n_iterations: int = 10,
) -> Clusters:
    """Return soft clusters after `n_iterations` steps of expectation-maximization from `centroids`.

    Args:
        embeddings: Coordinates (cells, features).
        centroids: Where the centroids start (clusters, features).
        softness: tau > 0, in units of squared distance.
        n_iterations: Number of steps; 0 assigns the cells to the given centroids.

    Returns:
        Assignments to the final centroids, and those. A centroid to which no cell is assigned stays.

    References:
        Lloyd, Least squares quantization in PCM, 1982; Rose, Deterministic annealing, 1998.

    Example:
        >>> cells = jnp.array([[0.0], [1.0], [9.0], [10.0]])
        >>> clusters = soft_kmeans(cells, cells[:2], softness=0.01)
        >>> clusters.cluster_centroids.ravel().tolist()
        [0.5, 9.5]
    """

    def step(centroids: Array, _: None) -> tuple[Array, None]:
        return _updated(embeddings, centroids, softness), None

    centroids, _ = lax.scan(step, centroids, length=n_iterations)
    return Clusters(_assigned(embeddings, centroids, softness), centroids)


@partial(jax.jit, static_argnames="n_clusters")
def kmeans_plus_plus(
    embeddings: Float[Array, "cells features"], n_clusters: int, *, key: Array
) -> Float[Array, "clusters features"]:
    """Return `n_clusters` of the cells, spread out, as centroids to start from.

    The first is drawn uniformly; each next one with probability proportional to the squared distance from the
    nearest chosen so far. Of 2 + log(n_clusters) such draws, the one that lowers the sum of squared distances most is
    kept.

    Args:
        embeddings: Coordinates (cells, features).
        n_clusters: Between 1 and the number of cells.
        key: Random key.

    Returns:
        Centroids (clusters, features), distinct as long as there are distinct cells left.

    Raises:
        ContractError: There are fewer cells than clusters.

    References:
        Arthur and Vassilvitskii, k-means++, SODA 2007; the repeated draws as in scikit-learn.

    Example:
        >>> cells = jnp.array([[0.0], [0.0], [10.0], [10.0]])
        >>> sorted(kmeans_plus_plus(cells, 2, key=jax.random.key(0)).ravel().tolist())
        [0.0, 10.0]
    """
    n_cells = embeddings.shape[0]
    if not 1 <= n_clusters <= n_cells:
        raise ContractError(
            f"{n_clusters} clusters were asked for among {n_cells} cells; ask for 1 to {n_cells}, or give more cells"
        )
    n_draws = 2 + int(math.log(n_clusters))
    first_key, key = jax.random.split(key)

    def squared_distances(cell: Array) -> Float[Array, " cells"]:
        return jnp.sum((embeddings - embeddings[cell]) ** 2, axis=-1)

    def choose(nearest: Array, key: Array) -> tuple[Array, Array]:
        logits = jnp.where(jnp.any(nearest > 0), jnp.log(nearest), 0.0)
        draws = jax.random.categorical(key, logits, shape=(n_draws,))
        candidates = lax.map(lambda cell: jnp.minimum(nearest, squared_distances(cell)), draws)
        best = jnp.argmin(candidates.sum(axis=1))
        return candidates[best], draws[best]

    first = jax.random.randint(first_key, (), 0, n_cells)
    _, others = lax.scan(choose, squared_distances(first), jax.random.split(key, n_clusters - 1))
    return embeddings[jnp.concatenate([first[None], others])]


class SoftKMeansClustering(Operator[SoftClusteringConfig]):
    """Cluster cells by soft k-means from centroids that are parameters.

    Reads `embeddings` (cells, features); writes `cluster_assignments` (cells, clusters) and
    `cluster_centroids` (clusters, features). The centroids start as standard normal draws;
    `initialize` places them by the data, which clusters need to mean anything.

    Args:
        config: Number of clusters and features, temperature, steps.
        rngs: Source of the first centroids.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> config = SoftClusteringConfig(n_clusters=2, n_features=1, temperature=0.01)
        >>> clusterer = SoftKMeansClustering(config, rngs=nnx.Rngs(42))
        >>> cells = jnp.array([[0.0], [1.0], [9.0], [10.0]])
        >>> clusterer.initialize(cells, key=jax.random.key(0))
        >>> data, _, _ = clusterer.apply({"embeddings": cells}, {}, None)
        >>> sorted(data["cluster_centroids"].ravel().tolist())
        [0.5, 9.5]
    """

    def __init__(self, config: SoftClusteringConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        shape = (config.n_clusters, config.n_features)
        self.centroids = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.softness = Softness(config.temperature, learnable=config.learnable_temperature)

    def initialize(self, embeddings: Float[Array, "cells features"], *, key: Array) -> None:
        """Place the centroids by k-means++ and expectation-maximization to convergence.

        Args:
            embeddings: Coordinates (cells, features).
            key: Random key of k-means++.

        Raises:
            ContractError: There are fewer cells than clusters.
        """
        start = kmeans_plus_plus(embeddings, self.config.n_clusters, key=key)
        self.centroids[...] = _converged(embeddings, start, self.softness())

    def compute(self, embeddings: Float[Array, "cells features"]) -> Clusters:
        """Return the soft clusters of the cells."""
        return soft_kmeans(
            embeddings,
            self.centroids[...],
            softness=self.softness(),
            n_iterations=self.config.n_iterations,
        )


def _assigned(embeddings: Array, centroids: Array, softness: ArrayLike) -> Array:
    """Return softmax(-d^2 / softness) over the centroids."""
    middle = centroids.mean(axis=0)  # a common shift keeps the products small, hence exact
    cells, centres = embeddings - middle, centroids - middle
    products = jnp.matmul(cells, centres.T, precision=lax.Precision.HIGHEST)
    # the norm of the cell is the same for all clusters, so the softmax does without
    return soft_ops.argmax(2 * products - jnp.sum(centres**2, axis=-1), axis=-1, softness=softness)


def _updated(embeddings: Array, centroids: Array, softness: ArrayLike) -> Array:
    """Return the mean of the cells of each cluster, or its centroid if it has none."""
    assignments = _assigned(embeddings, centroids, softness)
    mass = assignments.sum(axis=0)[:, None]
    sums = jnp.matmul(assignments.T, embeddings, precision=lax.Precision.HIGHEST)
    occupied = mass > _NO_MASS
    return jnp.where(occupied, sums / jnp.where(occupied, mass, 1.0), centroids)


@jax.jit
def _converged(embeddings: Array, centroids: Array, softness: ArrayLike) -> Array:
    """Return the centroids at which expectation-maximization comes to rest."""
    tolerance = _CONVERGED * jnp.sqrt(embeddings.var(axis=0).mean())

    def moves(state: tuple[Array, Array, Array]) -> Array:
        iteration, centroids, before = state
        return (iteration < _MAX_ITERATIONS) & (jnp.max(jnp.abs(centroids - before)) > tolerance)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        iteration, centroids, _ = state
        return iteration + 1, _updated(embeddings, centroids, softness), centroids

    start = (jnp.int32(0), centroids, jnp.full_like(centroids, jnp.inf))
    return lax.while_loop(moves, step, start)[1]
