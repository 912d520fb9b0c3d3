"""Scaling: each gene to mean 0 and standard deviation 1, so that no gene weighs more for being abundant.

    scaled = clip((normalized - mean) / std, -max_value, max_value)

The mean and the standard deviation (divisor n - 1) are those of the data that the operator was initialized on. They
come from `Moments`, which merge, so that batches of cells give the same as all cells at once.

References:
    Wolf, Angerer and Theis, SCANPY, Genome Biology 2018 (`pp.scale`).
    Chan, Golub and LeVeque, Algorithms for computing the sample variance, American Statistician 1983 (merging).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig

# Below this share of the mean, a spread is rounding of a constant: float32 holds 7 digits.
_RELATIVE_RESOLUTION = 1e-6


class Moments(NamedTuple):
    """Per-gene statistics of some cells, in a form that merges without cancellation.

    Attributes:
        n_cells: How many cells were seen, a scalar.
        mean: In the unit of the data.
        squared_deviations: Sum over cells of (value - mean)^2.
    """

    n_cells: Float[Array, ""]
    mean: Float[Array, " genes"]
    squared_deviations: Float[Array, " genes"]

    @property
    def variance(self) -> Float[Array, " genes"]:
        """Variance with divisor n - 1; 0 for a gene that is constant to float32 and for a single cell."""
        variance = self.squared_deviations / jnp.maximum(self.n_cells - 1, 1)
        rounding = (_RELATIVE_RESOLUTION * self.mean) ** 2
        return jnp.where(variance > rounding, variance, 0.0)


class ScaledExpression(NamedTuple):
    """Expression in standard deviations from each gene's mean.

    Attributes:
        scaled: Standard deviations from the mean, clipped at +-`max_value`.
    """

    scaled: Float[Array, "*cells genes"]


@dataclass(frozen=True, kw_only=True)
class ScalingConfig(OperatorConfig):
    """How many genes, and where values are clipped.

    Args:
        n_genes: Number of genes.
        max_value: Largest absolute scaled value, in standard deviations; `None` clips nothing.
    """

    n_genes: Annotated[int, Ge(1)]
    max_value: Annotated[float, Gt(0)] | None = 10.0


def moments(x: Float[Array, "cells genes"]) -> Moments:
    """Return the number of cells, the mean and the squared deviations of each gene.

    Args:
        x: Expression in any unit, at least one cell.

    Returns:
        Moments of shape (genes,).

    Example:
        >>> seen = moments(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> seen.mean.tolist(), seen.variance.tolist()
        ([2.0, 5.0], [2.0, 0.0])
    """
    mean = x.mean(0)
    # the second pass takes back the rounding of a long float32 sum
    mean = mean + (x - mean).mean(0)
    return Moments(jnp.float32(x.shape[0]), mean, jnp.square(x - mean).sum(0))


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Return the moments of the cells of `a` and `b` together.

    Args:
        a: Moments of some cells, (genes,).
        b: Moments of other cells, (genes,).

    Returns:
        Moments of all of them; the order does not matter beyond rounding.

    References:
        Chan, Golub and LeVeque 1983.

    Example:
        >>> x = jnp.array([[1.0], [2.0], [6.0]])
        >>> merge_moments(moments(x[:1]), moments(x[1:])).variance.tolist()
        [7.0]
    """
    n_cells = a.n_cells + b.n_cells
    shift = b.mean - a.mean
    mean = a.mean + shift * (b.n_cells / n_cells)
    between = jnp.square(shift) * (a.n_cells * b.n_cells / n_cells)
    return Moments(n_cells, mean, a.squared_deviations + b.squared_deviations + between)


def standardize(
    x: Float[Array, "*cells genes"],
    mean: Float[Array, " genes"],
    std: Float[Array, " genes"],
    *,
    max_value: float | None = None,
) -> Float[Array, "*cells genes"]:
    """Return (x - mean) / std, clipped at +-`max_value`.

    Args:
        x: Expression, in the unit of `mean`.
        mean: Mean of each gene.
        std: Standard deviation of each gene, above 0.
        max_value: Largest absolute result, in standard deviations; `None` clips nothing. The clip is hard: a
            clipped value has no gradient, which is wanted for outliers.

    Returns:
        The shape of `x`, in standard deviations.

    Example:
        >>> standardize(jnp.array([[1.0], [9.0]]), jnp.array([1.0]), jnp.array([2.0]), max_value=3.0).tolist()
        [[0.0], [3.0]]
    """
    scaled = (x - mean) / std
    return scaled if max_value is None else jnp.clip(scaled, -max_value, max_value)


class Scaling(Operator[ScalingConfig]):
    """Centers each gene and divides it by its standard deviation, as seen in the data it was initialized on.

    Reads `normalized` (*cells, genes); writes `scaled` (*cells, genes). Equals scanpy's `pp.scale(max_value=...)`
    on the data of `initialize`; on other data it uses the stored statistics. A constant gene gets standard deviation
    1, so it becomes 0. Clipped values carry no gradient; `max_value=None` keeps all gradients.

    Args:
        config: Number of genes and clip.
        rngs: Not used: nothing is drawn.

    Example:
        >>> scaling = Scaling(ScalingConfig(n_genes=2))
        >>> normalized = jnp.array([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
        >>> scaling.initialize(normalized)
        >>> scaling.apply({"normalized": normalized}, {}, None)[0]["scaled"].tolist()
        [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    """

    def __init__(self, config: ScalingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.mean = nnx.Variable(jnp.zeros(config.n_genes))
        self.std = nnx.Variable(jnp.ones(config.n_genes))

    def compute(self, normalized: Float[Array, "*cells genes"]) -> ScaledExpression:
        """Return expression in standard deviations from each gene's mean."""
        return ScaledExpression(standardize(normalized, self.mean[...], self.std[...], max_value=self.config.max_value))

    def initialize(self, normalized: Float[Array, "cells genes"]) -> None:
        """Set each gene's mean and standard deviation to those of `normalized`."""
        self.initialize_from_moments(moments(normalized))

    def initialize_from_moments(self, seen: Moments) -> None:
        """Set each gene's mean and standard deviation from moments merged over batches of cells."""
        self.mean[...] = seen.mean
        self.std[...] = jnp.where(seen.variance > 0, jnp.sqrt(seen.variance), 1.0)
