"""Harmony: batch correction of an embedding by soft clusters in which every batch is to be represented.

In turns, until nothing improves: cells are clustered by the direction of their corrected embedding, softly, with a
penalty on clusters that lack batches (`diverse_clustering`); then, from the original embedding z of each cell, what
its batch b adds in its clusters k is taken out (`batch_design`),

    corrected_i = z_i - sum_k r_ik w_k,b(i)

where r are the assignments and w_k the effects of the batches in cluster k by ridge regression. The softness is the
sigma of the clusters: as it goes to 0, each cell belongs to one cluster, and is corrected as all of its batch there.

Assignments are updated block by block, each against the counts of all others, else whole batches would jump between
clusters. Blocks take cells in strides (cell i is in block i mod n_blocks), so that the result is a function of the
data; the reference implementation draws them anew each time.

References:
    Korsunsky et al., Fast, sensitive and accurate integration of single-cell data with Harmony, Nature Methods 2019.
    Patikas et al., Harmony2, 2024 (a ridge in proportion to the cells expected).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs
from diffbio.core.errors import ConfigError
from diffbio.operators.singlecell.batch_design import (
    batch_effects,
    batch_indicators,
    batch_sizes,
    unit_length,
    without_batch_effects,
)
from diffbio.operators.singlecell.diverse_clustering import (
    Blocks,
    assigned,
    batches_of,
    cluster_step,
    in_rows,
    matmul,
    objective,
    spherical_centroids,
)


@dataclass(frozen=True, kw_only=True)
class HarmonyConfig(OperatorConfig):
    """Sizes, and how strongly batches are mixed and taken out.

    Args:
        n_features: Number of coordinates of an embedding.
        n_clusters: Number of clusters; usual is a thirtieth of the cells, at most 100.
        n_batches: Number of batches; of each batch variable, where there are several.
        temperature: The softness sigma of clusters, in units of 2 (1 - cosine), from 0 to 4.
        diversity: Weight theta of the diversity penalty, at least 0; one for all batch variables, or one for each.
        ridge: Strength of the penalty on batch effects, above 0.
        ridge_unit: What `ridge` multiplies: `expected`, the cells of a batch expected in the cluster, so that all
            clusters are corrected alike; or `cells`, one cell, so that batches with few cells are corrected less.
        n_rounds: Most turns of clustering and correction.
        n_cluster_steps: Updates of centroids and assignments in each turn.
        tolerance: A turn that changes the objective by less than this share of it is the last.
        learnable: Whether training changes temperature, diversity and ridge.
    """

    n_features: Annotated[int, Ge(1)]
    n_clusters: Annotated[int, Ge(1)]
    n_batches: Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], ...]
    temperature: Annotated[float, Gt(0)] = 0.1
    diversity: Annotated[float, Ge(0)] | tuple[Annotated[float, Ge(0)], ...] = 2.0
    ridge: Annotated[float, Gt(0)] = 0.2
    ridge_unit: Literal["expected", "cells"] = "expected"
    n_rounds: Annotated[int, Ge(1)] = 10
    n_cluster_steps: Annotated[int, Ge(1)] = 4
    tolerance: Annotated[float, Ge(0)] = 1e-3
    learnable: bool = False

    def __post_init__(self) -> None:
        """Check each field, then that there is one diversity per batch variable, or one for all."""
        super().__post_init__()
        if isinstance(self.diversity, tuple) and len(self.diversity) != len(batch_sizes(self.n_batches)):
            raise ConfigError(
                f"HarmonyConfig.diversity has {len(self.diversity)} values, and n_batches describes "
                f"{len(batch_sizes(self.n_batches))} batch variables; give one number, or one per variable"
            )


class HarmonizedCells(NamedTuple):
    """Cells whose batches are taken out.

    Attributes:
        corrected_embeddings: In the unit of the embeddings.
        harmony_assignments: A distribution over the clusters for each cell.
    """

    corrected_embeddings: Float[Array, "cells features"]
    harmony_assignments: Float[Array, "cells clusters"]


@partial(jax.jit, static_argnames=("n_batches", "ridge_unit", "n_rounds", "n_cluster_steps", "n_blocks"))
def harmony(
    embeddings: Float[Array, "cells features"],
    batch_labels: Int[Array, "cells *variables"],
    centroids: Float[Array, "clusters features"],
    *,
    n_batches: int | tuple[int, ...],
    softness: ArrayLike = 0.1,
    diversity: ArrayLike = 2.0,
    ridge: ArrayLike = 0.2,
    ridge_unit: Literal["expected", "cells"] = "expected",
    n_rounds: int = 10,
    n_cluster_steps: int = 4,
    n_blocks: int = 20,
    tolerance: ArrayLike = 1e-3,
) -> HarmonizedCells:
    """Return the embedding without batch effects, and the clusters in which they were estimated.

    Args:
        embeddings: Coordinates (cells, features), centered, such as principal components.
        batch_labels: Codes from 0, one column per batch variable, or one axis. A cell with another code, by
            convention -1, has no batch: it is clustered by distance and not corrected.
        centroids: Where the clusters start (clusters, features); only directions count.
        n_batches: Number of batches, of each variable where there are several.
        softness: sigma > 0, in units of 2 (1 - cosine).
        diversity: theta, at least 0: one number, or one for each batch variable.
        ridge: Strength of the penalty on batch effects, above 0.
        ridge_unit: Whether `ridge` is in expected cells of the batch in the cluster, or in cells.
        n_rounds: Most turns.
        n_cluster_steps: Updates of centroids and assignments in each turn.
        n_blocks: Blocks in which assignments are updated, as far as there are cells.
        tolerance: A turn that changes the objective by less than this share of it is the last.

    Returns:
        Corrected embeddings and assignments. Memory grows as cells x (clusters + features + batches); the gradient
        keeps one array cells x clusters per turn, and recomputes what happens within. Whether a turn was the last is a
        constant to differentiation.

    References:
        Korsunsky et al. 2019, algorithms 1 to 3.

    Example:
        >>> types, batches = jnp.array([0, 1, 0, 1] * 5), jnp.array([0, 0, 1, 1] * 5)
        >>> embeddings = 5 * jnp.eye(2)[types] + 0.5 * batches[:, None]
        >>> found = harmony(embeddings, batches, jnp.eye(2), n_batches=2, ridge=1e-3)
        >>> gap = lambda z: float(jnp.abs(z[:2] - z[2:4]).max())
        >>> gap(embeddings), round(gap(found.corrected_embeddings), 2)
        (0.5, 0.0)
    """
    sizes = batch_sizes(n_batches)
    n_cells, n_blocks = embeddings.shape[0], min(n_blocks, embeddings.shape[0])
    indicators = batch_indicators(batch_labels, sizes).astype(embeddings.dtype)
    batches = batches_of(indicators, sizes, diversity)
    z = _in_strides(embeddings, n_blocks)
    present = _in_strides(jnp.ones((n_cells, 1), embeddings.dtype), n_blocks)
    blocks = Blocks(_in_strides(indicators, n_blocks), present)

    @jax.checkpoint
    def turn(state: _State) -> _State:
        directions = unit_length(state.corrected)
        blank = jnp.zeros_like(state.assignments)
        updated = lax.fori_loop(
            0,
            n_cluster_steps,
            lambda _, carry: cluster_step(carry[0], directions, blocks, batches, softness),
            (state.assignments, blank),
        )
        assignments, similarity = map(in_rows, updated)
        cells, design = in_rows(z), in_rows(blocks.design)
        observed = matmul(design.T, assignments)
        penalized = batches.expected(observed) if ridge_unit == "expected" else jnp.ones_like(observed)
        effects = batch_effects(cells, assignments, design, jnp.asarray(ridge * penalized))
        corrected = without_batch_effects(cells, assignments, design, effects)
        reached = lax.stop_gradient(objective(assignments, similarity, observed, batches, softness))
        at_rest = jnp.abs(state.objective - reached) < tolerance * jnp.abs(reached)
        return _State(corrected.reshape(z.shape), updated[0], reached, at_rest)

    def unless_at_rest(state: _State, _: None) -> tuple[_State, None]:
        return lax.cond(state.at_rest, lambda state: state, turn, state), None

    similarity = matmul(unit_length(z), unit_length(centroids).T)
    nothing_yet = jnp.full((), jnp.inf, z.dtype)
    start = _State(z, assigned(similarity, 0.0, present, softness), nothing_yet, jnp.asarray(False))
    end = lax.scan(unless_at_rest, start, length=n_rounds)[0]
    return HarmonizedCells(_in_order(end.corrected, n_cells), _in_order(end.assignments, n_cells))


class Harmony(Operator[HarmonyConfig]):
    """Takes batch effects out of an embedding by Harmony.

    Reads `embeddings` (cells, features), centered, and `batch_labels` (cells,) or (cells, variables); writes
    `corrected_embeddings` (cells, features) and `harmony_assignments` (cells, clusters). Clusters start at random
    directions; `initialize` places them by the data, which they need to mean anything.

    Args:
        config: Sizes, softness, weights.
        rngs: Source of the first directions.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> config = HarmonyConfig(n_features=2, n_clusters=2, n_batches=2)
        >>> operator = Harmony(config, rngs=nnx.Rngs(0))
        >>> types, batches = jnp.array([0, 1, 0, 1] * 5), jnp.array([0, 0, 1, 1] * 5)
        >>> embeddings = 5 * jnp.eye(2)[types] + 0.5 * batches[:, None]
        >>> operator.initialize(embeddings, key=jax.random.key(0))
        >>> data, _, _ = operator.apply({"embeddings": embeddings, "batch_labels": batches}, {}, None)
        >>> data["corrected_embeddings"].shape, data["harmony_assignments"].shape
        ((20, 2), (20, 2))
    """

    def __init__(self, config: HarmonyConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        n_variables = len(batch_sizes(config.n_batches))
        drawn = jax.random.normal(rngs.params(), (config.n_clusters, config.n_features))
        self.centroids = nnx.Variable(unit_length(drawn))
        self.softness = Softness(config.temperature, learnable=config.learnable)
        self.diversity = kind(jnp.broadcast_to(jnp.asarray(config.diversity, jnp.float32), n_variables))
        self.log_ridge = kind(jnp.log(jnp.float32(config.ridge)))

    def initialize(self, embeddings: Float[Array, "cells features"], *, key: Array) -> None:
        """Place the clusters by k-means of the directions of the cells.

        Raises:
            ContractError: There are fewer cells than clusters.
        """
        self.centroids[...] = spherical_centroids(embeddings, self.config.n_clusters, key=key)

    def compute(
        self, embeddings: Float[Array, "cells features"], batch_labels: Int[Array, "cells *variables"]
    ) -> HarmonizedCells:
        """Return the corrected embedding and the clusters."""
        config = self.config
        return harmony(
            embeddings,
            batch_labels,
            self.centroids[...],
            n_batches=config.n_batches,
            softness=self.softness(),
            diversity=self.diversity[...],
            ridge=jnp.exp(self.log_ridge[...]),
            ridge_unit=config.ridge_unit,
            n_rounds=config.n_rounds,
            n_cluster_steps=config.n_cluster_steps,
            tolerance=config.tolerance,
        )


class _State(NamedTuple):
    """What a turn changes; arrays of cells are in blocks."""

    corrected: Array
    assignments: Array
    objective: Array
    at_rest: Array


def _in_strides(rows: Array, n_blocks: int) -> Array:
    """Return the rows in blocks, taken in strides and filled up with zeros: (blocks, rows of a block, columns)."""
    padded = jnp.pad(rows, ((0, -len(rows) % n_blocks), (0, 0)))
    return jnp.moveaxis(padded.reshape(-1, n_blocks, rows.shape[-1]), 1, 0)


def _in_order(blocks: Array, n_rows: int) -> Array:
    """Return the first rows of such blocks, in their original order."""
    return in_rows(jnp.moveaxis(blocks, 0, 1))[:n_rows]
