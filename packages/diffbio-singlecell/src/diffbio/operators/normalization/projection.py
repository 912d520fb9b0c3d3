"""Projection onto principal components, as a fixed or a learnable linear map.

    embeddings = (scaled - mean) @ components

The components are the right singular vectors of the centered data: the k orthonormal directions of largest variance,
by a full decomposition or by a randomized one that takes sparse data as they are. They are the start of a learnable
projection, which training may turn anywhere, and the whole of a fixed one.

References:
    Halko, Martinsson and Tropp, Finding structure with randomness, SIAM Review 2011.
    Pedregosa et al., scikit-learn, JMLR 2011 (`decomposition.PCA`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.core.errors import ConfigError, ContractError, MissingRandomnessError
from diffbio.operators.normalization.pca import PrincipalComponents, principal_components
from diffbio.operators.normalization.randomized_pca import randomized_principal_components


@dataclass(frozen=True, kw_only=True)
class PCAProjectionConfig(OperatorConfig):
    """Sizes of the projection, how its components are found, and whether it is trained.

    Args:
        n_genes: Number of genes.
        n_components: Number of components, at most `n_genes`.
        method: How `initialize` finds them: `full` decomposes a dense matrix; `randomized` searches, draws random
            numbers, and takes sparse data without making them dense.
        learnable: Whether training changes the components.
    """

    n_genes: Annotated[int, Ge(1)]
    n_components: Annotated[int, Ge(1)] = 50
    method: Literal["full", "randomized"] = "full"
    learnable: bool = False

    def __post_init__(self) -> None:
        """Check each field, then that there are no more components than genes."""
        super().__post_init__()
        if self.n_components > self.n_genes:
            raise ConfigError(
                f"PCAProjectionConfig.n_components is {self.n_components}, more than the {self.n_genes} genes of "
                f"n_genes; choose n_components <= {self.n_genes}"
            )


class Projected(NamedTuple):
    """Cells in the space of the components.

    Attributes:
        embeddings: Coordinates along each component, in the unit of the input.
    """

    embeddings: Float[Array, "*cells components"]


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

    def initialize(self, scaled: Any, *, key: Array | None = None) -> None:
        """Set mean, components and explained variance to the principal components of `scaled`.

        Args:
            scaled: Expression (cells, genes): an array or, with the method `randomized`, also a `scipy.sparse` matrix
                or a JAX `BCOO`.
            key: Random key, for the method `randomized`.

        Raises:
            ContractError: There are fewer cells than components, or sparse data for the method `full`.
            MissingRandomnessError: The method is `randomized` and `key` is missing.
        """
        found = self._found(scaled, key)
        self.mean[...] = found.mean
        self.components[...] = found.components
        self.explained_variance[...] = found.explained_variance

    def _found(self, scaled: Any, key: Array | None) -> PrincipalComponents:
        if self.config.method == "full":
            if not isinstance(scaled, np.ndarray | jax.Array):
                raise ContractError(
                    f"PCAProjection.initialize was given a {type(scaled).__name__}, and the method 'full' decomposes a "
                    "dense array: choose method='randomized', or give an array"
                )
            return principal_components(jnp.asarray(scaled), self.config.n_components)
        if key is None:
            raise MissingRandomnessError(
                "PCAProjection.initialize draws with method='randomized': pass key=jax.random.key(seed)"
            )
        return randomized_principal_components(scaled, self.config.n_components, key=key)
