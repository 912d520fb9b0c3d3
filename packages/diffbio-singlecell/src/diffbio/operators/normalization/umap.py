"""UMAP: a map of the cells that keeps the fuzzy graph of their neighbourhoods.

The map starts from the leading eigenvectors of the normalized graph and descends the cross-entropy between the graph
and the similarities 1 / (1 + a d^(2 b)) in the map: each edge pulls its two cells together in proportion to its
weight, and pushes the first away from a few cells drawn at random. The coordinates are parameters, so that whatever
comes after, or the loss `umap_cross_entropy`, can move them further; through the weights of the graph the same loss has
a gradient to the embeddings. Nothing but the choice of neighbours is hard.

References:
    McInnes, Healy and Melville, UMAP: uniform manifold approximation and projection, 2018.
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
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.core.errors import ContractError
from diffbio.operators.normalization.fuzzy_graph import FuzzyEdges, fuzzy_graph
from diffbio.operators.normalization.pca import principal_components
from diffbio.operators.normalization.projection import project
from diffbio.operators.normalization.umap_curve import umap_curve
from diffbio.operators.singlecell.graph_spectrum import leading_eigenpairs
from diffbio.operators.singlecell.neighbor_graph import symmetric_sums

_WIDTH = 10.0  # of the first map along each axis
_JITTER = 1e-4  # of that width: parts cells that start in one place
_LONGEST = 4.0  # pull or push of a pair along an axis, before the learning rate
_NEAREST = 1e-3  # squared distance that pushes add
_IN_PIECES = 1e-5  # below 1: a second eigenvalue above that belongs to another connected component


@dataclass(frozen=True, kw_only=True)
class UMAPConfig(OperatorConfig):
    """Settings of UMAP, those of umap-learn.

    Args:
        n_cells: Number of cells, whose coordinates are parameters.
        n_components: Dimensions of the map.
        n_neighbors: Cells of a neighbourhood, the cell itself counted.
        min_dist: Distance in the map below which cells count as one.
        spread: Decay of similarity beyond it; at least about `min_dist`.
        n_epochs: Passes over the edges in `initialize`.
        learning_rate: Length of the first steps; it falls to 0 over the epochs.
        negative_sample_rate: Cells drawn for each edge.
        repulsion_strength: Factor of their push.
    """

    n_cells: Annotated[int, Ge(3)]
    n_components: Annotated[int, Ge(1)] = 2
    n_neighbors: Annotated[int, Ge(3)] = 15
    min_dist: Annotated[float, Ge(0)] = 0.1
    spread: Annotated[float, Gt(0)] = 1.0
    n_epochs: Annotated[int, Ge(0)] = 500
    learning_rate: Annotated[float, Gt(0)] = 1.0
    negative_sample_rate: Annotated[int, Ge(1)] = 5
    repulsion_strength: Annotated[float, Ge(0)] = 1.0


class UMAPLayout(NamedTuple):
    """The map and the graph that it keeps.

    Attributes:
        umap: Coordinates in the map, in the unit of `min_dist`.
        fuzzy_indices: Rows of the neighbours, nearest first. No gradient.
        fuzzy_memberships: Edges in shares; see `FuzzyEdges`.
    """

    umap: Float[Array, "cells components"]
    fuzzy_indices: Int[Array, "cells others"]
    fuzzy_memberships: Float[Array, "cells others"]


@partial(jax.jit, static_argnames="n_components")
def spectral_layout(
    embeddings: Float[Array, "cells features"], graph: FuzzyEdges, n_components: int = 2, *, key: Array
) -> Float[Array, "cells components"]:
    """Return a first map: the leading eigenvectors of the normalized graph after the trivial one.

    A graph in pieces has eigenvectors that only tell its pieces apart; then it is the principal components.

    Args:
        embeddings: Coordinates (cells, features).
        graph: The fuzzy graph of the cells.
        n_components: Dimensions of the map, less than the cells.
        key: Random key of the jitter that parts cells in one place.

    Returns:
        Coordinates from 0 to 10 along each axis (cells, n_components).

    Raises:
        ContractError: There are too few cells.

    Example:
        >>> cells = jnp.linspace(0.0, 1.0, 20)[:, None] ** jnp.arange(1, 4)
        >>> spectral_layout(cells, fuzzy_graph(cells, 5), 2, key=jax.random.key(0)).shape  # any key will do
        (20, 2)
    """
    indices, shares = graph
    roots = jnp.sqrt(symmetric_sums(shares, indices))
    roots = jnp.where(roots > 0, roots, 1.0)
    values, vectors = leading_eigenpairs(shares / roots[:, None] / roots[indices], indices, n_components + 1)
    n_axes = min(n_components, *embeddings.shape)
    found = principal_components(embeddings, n_axes)
    flat = jnp.pad(project(embeddings, found.mean, found.components), ((0, 0), (0, n_components - n_axes)))
    layout = jnp.where(values[1] > 1 - _IN_PIECES, flat, vectors[:, 1:])
    low, high = layout.min(axis=0), layout.max(axis=0)
    layout = (layout - low) / jnp.where(high > low, high - low, 1.0)
    return _WIDTH * (layout + _JITTER * jax.random.normal(key, layout.shape, layout.dtype))


@partial(jax.jit, static_argnames=("n_epochs", "negative_sample_rate"))
def optimize_layout(
    coordinates: Float[Array, "cells components"],
    graph: FuzzyEdges,
    *,
    key: Array,
    a: float | Array,
    b: float | Array,
    n_epochs: int = 500,
    learning_rate: float | Array = 1.0,
    negative_sample_rate: int = 5,
    repulsion_strength: float | Array = 1.0,
) -> Float[Array, "cells components"]:
    """Return the map after stochastic descent along the edges of the graph.

    In each of as many steps as the lists are long, every cell takes one of its edges and the negative samples of
    it; steps follow each other as single edges do in umap-learn, weights stand in place of their sampling.

    Args:
        coordinates: Where the map starts (cells, components).
        graph: The fuzzy graph of the cells.
        key: Random key of the negative samples.
        a: Of `umap_curve`.
        b: Likewise.
        n_epochs: Passes over the edges.
        learning_rate: Length of the first steps; it falls linearly to 0.
        negative_sample_rate: Cells drawn for each edge.
        repulsion_strength: Factor of their push.

    Returns:
        Coordinates (cells, components). Time grows as cells x neighbors x epochs, memory as cells x neighbors.

    References:
        umap-learn `optimize_layout_euclidean`.

    Example:
        >>> graph = FuzzyEdges(jnp.array([[1], [0]]), jnp.full((2, 1), 0.5))
        >>> far = jnp.array([[0.0, 0.0], [9.0, 0.0]])
        >>> near = optimize_layout(far, graph, key=jax.random.key(0), a=1.6, b=0.9)  # any key will do
        >>> bool(jnp.linalg.norm(near[0] - near[1]) < 5)
        True
    """
    n_cells = len(coordinates)
    drawn_shape = (negative_sample_rate, n_cells)

    def clipped(force: Array) -> Array:
        return jnp.clip(force, -_LONGEST, _LONGEST)

    def step(state: tuple[Array, Array], edge: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        layout, rate = state
        others, share, key = edge
        length = 2 * rate * share[:, None]  # the shares of an edge and of its opposite sum to its weight
        across = layout - layout[others]
        pull = length * clipped(-_pull(jnp.sum(across**2, axis=1, keepdims=True), a, b) * across)
        drawn = jax.random.randint(key, drawn_shape, 0, n_cells)
        across = layout - layout[drawn]  # zero, so no push, where a cell draws itself
        push = clipped(repulsion_strength * _push(jnp.sum(across**2, axis=2, keepdims=True), a, b) * across)
        return (layout.at[others].add(-pull) + pull + length * push.sum(axis=0), rate), None

    def epoch(layout: Array, count: Array) -> tuple[Array, None]:
        keys = jax.random.split(jax.random.fold_in(key, count), graph.fuzzy_indices.shape[1])
        rate = learning_rate * (1 - count / n_epochs)
        edges = (graph.fuzzy_indices.T, graph.fuzzy_memberships.T, keys)
        return lax.scan(step, (layout, rate), edges)[0][0], None

    return lax.scan(epoch, coordinates, jnp.arange(n_epochs))[0]


def _pull(squared: Array, a: float | Array, b: float | Array) -> Array:
    """Return the derivative of log(1 + a d^(2 b)), divided by d; 0 at 0."""
    apart = squared > 0
    squared = jnp.where(apart, squared, 1.0)
    return jnp.where(apart, 2 * a * b * squared ** (b - 1) / (1 + a * squared**b), 0.0)


def _push(squared: Array, a: float | Array, b: float | Array) -> Array:
    """Return minus the derivative of -log(1 - 1 / (1 + a d^(2 b))), divided by d."""
    return 2 * b / ((_NEAREST + squared) * (1 + a * squared**b))


class UMAP(Operator[UMAPConfig]):
    """Maps the cells that it was initialized on; the coordinates are parameters.

    Reads `embeddings` (cells, features) of as many cells as `n_cells`; writes `umap` (cells, components), and the graph
    `fuzzy_indices` and `fuzzy_memberships` (cells, others) of the embeddings, which `umap_cross_entropy` compares it
    with. Coordinates start as normal draws; `initialize` computes the map. New cells need `ParametricUMAP`.

    Args:
        config: Sizes, neighbourhood and descent.
        rngs: Source of the first coordinates.

    Raises:
        MissingRandomnessError: `rngs` is missing.
        ConfigError: No curve fits `min_dist` and `spread`.

    Example:
        >>> umap = UMAP(UMAPConfig(n_cells=20, n_neighbors=5, n_epochs=50), rngs=nnx.Rngs(0))
        >>> cells = jnp.linspace(0.0, 1.0, 20)[:, None] ** jnp.arange(1, 4)
        >>> umap.initialize(cells, key=jax.random.key(0))  # any key will do
        >>> umap.apply({"embeddings": cells}, {}, None)[0]["umap"].shape
        (20, 2)
    """

    def __init__(self, config: UMAPConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        umap_curve(config.min_dist, config.spread)  # fails here, and not after the search, where no curve fits
        self.coordinates = nnx.Param(jax.random.normal(rngs.params(), (config.n_cells, config.n_components)))

    def initialize(self, embeddings: Float[Array, "cells features"], *, key: Array) -> None:
        """Compute the map of these cells.

        Args:
            embeddings: Coordinates (cells, features).
            key: Random key of jitter and negative samples.

        Raises:
            ContractError: There are other than `n_cells` cells, or fewer than a neighbourhood has.
        """
        config = self.config
        if len(embeddings) != config.n_cells:
            raise ContractError(
                f"UMAP has coordinates for {config.n_cells} cells and was given {len(embeddings)}; "
                "set n_cells to the number of cells, or use ParametricUMAP, which takes any"
            )
        jitter, samples = jax.random.split(key)
        graph = fuzzy_graph(embeddings, config.n_neighbors)
        a, b = umap_curve(config.min_dist, config.spread)
        self.coordinates[...] = optimize_layout(
            spectral_layout(embeddings, graph, config.n_components, key=jitter),
            graph,
            key=samples,
            a=a,
            b=b,
            n_epochs=config.n_epochs,
            learning_rate=config.learning_rate,
            negative_sample_rate=config.negative_sample_rate,
            repulsion_strength=config.repulsion_strength,
        )

    def compute(self, embeddings: Float[Array, "cells features"]) -> UMAPLayout:
        """Return the map and the graph of the cells."""
        graph = fuzzy_graph(embeddings, self.config.n_neighbors)
        return UMAPLayout(self.coordinates[...], *graph)
