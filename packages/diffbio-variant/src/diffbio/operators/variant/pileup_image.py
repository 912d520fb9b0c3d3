"""Pileup image: the reads over a site drawn as rows of pixels, in the channels of DeepVariant.

Hard: a row for each read, after those of the reference; a pixel says which letter the read shows in a column, its base
and mapping quality, its strand, whether it supports the variant, whether it differs from the reference, how many bases
are inserted after it, and whether the column is deleted. Relaxed: letters are distributions, each base is drawn with
its weight, one between two columns in both in proportion, base and mapping qualities q as tanh(q / 40) and
tanh(q / 60), where DeepVariant cuts at 40 and 60, and with the scores s of a read with both haplotypes

    supports = sigmoid((s_variant - s_reference) / tau)

As tau -> 0 a read supports the variant or does not. Letters have a channel each, for between the intensities of two
letters would be that of a third.

Each base is added to one or two pixels: time grows as bases + pixels, and the derivative reads these pixels again.

References:
    Poplin et al., A universal SNP and small-indel variant caller using deep neural networks, Nature Biotechnology 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.variant.base_weights import counting_bases, over_windows
from diffbio.operators.variant.read_support import read_support

CHANNELS = (
    "A", "C", "G", "T", "base_quality", "inserted", "mapping_quality", "reverse_strand", "supports_variant",
    "deleted", "differs",
)  # fmt: skip
_GOOD_BASE, _GOOD_MAPPING = 40.0, 60.0  # Phred, at which DeepVariant cuts
_N_LETTERS = 4


@dataclass(frozen=True, kw_only=True)
class PileupImageConfig(OperatorConfig):
    """How sites are drawn.

    Args:
        reference_rows: First rows that show the reference; DeepVariant has 5.
        temperature: The softness tau of a read's support, in the unit of the alignment scores, above 0.
    """

    reference_rows: Annotated[int, Ge(0)] = 1
    temperature: Annotated[float, Gt(0)] = 1.0


class DrawnSites(NamedTuple):
    """The images of sites.

    Attributes:
        pileup_image: Pixels from 0 to 1 (*sites, rows, window, channels), channels in the order of `CHANNELS`.
        image_mask: Which rows show a read or the reference (*sites, rows).
    """

    pileup_image: Float[Array, "*sites rows window channels"]
    image_mask: Bool[Array, "*sites rows"]


def read_pixels(  # noqa: PLR0917 - what a CIGAR and a mapper say
    reads: Float[Array, "reads positions letters"],
    qualities: Float[Array, "reads positions"],
    weights: Float[Array, "reads positions"],
    base_positions: Real[Array, "reads positions"],
    reference: Float[Array, "window letters"],
    support: Float[Array, " reads"],
    insertions: Int[Array, "reads positions"] | None = None,
    deletions: Int[Array, "reads positions"] | None = None,
    mapping_qualities: Float[Array, " reads"] | None = None,
    reverse_strand: Bool[Array, " reads"] | None = None,
) -> Float[Array, "reads window channels"]:
    """Return the row of pixels of each read.

    Args:
        reads: Distributions over A, C, G, T; zeros for an unknown letter.
        qualities: Phred.
        weights: With which each base is drawn, 0 to 1; 0 beyond the end of its read.
        base_positions: Column of each base; with a fraction, if it stands between two. Bases outside of the window, as
            those at -1 that are aligned to no column, are not drawn.
        reference: Distributions over A, C, G, T; zeros where it is unknown, and nothing differs from it.
        support: How far each read supports the variant, 0 to 1.
        insertions: How many bases are inserted after each base; 0 by default.
        deletions: How many positions are deleted after each base; 0 by default. A deletion that begins before the
            window is not seen in it.
        mapping_qualities: Phred; as if perfect by default.
        reverse_strand: Which reads are reversed; none by default.

    Returns:
        From 0 to 1 where the bases of a read stand at least one column apart. n inserted bases are n / (n + 1). A
        deleted column is drawn with the weight of the base after the deletion.

    Example:
        >>> one = jnp.ones((1, 2))
        >>> pixels = read_pixels(jnp.eye(4)[None, :2], 30 * one, one, jnp.array([[0, 2]]), jnp.eye(4)[:3], jnp.ones(1))
        >>> pixels[0, :, :4].tolist(), pixels[0, :, -1].tolist()
        ([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], [0.0, 0.0, 1.0])
    """
    window = len(reference)
    none = jnp.zeros(weights.shape, jnp.int32)
    inserted, deleted = (none if lengths is None else lengths for lengths in (insertions, deletions))
    mapped = jnp.ones_like(support)
    if mapping_qualities is not None:
        mapped = jnp.tanh(jnp.maximum(mapping_qualities, 0.0) / _GOOD_MAPPING)
    strand = jnp.zeros_like(support) if reverse_strand is None else reverse_strand.astype(support.dtype)
    of_reads = jnp.stack([mapped, strand, support], axis=-1)
    of_bases = jnp.stack([jnp.tanh(jnp.maximum(qualities, 0.0) / _GOOD_BASE), inserted / (inserted + 1.0)], axis=-1)
    spread = jnp.broadcast_to(of_reads[:, None], (*weights.shape, 3))
    drawn = weights[..., None] * jnp.concatenate([reads, of_bases, spread], axis=-1)
    whole = jnp.floor(base_positions)
    pixels = _drawn(whole, drawn, window)
    if jnp.issubdtype(base_positions.dtype, jnp.floating):
        further = (base_positions - whole)[..., None]
        pixels = _drawn(whole, (1 - further) * drawn, window) + _drawn(whole + 1, further * drawn, window)
    lacking = _lacking(whole.astype(jnp.int32), weights, inserted, deleted, window)[..., None]
    pixels = pixels.at[..., -of_reads.shape[-1] :].add(lacking * of_reads[:, None])
    letters = pixels[..., :_N_LETTERS]
    differs = (letters * (reference.sum(-1, keepdims=True) - reference)).sum(-1, keepdims=True)
    return jnp.concatenate([pixels, lacking, differs], axis=-1)


def _drawn(columns: Array, drawn: Array, window: int) -> Float[Array, "reads window drawn"]:
    """Return rows of pixels with what the bases of each read show."""
    at = jnp.where((columns >= 0) & (columns < window), columns, window).astype(jnp.int32)
    row = jnp.arange(len(drawn))[:, None]
    return jnp.zeros((len(drawn), window, drawn.shape[-1]), drawn.dtype).at[row, at].add(drawn, mode="drop")


def _lacking(
    columns: Int[Array, "reads positions"], weights: Array, inserted: Array, deleted: Array, window: int
) -> Float[Array, "reads window"]:
    """Return with which weight each read lacks each column: by the last base before it, and the one after."""
    n_reads, n_positions = weights.shape
    at = jnp.where((columns >= 0) & (columns < window), columns, window)
    place = jnp.broadcast_to(jnp.arange(n_positions), weights.shape)
    last = jnp.full((n_reads, window), -1).at[jnp.arange(n_reads)[:, None], at].max(place, mode="drop")
    last = jax.lax.cummax(last, axis=1)
    before = jnp.maximum(last, 0)
    column, gap, added = (jnp.take_along_axis(array, before, axis=1) for array in (columns, deleted, inserted))
    following = before + 1 + added
    further = jnp.arange(window) - column
    lacks = (last >= 0) & (further > 0) & (further <= gap) & (following < n_positions)
    ahead = jnp.take_along_axis(weights, jnp.minimum(following, n_positions - 1), axis=1)
    return jnp.where(lacks, ahead, 0.0)


def reference_pixels(reference: Float[Array, "*sites window letters"]) -> Float[Array, "*sites window channels"]:
    """Return the reference as a row of pixels: perfect qualities, not the variant.

    Args:
        reference: Distributions over A, C, G, T; where it is unknown, nothing is drawn.

    Example:
        >>> reference_pixels(jnp.eye(4)[1:2]).tolist()
        [[0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    """
    known = reference.sum(-1, keepdims=True)
    none = jnp.zeros_like(known)
    return jnp.concatenate([reference, known, none, known, none, none, none, none], axis=-1)


def draw_reads(  # noqa: PLR0917 - the data keys of reads
    reads: Float[Array, "*sites reads positions letters"],
    qualities: Float[Array, "*sites reads positions"],
    base_positions: Real[Array, "*sites reads positions"],
    reference: Float[Array, "*sites window letters"],
    alignment_score: Float[Array, "*sites reads haplotypes"] | None = None,
    haplotypes: Float[Array, "*sites haplotypes haplotype letters"] | None = None,
    haplotype_lengths: Int[Array, "*sites haplotypes"] | None = None,
    insertions: Int[Array, "*sites reads positions"] | None = None,
    deletions: Int[Array, "*sites reads positions"] | None = None,
    mapping_qualities: Float[Array, "*sites reads"] | None = None,
    reverse_strand: Bool[Array, "*sites reads"] | None = None,
    weights: Float[Array, "*sites reads positions"] | None = None,
    *,
    softness: ArrayLike = 1.0,
) -> Float[Array, "*sites reads window channels"]:
    """Return the rows of pixels of the reads of many sites, with the support that is known.

    Args:
        reads: See `read_pixels`, as for those without a text.
        qualities: See there.
        base_positions: See there.
        reference: See there; the site is in the middle of the window.
        alignment_score: With the haplotypes without and with the variant; they tell the support, if they are given.
        haplotypes: Else these tell it, by the bases at the site; without both it is 1/2.
        haplotype_lengths: How many positions of each count.
        insertions: See there.
        deletions: See there.
        mapping_qualities: See there.
        reverse_strand: See there.
        weights: See there; 1 by default.
        softness: tau > 0 of the support, in the unit of the scores.

    Returns:
        From 0 to 1, channels in the order of `CHANNELS`.

    Example:
        >>> laid = jnp.array([[[0, 1]]]), jnp.eye(4)[None, :2]
        >>> draw_reads(jnp.eye(4)[None, None, :2], jnp.full((1, 1, 2), 30.0), *laid).shape
        (1, 1, 2, 11)
    """
    weights = jnp.ones_like(qualities) if weights is None else weights
    site = (reference.shape[-2] - 1) // 2
    gaps = insertions, deletions
    support = read_support(
        reads,
        weights,
        base_positions,
        alignment_score,
        haplotypes,
        haplotype_lengths,
        *gaps,
        site=site,
        softness=softness,
    )
    return over_windows(read_pixels, reads.ndim - 3)(
        reads, qualities, weights, base_positions, reference, support, insertions, deletions, mapping_qualities,
        reverse_strand,
    )  # fmt: skip


class PileupImage(Operator[PileupImageConfig]):
    """Draw the reads over each site, for classifiers of images.

    Reads `reads` (reads, positions, 4), distributions over A, C, G, T, `qualities` (reads, positions), Phred,
    `base_positions` (reads, positions), the column of each base, and `reference` (window, 4), with the site in the
    middle. Whether a read supports the variant is told by `alignment_score` (reads, 2) with the haplotypes without and
    with it, else by its base at the site and the `haplotypes` (2, haplotype, 4) with their `haplotype_lengths` (2,),
    else it is 1/2. Optional, too, are `insertions` and `deletions` (reads, positions), `mapping_qualities` (reads,),
    Phred, `reverse_strand` (reads,), `read_lengths` (reads,), `read_mask` (reads,), and the `base_weights` (reads,
    positions) and `read_weights` (reads,) of trimmers and filters. Writes `pileup_image` (rows, window, channels) and
    `image_mask` (rows,), of the reference and then of the reads in their order. In all of them axes of sites may come
    first. No parameters.

    Args:
        config: Rows of the reference, and softness.
        rngs: Not used: nothing is drawn by chance.

    Example:
        >>> data = {"reads": jnp.eye(4)[jnp.array([[0, 1]])], "qualities": jnp.full((1, 2), 30.0)}
        >>> data |= {"base_positions": jnp.array([[0, 1]]), "reference": jnp.eye(4)[:2]}
        >>> PileupImage(PileupImageConfig()).apply(data, {}, None)[0]["pileup_image"].shape
        (2, 2, 11)
    """

    def __init__(self, config: PileupImageConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature)

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        reads: Float[Array, "*sites reads positions letters"],
        qualities: Float[Array, "*sites reads positions"],
        base_positions: Real[Array, "*sites reads positions"],
        reference: Float[Array, "*sites window letters"],
        alignment_score: Float[Array, "*sites reads haplotypes"] | None = None,
        haplotypes: Float[Array, "*sites haplotypes haplotype letters"] | None = None,
        haplotype_lengths: Int[Array, "*sites haplotypes"] | None = None,
        insertions: Int[Array, "*sites reads positions"] | None = None,
        deletions: Int[Array, "*sites reads positions"] | None = None,
        mapping_qualities: Float[Array, "*sites reads"] | None = None,
        reverse_strand: Bool[Array, "*sites reads"] | None = None,
        read_lengths: Int[Array, "*sites reads"] | None = None,
        read_mask: Bool[Array, "*sites reads"] | None = None,
        base_weights: Float[Array, "*sites reads positions"] | None = None,
        read_weights: Float[Array, "*sites reads"] | None = None,
    ) -> DrawnSites:
        """Return the image of each site and which rows count."""
        drawn = draw_reads(
            reads, qualities, base_positions, reference, alignment_score, haplotypes, haplotype_lengths, insertions,
            deletions, mapping_qualities, reverse_strand,
            counting_bases(qualities, read_lengths, read_mask, base_weights, read_weights), softness=self.softness(),
        )  # fmt: skip
        first = reference_pixels(reference)[..., None, :, :]
        rows = jnp.repeat(first, self.config.reference_rows, axis=-3)
        of_reads = jnp.ones(reads.shape[:-2], bool) if read_mask is None else read_mask
        of_reference = jnp.ones((*of_reads.shape[:-1], self.config.reference_rows), bool)
        return DrawnSites(jnp.concatenate([rows, drawn], axis=-3), jnp.concatenate([of_reference, of_reads], axis=-1))
