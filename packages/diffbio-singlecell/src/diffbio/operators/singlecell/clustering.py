"""Soft k-means: Lloyd's algorithm with a softmax in place of the nearest centroid.

The assignment a_ik = softmax_k(-|x_i - c_k|^2 / tau) and the update c_k = sum_i a_ik x_i / sum_i a_ik are one step
of expectation-maximization for a mixture of equal spheres of variance tau / 2. As tau -> 0 the assignments become
one-hot and the steps Lloyd's (scikit-learn's KMeans). Above the critical tau, twice the largest variance of the data
along any direction, all centroids merge at the mean (Rose, Proceedings of the IEEE 1998).

A step reads the cells once, in blocks that stay in the cache of a core from the assignment to the update, and the
gradient computes each block again instead of keeping it.

References:
    Lloyd, Least squares quantization in PCM, IEEE Transactions on Information Theory 1982.
    Rose, Deterministic annealing for clustering, compression, classification, regression, and related optimization
    problems, Proceedings of the IEEE 1998.
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
from jaxtyping import Array, Bool, Float

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs, soft_ops
from diffbio.core.errors import ContractError

_NO_MASS = 1e-12  # of one cell: below, a quotient of two such sums has no meaning in float32
_CONVERGED = 1e-4  # of the spread of the data: the largest move of a centroid
_MAX_ITERATIONS = 300
_CACHED = 2**18  # float32 entries of a block: 1 MiB, what the second cache of a core holds
_LEAST_SOFTNESS = 1e-30  # as in soft_ops: anything less counts as hard


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
    blocks = _blocks(embeddings, centroids.shape[0])

    def step(centroids: Array, _: None) -> tuple[Array, None]:
        return _updated(blocks, centroids, softness), None

    centroids, _ = lax.scan(step, centroids, length=n_iterations)
    return Clusters(_assigned(blocks, centroids, softness)[: embeddings.shape[0]], centroids)


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


class _Blocks(NamedTuple):
    """Cells in blocks of equal size.

    Attributes:
        cells: Coordinates, zero where there is no cell (blocks, rows, features).
        present: Which rows are cells (blocks, rows).
    """

    cells: Float[Array, "blocks rows features"]
    present: Bool[Array, "blocks rows"]


def _blocks(embeddings: Array, n_clusters: int) -> _Blocks:
    """Return blocks that a core's cache holds with what is computed from them; an accelerator takes all at once."""
    n_cells, n_features = embeddings.shape
    most = max(_CACHED // (n_features + n_clusters), 1) if jax.default_backend() == "cpu" else n_cells
    n_blocks = max(-(-n_cells // max(most, 1)), 1)
    n_rows = -(-n_cells // n_blocks)
    padded = jnp.pad(embeddings, ((0, n_blocks * n_rows - n_cells), (0, 0)))
    present = jnp.arange(n_blocks * n_rows) < n_cells
    return _Blocks(padded.reshape(n_blocks, n_rows, n_features), present.reshape(n_blocks, n_rows))


def _shares(centred: Array, centres: Array, softness: ArrayLike) -> Float[Array, "clusters rows"]:
    """Return softmax(-d^2 / softness) over the clusters.

    Clusters come first, else the softmax would run along the few clusters of one cell, and not along the cells.
    """
    products = jnp.matmul(centres, centred.T, precision=lax.Precision.HIGHEST)
    # the norm of the cell is the same for all clusters, so the softmax does without
    scores = 2 * products - jnp.sum(centres**2, axis=1)[:, None]
    below = scores - lax.stop_gradient(scores.max(axis=0))
    return jax.nn.softmax(soft_ops.div(below, jnp.maximum(softness, _LEAST_SOFTNESS)), axis=0)


def _assigned(blocks: _Blocks, centroids: Array, softness: ArrayLike) -> Float[Array, "rows clusters"]:
    """Return the assignments of all rows, those of the padding included."""
    middle = centroids.mean(axis=0)  # a common shift keeps the products small, hence exact

    @jax.checkpoint
    def of_block(cells: Array) -> Array:
        return _shares(cells - middle, centroids - middle, softness).T

    return lax.map(of_block, blocks.cells).reshape(-1, centroids.shape[0])


def _updated(blocks: _Blocks, centroids: Array, softness: ArrayLike) -> Float[Array, "clusters features"]:
    """Return the mean of the cells of each cluster, or its centroid if it has none."""
    middle = centroids.mean(axis=0)

    @jax.checkpoint
    def moments(block: _Blocks) -> tuple[Array, Array]:
        centred = block.cells - middle
        shares = jnp.where(block.present, _shares(centred, centroids - middle, softness), 0.0)
        return shares.sum(axis=1), jnp.matmul(shares, centred, precision=lax.Precision.HIGHEST)

    def add(total: tuple[Array, Array], block: _Blocks) -> tuple[tuple[Array, Array], None]:
        return jax.tree.map(jnp.add, total, moments(block)), None

    nothing = (jnp.zeros_like(centroids[:, 0]), jnp.zeros_like(centroids))
    mass, sums = lax.scan(add, nothing, blocks)[0]
    occupied = (mass > _NO_MASS)[:, None]
    return jnp.where(occupied, middle + sums / jnp.where(occupied, mass[:, None], 1.0), centroids)


@jax.jit
def _converged(embeddings: Array, centroids: Array, softness: ArrayLike) -> Array:
    """Return the centroids at which expectation-maximization comes to rest."""
    tolerance = _CONVERGED * jnp.sqrt(embeddings.var(axis=0).mean())
    blocks = _blocks(embeddings, centroids.shape[0])

    def moves(state: tuple[Array, Array, Array]) -> Array:
        iteration, centroids, before = state
        return (iteration < _MAX_ITERATIONS) & (jnp.max(jnp.abs(centroids - before)) > tolerance)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        iteration, centroids, _ = state
        return iteration + 1, _updated(blocks, centroids, softness), centroids

    start = (jnp.int32(0), centroids, jnp.full_like(centroids, jnp.inf))
    return lax.while_loop(moves, step, start)[1]
