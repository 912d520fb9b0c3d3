"""Pileup: what the reads say of each position of a window of the reference.

Hard: at each position, how many reads show which letter, an insertion after it, a deletion that begins after it, or
that it is deleted, over the bases whose qualities are at least the thresholds. Relaxed, a base counts with its weight
times sigmoid((quality + 1/2 - threshold) / tau), likewise for the quality of its read's mapping. A base between two
columns counts for both in proportion. As tau -> 0 these are the counts of `samtools mpileup -Q -q`.

Each base adds to one or two rows: time and memory grow as the number of bases, not as reads x window; the derivative
reads these rows again.

References:
    Li et al., The Sequence Alignment/Map format and SAMtools, Bioinformatics 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Real

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.variant.base_weights import above_thresholds, counting_bases, over_windows


@dataclass(frozen=True, kw_only=True)
class PileupConfig(OperatorConfig):
    """Which bases count.

    Args:
        min_base_quality: Phred, as `samtools mpileup -Q`.
        min_mapping_quality: Phred, as `samtools mpileup -q`.
        temperature: The softness tau of both thresholds, Phred, above 0.
        learnable: Whether training changes the thresholds.
    """

    min_base_quality: Annotated[float, Ge(0)] = 13.0
    min_mapping_quality: Annotated[float, Ge(0)] = 0.0
    temperature: Annotated[float, Gt(0)] = 1.0
    learnable: bool = False


class PileupCounts(NamedTuple):
    """Weighted counts at each position of a window, of reads in the reference's direction and reversed ones.

    Attributes:
        base_counts: Of each letter (*windows, window, 2, 4).
        insertion_counts: Of reads with an insertion after the position (*windows, window, 2).
        deletion_counts: Of reads with a deletion that begins after the position (*windows, window, 2).
        deleted_counts: Of reads that lack the position (*windows, window, 2).
        read_depth: Of reads that show any letter, an unknown one among them, or lack the position (*windows, window).
    """

    base_counts: Float[Array, "*windows window strands letters"]
    insertion_counts: Float[Array, "*windows window strands"]
    deletion_counts: Float[Array, "*windows window strands"]
    deleted_counts: Float[Array, "*windows window strands"]
    read_depth: Float[Array, "*windows window"]


@jax.jit(static_argnames="window")
def pileup_counts(  # noqa: PLR0917 - what a CIGAR and a strand say
    reads: Float[Array, "reads positions letters"],
    weights: Float[Array, "reads positions"],
    base_positions: Real[Array, "reads positions"],
    insertions: Int[Array, "reads positions"] | None = None,
    deletions: Int[Array, "reads positions"] | None = None,
    reverse_strand: Bool[Array, " reads"] | None = None,
    *,
    window: int,
) -> PileupCounts:
    """Return the counts of a window.

    Args:
        reads: Distributions over A, C, G, T; zeros for an unknown letter.
        weights: With which each base counts; 0 beyond the end of its read.
        base_positions: Column of each base; with a fraction, if it stands between two. Bases before the window, as
            those at -1 that are aligned to no column, and behind it count for none.
        insertions: How many bases are inserted after each base; 0 by default.
        deletions: How many positions are deleted after each base; 0 by default. A deletion that begins before the
            window is not seen in it.
        reverse_strand: Which reads are reversed; none by default.
        window: Number of positions.

    Returns:
        Counts. A deleted position counts with the weight of the base after the deletion, as in samtools.

    Example:
        >>> reads, columns = jnp.eye(4)[jnp.array([[0, 1], [0, 2]])], jnp.array([[0, 1], [0, 1]])
        >>> counts = pileup_counts(reads, jnp.ones((2, 2)), columns, window=3)
        >>> counts.base_counts.sum(1).tolist(), counts.read_depth.tolist()
        ([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]], [2.0, 2.0, 0.0])
    """
    none = jnp.zeros(weights.shape, jnp.int32)
    inserted, deleted = (none if lengths is None else lengths for lengths in (insertions, deletions))
    strand = jnp.zeros(len(reads), jnp.int32) if reverse_strand is None else reverse_strand.astype(jnp.int32)
    events = jnp.stack([jnp.ones_like(weights), inserted > 0, deleted > 0], axis=-1)
    shown = weights[..., None] * jnp.concatenate([reads, events], axis=-1)
    whole = jnp.floor(base_positions)
    if jnp.issubdtype(base_positions.dtype, jnp.floating):
        further = (base_positions - whole)[..., None]
        sums = _added(whole, strand, (1 - further) * shown, window)
        sums = sums + _added(whole + 1, strand, further * shown, window)
    else:
        sums = _added(whole, strand, shown, window)
    lacking = _lacking(whole, strand, weights, inserted, deleted, window)
    depth = sums[..., 4].sum(1) + lacking.sum(1)
    return PileupCounts(sums[..., :4], sums[..., 5], sums[..., 6], lacking, depth)


def _added(columns: Array, strand: Array, shown: Array, window: int) -> Float[Array, "window strands shown"]:
    """Return the sums of what bases show, by column and strand."""
    rows = jnp.where((columns >= 0) & (columns < window), columns, window).astype(jnp.int32)
    sums = jnp.zeros((window, 2, shown.shape[-1]), shown.dtype)
    return sums.at[rows, strand[:, None]].add(shown, mode="drop")


def _lacking(  # noqa: PLR0917 - all of them are what a CIGAR says
    columns: Array, strand: Array, weights: Array, inserted: Array, deleted: Array, window: int
) -> Float[Array, "window strands"]:
    """Return how many reads lack each position: the running sum of those that begin to and cease."""
    n_positions = weights.shape[1]
    following = jnp.arange(n_positions) + 1 + inserted
    ahead = jnp.take_along_axis(weights, jnp.minimum(following, n_positions - 1), axis=1)
    ahead = jnp.where((deleted > 0) & (following < n_positions) & (columns >= 0), ahead, 0.0)
    first = columns + 1
    begins, ceases = (_added(at, strand, ahead[..., None], window)[..., 0] for at in (first, first + deleted))
    return jnp.cumsum(begins - ceases, axis=0)


class Pileup(Operator[PileupConfig]):
    """Count what the reads say of each position of a window of the reference.

    Reads `reads` (reads, positions, 4), distributions over A, C, G, T, `qualities` (reads, positions), Phred,
    `base_positions` (reads, positions), the column of each base, and `reference` (window, 4), whose length counts;
    optionally `insertions` and `deletions` (reads, positions), `mapping_qualities` (reads,), Phred, `reverse_strand`
    (reads,), `read_lengths` (reads,), `read_mask` (reads,), and the `base_weights` (reads, positions) and
    `read_weights` (reads,) of trimmers and filters; writes `base_counts` (window, 2, 4), `insertion_counts`,
    `deletion_counts` and `deleted_counts` (window, 2), by strand, and `read_depth` (window,). In all of them axes of
    windows may come first. Parameters, if learnable: `min_base_quality` and `min_mapping_quality`.

    Args:
        config: Thresholds.
        rngs: Not used: nothing is drawn.

    Example:
        >>> data = {"reads": jnp.eye(4)[jnp.array([[0, 1]])], "qualities": jnp.array([[30.0, 5.0]])}
        >>> data |= {"base_positions": jnp.array([[0, 1]]), "reference": jnp.eye(4)[:2]}
        >>> Pileup(PileupConfig(temperature=0.1)).apply(data, {}, None)[0]["read_depth"].round(2).tolist()
        [1.0, 0.0]
    """

    def __init__(self, config: PileupConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.min_base_quality = kind(jnp.float32(config.min_base_quality))
        self.min_mapping_quality = kind(jnp.float32(config.min_mapping_quality))
        self.softness = Softness(config.temperature)

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        reads: Float[Array, "*windows reads positions letters"],
        qualities: Float[Array, "*windows reads positions"],
        base_positions: Real[Array, "*windows reads positions"],
        reference: Float[Array, "*windows window letters"],
        insertions: Int[Array, "*windows reads positions"] | None = None,
        deletions: Int[Array, "*windows reads positions"] | None = None,
        mapping_qualities: Float[Array, "*windows reads"] | None = None,
        reverse_strand: Bool[Array, "*windows reads"] | None = None,
        read_lengths: Int[Array, "*windows reads"] | None = None,
        read_mask: Bool[Array, "*windows reads"] | None = None,
        base_weights: Float[Array, "*windows reads positions"] | None = None,
        read_weights: Float[Array, "*windows reads"] | None = None,
    ) -> PileupCounts:
        """Return the counts of a window."""
        weights = counting_bases(qualities, read_lengths, read_mask, base_weights, read_weights) * above_thresholds(
            qualities,
            mapping_qualities,
            min_base_quality=self.min_base_quality[...],
            min_mapping_quality=self.min_mapping_quality[...],
            softness=self.softness(),
        )
        count = partial(pileup_counts, window=reference.shape[-2])
        return over_windows(count, reads.ndim - 3)(
            reads, weights, base_positions, insertions, deletions, reverse_strand
        )
