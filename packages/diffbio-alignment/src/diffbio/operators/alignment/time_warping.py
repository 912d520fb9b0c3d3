"""Dynamic time warping with a softness: how far apart two series are that go at different speeds.

Hard: the least sum of costs over all paths from the first pair of positions to the last (DTW). Relaxed, with the cost
c[i,j] = |x_i - y_j|^2,

    R[i,j] = c[i,j] + softmin(R[i-1,j-1], R[i-1,j], R[i,j-1])        softmin(r) = -tau log sum_k exp(-r_k / tau)

which at the end is -tau log of the sum of exp(-cost / tau) over all paths. Its derivative by c[i,j] is the probability
that a path passes (i, j). As tau -> 0 it becomes the cost of the best path, and the probabilities 1 along it, shared
where several are best.

For tau > 0 the soft distance of a series to itself is below 0 and not the least one. The divergence

    R(x, y) - R(x, x) / 2 - R(y, y) / 2

is 0 for equal series, which are a stationary point of it.

References:
    Cuturi and Blondel, Soft-DTW: a differentiable loss function for time-series, ICML 2017.
    Blondel, Mensch and Vert, Differentiable divergences between time series, AISTATS 2021.
    Sakoe and Chiba, Dynamic programming algorithm optimization for spoken word recognition, IEEE Transactions on
    Acoustics, Speech, and Signal Processing 1978: the band.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Scalar

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.errors import ContractError
from diffbio.operators.alignment.warping_paths import warping_paths


@dataclass(frozen=True, kw_only=True)
class TimeWarpingConfig(OperatorConfig):
    """How series are warped.

    Args:
        temperature: The softness tau, in the unit of the costs: of the features, squared.
        band: Largest difference of the positions of a pair (Sakoe and Chiba's); `None` for any. Lengths may differ by
            no more.
        divergence: Whether the distance is the divergence, which is 0 for equal series.
    """

    temperature: Annotated[float, Gt(0)] = 1.0
    band: Annotated[int, Ge(1)] | None = None
    divergence: bool = False


class TimeWarping(NamedTuple):
    """How two series are warped onto each other.

    Attributes:
        warping_distance: In the unit of the costs (*pairs,).
        warping_posterior: Probability that a path passes a pair of positions (*pairs, positions, reference_positions);
            rows and columns sum to at least 1.
    """

    warping_distance: Float[Array, "*pairs"]
    warping_posterior: Float[Array, "*pairs positions reference_positions"]


@partial(jax.jit, static_argnames="band")
def soft_dtw(
    costs: Float[Array, "positions reference_positions"],
    lengths: Int[Array, "2"],
    *,
    softness: ArrayLike,
    band: int | None = None,
) -> TimeWarping:
    """Return the soft distance of two series, and the probability that a path passes each pair of positions.

    Args:
        costs: Of pairs of positions, such as `squared_distances`.
        lengths: How many positions of each series count, each at least 1.
        softness: tau > 0, in the unit of the costs.
        band: Largest difference of the positions of a pair.

    Returns:
        Distance (), and probabilities (positions, reference_positions), 0 beyond the lengths. Where lengths differ by
        more than the band there is no path: the distance is above 1e29 tau, and all derivatives are 0. Time grows as
        the product of the sizes, or with a band as their sum times the band.

    References:
        Cuturi and Blondel, ICML 2017. In the limit, DTW.

    Example:
        >>> costs = squared_distances(jnp.array([[0.0], [0.0], [1.0]]), jnp.array([[0.0], [2.0]]))
        >>> warping = soft_dtw(costs, jnp.array([3, 2]), softness=0.01)
        >>> round(float(warping.warping_distance), 3), warping.warping_posterior.round(2).tolist()
        (1.0, [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    """
    softness = jnp.asarray(softness, costs.dtype)
    log_sum, passes = warping_paths(-costs / softness, lengths, band)
    return TimeWarping(-softness * log_sum, passes)


@partial(jax.jit, static_argnames="band")
def soft_dtw_divergence(
    series: Float[Array, "positions features"],
    reference_series: Float[Array, "reference_positions features"],
    lengths: Int[Array, "2"],
    *,
    softness: ArrayLike,
    band: int | None = None,
) -> TimeWarping:
    """Return the divergence of two series, with the probabilities of `soft_dtw`.

    Args:
        series: One series.
        reference_series: The other.
        lengths: How many positions of each count, each at least 1.
        softness: tau > 0, in the unit of the features, squared.
        band: Largest difference of the positions of a pair.

    Returns:
        Divergence (), 0 for equal series, and probabilities (positions, reference_positions). Takes three times as long
        as `soft_dtw`.

    References:
        Blondel, Mensch and Vert, AISTATS 2021.

    Example:
        >>> x, y = jnp.array([[0.0], [1.0], [3.0]]), jnp.array([[0.0], [1.0], [1.0], [3.5]])
        >>> [round(float(soft_dtw_divergence(x, z, jnp.array([3, len(z)]), softness=1.0)[0]), 2) for z in (x, y)]
        [0.0, 0.62]
    """
    both = soft_dtw(squared_distances(series, reference_series), lengths, softness=softness, band=band)
    size = max(len(series), len(reference_series))
    padded = jnp.stack([jnp.pad(x, ((0, size - len(x)), (0, 0))) for x in (series, reference_series)])

    def to_itself(series: Array, length: Array) -> Array:
        costs = squared_distances(series, series)
        return soft_dtw(costs, jnp.stack([length, length]), softness=softness, band=band).warping_distance

    return both._replace(warping_distance=both.warping_distance - jax.vmap(to_itself)(padded, lengths).mean())


def squared_distances(
    x: Float[Array, "positions features"], y: Float[Array, "reference_positions features"]
) -> Float[Array, "positions reference_positions"]:
    """Return the squared Euclidean distance of each pair of positions.

    Args:
        x: One series.
        y: The other.

    Raises:
        ContractError: The series have different features.

    Example:
        >>> squared_distances(jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [5.0]])).tolist()
        [[1.0, 25.0], [1.0, 9.0]]
    """
    if x.shape[-1] != y.shape[-1]:
        raise ContractError(
            f"the series have {x.shape[-1]} and {y.shape[-1]} features; give series of the same features"
        )
    # differences, and not the product of x and y: near series would lose all digits
    return jnp.sum((x[:, None] - y) ** 2, axis=-1)


class SoftTimeWarping(Operator[TimeWarpingConfig]):
    """Warp series onto reference series.

    Reads `series` (*pairs, positions, features) and `reference_series` (*pairs, reference_positions, features), and
    optionally `series_length` and `reference_length` (*pairs,), how many positions count; writes `warping_distance`
    (*pairs,) and `warping_posterior` (*pairs, positions, reference_positions). It has no parameters.

    Args:
        config: Softness, band, and whether the distance is the divergence.
        rngs: Not used: nothing is drawn.

    Example:
        >>> warping = SoftTimeWarping(TimeWarpingConfig(temperature=0.01))
        >>> data = {"series": jnp.array([[[0.0], [0.0], [1.0]]]), "reference_series": jnp.array([[[0.0], [2.0]]])}
        >>> round(float(warping.apply(data, {}, None)[0]["warping_distance"][0]), 2)
        1.0
    """

    def __init__(self, config: TimeWarpingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature)

    def compute(
        self,
        series: Float[Array, "*pairs positions features"],
        reference_series: Float[Array, "*pairs reference_positions features"],
        series_length: Int[Array, "*pairs"] | None = None,
        reference_length: Int[Array, "*pairs"] | None = None,
    ) -> TimeWarping:
        """Return distance and posterior of each pair of series."""
        both = (series, series_length), (reference_series, reference_length)
        lengths = [jnp.full(x.shape[:-2], x.shape[-2]) if length is None else length for x, length in both]
        warp: Callable[..., TimeWarping] = self._warp
        for _ in series.shape[:-2]:
            warp = jax.vmap(warp)
        return warp(series, reference_series, jnp.stack(lengths, axis=-1))

    def _warp(self, series: Array, reference_series: Array, lengths: Int[Array, "2"]) -> TimeWarping:
        """Return distance and posterior of one pair."""
        x, y = _counted(series, lengths[0]), _counted(reference_series, lengths[1])
        if self.config.divergence:
            return soft_dtw_divergence(x, y, lengths, softness=self.softness(), band=self.config.band)
        return soft_dtw(squared_distances(x, y), lengths, softness=self.softness(), band=self.config.band)


def _counted(series: Array, length: Int[Scalar, ""]) -> Array:
    """Return a series with zeros beyond its length, so that nothing there reaches a derivative."""
    return jnp.where(jnp.arange(len(series))[:, None] < length, series, 0.0)
