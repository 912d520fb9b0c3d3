"""t-SNE: a map that keeps, for each cell, the distribution over its neighbours.

Cell i chooses cell j with probability p_j|i = exp(-beta_i d_ij^2) over its sum, with beta_i such that the entropy of
the choice is the logarithm of the perplexity; p_ij = (p_j|i + p_i|j) / 2n. In the map, q_ij is 1 / (1 + |y_i - y_j|^2)
over the sum of all of these, and the coordinates descend the Kullback-Leibler divergence of q from p. beta is the root
of an equation in the distances, and its gradient is that of the implicit function. The coordinates are parameters,
which the loss `tsne_divergence` can move further; through p it has a gradient to the embeddings. Nothing but the choice
of neighbours is hard.

References:
    van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 2008.
    Belkina et al., Automated optimized parameters for t-SNE, Nature Communications 2019 (learning rate).
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
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.core.errors import ContractError
from diffbio.operators.normalization.pca import principal_components
from diffbio.operators.normalization.projection import project
from diffbio.operators.singlecell.neighbor_graph import is_neighbor, mutual_weights, symmetric_shares
from diffbio.operators.singlecell.neighbors import nearest_neighbors

_EXPLORATION = 250  # steps with exaggerated attraction
_START = 1e-4  # standard deviation of the first map along its first axis
_LEAST_GAIN = 0.01
_HALVINGS = 60  # of an interval over 14 decades
_BLOCK = 256  # cells that meet all others at once


@dataclass(frozen=True, kw_only=True)
class TSNEConfig(OperatorConfig):
    """Settings of t-SNE, those of scikit-learn.

    Args:
        n_cells: Number of cells, whose coordinates are parameters.
        n_components: Dimensions of the map.
        perplexity: Effective number of neighbours; three times as many are sought.
        early_exaggeration: Factor of attraction in the first 250 steps.
        n_iterations: Steps of the descent in `initialize`.
        learning_rate: Length of a step; `None` for n_cells / early_exaggeration / 4, at least 50.
    """

    n_cells: Annotated[int, Ge(3)]
    n_components: Annotated[int, Ge(1)] = 2
    perplexity: Annotated[float, Gt(1)] = 30.0
    early_exaggeration: Annotated[float, Ge(1)] = 12.0
    n_iterations: Annotated[int, Ge(0)] = 1000
    learning_rate: Annotated[float, Gt(0)] | None = None


class TSNEGraph(NamedTuple):
    """The distribution p over pairs of cells, in shares C: p = C + C^T.

    Attributes:
        tsne_indices: Rows of the neighbours, nearest first. No gradient.
        tsne_affinities: C: half of p_ij where i and j list each other, else all of it. They sum to a half.
    """

    tsne_indices: Int[Array, "cells others"]
    tsne_affinities: Float[Array, "cells others"]


class TSNELayout(NamedTuple):
    """The map and the distribution that it keeps.

    Attributes:
        tsne: Coordinates in the map.
        tsne_indices: See `TSNEGraph`.
        tsne_affinities: Likewise.
    """

    tsne: Float[Array, "cells components"]
    tsne_indices: Int[Array, "cells others"]
    tsne_affinities: Float[Array, "cells others"]


def neighbor_probabilities(
    distances: Float[Array, "cells neighbors"], perplexity: ArrayLike
) -> Float[Array, "cells neighbors"]:
    """Return p_j|i for the neighbours of each cell, with the given perplexity.

    Args:
        distances: To the neighbours, the cell itself excluded (cells, neighbors).
        perplexity: Above 1 and below the number of neighbours.

    Returns:
        Rows that sum to 1 (cells, neighbors). Where more neighbours than the perplexity are equally near, these share
        alike.

    References:
        scikit-learn `manifold._utils._binary_search_perplexity`.

    Example:
        >>> chosen = neighbor_probabilities(jnp.array([[1.0, 2.0, 3.0]]), 2.0)
        >>> round(float(jnp.exp(jax.scipy.special.entr(chosen).sum())), 3)
        2.0
    """
    longest = jnp.max(lax.stop_gradient(distances), axis=1, keepdims=True)
    squared = (distances / jnp.where(longest > 0, longest, 1.0)) ** 2
    squared = squared - squared.min(axis=1, keepdims=True)  # which changes no probability
    span = jnp.max(lax.stop_gradient(squared), axis=1, keepdims=True)
    squared = squared / jnp.where(span > 0, span, 1.0)
    fixed, target = lax.stop_gradient(squared), jnp.log(perplexity)

    def entropy(squared: Array, beta: Array) -> Array:
        logits = -beta[:, None] * squared
        return jax.nn.logsumexp(logits, axis=1) - jnp.sum(jax.nn.softmax(logits, axis=1) * logits, axis=1)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        wide = entropy(fixed, jnp.exp(middle)) > target
        return jnp.where(wide, middle, low), jnp.where(wide, high, middle)

    ends = (jnp.full_like(fixed[:, 0], math.log(1e-2)), jnp.full_like(fixed[:, 0], math.log(1e12)))
    beta = jnp.exp(lax.fori_loop(0, _HALVINGS, halve, ends)[1])
    # one step of Newton's from the root has the gradient of the implicit function
    chosen = jax.nn.softmax(-beta[:, None] * fixed, axis=1)
    mean = jnp.sum(chosen * fixed, axis=1, keepdims=True)
    slope = -beta * jnp.sum(chosen * (fixed - mean) ** 2, axis=1)
    solvable = -slope * beta > jnp.finfo(slope.dtype).eps
    found = entropy(squared, beta)
    beta = beta - jnp.where(solvable, (found - lax.stop_gradient(found)) / jnp.where(solvable, slope, 1.0), 0.0)
    return jax.nn.softmax(-beta[:, None] * squared, axis=1)


def tsne_graph(embeddings: Float[Array, "cells features"], perplexity: float = 30.0) -> TSNEGraph:
    """Return the joint distribution over pairs of neighbours.

    Args:
        embeddings: Coordinates (cells, features).
        perplexity: Effective number of neighbours, above 1.

    Returns:
        Indices and shares (cells, others), with the 3 x perplexity + 1 nearest others or all of them.

    Raises:
        ContractError: There are too few cells for the perplexity.

    References:
        scikit-learn `manifold._t_sne._joint_probabilities_nn`.

    Example:
        >>> round(float(tsne_graph(jnp.arange(9.0)[:, None], 2.0).tsne_affinities.sum()), 4)
        0.5
    """
    n_cells = len(embeddings)
    n_others = min(int(3 * perplexity + 1), n_cells - 1)
    if n_others <= perplexity:
        raise ContractError(
            f"perplexity {perplexity:g} can't be had among {n_cells} cells; lower it below {max(n_others, 1)}, "
            "or give more cells"
        )
    neighbors = nearest_neighbors(embeddings, n_others)
    directed = neighbor_probabilities(neighbors.distances, perplexity) / (2 * n_cells)
    directed = jnp.where(is_neighbor(neighbors.indices), directed, 0.0)
    opposite, mutual = mutual_weights(directed, neighbors.indices)
    return TSNEGraph(neighbors.indices, symmetric_shares(directed + opposite, mutual, neighbors.indices))


@partial(jax.jit, static_argnames="n_iterations")
def descend(
    coordinates: Float[Array, "cells components"],
    graph: TSNEGraph,
    *,
    n_iterations: int = 1000,
    early_exaggeration: ArrayLike = 12.0,
    learning_rate: ArrayLike = 200.0,
) -> Float[Array, "cells components"]:
    """Return the map after gradient descent with momentum and gains, first with exaggerated attraction.

    Args:
        coordinates: Where the map starts (cells, components).
        graph: The distribution to keep.
        n_iterations: Steps, of which the first 250 exaggerate.
        early_exaggeration: By how much.
        learning_rate: Length of a step.

    Returns:
        Coordinates (cells, components). Repulsion is exact: time grows as cells^2 for each step, memory as the cells.

    References:
        scikit-learn `manifold.TSNE(method="exact")`; Jacobs, Increased rates of convergence, 1988 (gains).

    Example:
        >>> cells = jnp.arange(9.0)[:, None]
        >>> first = 1e-4 * jnp.concatenate([cells - 4, -cells + 4], axis=1)
        >>> descend(first, tsne_graph(cells, 2.0), n_iterations=10, learning_rate=1.0).shape
        (9, 2)
    """

    def step(state: tuple[Array, Array, Array], count: Array) -> tuple[tuple[Array, Array, Array], None]:
        layout, move, gains = state
        early, again = count < _EXPLORATION, count == _EXPLORATION  # what was learned of exaggerated slopes is dropped
        move, gains = jnp.where(again, 0.0, move), jnp.where(again, 1.0, gains)
        slope = 4 * (jnp.where(early, early_exaggeration, 1.0) * _attraction(layout, graph) - _repulsion(layout))
        gains = jnp.maximum(jnp.where(move * slope < 0, gains + 0.2, gains * 0.8), _LEAST_GAIN)
        move = jnp.where(early, 0.5, 0.8) * move - learning_rate * gains * slope
        return (layout + move, move, gains), None

    start = (coordinates, jnp.zeros_like(coordinates), jnp.ones_like(coordinates))
    return lax.scan(step, start, jnp.arange(n_iterations))[0][0]


def _attraction(layout: Array, graph: TSNEGraph) -> Float[Array, "cells components"]:
    """Return sum_j p_ij (y_i - y_j) / (1 + d_ij^2)."""

    def add(total: Array, edge: tuple[Array, Array]) -> tuple[Array, None]:
        others, share = edge
        across = layout - layout[others]
        force = (share / (1 + jnp.sum(across**2, axis=1)))[:, None] * across
        return total.at[others].add(-force) + force, None

    return lax.scan(add, jnp.zeros_like(layout), (graph.tsne_indices.T, graph.tsne_affinities.T))[0]


def _repulsion(layout: Array) -> Float[Array, "cells components"]:
    """Return sum_j q_ij (y_i - y_j) / (1 + d_ij^2), block by block."""

    def of_one(cell: Array) -> tuple[Array, Array]:
        across = cell - layout
        similarity = 1 / (1 + jnp.sum(across**2, axis=1))
        return jnp.sum(similarity[:, None] ** 2 * across, axis=0), similarity.sum() - 1

    forces, sums = lax.map(of_one, layout, batch_size=_BLOCK)
    return forces / sums.sum()


class TSNE(Operator[TSNEConfig]):
    """Maps the cells that it was initialized on; the coordinates are parameters.

    Reads `embeddings` (cells, features) of as many cells as `n_cells`; writes `tsne` (cells, components), and the
    distribution `tsne_indices` and `tsne_affinities` (cells, others), which `tsne_divergence` compares it with.
    Coordinates start as normal draws; `initialize` computes the map from the principal components.

    Args:
        config: Sizes, perplexity and descent.
        rngs: Source of the first coordinates.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> tsne = TSNE(TSNEConfig(n_cells=20, perplexity=4.0, n_iterations=50), rngs=nnx.Rngs(0))
        >>> cells = jnp.linspace(0.0, 1.0, 20)[:, None] ** jnp.arange(1, 4)
        >>> tsne.initialize(cells)
        >>> tsne.apply({"embeddings": cells}, {}, None)[0]["tsne"].shape
        (20, 2)
    """

    def __init__(self, config: TSNEConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        self.coordinates = nnx.Param(jax.random.normal(rngs.params(), (config.n_cells, config.n_components)))

    def initialize(self, embeddings: Float[Array, "cells features"]) -> None:
        """Compute the map of these cells.

        Args:
            embeddings: Coordinates (cells, features), at least as many features as components.

        Raises:
            ContractError: There are other than `n_cells` cells, or too few for the perplexity.
        """
        config = self.config
        if len(embeddings) != config.n_cells:
            raise ContractError(
                f"TSNE has coordinates for {config.n_cells} cells and was given {len(embeddings)}; "
                "set n_cells to the number of cells"
            )
        found = principal_components(embeddings, config.n_components)
        first = project(embeddings, found.mean, found.components)
        spread = first[:, 0].std()
        rate = config.learning_rate or max(config.n_cells / config.early_exaggeration / 4, 50.0)
        self.coordinates[...] = descend(
            _START * first / jnp.where(spread > 0, spread, 1.0),
            tsne_graph(embeddings, config.perplexity),
            n_iterations=config.n_iterations,
            early_exaggeration=config.early_exaggeration,
            learning_rate=rate,
        )

    def compute(self, embeddings: Float[Array, "cells features"]) -> TSNELayout:
        """Return the map and the distribution of the cells."""
        return TSNELayout(self.coordinates[...], *tsne_graph(embeddings, self.config.perplexity))
