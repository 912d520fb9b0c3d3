"""Reference mapping: new cells are placed among the corrected cells of a reference, which does not move.

The reference is integrated once by Harmony, and compressed: for each cluster k its number of cells N_k = sum_i r_ik
and the sum of their corrected embeddings S_k = sum_i r_ik z_i, whose direction c_k is its centroid. A query cell z in
the same space is assigned softly, and corrected by the effects of the query's own batches against the reference as one
more batch, the one that needs no correction:

    r_ik = softmax_k(-2 (1 - x_i . c_k) / sigma)
    w_k = (D^T R_k D + e N_k e^T + L)^-1 (D^T R_k Z + e S_k),   corrected_i = z_i - sum_k r_ik w_k,b(i)

with design rows d = [1, batches], e the unit vector of the intercept, and L the ridge on batches. The softness is
sigma; as it goes to 0, each cell belongs to the nearest centroid alone.

References:
    Kang et al., Efficient and precise single-cell reference atlas mapping with Symphony, Nature Communications 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs
from diffbio.operators.singlecell.batch_design import (
    batch_effects,
    batch_indicators,
    unit_length,
    without_batch_effects,
)
from diffbio.operators.singlecell.diverse_clustering import assigned, matmul, spherical_centroids
from diffbio.operators.singlecell.harmony import HarmonizedCells, harmony


@dataclass(frozen=True, kw_only=True)
class ReferenceMappingConfig(OperatorConfig):
    """Sizes, softness and strength of the correction.

    Args:
        n_features: Number of coordinates of an embedding.
        n_clusters: Number of clusters of the reference; usual is a thirtieth of its cells, at most 100.
        n_batches: Number of batches of a query.
        temperature: The softness sigma of clusters, in units of 2 (1 - cosine), from 0 to 4.
        ridge: Penalty on the batch effects of a query, above 0, in cells.
        diversity: Weight theta of the diversity penalty when the reference is integrated, at least 0.
        learnable_temperature: Whether training changes the temperature.
    """

    n_features: Annotated[int, Ge(1)]
    n_clusters: Annotated[int, Ge(1)]
    n_batches: Annotated[int, Ge(1)] = 1
    temperature: Annotated[float, Gt(0)] = 0.1
    ridge: Annotated[float, Gt(0)] = 1.0
    diversity: Annotated[float, Ge(0)] = 2.0
    learnable_temperature: bool = False


class Reference(NamedTuple):
    """What is kept of an integrated reference.

    Attributes:
        mass: Cells of each cluster, by their weights.
        sums: Weighted sum of the corrected embeddings of each cluster; its direction is the centroid.
    """

    mass: Float[Array, " clusters"]
    sums: Float[Array, "clusters features"]


def compress_reference(
    corrected_embeddings: Float[Array, "cells features"], assignments: Float[Array, "cells clusters"]
) -> Reference:
    """Return the moments of a reference that queries are mapped by.

    Args:
        corrected_embeddings: The reference after integration.
        assignments: Its distributions over clusters.

    Returns:
        Number of cells and sum of embeddings of each cluster.

    Example:
        >>> reference = compress_reference(jnp.array([[2.0, 0.0], [4.0, 0.0]]), jnp.ones((2, 1)))
        >>> reference.mass.tolist(), reference.sums.tolist()
        ([2.0], [[6.0, 0.0]])
    """
    return Reference(assignments.sum(0), matmul(assignments.T, corrected_embeddings))


def map_to_reference(
    embeddings: Float[Array, "cells features"],
    batch_labels: Int[Array, " cells"],
    reference: Reference,
    *,
    n_batches: int,
    softness: ArrayLike = 0.1,
    ridge: ArrayLike = 1.0,
) -> HarmonizedCells:
    """Return a query among the corrected cells of a reference.

    Args:
        embeddings: The query in the space of the reference before its correction, such as its principal components.
        batch_labels: Codes from 0; a cell with another code, by convention -1, is assigned and not corrected.
        reference: From `compress_reference`.
        n_batches: Number of batches of the query.
        softness: sigma > 0, in units of 2 (1 - cosine).
        ridge: Penalty on batch effects, above 0, in cells.

    Returns:
        Corrected embeddings and distributions over the clusters of the reference.

    References:
        Kang et al. 2021 (online methods, mapping).

    Example:
        >>> reference = compress_reference(4 * jnp.eye(2)[jnp.array([0, 1] * 20)], jnp.eye(2)[jnp.array([0, 1] * 20)])
        >>> query = 4 * jnp.eye(2)[jnp.array([0, 1] * 20)] + 0.5
        >>> found = map_to_reference(query, jnp.zeros(40, int), reference, n_batches=1)
        >>> bool(jnp.abs(found.corrected_embeddings - (query - 0.5)).max() < 0.1)
        True
    """
    similarity = matmul(unit_length(embeddings), unit_length(reference.sums).T)
    assignments = assigned(similarity, 0.0, jnp.ones((), embeddings.dtype), softness)
    indicators = batch_indicators(batch_labels, (n_batches,)).astype(embeddings.dtype)
    penalty = jnp.full((n_batches, reference.mass.shape[0]), ridge, embeddings.dtype)
    effects = batch_effects(
        embeddings, assignments, indicators, penalty, reference_mass=reference.mass, reference_sums=reference.sums
    )
    return HarmonizedCells(without_batch_effects(embeddings, assignments, indicators, effects), assignments)


class ReferenceMapping(Operator[ReferenceMappingConfig]):
    """Places query cells among the corrected cells of a reference that it was initialized on.

    Reads `embeddings` (cells, features) and `batch_labels` (cells,); writes `corrected_embeddings` (cells, features)
    and `harmony_assignments` (cells, clusters). Behind a `PCAProjection` in a pipeline, one `initialize` on the
    reference fits components and clusters, and each call maps a query. Cells of one batch see each other, by their
    batch effect; queries do not change the operator.

    Args:
        config: Sizes, softness, weights.
        rngs: Source of the directions before `initialize`.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> config = ReferenceMappingConfig(n_features=2, n_clusters=2)
        >>> mapping = ReferenceMapping(config, rngs=nnx.Rngs(0))
        >>> cells = 4 * jnp.eye(2)[jnp.array([0, 1] * 20)]
        >>> mapping.initialize(cells, jnp.zeros(40, int), key=jax.random.key(0))
        >>> query = {"embeddings": cells[:2] + 0.5, "batch_labels": jnp.zeros(2, int)}
        >>> mapping.apply(query, {}, None)[0]["harmony_assignments"].shape
        (2, 2)
    """

    def __init__(self, config: ReferenceMappingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        drawn = jax.random.normal(rngs.params(), (config.n_clusters, config.n_features))
        self.mass = nnx.Variable(jnp.ones(config.n_clusters))
        self.sums = nnx.Variable(unit_length(drawn))
        self.softness = Softness(config.temperature, learnable=config.learnable_temperature)

    @property
    def reference(self) -> Reference:
        """What is kept of the reference."""
        return Reference(self.mass[...], self.sums[...])

    def compute(
        self, embeddings: Float[Array, "cells features"], batch_labels: Int[Array, " cells"]
    ) -> HarmonizedCells:
        """Return the query among the reference."""
        return map_to_reference(
            embeddings,
            batch_labels,
            self.reference,
            n_batches=self.config.n_batches,
            softness=self.softness(),
            ridge=self.config.ridge,
        )

    def initialize(
        self, embeddings: Float[Array, "cells features"], batch_labels: Int[Array, " cells"], *, key: Array
    ) -> None:
        """Integrate the reference by Harmony, and keep its moments.

        Args:
            embeddings: The reference (cells, features), centered.
            batch_labels: Codes of its batches; as many as there are, whatever `n_batches` of a query.
            key: Random key of the first clusters.

        Raises:
            ContractError: There are fewer cells than clusters.
        """
        self.keep(self.integrate(embeddings, batch_labels, key=key))

    def integrate(
        self, embeddings: Float[Array, "cells features"], batch_labels: Int[Array, " cells"], *, key: Array
    ) -> HarmonizedCells:
        """Return the reference after Harmony, in the space to which queries are mapped.

        Args:
            embeddings: The reference (cells, features), centered.
            batch_labels: Codes of its batches.
            key: Random key of the first clusters.

        Raises:
            ContractError: There are fewer cells than clusters.
        """
        return harmony(
            embeddings,
            batch_labels,
            spherical_centroids(embeddings, self.config.n_clusters, key=key),
            n_batches=max(1, int(np.max(batch_labels)) + 1),
            softness=self.softness(),
            diversity=self.config.diversity,
        )

    def keep(self, reference: HarmonizedCells) -> None:
        """Set the reference to integrated cells, such as those of an operator `Harmony` or of a stored analysis."""
        kept = compress_reference(*reference)
        self.mass[...] = kept.mass
        self.sums[...] = kept.sums
