"""Quantile normalization: every cell is given the same distribution of values, and keeps its own order.

Hard: sort the values of each sample, average what stands at the same place, and give each value the average of its
place. Relaxed: the place of a value is its soft rank among the values of its cell, where the target is interpolated,

    normalized_i = target(rank_i),    rank_i = 1/2 + sum over j of F((x_i - x_j) / softness)

with F a smooth step (`soft_ops.rank`, in O(n log n)), so that moving a value past others moves it up the target.
As softness -> 0 the ranks are whole numbers, and the mean rank where values are equal: the rule of limma and
preprocessCore.

References:
    Bolstad, Irizarry, Astrand and Speed, A comparison of normalization methods for high density oligonucleotide array
    data based on variance and bias, Bioinformatics 2003.
    Ritchie et al., limma powers differential expression analyses, Nucleic Acids Research 2015 (`normalizeQuantiles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.core.errors import ContractError
from diffbio.core.soft_ops.modes import Mode


@dataclass(frozen=True, kw_only=True)
class QuantileNormalizationConfig(OperatorConfig):
    """How many genes, and how softly they are ranked.

    Args:
        n_genes: Number of genes.
        temperature: Softness of the ranks, above 0, in the unit of the values: genes of a cell whose values are closer
            than about this share ranks.
    """

    n_genes: Annotated[int, Ge(1)]
    temperature: Annotated[float, Gt(0)] = 0.01


class QuantileNormalized(NamedTuple):
    """Expression of which each cell has the same distribution.

    Attributes:
        quantile_normalized: In the unit of the target, between its smallest and largest value.
    """

    quantile_normalized: Float[Array, "*cells genes"]


def mean_quantiles(
    values: Float[Array, "cells genes"], *, softness: ArrayLike = 0.01, mode: Mode = "smooth"
) -> Float[Array, " genes"]:
    """Return the mean over cells of the smallest, second smallest, ... value: the usual target.

    Args:
        values: Any real numbers.
        softness: Of the sort, above 0, in the unit of the values.
        mode: How the sort is relaxed (`soft_ops.sort`); `hard` is the sort itself.

    Returns:
        In ascending order (genes,).

    References:
        Bolstad et al. 2003, section 2.1.

    Example:
        >>> mean_quantiles(jnp.array([[1.0, 5.0, 3.0], [20.0, 0.0, 10.0]]), mode="hard").tolist()
        [0.5, 6.5, 12.5]
    """
    return soft_ops.sort(values, -1, softness=softness, mode=mode).mean(0)


def quantile_normalize(
    values: Float[Array, "*cells genes"],
    target: Float[Array, " quantiles"],
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
) -> Float[Array, "*cells genes"]:
    """Return the quantile of the target that stands where each value stands among the values of its cell.

    Args:
        values: Any real numbers.
        target: Quantiles in ascending order, from the smallest to the largest value of the wanted distribution; any
            number of them, which are taken as evenly spaced.
        softness: Of the ranks, above 0, in the unit of the values.
        mode: How the ranks are relaxed (`soft_ops.rank`); `hard` are the ranks themselves.

    Returns:
        The shape of `values`, in the unit of `target`. Equal values stay equal. The gradient reaches the values within
        about the softness of each other, and the target.

    References:
        Bolstad et al. 2003; limma `normalizeQuantiles(ties=TRUE)`.

    Example:
        >>> values = jnp.array([[1.0, 5.0, 3.0, 3.0]])
        >>> quantile_normalize(values, jnp.array([0.0, 1.0, 10.0, 100.0]), softness=1e-4).tolist()
        [[0.0, 100.0, 5.5, 5.5]]
    """
    n_values, n_quantiles = values.shape[-1], target.shape[0]
    ranks = soft_ops.rank(values, -1, softness=softness, mode=mode)
    # a value alone stands in the middle; where both are equally long, places are ranks without rounding
    if n_values > 1:
        place = jnp.clip((ranks - 1) * ((n_quantiles - 1) / (n_values - 1)), 0, n_quantiles - 1)
    else:
        place = jnp.full_like(ranks, (n_quantiles - 1) / 2)
    below = jnp.clip(jnp.floor(place), 0, max(n_quantiles - 2, 0)).astype(jnp.int32)
    low, high = target[below], target[jnp.minimum(below + 1, n_quantiles - 1)]
    return low + (place - below) * (high - low)


class QuantileNormalization(Operator[QuantileNormalizationConfig]):
    """Gives the values of each cell the distribution that the cells of `initialize` have on average.

    Reads `counts` (*cells, genes), or what `.reads(counts="normalized")` names; writes `quantile_normalized` (*cells,
    genes) in the same unit. Acts on each cell alone, so new samples are treated as the old. In the limit of a small
    temperature it equals limma's `normalizeQuantiles`. Before `initialize` the target is uniform on [0, 1].

    Args:
        config: Number of genes and softness.
        rngs: Not used: nothing is drawn.

    Example:
        >>> operator = QuantileNormalization(QuantileNormalizationConfig(n_genes=3))
        >>> counts = jnp.array([[1.0, 5.0, 3.0], [20.0, 0.0, 10.0]])
        >>> operator.initialize(counts)
        >>> operator.apply({"counts": counts}, {}, None)[0]["quantile_normalized"].tolist()
        [[0.5, 12.5, 6.5], [12.5, 0.5, 6.5]]
    """

    def __init__(self, config: QuantileNormalizationConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.target = nnx.Variable(jnp.linspace(0.0, 1.0, config.n_genes))
        self.softness = Softness(config.temperature)

    def compute(self, counts: Float[Array, "*cells genes"]) -> QuantileNormalized:
        """Return the quantile-normalized values."""
        return QuantileNormalized(quantile_normalize(counts, self.target[...], softness=self.softness()))

    def initialize(self, counts: Float[Array, "cells genes"]) -> None:
        """Set the target to the mean quantiles of these cells, by a hard sort."""
        self.target[...] = mean_quantiles(counts, mode="hard")

    def initialize_from_distribution(self, sample: Float[Array, " values"]) -> None:
        """Set the target to the quantiles of a given sample of values, of any size.

        Raises:
            ContractError: The sample is empty or has more than one axis.
        """
        if sample.ndim != 1 or sample.size == 0:
            raise ContractError(
                f"QuantileNormalization: the target distribution has shape {sample.shape}; give its values in one axis"
            )
        self.target[...] = jnp.quantile(sample, jnp.linspace(0.0, 1.0, self.config.n_genes))
