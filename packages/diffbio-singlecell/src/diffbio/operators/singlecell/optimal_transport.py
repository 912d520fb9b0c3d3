"""Descendants of cells by optimal transport between two time points, with growth.

Hard: the coupling P >= 0 of the cells of an earlier time with those of a later one that moves the least squared
distance sum_ij P_ij |x_i - y_j|^2, given how much mass a_i each earlier cell passes on and that each later cell
receives the same b_j. Relaxed, with c the mean of all squared distances and the softness tau in its unit:

    minimize sum_ij P_ij |x_i - y_j|^2 / c - tau H(P) + rho_a KL(P 1 | a) + rho_b KL(P^T 1 | b)

with the entropy H and, for rho = infinity, exact marginals. As tau -> 0 it is the hard coupling; between equally many
cells that grow alike, the assignment of least cost. Earlier cells that pass on more mass than others have grown. Where
a is not known, a finite rho_a lets the data say.

The coupling is found by Sinkhorn's iteration (see `sinkhorn`), in blocks of cells: only a plan that is asked for is
ever an array source x target.

References:
    Schiebinger et al., Optimal-transport analysis of single-cell gene expression identifies developmental trajectories
    in reprogramming, Cell 2019 (Waddington-OT); Klein et al., Mapping cells through time and space with moscot, Nature
    2025 (the parametrization).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from flax import nnx
from jax import lax
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.singlecell.sinkhorn import sinkhorn_potentials, squared_distances

_LEAST_MASS = 1e-12  # of the mean: what a cell without growth passes on, since no logarithm of 0 can be kept


@dataclass(frozen=True, kw_only=True)
class OptimalTransportTrajectoryConfig(OperatorConfig):
    """Configuration of optimal transport between time points.

    Args:
        temperature: The softness tau, in units of the mean squared distance between the two times.
        tau_source: How far the growth of earlier cells is kept to the given one: rho_a / (rho_a + tau). 1 keeps it
            exactly; less lets the data change it (`tau_a` in moscot and OTT).
        tau_target: The same for the mass that later cells receive.
        max_iterations: Of Sinkhorn's algorithm; it stops before where the marginals fit. A low temperature needs more.
    """

    temperature: Annotated[float, Gt(0)] = 0.05
    tau_source: Annotated[float, Gt(0), Le(1)] = 1.0
    tau_target: Annotated[float, Gt(0), Le(1)] = 1.0
    max_iterations: Annotated[int, Ge(1)] = 2000


class Transport(NamedTuple):
    """Which later cells the earlier ones become.

    Attributes:
        transport_plan: Mass that goes from each earlier to each later cell, in total 1 (source, target).
        growth: Descendants of each earlier cell, relative to the mean of all; their mean is 1 (source,).
        descendants: Mean position of each earlier cell's descendants, in the unit of the embeddings
            (source, features).
    """

    transport_plan: Float[Array, "source target"]
    growth: Float[Array, " source"]
    descendants: Float[Array, "source features"]


@partial(jax.jit, static_argnames=("tau_source", "tau_target", "max_iterations", "block_size"))
def transport_cells(
    source_embeddings: Float[Array, "source features"],
    target_embeddings: Float[Array, "target features"],
    growth_rates: Float[Array, " source"] | None = None,
    *,
    softness: ArrayLike = 0.05,
    tau_source: float = 1.0,
    tau_target: float = 1.0,
    max_iterations: int = 2000,
    block_size: int = 256,
) -> Transport:
    """Return the entropic coupling of earlier with later cells, the growth that it implies, and where cells go.

    Growth and positions do not need the plan: a compiled program that does not return it has no array source x target,
    in its gradient too. Time grows as source x target x (features + rounds).

    Args:
        source_embeddings: Cells of the earlier time (source, features).
        target_embeddings: Cells of the later time, in the same coordinates (target, features).
        growth_rates: Expected number of descendants of each earlier cell up to a common factor, at least 0 (source,);
            by default the same for all.
        softness: tau > 0, in units of the mean squared distance.
        tau_source: Above 0, at most 1: how far the growth rates are kept.
        tau_target: Above 0, at most 1: how far each later cell is kept to the same mass.
        max_iterations: Of Sinkhorn's algorithm.
        block_size: Earlier or later cells that are compared with all others at once; it changes time and memory, not
            the result.

    Returns:
        Plan (source, target), growth (source,) and mean positions of descendants (source, features).

    References:
        `ot.sinkhorn` and `ot.unbalanced.sinkhorn_unbalanced` in POT; `ott.solvers.linear.sinkhorn` in OTT-JAX.

    Example:
        >>> early, late = jnp.array([[0.0], [1.0]]), jnp.array([[1.2], [0.1]])
        >>> [round(place, 2) for place in transport_cells(early, late, softness=0.01).descendants.ravel().tolist()]
        [0.1, 1.2]
    """
    source, target = _in_units_of_the_mean_cost(source_embeddings, target_embeddings)
    rates = jnp.ones_like(source[:, 0]) if growth_rates is None else growth_rates
    largest = lax.stop_gradient(rates.max())
    rates = jnp.where(largest > 0, rates, 1.0) / jnp.where(largest > 0, largest, 1.0)
    masses = jnp.maximum(rates / rates.sum(), _LEAST_MASS / len(rates))
    softness = jnp.maximum(jnp.asarray(softness, source.dtype), jnp.finfo(source.dtype).tiny)
    f, g = sinkhorn_potentials(
        source,
        target,
        masses,
        softness=softness,
        tau_source=tau_source,
        tau_target=tau_target,
        max_iterations=max_iterations,
        block_size=block_size,
    )

    @jax.checkpoint
    def follow(cell: Array) -> tuple[Array, Array]:
        exponents = (g - squared_distances(cell, target)) / softness
        positions = jnp.matmul(jax.nn.softmax(exponents), target_embeddings, precision=lax.Precision.HIGHEST)
        return logsumexp(exponents), positions

    log_sums, descendants = lax.map(follow, source, batch_size=min(block_size, len(source)))
    shares = jax.nn.softmax(f / softness + log_sums)
    costs = jax.vmap(squared_distances, (0, None))(source, target)
    plan = shares[:, None] * jax.nn.softmax((g - costs) / softness, axis=1)
    return Transport(plan, shares * len(shares), descendants)


class OptimalTransportTrajectory(Operator[OptimalTransportTrajectoryConfig]):
    """Couple the cells of two time points, and say how much the earlier ones grow and where they go.

    Reads `source_embeddings` (source, features) and `target_embeddings` (target, features), the cells of the earlier
    and of the later time in the same coordinates, and optionally `growth_rates` (source,), the expected growth of the
    earlier cells. Writes `transport_plan` (source, target), `growth` (source,) and `descendants` (source, features). It
    has no parameters. The two times are two arrays, since how many cells each has is a shape.

    Args:
        config: Temperature, how far marginals are kept, iterations.
        rngs: Not used.

    Example:
        >>> config = OptimalTransportTrajectoryConfig(temperature=0.01)
        >>> times = {"source_embeddings": jnp.array([[0.0], [1.0]]), "target_embeddings": jnp.array([[1.2], [0.1]])}
        >>> data, _, _ = OptimalTransportTrajectory(config).apply(times, {}, None)
        >>> data["transport_plan"].round(2).tolist()
        [[0.0, 0.5], [0.5, 0.0]]
    """

    def __init__(self, config: OptimalTransportTrajectoryConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature)

    def compute(
        self,
        source_embeddings: Float[Array, "source features"],
        target_embeddings: Float[Array, "target features"],
        growth_rates: Float[Array, " source"] | None = None,
    ) -> Transport:
        """Return plan, growth and descendants."""
        return transport_cells(
            source_embeddings,
            target_embeddings,
            growth_rates,
            softness=self.softness(),
            tau_source=self.config.tau_source,
            tau_target=self.config.tau_target,
            max_iterations=self.config.max_iterations,
        )


def _in_units_of_the_mean_cost(source: Array, target: Array) -> tuple[Array, Array]:
    """Return both embeddings moved and scaled so that their mean squared distance is 1."""
    middle = lax.stop_gradient(target.mean(axis=0))
    source, target = source - middle, target - middle
    largest = lax.stop_gradient(jnp.maximum(jnp.abs(source).max(), jnp.abs(target).max()))
    unit = jnp.where(largest > 0, largest, 1.0)
    source, target = source / unit, target / unit
    between = jnp.sum((source.mean(axis=0) - target.mean(axis=0)) ** 2)
    mean_cost = source.var(axis=0).sum() + target.var(axis=0).sum() + between
    length = jnp.sqrt(jnp.where(mean_cost > 0, mean_cost, 1.0))
    return source / length, target / length
