"""Whether a read supports a variant: by its alignments with both haplotypes, or by its base at the site.

Hard: it supports the haplotype that it fits better. Relaxed, with its scores s,

    support = sigmoid((s_variant - s_reference) / tau)

which as tau -> 0 is 0 or 1. Without alignments the letters at the site, or the gap after it, are compared; a read that
shows neither haplotype supports both alike, with 1/2.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Real

from diffbio.core import soft_ops
from diffbio.operators.variant.base_weights import over_windows


def support_by_scores(
    scores: Float[Array, "*reads haplotypes"], *, softness: ArrayLike = 1.0
) -> Float[Array, "*reads"]:
    """Return how far each read supports the variant, by its alignments with both haplotypes.

    Args:
        scores: Of each read with the haplotype without and that with the variant.
        softness: tau > 0, in the unit of the scores.

    Returns:
        From 0 to 1; 1/2 for a read that fits both alike.

    Example:
        >>> support_by_scores(jnp.array([[90.0, 50.0], [7.0, 7.0], [20.0, 60.0]])).round(2).tolist()
        [0.0, 0.5, 1.0]
    """
    return soft_ops.greater(scores[..., 1], scores[..., 0], softness=softness)


def support_by_bases(  # noqa: PLR0917 - what a CIGAR says
    reads: Float[Array, "reads positions letters"],
    weights: Float[Array, "reads positions"],
    base_positions: Real[Array, "reads positions"],
    haplotypes: Float[Array, "haplotypes haplotype letters"],
    haplotype_lengths: Int[Array, " haplotypes"] | None = None,
    insertions: Int[Array, "reads positions"] | None = None,
    deletions: Int[Array, "reads positions"] | None = None,
    *,
    site: int,
) -> Float[Array, " reads"]:
    """Return how far each read supports the variant, by its base or its gap at the site.

    If both haplotypes are of one length, the base of the read is compared with theirs where they first differ. Else the
    gaps of the read are compared with the difference of their lengths: those from the site to there, for as far a gap
    can be moved without a change of the sequence, and mappers differ in where they put it.

    Args:
        reads: Distributions over A, C, G, T.
        weights: With which each base counts, 0 to 1.
        base_positions: Column of each base.
        haplotypes: Without and with the variant, both from the first column of the window.
        haplotype_lengths: How many positions of each count; all by default.
        insertions: How many bases are inserted after each base; 0 by default.
        deletions: How many positions are deleted after each base; 0 by default.
        site: Column of the site.

    Returns:
        From 0 to 1; 1/2 for a read that shows neither haplotype, has no base there, or ends where a gap may lie.

    Example:
        >>> haplotypes = jnp.eye(4)[jnp.array([[0, 1], [0, 2]])]
        >>> reads, columns = jnp.eye(4)[jnp.array([[0, 1], [0, 2], [0, 3]])], jnp.array([[0, 1]] * 3)
        >>> support_by_bases(reads, jnp.ones((3, 2)), columns, haplotypes, site=1).tolist()
        [0.0, 1.0, 0.5]
    """
    size = haplotypes.shape[-2]
    lengths = jnp.full(len(haplotypes), size) if haplotype_lengths is None else haplotype_lengths
    change = lengths[1] - lengths[0]
    further = (haplotypes[0] != haplotypes[1]).any(-1) & (jnp.arange(size) >= site)
    first = jnp.where(further.any(), further.argmax(), site)  # where they differ
    columns = jnp.floor(base_positions)
    drawn = weights > 0
    none = jnp.zeros(weights.shape, jnp.int32)
    longer = (none if insertions is None else insertions) - (none if deletions is None else deletions)
    gaps = jnp.where(drawn & (columns >= site) & (columns < first), longer, 0).sum(-1)
    spans = (drawn & (columns >= first)).any(-1)
    of_gaps = jnp.where(spans, (gaps == change).astype(weights.dtype) - (gaps == 0), 0.0)
    of_letters = reads @ (haplotypes[1, first] - haplotypes[0, first])
    compared = jnp.where(change == 0, of_letters, of_gaps[:, None])
    agrees = jnp.where(columns == jnp.where(change == 0, first, site), weights * compared, 0.0).sum(-1)
    return (1 + agrees) / 2


def read_support(  # noqa: PLR0917 - the data keys of reads
    reads: Float[Array, "*sites reads positions letters"],
    weights: Float[Array, "*sites reads positions"],
    base_positions: Real[Array, "*sites reads positions"],
    alignment_score: Float[Array, "*sites reads haplotypes"] | None = None,
    haplotypes: Float[Array, "*sites haplotypes haplotype letters"] | None = None,
    haplotype_lengths: Int[Array, "*sites haplotypes"] | None = None,
    insertions: Int[Array, "*sites reads positions"] | None = None,
    deletions: Int[Array, "*sites reads positions"] | None = None,
    *,
    site: int,
    softness: ArrayLike = 1.0,
) -> Float[Array, "*sites reads"]:
    """Return the support of the reads of many sites: by the scores, else by the bases, else 1/2.

    Args:
        reads: See `support_by_bases`, as for those that follow.
        weights: See there.
        base_positions: See there.
        alignment_score: See `support_by_scores`.
        haplotypes: See `support_by_bases`, as for those that follow.
        haplotype_lengths: See there.
        insertions: See there.
        deletions: See there.
        site: See there.
        softness: tau > 0, in the unit of the scores.

    Returns:
        From 0 to 1.

    Example:
        >>> read_support(jnp.eye(4)[None, :2], jnp.ones((1, 2)), jnp.array([[0, 1]]), site=0).tolist()
        [0.5]
    """
    if alignment_score is not None:
        return support_by_scores(alignment_score, softness=softness)
    if haplotypes is None:
        return jnp.full(weights.shape[:-1], 0.5, weights.dtype)
    return over_windows(partial(support_by_bases, site=site), reads.ndim - 3)(
        reads, weights, base_positions, haplotypes, haplotype_lengths, insertions, deletions
    )
