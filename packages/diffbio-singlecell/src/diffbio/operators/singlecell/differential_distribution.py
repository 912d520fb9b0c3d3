"""Differential distribution: how the whole distribution of a gene differs between two conditions.

With cell weights normalized in each condition and F_0, F_1 the distribution functions of a gene,

    Kolmogorov-Smirnov  D = max_t |F_1(t) - F_0(t)|        1-Wasserstein  W = integral of |F_1(t) - F_0(t)| dt

Hard distribution functions are sums of steps, so D has no gradient by the expression. Relaxed, the steps are smooth of
width tau, with the kernel (1 + |z|) exp(-|z|) / 4 of soft ranks. The difference is evaluated between all neighbouring
values, where as tau -> 0 it is the hard one, so D tends to scipy.stats.ks_2samp, ties included; the maximum is a
maximum at every tau. W is piecewise linear in the expression: it needs no relaxation, and is
scipy.stats.wasserstein_distance as it is.

References:
    Kolmogorov 1933; Smirnov 1939; Stephens, Use of the Kolmogorov-Smirnov and related statistics, JRSS B 1970.
    Schefzik, Flesch and Goncalves, waddR: Wasserstein distance for single-cell data, Bioinformatics 2021.
    Phipson and Smyth, Permutation p-values should never be zero, Stat. Appl. Genet. Mol. Biol. 2010.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Gt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.soft_ops.kernel_sums import gaps, kernel_sums

_VALUES = 2**20  # held at once
_EMPTY = 1e-6  # of one cell: less weight than that is none


@dataclass(frozen=True, kw_only=True)
class DifferentialDistributionConfig(OperatorConfig):
    """How soft the distribution functions are.

    Args:
        temperature: Softness of the steps, in the unit of the expression.
        learnable_temperature: Whether gradient descent changes the temperature.
    """

    temperature: Annotated[float, Gt(0)] = 0.01
    learnable_temperature: bool = False


class DistributionDifferences(NamedTuple):
    """How far apart the two distributions of each gene are.

    Attributes:
        ks_statistics: Largest difference of the distribution functions, from 0 to 1 (genes,).
        ks_log_p_values: Logarithm of its asymptotic p-value, in nats (genes,); conservative where values tie.
        wasserstein_distances: Area between the distribution functions, in the unit of the expression (genes,).
    """

    ks_statistics: Float[Array, " genes"]
    ks_log_p_values: Float[Array, " genes"]
    wasserstein_distances: Float[Array, " genes"]


@partial(jax.jit, static_argnames="chunk_size")
def distribution_differences(
    normalized: Float[Array, "cells genes"],
    condition: Float[Array, " cells"],
    cell_weight: Float[Array, " cells"] | None = None,
    *,
    softness: ArrayLike,
    chunk_size: int | None = None,
) -> DistributionDifferences:
    """Return Kolmogorov-Smirnov statistic, its p-value and 1-Wasserstein distance of each gene between two conditions.

    Args:
        normalized: Expression in any unit (cells, genes).
        condition: Share of each cell in the second condition, from 0 to 1 (cells,); the rest is in the first.
        cell_weight: How much each cell counts, at least 0 (cells,); `None` for all alike.
        softness: tau > 0, in the unit of `normalized`.
        chunk_size: Genes that are held at once; `None` for about a million values. It changes time and memory, not
            the result.

    Returns:
        Three arrays (genes,). Where a condition has no cell, distances are 0 and p-values 1. Time grows as genes x
        cells x log cells; memory as cells x genes, for the gradient too.

    References:
        SciPy `ks_2samp` and `wasserstein_distance`.

    Example:
        >>> found = distribution_differences(jnp.arange(4.0)[:, None], jnp.array([0.0, 0.0, 1.0, 1.0]), softness=1e-3)
        >>> found.ks_statistics.tolist(), found.wasserstein_distances.tolist()
        ([1.0], [2.0])
    """
    shares = _signed_shares(condition, cell_weight)

    @jax.checkpoint  # else the gradient would keep the sums of all genes
    def of_gene(expression: Array) -> tuple[Array, Array]:
        return _statistics(expression, shares, softness)

    chunk_size = chunk_size or max(1, min(_VALUES // len(normalized), normalized.shape[1]))
    statistics, distances = lax.map(of_gene, normalized.T, batch_size=chunk_size)
    size = _effective_size(condition, cell_weight)
    return DistributionDifferences(statistics, _log_p(statistics, size), distances)


@partial(jax.jit, static_argnames=("n_permutations", "chunk_size"))
def permutation_p_values(
    normalized: Float[Array, "cells genes"],
    condition: Float[Array, " cells"],
    cell_weight: Float[Array, " cells"] | None = None,
    *,
    softness: ArrayLike,
    n_permutations: int = 999,
    key: Array,
    chunk_size: int | None = None,
) -> tuple[Float[Array, " genes"], Float[Array, " genes"]]:
    """Return p-values of both distances by permuting the conditions of the cells: exact, with ties too.

    Args:
        normalized: Expression in any unit (cells, genes).
        condition: Share of each cell in the second condition, from 0 to 1 (cells,).
        cell_weight: How much each cell counts (cells,); it stays with the condition when cells are permuted.
        softness: tau > 0, in the unit of `normalized`. A larger one breaks the ties of the statistic, which make its
            p-values conservative.
        n_permutations: The smallest p-value is 1 / (n_permutations + 1).
        key: Random key of the permutations, the same for all genes.
        chunk_size: Genes that are held at once.

    Returns:
        P-values of the Kolmogorov-Smirnov statistic and of the 1-Wasserstein distance (genes,). No gradient. Time grows
        as genes x cells x n_permutations.

    References:
        Phipson and Smyth, Permutation p-values should never be zero, 2010.

    Example:
        >>> expression, condition = jnp.arange(10.0)[:, None], jnp.repeat(jnp.array([0.0, 1.0]), 5)
        >>> p_ks, p_w = permutation_p_values(
        ...     expression, condition, softness=0.1, n_permutations=99, key=jax.random.key(0)
        ... )
        >>> float(p_ks[0]) < 0.05, float(p_w[0]) < 0.05
        (True, True)
    """
    normalized = lax.stop_gradient(normalized)
    shares = lax.stop_gradient(_signed_shares(condition, cell_weight))
    keys = jax.random.split(key, n_permutations)
    permuted = jax.vmap(lambda key: jax.random.permutation(key, shares))(keys)
    every = jnp.concatenate([shares[None], permuted])

    def of_gene(expression: Array) -> tuple[Array, Array]:
        found = jax.vmap(lambda shares: _statistics(expression, shares, softness))(every)
        # rounding may part what is equal, and only those at least as extreme count
        return jax.tree.map(lambda values: jnp.mean(values >= values[0] * (1 - 1e-6)), found)

    chunk_size = chunk_size or max(1, _VALUES // (len(normalized) * len(every)))
    return lax.map(of_gene, normalized.T, batch_size=min(chunk_size, normalized.shape[1]))


class DifferentialDistribution(Operator[DifferentialDistributionConfig]):
    """Compares the distribution of each gene between two conditions.

    Reads `normalized` (cells, genes), `condition` (cells,), from 0 to 1, and optionally `cell_weight` (cells,); writes
    `ks_statistics`, `ks_log_p_values` and `wasserstein_distances` (genes,). It has gradients by the expression, the
    conditions and the weights.

    Args:
        config: Softness of the distribution functions.
        rngs: Not used: nothing is drawn.

    Example:
        >>> comparison = DifferentialDistribution(DifferentialDistributionConfig())
        >>> data = {"normalized": jnp.array([[0.0], [4.0], [2.0], [2.0]]), "condition": jnp.array([0.0, 0.0, 1.0, 1.0])}
        >>> found = comparison.apply(data, {}, None)[0]
        >>> found["ks_statistics"].tolist(), found["wasserstein_distances"].tolist()
        ([0.5], [2.0])
    """

    def __init__(self, config: DifferentialDistributionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature, learnable=config.learnable_temperature)

    def compute(
        self,
        normalized: Float[Array, "cells genes"],
        condition: Float[Array, " cells"],
        cell_weight: Float[Array, " cells"] | None = None,
    ) -> DistributionDifferences:
        """Return how far apart the distributions of each gene are."""
        return distribution_differences(normalized, condition, cell_weight, softness=self.softness())


def _weights(condition: Array, cell_weight: Array | None) -> Float[Array, "2 cells"]:
    """Return how much each cell counts in either condition."""
    every = jnp.ones_like(condition) if cell_weight is None else cell_weight
    return jnp.stack([(1 - condition) * every, condition * every])


def _signed_shares(condition: Array, cell_weight: Array | None) -> Float[Array, " cells"]:
    """Return the share of each cell in the second condition less that in the first; zeros if either is empty."""
    weights = _weights(condition, cell_weight)
    mass = weights.sum(1, keepdims=True)
    present = (mass > _EMPTY).all()
    first, second = weights / jnp.where(present, mass, 1.0)
    return jnp.where(present, second - first, 0.0)


def _effective_size(condition: Array, cell_weight: Array | None) -> Float[Array, ""]:
    """Return n m / (n + m), with (sum of weights)^2 / (sum of squares) for the sizes of weighted samples."""
    weights = _weights(condition, cell_weight)
    squares = jnp.square(weights).sum(1)
    present = (squares > _EMPTY**2).all()
    sizes = jnp.square(weights.sum(1)) / jnp.where(present, squares, 1.0)
    total = sizes.sum()
    return jnp.where(present, sizes[0] * sizes[1] / jnp.where(total > 0, total, 1.0), 0.0)


def _statistics(expression: Array, shares: Array, softness: ArrayLike) -> tuple[Array, Array]:
    """Return the soft Kolmogorov-Smirnov statistic and the 1-Wasserstein distance of one gene."""
    order = jnp.argsort(expression)
    ascending, shares = expression[order], shares[order]
    below = jnp.cumsum(shares)[:-1]  # the hard difference between the neighbouring values
    distance = jnp.sum(jnp.diff(ascending) * jnp.abs(below))

    gap = gaps(ascending, jnp.reshape(softness, (1,)).astype(ascending.dtype))
    sums = kernel_sums(gap, shares, 2)
    half = gap[1:] / 2  # from either value to the middle between them

    def tail(near: Array, far: Array) -> Array:
        """Return sum_i c_i (2 + d_i) exp(-d_i) / 4, seen from the middle."""
        return jnp.exp(-half) * (2 * near + far + half * near) / 4

    lost = tail((sums.below[0] + shares)[:-1], sums.below[1][:-1])
    gained = tail((sums.above[0] + shares)[1:], sums.above[1][1:])
    return jnp.max(jnp.abs(below - lost + gained), initial=0.0), distance


def _log_p(statistics: Array, size: Array) -> Array:
    """Return the logarithm of Kolmogorov's tail probability, with Stephens' correction for small samples."""
    root = jnp.sqrt(jnp.where(size > 0, size, 1.0))
    scaled = jnp.where(size > 0, statistics * (root + 0.12 + 0.11 / root), 0.0)
    # of the two series for one function, each where it converges at once
    large, small = jnp.maximum(scaled, 1.0), jnp.clip(scaled, 0.1, 1.0)
    squared = jnp.square(large)
    upper = math.log(2) - 2 * squared + jnp.log1p(jnp.exp(-16 * squared) - jnp.exp(-6 * squared))
    rate = math.pi**2 / 8 / jnp.square(small)
    lower = jnp.log1p(-math.sqrt(2 * math.pi) / small * (jnp.exp(-rate) + jnp.exp(-9 * rate)))
    return jnp.where(scaled > 1.0, upper, lower)
