"""A learnable projection whose directions stay orthonormal, whatever training does.

    embeddings = (scaled - mean) @ Q,   Q = W (W^T W)^(-1/2)

W is free; Q is its polar factor, the orthonormal matrix nearest to it, so a gradient step on W is a step on the
Stiefel manifold with a polar retraction. Nothing is relaxed. Where W loses rank, Q is completed arbitrarily, and the
gradient is finite.

References:
    Absil, Mahony and Sepulchre, Optimization algorithms on matrix manifolds, 2008 (retractions, example 4.1.3).
    Higham, Functions of matrices, 2008 (chapter 8, the polar decomposition).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.normalization.pca import broadened_reciprocal, principal_components
from diffbio.operators.normalization.projection import Projected, project


@dataclass(frozen=True, kw_only=True)
class OrthonormalProjectionConfig(OperatorConfig):
    """Sizes of the projection.

    Args:
        n_genes: Number of genes.
        n_components: Number of components, at most `n_genes`.
    """

    n_genes: Annotated[int, Ge(1)]
    n_components: Annotated[int, Ge(1)] = 50

    def __post_init__(self) -> None:
        """Check each field, then that there are no more components than genes."""
        super().__post_init__()
        if self.n_components > self.n_genes:
            raise ConfigError(
                f"OrthonormalProjectionConfig.n_components is {self.n_components}, more than the {self.n_genes} genes "
                f"of n_genes; choose n_components <= {self.n_genes}"
            )


def orthonormalized(weights: Float[Array, "genes components"]) -> Float[Array, "genes components"]:
    """Return the orthonormal matrix nearest to `weights`: its polar factor U V^T, from weights = U S V^T.

    Args:
        weights: One direction per column, at most as many as genes. Its scale does not matter.

    Returns:
        Orthonormal columns that span what `weights` spans. The gradient is exact where the columns are independent,
        and finite where they are not.

    Raises:
        ContractError: There are more columns than rows.

    References:
        Higham 2008, theorem 8.4 (nearest).

    Example:
        >>> orthonormalized(jnp.array([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    n_genes, n_components = weights.shape
    if n_components > n_genes:
        raise ContractError(
            f"weights have {n_components} columns of {n_genes} entries; only {n_genes} can be orthonormal: "
            "ask for fewer components, or transpose"
        )
    return _polar(weights)


class OrthonormalProjection(Operator[OrthonormalProjectionConfig]):
    """Projects cells onto directions that training turns and that stay orthonormal.

    Reads `scaled` (*cells, genes), or what `.reads(scaled="gated")` names; writes `embeddings` (*cells, components).
    After `initialize` it is principal component analysis; before, a random orthonormal projection. Distances between
    cells never grow.

    Args:
        config: Sizes.
        rngs: Source of the random starting directions.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> config = OrthonormalProjectionConfig(n_genes=2, n_components=1)
        >>> projection = OrthonormalProjection(config, rngs=nnx.Rngs(0))
        >>> scaled = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
        >>> projection.initialize(scaled)
        >>> projection.apply({"scaled": scaled}, {}, None)[0]["embeddings"].round(3).tolist()
        [[-5.0], [0.0], [5.0]]
    """

    def __init__(self, config: OrthonormalProjectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        drawn = jax.random.normal(rngs.params(), (config.n_genes, config.n_components))
        self.weights = nnx.Param(orthonormalized(drawn))
        self.mean = nnx.Variable(jnp.zeros(config.n_genes))

    @property
    def components(self) -> Float[Array, "genes components"]:
        """The orthonormal directions, one per column."""
        return orthonormalized(self.weights[...])

    def compute(self, scaled: Float[Array, "*cells genes"]) -> Projected:
        """Return the coordinates of each cell along the components."""
        return Projected(project(scaled, self.mean[...], self.components))

    def initialize(self, scaled: Float[Array, "cells genes"]) -> None:
        """Set mean and directions to those of the principal components of `scaled`.

        Raises:
            ContractError: There are fewer cells than components.
        """
        found = principal_components(scaled, self.config.n_components)
        self.mean[...] = found.mean
        self.weights[...] = found.components


def _thin(weights: Array) -> tuple[Array, Array, Array]:
    """Return U, S and V^T; both orthonormal where `weights` loses rank, too."""
    basis, triangular = jnp.linalg.qr(weights)
    left, singular_values, right = jnp.linalg.svd(triangular, full_matrices=False)
    return basis @ left, singular_values, right


@jax.custom_jvp
def _polar(weights: Array) -> Array:
    left, _, right = _thin(weights)
    return left @ right


@_polar.defjvp
def _polar_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (weights,), (change,) = primals, tangents
    left, singular_values, right = _thin(weights)
    unit = jnp.where(singular_values[0] > 0, singular_values[0], 1.0)
    lengths = singular_values / unit
    turned = (change / unit) @ right.T
    within = left.T @ turned
    rotation = (within - within.T) * broadened_reciprocal(lengths[:, None] + lengths)
    leaving = (turned - left @ within) * broadened_reciprocal(lengths)
    return left @ right, (left @ rotation + leaving) @ right
