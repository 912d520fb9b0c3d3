"""Component selection: how many principal components to keep, as a decision that can be learned.

Hard: keep the fewest components that explain a share `coverage` of the variance. So component i is kept if those
that explain more than it does explain less than the coverage together. Relaxed, with F the logistic step:

    gate_i = F((coverage - before_i) / tau),   before_i = sum_{j: v_j > v_i} v_j / sum_j v_j

and selected = embeddings * gate. As tau -> 0 the gate is 1 for the fewest components that reach the coverage, and 0
for the rest.

References:
    Jolliffe, Principal component analysis, 2002 (section 6.1.1, cumulative percentage of total variation).
    Pedregosa et al., scikit-learn, JMLR 2011 (`decomposition.PCA` with 0 < n_components < 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jaxtyping import Array, Float, ScalarLike

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops


@dataclass(frozen=True, kw_only=True)
class ComponentSelectionConfig(OperatorConfig):
    """How much of the variance is kept, and how soft the decision is.

    Args:
        n_features: Number of components to choose from.
        coverage: Share of the variance that is kept, between 0 and 1; starting value if learnable.
        temperature: Softness of the decision, above 0, as a share of the variance.
        learnable: Whether training changes the coverage.
    """

    n_features: Annotated[int, Ge(1)]
    coverage: Annotated[float, Gt(0), Lt(1)] = 0.9
    temperature: Annotated[float, Gt(0)] = 0.01
    learnable: bool = True


class SelectedComponents(NamedTuple):
    """The embedding with unneeded components faded out.

    Attributes:
        component_gate: How far each component is kept, in [0, 1]; the sum is the number of components kept.
        selected_embeddings: `embeddings` times the gate.
    """

    component_gate: Float[Array, " features"]
    selected_embeddings: Float[Array, "*cells features"]


def variance_before(variances: Float[Array, " features"]) -> Float[Array, " features"]:
    """Return, for each component, the share of variance of those that explain more than it does.

    Args:
        variances: Variance of each component, at least 0, in any order and unit.

    Returns:
        Shares from 0, for the first, to below 1. Equal variances count in the order of their places. Without any
        variance, all components count alike.

    Example:
        >>> variance_before(jnp.array([1.0, 4.0, 3.0])).tolist()
        [0.875, 0.0, 0.5]
    """
    largest = variances.max()
    relative = jnp.where(largest > 0, variances / jnp.where(largest > 0, largest, 1.0), 1.0)
    order = jnp.argsort(-relative, stable=True)
    in_order = relative[order] / relative.sum()
    return jnp.zeros_like(relative).at[order].set(jnp.cumsum(in_order) - in_order)


def component_gates(
    before: Float[Array, " features"], coverage: ScalarLike, *, softness: ScalarLike
) -> Float[Array, " features"]:
    """Return how far each component is kept: the soft truth of `before` < `coverage`.

    Args:
        before: Share of variance of the components that explain more, as `variance_before` gives it.
        coverage: Share of the variance to keep, between 0 and 1.
        softness: Above 0, as a share of the variance.

    Returns:
        Gates in [0, 1].

    Example:
        >>> component_gates(jnp.array([0.0, 0.6, 0.9]), 0.8, softness=1e-3).tolist()
        [1.0, 1.0, 0.0]
    """
    return soft_ops.less(before, coverage, softness=softness)


class ComponentSelection(Operator[ComponentSelectionConfig]):
    """Keeps the components that a share of the variance needs, and learns that share.

    Reads `embeddings` (*cells, features); writes `component_gate` (features,) and `selected_embeddings`
    (*cells, features). The variances are those of the cells given to `initialize`; before, all components count alike,
    the first before the last. The coverage is stored as its logit, so it stays between 0 and 1.

    Args:
        config: Number of components, coverage and softness.
        rngs: Not used: nothing is drawn.

    Example:
        >>> config = ComponentSelectionConfig(n_features=3, coverage=0.8, temperature=1e-3)
        >>> selection = ComponentSelection(config)
        >>> embeddings = jnp.array([[3.0, 2.0, 1.0], [-3.0, -2.0, -1.0]])
        >>> selection.initialize(embeddings)
        >>> selection.apply({"embeddings": embeddings}, {}, None)[0]["component_gate"].tolist()
        [1.0, 1.0, 0.0]
    """

    def __init__(self, config: ComponentSelectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.coverage_logit = kind(jax.scipy.special.logit(jnp.float32(config.coverage)))
        self.variance_before = nnx.Variable(variance_before(jnp.ones(config.n_features)))
        self.softness = Softness(config.temperature)

    def compute(self, embeddings: Float[Array, "*cells features"]) -> SelectedComponents:
        """Return the gates, and the embeddings times them."""
        coverage = jax.nn.sigmoid(self.coverage_logit[...])
        gate = component_gates(self.variance_before[...], coverage, softness=self.softness())
        return SelectedComponents(gate, embeddings * gate)

    def initialize(self, embeddings: Float[Array, "cells features"]) -> None:
        """Set the shares of variance to those of the columns of `embeddings`."""
        centered = embeddings - embeddings.mean(0)
        largest = jnp.abs(centered).max()
        relative = centered / jnp.where(largest > 0, largest, 1.0)  # squares fit in float32
        self.variance_before[...] = variance_before(jnp.square(relative).sum(0))
