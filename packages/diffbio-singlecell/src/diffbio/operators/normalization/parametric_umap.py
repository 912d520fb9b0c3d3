"""Parametric UMAP: a network that maps any cell, trained on the cross-entropy that UMAP descends.

The objective is that of `umap_cross_entropy`. It is sampled: edges in proportion to their weight, and for each edge a
few cells at random, so that a step costs the same however many cells there are. Once trained, the network maps new
cells by itself, and later training, by any loss, can go on from there. Nothing but the choice of neighbours is hard.

References:
    Sainburg, McInnes and Gentner, Parametric UMAP embeddings for representation and semisupervised learning, Neural
    Computation 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge, Gt
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.operators.normalization.fuzzy_graph import FuzzyEdges, fuzzy_graph
from diffbio.operators.normalization.umap_curve import umap_attraction, umap_curve, umap_repulsion
from diffbio.operators.singlecell.annotation import dense_layers


@dataclass(frozen=True, kw_only=True)
class ParametricUMAPConfig(OperatorConfig):
    """Sizes of the network, and settings of UMAP.

    Args:
        n_features: Number of features of a cell.
        n_components: Dimensions of the map.
        hidden_sizes: Width of each hidden layer; empty for a linear map.
        n_neighbors: Cells of a neighbourhood, the cell itself counted.
        min_dist: Distance in the map below which cells count as one.
        spread: Decay of similarity beyond it; at least about `min_dist`.
        n_steps: Steps of Adam in `initialize`.
        batch_size: Edges in each step.
        learning_rate: Of Adam; it falls to 0 over the steps.
        negative_sample_rate: Cells drawn for each edge.
        noise: Standard deviation of the noise that training adds to the cells, in units of the features' root mean
            variance: how far around a cell the map is smooth.
    """

    n_features: Annotated[int, Ge(1)]
    n_components: Annotated[int, Ge(1)] = 2
    hidden_sizes: tuple[Annotated[int, Ge(1)], ...] = (100, 100, 100)
    n_neighbors: Annotated[int, Ge(3)] = 15
    min_dist: Annotated[float, Ge(0)] = 0.1
    spread: Annotated[float, Gt(0)] = 1.0
    n_steps: Annotated[int, Ge(0)] = 5000
    batch_size: Annotated[int, Ge(1)] = 1000
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    negative_sample_rate: Annotated[int, Ge(1)] = 5
    noise: Annotated[float, Ge(0)] = 0.3


class MappedCells(NamedTuple):
    """Cells in the map.

    Attributes:
        umap: Coordinates, in the unit of `min_dist`.
    """

    umap: Float[Array, "*cells components"]


class Layers(NamedTuple):
    """The weights of a network.

    Attributes:
        kernels: One matrix (width in, width out) per layer.
        biases: One vector (width out,) per layer.
    """

    kernels: tuple[Float[Array, "width_in width_out"], ...]
    biases: tuple[Float[Array, " width_out"], ...]


@partial(jax.jit, static_argnames=("n_steps", "batch_size", "negative_sample_rate"))
def train_encoder(
    layers: Layers,
    cells: Float[Array, "cells features"],
    graph: FuzzyEdges,
    *,
    key: Array,
    a: float | Array,
    b: float | Array,
    n_steps: int,
    batch_size: int = 1000,
    learning_rate: float | Array = 1e-3,
    negative_sample_rate: int = 5,
    noise: float | Array = 0.0,
) -> Layers:
    """Return the network after training on sampled edges.

    Args:
        layers: The network to start from.
        cells: What it reads (cells, features).
        graph: The fuzzy graph of the cells.
        key: Random key of the samples.
        a: Of `umap_curve`.
        b: Likewise.
        n_steps: Steps of Adam.
        batch_size: Edges in each step, and cells among which their negative samples are drawn.
        learning_rate: Of the first steps; it falls linearly to 0.
        negative_sample_rate: Cells drawn for each edge.
        noise: Standard deviation of the normal noise that is added to the cells each time they are seen.

    Returns:
        The trained network. Time grows as steps x batch, memory as cells x neighbors.

    Example:
        >>> graph = FuzzyEdges(jnp.array([[1], [0]]), jnp.full((2, 1), 0.5))
        >>> layers = Layers((jnp.ones((1, 2)),), (jnp.zeros(2),))
        >>> options = {"a": 1.6, "b": 0.9, "n_steps": 20, "batch_size": 4}
        >>> trained = train_encoder(layers, jnp.array([[0.0], [9.0]]), graph, key=jax.random.key(0), **options)
        >>> bool(jnp.abs(trained.kernels[0]).max() < 1)  # any key will do: the two cells approach each other
        True
    """
    n_cells, length = graph.fuzzy_indices.shape
    cumulative = jnp.cumsum(graph.fuzzy_memberships.ravel())
    optimizer = optax.adam(optax.linear_schedule(learning_rate, 0.0, max(n_steps, 1)))  # pyright: ignore[reportArgumentType]

    def loss(layers: Layers, key: Array) -> Array:
        which, swap, others, blur = jax.random.split(key, 4)
        drawn = jax.random.uniform(which, (batch_size,), cells.dtype) * cumulative[-1]
        place = jnp.minimum(jnp.searchsorted(cumulative, drawn, side="right"), n_cells * length - 1)
        pair = jnp.stack([place // length, graph.fuzzy_indices.ravel()[place]])
        # an edge stands in one direction or as halves in both: either end is as likely to be the head
        pair = jnp.where(jax.random.bernoulli(swap, 0.5, (batch_size,)), pair, pair[::-1])
        pool = jax.random.randint(others, (batch_size,), 0, n_cells)
        seen = cells[jnp.concatenate([pair, pool[None]])]
        # a network that may bend as it likes between the cells would map new ones badly
        seen = seen + noise * jax.random.normal(blur, seen.shape, seen.dtype)
        head, tail, negatives = dense_layers(seen, *layers)
        shifted = jnp.stack([jnp.roll(negatives, shift, axis=0) for shift in range(negative_sample_rate)])
        pull = umap_attraction(jnp.sum((head - tail) ** 2, axis=-1), a, b)
        push = umap_repulsion(jnp.sum((head - shifted) ** 2, axis=-1), a, b).sum(axis=0)
        return jnp.mean(pull + push / 2)

    def step(state: tuple[Layers, Any], key: Array) -> tuple[tuple[Layers, Any], None]:
        layers, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(layers, key), moments)
        return (optax.apply_updates(layers, updates), moments), None  # pyright: ignore[reportReturnType]

    return lax.scan(step, (layers, optimizer.init(layers)), jax.random.split(key, n_steps))[0][0]


class ParametricUMAP(Operator[ParametricUMAPConfig]):
    """Maps cells by a network that `initialize` trains; new cells are mapped in the same way.

    Reads `embeddings` (*cells, features); writes `umap` (*cells, components). Acts on each cell alone. To train it
    further, together with what gives the embeddings, put a `FuzzyGraph` beside it and descend `umap_cross_entropy`.
    The network reads the embeddings centred and divided by their common spread, both set by `initialize`.

    Args:
        config: Sizes, neighbourhood and training.
        rngs: Source of the first weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.
        ConfigError: No curve fits `min_dist` and `spread`.

    Example:
        >>> config = ParametricUMAPConfig(n_features=3, n_neighbors=5, n_steps=20, batch_size=50)
        >>> mapper = ParametricUMAP(config, rngs=nnx.Rngs(0))
        >>> cells = jnp.linspace(0.0, 1.0, 20)[:, None] ** jnp.arange(1, 4)
        >>> mapper.initialize(cells, key=jax.random.key(0))  # any key will do
        >>> mapper.apply({"embeddings": cells[:1]}, {}, None)[0]["umap"].shape
        (1, 2)
    """

    def __init__(self, config: ParametricUMAPConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        umap_curve(config.min_dist, config.spread)  # fails here, and not after the search, where no curve fits
        draw = jax.nn.initializers.lecun_normal()
        sizes = list(pairwise((config.n_features, *config.hidden_sizes, config.n_components)))
        self.kernels = nnx.List([nnx.Param(draw(rngs.params(), size)) for size in sizes])
        self.biases = nnx.List([nnx.Param(jnp.zeros(width)) for _, width in sizes])
        self.center = nnx.Variable(jnp.zeros(config.n_features))
        self.scale = nnx.Variable(jnp.ones(()))

    def initialize(self, embeddings: Float[Array, "cells features"], *, key: Array) -> None:
        """Train the network on these cells.

        Args:
            embeddings: Coordinates (cells, features).
            key: Random key of the samples.

        Raises:
            ContractError: There are fewer cells than a neighbourhood has.
        """
        config = self.config
        self.center[...] = embeddings.mean(axis=0)
        spread = jnp.sqrt(embeddings.var(axis=0).mean())
        self.scale[...] = jnp.where(spread > 0, spread, 1.0)
        a, b = umap_curve(config.min_dist, config.spread)
        trained = train_encoder(
            self._layers(),
            self._standardized(embeddings),
            fuzzy_graph(embeddings, config.n_neighbors),
            key=key,
            a=a,
            b=b,
            n_steps=config.n_steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            negative_sample_rate=config.negative_sample_rate,
            noise=config.noise,
        )
        for held, weights in zip((*self.kernels, *self.biases), (*trained.kernels, *trained.biases), strict=True):
            held[...] = weights

    def compute(self, embeddings: Float[Array, "*cells features"]) -> MappedCells:
        """Return the coordinates of each cell in the map."""
        return MappedCells(dense_layers(self._standardized(embeddings), *self._layers()))

    def _standardized(self, embeddings: Array) -> Array:
        return (embeddings - self.center[...]) / self.scale[...]

    def _layers(self) -> Layers:
        return Layers(tuple(kernel[...] for kernel in self.kernels), tuple(bias[...] for bias in self.biases))
