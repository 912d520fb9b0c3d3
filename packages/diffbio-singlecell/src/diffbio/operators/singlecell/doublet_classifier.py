"""Doublets found by a classifier that is trained on simulated ones, in the family of Solo.

The counts of two cells drawn at random, summed, are a doublet of which one knows. A network learns to tell r simulated
doublets per observed cell from the observed cells, by their principal components (of log-normalized counts) and their
depth. The observed cells hold a share rho of doublets themselves, so with the logit s of "simulated" the chance that an
observed cell is a doublet is not sigmoid(s) but, by Bayes' rule on the densities of doublets and of observed cells,

    probability = rho * p(cell | doublet) / p(cell | observed) = min(rho / r * exp(s), 1)

which sums to about the expected number of doublets. Nothing is relaxed.

References:
    Bernstein et al., Solo: doublet identification in single-cell RNA-seq via semi-supervised deep learning, Cell
    Systems 2020.
    Wolock, Lopez and Klein, Scrublet, Cell Systems 2019 (simulated doublets).
    Elkan and Noto, Learning classifiers from only positive and unlabeled data, KDD 2008 (the correction).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jaxtyping import Array, Float, Int, ScalarLike

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.core.errors import ContractError
from diffbio.operators.normalization.library_size import normalize_library_size
from diffbio.operators.normalization.pca import principal_components
from diffbio.operators.normalization.projection import project
from diffbio.operators.singlecell.annotation import dense_layers
from diffbio.operators.singlecell.doublet_simulation import doublet_pairs

_TARGET_SUM = 1e4  # of the log-normalized counts
_LEAST_VARIANCE = 1e-6  # relative to the first component's: less is rounding


@dataclass(frozen=True, kw_only=True)
class DoubletClassifierConfig(OperatorConfig):
    """Sizes of the classifier, and how many doublets are simulated and expected.

    Args:
        n_genes: Number of genes; best one or two thousand of the most variable ones.
        n_components: Number of principal components that the classifier sees, at most the number of genes.
        hidden_sizes: Width of each hidden layer.
        simulated_ratio: Simulated doublets per observed cell in training, above 0.
        expected_doublet_rate: Share of doublets among the observed cells, between 0 and 1; about 0.008 per thousand
            cells loaded on a droplet device.
    """

    n_genes: Annotated[int, Ge(1)]
    n_components: Annotated[int, Ge(1)] = 30
    hidden_sizes: tuple[Annotated[int, Ge(1)], ...] = (64,)
    simulated_ratio: Annotated[float, Gt(0)] = 2.0
    expected_doublet_rate: Annotated[float, Gt(0), Lt(1)] = 0.06


class DoubletProbabilities(NamedTuple):
    """How much each cell looks like a doublet.

    Attributes:
        doublet_logits: Log-odds that the cell is one of the simulated doublets; what the loss reads.
        doublet_probabilities: Chance that an observed cell is a doublet, at most 1; where it is 1 it has no gradient.
    """

    doublet_logits: Float[Array, "*cells"]
    doublet_probabilities: Float[Array, "*cells"]


class TrainingCells(NamedTuple):
    """Observed cells and simulated doublets.

    Attributes:
        counts: The observed cells, then the doublets.
        doublet_labels: 0 for an observed cell, 1 for a doublet.
    """

    counts: Float[Array, "cells genes"]
    doublet_labels: Int[Array, "cells"]


def simulate_doublets(counts: Float[Array, "cells genes"], n_doublets: int, *, key: Array) -> TrainingCells:
    """Return the cells and doublets made of them: sums of the counts of two different cells drawn at random.

    Args:
        counts: Counts of the observed cells (cells, genes), two at least.
        n_doublets: Number of doublets.
        key: Random key.

    Returns:
        Counts (cells + n_doublets, genes) and what is a doublet.

    Raises:
        ContractError: There is only one cell.

    Example:
        >>> import jax
        >>> cells = simulate_doublets(jnp.array([[1.0, 0.0], [0.0, 2.0]]), 1, key=jax.random.key(0))
        >>> cells.counts[-1].tolist(), cells.doublet_labels.tolist()
        ([1.0, 2.0], [0, 0, 1])
    """
    n_cells = len(counts)
    doublets = counts[doublet_pairs(n_cells, n_doublets, key=key)].sum(1)
    labels = jnp.repeat(jnp.array([0, 1]), jnp.array([n_cells, n_doublets]), total_repeat_length=n_cells + n_doublets)
    return TrainingCells(jnp.concatenate([counts, doublets]), labels)


def doublet_probability(
    logits: Float[Array, "*cells"], *, simulated_ratio: ScalarLike, expected_doublet_rate: ScalarLike
) -> Float[Array, "*cells"]:
    """Return min(rate / ratio * exp(logits), 1): the chance that an observed cell is a doublet.

    Args:
        logits: Log-odds of "simulated" against "observed" (*cells,).
        simulated_ratio: Simulated doublets per observed cell when the classifier was trained, above 0.
        expected_doublet_rate: Share of doublets among the observed cells, between 0 and 1.

    Returns:
        Probabilities (*cells,).

    Example:
        >>> logits = jnp.log(jnp.array([2.0, 20.0, 1e9]))
        >>> [round(float(p), 3) for p in doublet_probability(logits, simulated_ratio=2.0, expected_doublet_rate=0.05)]
        [0.05, 0.5, 1.0]
    """
    prior = jnp.log(jnp.asarray(expected_doublet_rate / simulated_ratio, logits.dtype))
    return jnp.exp(jnp.minimum(logits + prior, 0.0))


class DoubletClassifier(Operator[DoubletClassifierConfig]):
    """Tells doublets from single cells, after training on doublets that are simulated from the cells themselves.

    Reads `counts` (*cells, genes); writes `doublet_logits` and `doublet_probabilities` (*cells,). Acts on each cell
    alone. `initialize` finds the principal components; `training_cells` makes the data on which
    `diffbio.losses.singlecell.doublets.doublet_cross_entropy` is minimized.

    Args:
        config: Sizes, and how many doublets are simulated and expected.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.
        ContractError: There are more components than genes.

    Example:
        >>> classifier = DoubletClassifier(DoubletClassifierConfig(n_genes=3, n_components=2), rngs=nnx.Rngs(0))
        >>> counts = jnp.array([[4.0, 0.0, 1.0], [0.0, 5.0, 1.0], [3.0, 0.0, 2.0]])
        >>> classifier.initialize(counts)
        >>> data, _, _ = classifier.apply({"counts": counts}, {}, None)
        >>> data["doublet_probabilities"].shape
        (3,)
    """

    def __init__(self, config: DoubletClassifierConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        if config.n_components > config.n_genes:
            raise ContractError(f"{config.n_components} components of {config.n_genes} genes: ask for fewer")
        draw = nnx.initializers.orthogonal()
        self.mean = nnx.Variable(jnp.zeros(config.n_genes))
        self.components = nnx.Variable(draw(rngs.params(), (config.n_genes, config.n_components)))
        self.scale = nnx.Variable(jnp.ones(config.n_components))
        self.log_depth = nnx.Variable(jnp.array([0.0, 1.0]))  # mean and standard deviation over the cells
        sizes = list(pairwise((config.n_components + 1, *config.hidden_sizes, 1)))
        kernel = nnx.initializers.lecun_normal()
        self.kernels = nnx.List([nnx.Param(kernel(rngs.params(), size)) for size in sizes])
        self.biases = nnx.List([nnx.Param(jnp.zeros(width)) for _, width in sizes])

    def initialize(self, counts: Float[Array, "cells genes"]) -> None:
        """Set the principal components, and the scale of each feature, by the observed cells.

        Args:
            counts: Counts (cells, genes) of at least as many cells as there are components.

        Raises:
            ContractError: There are fewer cells or genes than components.
        """
        found = principal_components(
            normalize_library_size(counts, target_sum=_TARGET_SUM).normalized, self.config.n_components
        )
        variance = found.explained_variance
        kept = variance > _LEAST_VARIANCE * variance[0]
        self.mean[...], self.components[...] = found.mean, found.components
        self.scale[...] = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, variance, 1.0)), 0.0)
        log_depth = jnp.log1p(counts.sum(-1))
        spread = log_depth.std()
        self.log_depth[...] = jnp.stack([log_depth.mean(), jnp.where(spread > 0, spread, 1.0)])

    def training_cells(self, counts: Float[Array, "cells genes"], *, key: Array) -> TrainingCells:
        """Return the observed cells and `simulated_ratio` simulated doublets for each, to train on.

        Args:
            counts: Counts of the observed cells (cells, genes).
            key: Random key.
        """
        return simulate_doublets(counts, math.ceil(self.config.simulated_ratio * len(counts)), key=key)

    def compute(self, counts: Float[Array, "*cells genes"]) -> DoubletProbabilities:
        """Return the log-odds of "simulated" and the chance of being a doublet."""
        normalized = normalize_library_size(counts, target_sum=_TARGET_SUM).normalized
        coordinates = project(normalized, self.mean[...], self.components[...]) * self.scale[...]
        middle, spread = self.log_depth[...]
        depth = (jnp.log1p(counts.sum(-1, keepdims=True)) - middle) / spread
        features = jnp.concatenate([coordinates, depth], axis=-1)
        kernels, biases = ([weight[...] for weight in weights] for weights in (self.kernels, self.biases))
        logits = dense_layers(features, kernels, biases)[..., 0]
        return DoubletProbabilities(
            logits,
            doublet_probability(
                logits,
                simulated_ratio=self.config.simulated_ratio,
                expected_doublet_rate=self.config.expected_doublet_rate,
            ),
        )
