"""Projection onto principal components, as a fixed or a learnable linear map.

    embeddings = (scaled - mean) @ components

The components are the right singular vectors of the centered data: the k orthonormal directions of largest variance.
They are the start of a learnable projection, which training may turn anywhere, and the whole of a fixed one.

References:
    Halko, Martinsson and Tropp, Finding structure with randomness, SIAM Review 2011 (section 1, the SVD).
    Pedregosa et al., scikit-learn, JMLR 2011 (`decomposition.PCA`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.core.errors import ConfigError, ContractError


@dataclass(frozen=True, kw_only=True)
class PCAProjectionConfig(OperatorConfig):
    """Sizes of the projection, and whether it is trained.

    Args:
        n_genes: Number of genes.
        n_components: Number of components, at most `n_genes`.
        learnable: Whether training changes the components.
    """

    n_genes: Annotated[int, Ge(1)]
    n_components: Annotated[int, Ge(1)] = 50
    learnable: bool = False

    def __post_init__(self) -> None:
        """Check each field, then that there are no more components than genes."""
        super().__post_init__()
        if self.n_components > self.n_genes:
            raise ConfigError(
                f"PCAProjectionConfig.n_components is {self.n_components}, more than the {self.n_genes} genes of "
                f"n_genes; choose n_components <= {self.n_genes}"
            )


class PrincipalComponents(NamedTuple):
    """The directions of largest variance of some cells.

    Attributes:
        mean: Mean of each gene.
        components: Orthonormal columns, by descending variance; the entry of largest magnitude is positive.
        explained_variance: Variance along each (divisor n - 1), descending.
    """

    mean: Float[Array, " genes"]
    components: Float[Array, "genes components"]
    explained_variance: Float[Array, " components"]


class Projected(NamedTuple):
    """Cells in the space of the components.

    Attributes:
        embeddings: Coordinates along each component, in the unit of the input.
    """

    embeddings: Float[Array, "*cells components"]


def principal_components(x: Float[Array, "cells genes"], n_components: int) -> PrincipalComponents:
    """Return the first principal components of `x`, by a full singular value decomposition.

    A Gram matrix would be cheaper, but squares the singular values, and float32 then loses the later components.

    Args:
        x: Expression in any unit; commonly scaled.
        n_components: Between 1 and the smaller of cells and genes.

    Returns:
        Mean (genes,), components (genes, n_components) and explained variance (n_components,). Directions without
        variance are an arbitrary orthonormal completion. The result is a constant to differentiation: singular
        vectors have no gradient where singular values tie.

    Raises:
        ContractError: `n_components` is not in its range.

    References:
        scikit-learn `decomposition.PCA(svd_solver="full")`, signs included.

    Example:
        >>> x = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
        >>> found = principal_components(x, 1)
        >>> [round(entry, 3) for entry in found.components[:, 0].tolist()]
        [0.6, 0.8]
    """
    n_cells, n_genes = x.shape
    if not 1 <= n_components <= min(n_cells, n_genes):
        raise ContractError(
            f"n_components is {n_components}; {n_cells} cells of {n_genes} genes have between 1 and "
            f"{min(n_cells, n_genes)} principal components: give more cells or ask for fewer components"
        )
    x = jax.lax.stop_gradient(x)
    mean = x.mean(0)
    centered = x - mean
    if n_cells > n_genes:  # the triangular factor has the same singular values and right vectors
        centered = jnp.linalg.qr(centered, mode="r")
    _, singular_values, rows = jnp.linalg.svd(centered, full_matrices=False)
    rows = rows[:n_components]
    components = rows.T * jnp.where(rows.max(1) >= -rows.min(1), 1.0, -1.0)
    variance = jnp.square(singular_values[:n_components]) / max(n_cells - 1, 1)
    return PrincipalComponents(mean, components, variance)


def project(
    x: Float[Array, "*cells genes"],
    mean: Float[Array, " genes"],
    components: Float[Array, "genes components"],
) -> Float[Array, "*cells components"]:
    """Return (x - mean) @ components.

    Args:
        x: Expression (*cells, genes).
        mean: What is subtracted from each gene, in the unit of `x`.
        components: One direction per column.

    Returns:
        Coordinates (*cells, components), in the unit of `x`.

    Example:
        >>> project(jnp.array([[3.0, 4.0]]), jnp.array([1.0, 1.0]), jnp.array([[1.0], [0.0]])).tolist()
        [[2.0]]
    """
    return (x - mean) @ components


class PCAProjection(Operator[PCAProjectionConfig]):
    """Projects cells onto principal components, which training may change if `learnable`.

    Reads `scaled` (*cells, genes), or what `.reads(scaled="gated")` names; writes `embeddings` (*cells, components).
    After `initialize` on the same data it equals scikit-learn's `PCA`; before, it is a random orthonormal projection.

    Args:
        config: Sizes, and whether components are trained.
        rngs: Source of the random starting directions.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> projection = PCAProjection(PCAProjectionConfig(n_genes=2, n_components=1), rngs=nnx.Rngs(0))
        >>> scaled = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
        >>> projection.initialize(scaled)
        >>> projection.apply({"scaled": scaled}, {}, None)[0]["embeddings"].round(3).tolist()
        [[-5.0], [0.0], [5.0]]
    """

    def __init__(self, config: PCAProjectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        drawn = jax.random.normal(rngs.params(), (config.n_genes, config.n_components))
        self.components = kind(jnp.linalg.qr(drawn)[0])
        self.mean = nnx.Variable(jnp.zeros(config.n_genes))
        self.explained_variance = nnx.Variable(jnp.zeros(config.n_components))

    def compute(self, scaled: Float[Array, "*cells genes"]) -> Projected:
        """Return the coordinates of each cell along the components."""
        return Projected(project(scaled, self.mean[...], self.components[...]))

    def initialize(self, scaled: Float[Array, "cells genes"]) -> None:
        """Set mean, components and explained variance to the principal components of `scaled`.

        Raises:
            ContractError: There are fewer cells than components.
        """
        found = principal_components(scaled, self.config.n_components)
        self.mean[...] = found.mean
        self.components[...] = found.components
        self.explained_variance[...] = found.explained_variance
