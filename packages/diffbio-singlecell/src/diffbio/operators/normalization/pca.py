"""Principal component analysis of the cells at hand, with a gradient through the decomposition.

With the centered data A = U S V^T, the components are the first k columns of V, and embeddings = A V. Nothing is
relaxed. A change dA turns each component v_i towards the others,

    dv_i = sum_j v_j (v_j^T dC v_i) / (l_i - l_j),   dC = dA^T A + A^T dA,   l = S^2

which is infinite where two variances tie, as they do for constant, duplicated or rank-deficient cells. There only
the space that the tied components span is defined, not the components. So the derivative uses d / (d^2 + e^2) in
place of 1 / d, with e a few units of the rounding of the largest l: a gap above rounding counts as it is, a tie
counts as nothing.

References:
    Giles, Collected matrix derivative results for forward and reverse mode algorithmic differentiation, 2008.
    Liao, Liu, Wang and Xiang, Differentiable programming tensor networks, Physical Review X 2019 (broadened gaps).
    Pedregosa et al., scikit-learn, JMLR 2011 (`decomposition.PCA`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig
from diffbio.core.errors import ContractError

_ROUNDING_UNITS = 8  # a relative gap of so many units in the last place is a tie


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


@dataclass(frozen=True, kw_only=True)
class PrincipalComponentAnalysisConfig(OperatorConfig):
    """How many components.

    Args:
        n_components: Number of components, at most the number of cells and of genes.
    """

    n_components: Annotated[int, Ge(1)] = 50


class ComponentSpace(NamedTuple):
    """Cells in the space of their own components, and that space.

    Attributes:
        embeddings: Coordinates along each component, centered, in the unit of the input.
        loadings: Orthonormal columns, by descending variance; the entry of largest magnitude is positive.
        explained_variance: Variance along each (divisor n - 1), descending, in the squared unit of the input.
    """

    embeddings: Float[Array, "cells components"]
    loadings: Float[Array, "genes components"]
    explained_variance: Float[Array, " components"]


def principal_components(x: Float[Array, "cells genes"], n_components: int) -> PrincipalComponents:
    """Return the first principal components of `x`, by a full singular value decomposition.

    A Gram matrix would be cheaper, but squares the singular values, and float32 then loses the later components.

    Args:
        x: Expression in any unit; commonly scaled.
        n_components: Between 1 and the smaller of cells and genes.

    Returns:
        Mean (genes,), components (genes, n_components) and explained variance (n_components,). Directions without
        variance are an arbitrary orthonormal completion. The gradient is exact where variances differ, and finite
        everywhere: components that tie do not turn into each other.

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
    require_rank(x.shape, n_components)
    mean = x.mean(0)
    found: Any = _right_singular(n_components, x - mean)
    components, singular_values = found
    variance = jnp.square(singular_values) / max(x.shape[0] - 1, 1)
    return PrincipalComponents(mean, components, variance)


def require_rank(shape: tuple[int, ...], n_components: int) -> None:
    """Check that cells of this number and length have so many principal components.

    Args:
        shape: Cells and genes.
        n_components: What is asked for.

    Raises:
        ContractError: It is not between 1 and the smaller of cells and genes.

    Example:
        >>> require_rank((10, 5), 5)
    """
    n_cells, n_genes = shape
    if not 1 <= n_components <= min(n_cells, n_genes):
        raise ContractError(
            f"n_components is {n_components}; {n_cells} cells of {n_genes} genes have between 1 and "
            f"{min(n_cells, n_genes)} principal components: give more cells or ask for fewer components"
        )


def signed(components: Float[Array, "genes components"]) -> Float[Array, "genes components"]:
    """Return the columns with the sign that makes the entry of largest magnitude positive.

    Args:
        components: One direction per column; its sign is arbitrary.

    Returns:
        The same directions. The choice of sign is a constant to differentiation.

    Example:
        >>> signed(jnp.array([[0.25], [-0.5]])).tolist()
        [[-0.25], [0.5]]
    """
    fixed = jax.lax.stop_gradient(components)
    return components * jnp.where(fixed.max(0) >= -fixed.min(0), 1.0, -1.0).astype(components.dtype)


def broadened_reciprocal(gaps: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return d / (d^2 + e^2): 1 / d for a gap d above rounding, falling to 0 at a tie.

    Args:
        gaps: Differences, in units of the largest value that is compared.

    Returns:
        Finite everywhere; 0 at 0. The width e is 8 units in the last place of 1.

    Example:
        >>> broadened_reciprocal(jnp.array([0.5, 0.0])).tolist()
        [2.0, 0.0]
    """
    width = _ROUNDING_UNITS * float(jnp.finfo(gaps.dtype).eps)
    return gaps / (jnp.square(gaps) + width**2)


class PrincipalComponentAnalysis(Operator[PrincipalComponentAnalysisConfig]):
    """Computes the principal components of the cells at hand, and projects the cells onto them.

    Reads `scaled` (cells, genes), or what `.reads(scaled="normalized")` names; writes `embeddings`
    (cells, components), `loadings` (genes, components) and `explained_variance` (components,). Equals scikit-learn's
    `PCA.fit_transform`. Gradients flow through the decomposition. Nothing is stored: for the components of other
    cells, use `PCAProjection`.

    Args:
        config: Number of components.
        rngs: Not used: nothing is drawn.

    Example:
        >>> analysis = PrincipalComponentAnalysis(PrincipalComponentAnalysisConfig(n_components=1))
        >>> scaled = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
        >>> analysis.apply({"scaled": scaled}, {}, None)[0]["embeddings"].round(3).tolist()
        [[-5.0], [0.0], [5.0]]
    """

    def __init__(self, config: PrincipalComponentAnalysisConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)

    def compute(self, scaled: Float[Array, "cells genes"]) -> ComponentSpace:
        """Return the coordinates of each cell along the components of all of them, and the components."""
        mean, components, variance = principal_components(scaled, self.config.n_components)
        return ComponentSpace((scaled - mean) @ components, components, variance)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _right_singular(n_components: int, centered: Array) -> tuple[Array, ...]:
    """Return the first right singular vectors, as columns, and singular values."""
    components, singular_values = _all_right_singular(centered)
    return components[:, :n_components], singular_values[:n_components]


def _all_right_singular(centered: Array) -> tuple[Array, Array]:
    if centered.shape[0] > centered.shape[1]:  # the triangular factor has the same singular values and right vectors
        centered = jnp.linalg.qr(centered, mode="r")
    _, singular_values, rows = jnp.linalg.svd(centered, full_matrices=False)
    return signed(rows.T), singular_values


@_right_singular.defjvp
def _right_singular_jvp(
    n_components: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    (centered,), (change,) = primals, tangents
    every, singular_values = _all_right_singular(centered)
    components = every[:, :n_components]
    # in units of the largest singular value, so that squares neither overflow nor vanish
    unit = jnp.where(singular_values[0] > 0, singular_values[0], 1.0)
    relative = singular_values / unit
    coordinates = (centered @ every) / unit  # U S
    change = change / unit
    moved = change @ components
    turned = change.T @ coordinates[:, :n_components]
    along = every.T @ turned
    between = along + coordinates.T @ moved
    own = jnp.square(relative[:n_components])
    components_change = every @ (broadened_reciprocal(own - jnp.square(relative)[:, None]) * between)
    components_change = components_change + (turned - every @ along) * broadened_reciprocal(own)
    lengths = relative[:n_components]
    left = coordinates[:, :n_components] / jnp.where(lengths > 0, lengths, 1.0)
    values_change = unit * jnp.sum(left * moved, axis=0)
    return (components, singular_values[:n_components]), (components_change, values_change)
