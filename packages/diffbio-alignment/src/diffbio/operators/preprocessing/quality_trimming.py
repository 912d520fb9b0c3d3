"""Trimming of the ends of reads by quality, by running sums (BWA, `cutadapt -q`).

Hard: from the 3' end add up cutoff - quality, base by base, until the sum is below 0; cut where it is largest, and
nowhere if it is never above 0. The 5' end likewise, from the other side. Relaxed, with the sums S_k = sum_{j >= k} w_j
(cutoff - q_j) and the weights w with which bases have been kept so far, the sum ends at the first base from the 3' end
with probability w sigmoid(-(S + 1/2) / tau), and given that, the bases from k on are dropped with

    P(k | end) ~ w_k exp(S_k / tau)        over all k behind the end, against the weight 1 of no cut

As tau -> 0 this is the hard rule. Qualities are whole numbers, so that two cuts are often equally good: each base
dropped costs 1 / (2 positions), hence the shortest of them is made, as in the tools.

References:
    Li and Durbin, Fast and accurate short read alignment with Burrows-Wheeler transform, Bioinformatics 2009.
    Martin, Cutadapt removes adapter sequences from high-throughput sequencing reads, EMBnet.journal 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Gt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.errors import ConfigError
from diffbio.operators.alignment.semirings import NEVER
from diffbio.operators.preprocessing.kept_bases import (
    HALF_A_UNIT,
    first_from,
    first_true,
    kept_until,
    starting_weights,
)


@dataclass(frozen=True, kw_only=True)
class QualityTrimmingConfig(OperatorConfig):
    """Cutoffs of both ends.

    Args:
        front: Cutoff of the 5' end, Phred; `None` leaves that end.
        tail: Cutoff of the 3' end, Phred; `None` leaves that end.
        temperature: The softness tau, Phred, above 0.
        learnable: Whether training changes the cutoffs.

    Raises:
        ConfigError: Both ends are left.
    """

    front: float | None = None
    tail: float | None = 20.0
    temperature: Annotated[float, Gt(0)] = 1.0
    learnable: bool = False

    def __post_init__(self) -> None:
        """Check each field, then that an end is trimmed."""
        super().__post_init__()
        if self.front is None and self.tail is None:
            raise ConfigError("QualityTrimmingConfig.front and .tail are both None; give the cutoff of an end")


class TrimmedBases(NamedTuple):
    """How far each base is kept.

    Attributes:
        base_weights: From 0 to 1 (*reads, positions).
    """

    base_weights: Float[Array, "*reads positions"]


def quality_kept(
    qualities: Float[Array, "*reads positions"],
    weights: Float[Array, "*reads positions"],
    cutoff: ArrayLike,
    *,
    softness: ArrayLike,
) -> Float[Array, "*reads positions"]:
    """Return the probability that each base stays when the 3' end is trimmed.

    Args:
        qualities: Phred (*reads, positions).
        weights: With which each base has been kept so far, 0 to 1; 0 beyond the end (*reads, positions).
        cutoff: Phred.
        softness: tau > 0, Phred.

    Returns:
        Probabilities (*reads, positions), to multiply the weights by; they never rise along a read.

    References:
        In the limit `cutadapt -q`.

    Example:
        >>> kept = quality_kept(jnp.array([30.0, 30.0, 12.0, 25.0, 2.0]), jnp.ones(5), 20.0, softness=0.01)
        >>> kept.round(2).tolist()
        [1.0, 1.0, 0.0, 0.0, 0.0]
    """
    softness = jnp.asarray(softness, qualities.dtype)
    weights = jnp.flip(weights, -1)
    sums = jnp.cumsum(weights * (cutoff - jnp.flip(qualities, -1)), axis=-1)
    ends = first_true(weights * jax.nn.sigmoid(-(sums + HALF_A_UNIT) / softness))
    scores = sums - HALF_A_UNIT / qualities.shape[-1] * jnp.cumsum(weights, axis=-1)
    possible = weights > 0
    scores = jnp.where(possible, scores / softness + jnp.log(jnp.where(possible, weights, 1.0)), NEVER)
    none = jnp.zeros_like(scores[..., :1])
    total = lax.cumlogsumexp(jnp.concatenate([none, scores], -1), axis=scores.ndim - 1)[..., 1:]
    best_so_far = jnp.where(possible, jnp.exp(scores - total), 0.0)
    # from where the sum ended, back to the best of the cuts before it
    ended = jnp.concatenate([ends[..., 1:], 1 - ends.sum(-1, keepdims=True)], -1)
    cuts = first_from(jnp.flip(ended, -1), jnp.flip(1 - best_so_far, -1))
    return kept_until(cuts)


class QualityTrimming(Operator[QualityTrimmingConfig]):
    """Drops the ends of reads whose quality is low.

    Reads `qualities` (*reads, positions), Phred, and optionally `read_lengths` (*reads,) and the `base_weights`
    (*reads, positions) of earlier trimmers; writes `base_weights`. Parameters, if learnable: the cutoffs `front` and
    `tail`.

    Args:
        config: Cutoffs.
        rngs: Not used: nothing is drawn.

    Example:
        >>> trimmer = QualityTrimming(QualityTrimmingConfig(tail=20.0, temperature=0.01))
        >>> data, _, _ = trimmer.apply({"qualities": jnp.array([[30.0, 31.0, 12.0, 2.0]])}, {}, None)
        >>> data["base_weights"].round(2).tolist()
        [[1.0, 1.0, 0.0, 0.0]]
    """

    def __init__(self, config: QualityTrimmingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.front = None if config.front is None else kind(jnp.float32(config.front))
        self.tail = None if config.tail is None else kind(jnp.float32(config.tail))
        self.softness = Softness(config.temperature)

    def compute(
        self,
        qualities: Float[Array, "*reads positions"],
        read_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
    ) -> TrimmedBases:
        """Return the weights of the bases; both ends are judged by the read as it came."""
        weights = starting_weights(qualities, read_lengths, base_weights)
        kept = weights
        if self.tail is not None:
            kept = kept * quality_kept(qualities, weights, self.tail[...], softness=self.softness())
        if self.front is not None:
            turned, turned_weights = jnp.flip(qualities, -1), jnp.flip(weights, -1)
            front = quality_kept(turned, turned_weights, self.front[...], softness=self.softness())
            kept = kept * jnp.flip(front, -1)
        return TrimmedBases(kept)
