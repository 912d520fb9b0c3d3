"""Overlap of the two reads of a pair, and trimming of what they read beyond the insert (fastp).

Hard: with an insert of length T, base i of the read pairs with the complement of base T - 1 - i of its mate. T is
accepted if more than min_overlap bases pair and at most max_differences of the first 50 of them, and at most the share
max_difference_share, differ. Lengths from that of the mate up are tried first, upwards, then the shorter ones
downwards; the first accepted one is the insert, and bases from T on are adapter. Relaxed, T is accepted with

    g_T = sigmoid((limit_T - differences_T) / tau) sigmoid((overlap_T - min_overlap - 1/2) / tau)

tried in the first round with f_T = sigmoid((T - mate length + 1/2) / tau), else in the second, and in each round
P(first = T) = x_T times the product of 1 - x over those before it, with x = f g, and (1 - f) g. As tau -> 0 this is the
hard rule.

References:
    Chen, Zhou, Chen and Gu, fastp: an ultra-fast all-in-one FASTQ preprocessor, Bioinformatics 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.preprocessing.kept_bases import (
    HALF_A_UNIT,
    certainty,
    complement,
    first_true,
    kept_until,
    starting_weights,
)

FIRST_COMPARED = 50
"""Differences count in so many paired bases, the first ones of the read, for its quality falls behind them."""

_ROUNDING = 0.05
"""Differences may be exactly as many as allowed; the share of a whole number of bases is a multiple of more than
this."""


@dataclass(frozen=True, kw_only=True)
class PairedAdapterTrimmingConfig(OperatorConfig):
    """When two reads overlap.

    Args:
        min_overlap: Bases, of which more must pair.
        max_differences: Paired bases that may differ.
        max_difference_share: The same as a share of the overlap, above 0 and below 1; the lower limit counts.
        temperature: The softness tau, in bases, above 0.
    """

    min_overlap: Annotated[int, Ge(1)] = 30
    max_differences: Annotated[float, Ge(0)] = 5.0
    max_difference_share: Annotated[float, Gt(0), Lt(1)] = 0.2
    temperature: Annotated[float, Gt(0)] = 0.25


class TrimmedPairs(NamedTuple):
    """How far each base of both reads is kept, and how long the inserts are.

    Attributes:
        base_weights: Of the reads, from 0 to 1 (*reads, positions).
        mate_base_weights: Of their mates (*reads, mate_positions).
        insert_lengths: Probability of each length, from 0 up to both lengths together (*reads, inserts); the rest is
            that the reads don't overlap.
    """

    base_weights: Float[Array, "*reads positions"]
    mate_base_weights: Float[Array, "*reads mate_positions"]
    insert_lengths: Float[Array, "*reads inserts"]


@jax.jit
def insert_lengths(
    read: Float[Array, "positions letters"],
    weights: Float[Array, " positions"],
    mate: Float[Array, "mate_positions letters"],
    mate_weights: Float[Array, " mate_positions"],
    *,
    min_overlap: ArrayLike = 30,
    max_differences: ArrayLike = 5.0,
    max_difference_share: ArrayLike = 0.2,
    softness: ArrayLike = 0.25,
) -> Float[Array, " inserts"]:
    """Return the distribution of the length of the insert that a pair was read from.

    Args:
        read: Distributions over A, C, G, T (positions, 4).
        weights: With which each base is kept, 0 to 1; 0 beyond the end (positions,).
        mate: The other read, as it was sequenced (mate_positions, 4).
        mate_weights: As `weights` (mate_positions,).
        min_overlap: Bases, of which more must pair.
        max_differences: Paired bases that may differ; an unknown base differs from all.
        max_difference_share: The same as a share of the overlap.
        softness: tau > 0, in bases.

    Returns:
        Probabilities of the lengths from 0 to positions + mate_positions; what is missing to 1 is that the reads don't
        overlap. Time grows as (positions + mate_positions) x positions.

    References:
        In the limit fastp's analysis of overlaps.

    Example:
        >>> read, mate = (jnp.eye(4)[jnp.array(codes)] for codes in ([2, 0, 1, 1, 3, 0], [0, 2, 2, 3, 1, 1]))
        >>> options = {"min_overlap": 4, "max_differences": 0, "softness": 0.001}
        >>> found = insert_lengths(read, jnp.ones(6), mate, jnp.ones(6), **options)
        >>> int(found.argmax()), round(float(found.sum()), 2)  # GACCTA, and AGGTCC: both begin to read adapter
        (5, 1.0)
    """
    n_positions, n_mate = len(read), len(mate)
    softness = jnp.asarray(softness, read.dtype)
    read = read * certainty(read)[:, None]
    turned = jnp.flip(complement(mate) * certainty(mate)[:, None], 0)
    turned = jnp.pad(turned, ((n_positions, n_positions), (0, 0)))
    turned_weights = jnp.pad(jnp.flip(mate_weights), n_positions)

    @jax.checkpoint
    def accepted(length: Array) -> Array:
        begin = n_positions + n_mate - length
        both = weights * lax.dynamic_slice_in_dim(turned_weights, begin, n_positions)
        match = (read * lax.dynamic_slice_in_dim(turned, begin, n_positions)).sum(-1)
        overlap = both.sum()
        early = jax.nn.sigmoid((FIRST_COMPARED - jnp.cumsum(both) + HALF_A_UNIT) / softness)
        differences = (both * early * (1 - match)).sum()
        limit = jnp.minimum(jnp.asarray(max_differences, read.dtype), max_difference_share * overlap)
        few = jax.nn.sigmoid((limit - differences + _ROUNDING) / softness)
        return few * jax.nn.sigmoid((overlap - min_overlap - HALF_A_UNIT) / softness)

    lengths = jnp.arange(n_positions + n_mate + 1)
    fits = lax.map(accepted, lengths)
    upwards = jax.nn.sigmoid((lengths - mate_weights.sum() + HALF_A_UNIT) / softness)
    first_round = first_true(fits * upwards)
    second_round = jnp.flip(first_true(jnp.flip(fits * (1 - upwards))))
    return first_round + (1 - first_round.sum()) * second_round


def within_insert(lengths: Float[Array, "*reads inserts"], n_positions: int) -> Float[Array, "*reads positions"]:
    """Return the probability that each base of a read is within the insert, or that its end is not known.

    Args:
        lengths: Probability of each length of the insert (*reads, inserts).
        n_positions: Positions of the read.

    Example:
        >>> within_insert(jnp.array([0.0, 0.0, 0.75, 0.0]), 3).tolist()
        [1.0, 1.0, 0.25]
    """
    return kept_until(lengths[..., :n_positions])


class PairedAdapterTrimming(Operator[PairedAdapterTrimmingConfig]):
    """Drops what both reads of a pair have beyond the insert, without knowing the adapters.

    Reads `reads` (*reads, positions, letters) and `mate_reads` (*reads, mate_positions, letters), distributions over A,
    C, G, T, both as sequenced, and optionally `read_lengths`, `mate_lengths` (*reads,), and the `base_weights` and
    `mate_base_weights` of earlier trimmers; writes both weights and `insert_lengths` (*reads, inserts).

    Args:
        config: When two reads overlap.
        rngs: Not used: nothing is drawn.

    Example:
        >>> config = PairedAdapterTrimmingConfig(min_overlap=4, max_differences=0.0, temperature=0.001)
        >>> read, mate = (jnp.eye(4)[jnp.array([codes])] for codes in ([2, 0, 1, 1, 3, 0], [0, 2, 2, 3, 1, 1]))
        >>> data, _, _ = PairedAdapterTrimming(config).apply({"reads": read, "mate_reads": mate}, {}, None)
        >>> data["base_weights"].round(2).tolist()
        [[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]]
    """

    def __init__(self, config: PairedAdapterTrimmingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature)

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        reads: Float[Array, "*reads positions letters"],
        mate_reads: Float[Array, "*reads mate_positions letters"],
        read_lengths: Int[Array, "*reads"] | None = None,
        mate_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
        mate_base_weights: Float[Array, "*reads mate_positions"] | None = None,
    ) -> TrimmedPairs:
        """Return the weights of the bases of both reads."""
        weights = starting_weights(reads[..., 0], read_lengths, base_weights)
        mate_weights = starting_weights(mate_reads[..., 0], mate_lengths, mate_base_weights)
        find = partial(
            insert_lengths,
            min_overlap=self.config.min_overlap,
            max_differences=self.config.max_differences,
            max_difference_share=self.config.max_difference_share,
            softness=self.softness(),
        )
        for _ in weights.shape[:-1]:
            find = jax.vmap(find)
        found = find(reads, weights, mate_reads, mate_weights)
        return TrimmedPairs(
            weights * within_insert(found, weights.shape[-1]),
            mate_weights * within_insert(found, mate_weights.shape[-1]),
            found,
        )
