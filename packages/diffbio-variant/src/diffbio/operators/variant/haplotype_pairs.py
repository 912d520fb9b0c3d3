"""Pairs of reads and haplotypes for an aligner, with letters as certain as the reads' qualities say.

A site has a haplotype without and one with a variant, each a stretch of sequence around it. Every read is to be aligned
with both, by any operator that takes pairs of sequences and gives scores. A base of error probability e is the letter
that it shows with the probability 1 - e, and each other one with e / 3; a base that a trimmer gives the weight w is an
unknown letter with the probability 1 - w. So the gradient of a score reaches qualities and trimming.

References:
    Albers et al., Dindel: accurate indel calls from short-read data, Genome Research 2011.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig

_N_LETTERS = 4


class HaplotypePairs(NamedTuple):
    """Each read beside each haplotype of its site, as aligners take pairs.

    Attributes:
        query: Letters of the reads, by their qualities (*sites, reads, haplotypes, positions, 4).
        target: Letters of the haplotypes (*sites, reads, haplotypes, haplotype, 4).
        query_length: How many positions count, at least 1 (*sites, reads, haplotypes).
        target_length: Likewise (*sites, reads, haplotypes).
    """

    query: Float[Array, "*sites reads haplotypes positions letters"]
    target: Float[Array, "*sites reads haplotypes haplotype letters"]
    query_length: Int[Array, "*sites reads haplotypes"]
    target_length: Int[Array, "*sites reads haplotypes"]


def believed_letters(
    reads: Float[Array, "*reads letters"], qualities: Float[Array, "*reads"], weights: ArrayLike = 1.0
) -> Float[Array, "*reads letters"]:
    """Return which letter was there, by the letter that was read and its quality.

    Args:
        reads: Distributions over A, C, G, T; zeros for an unknown letter.
        qualities: Phred.
        weights: With which each base counts, 0 to 1; what is missing to 1 is an unknown letter.

    Returns:
        Distributions; an unknown letter is each with the probability 1/4.

    Example:
        >>> (1000 * believed_letters(jnp.eye(4)[:1], jnp.array([10.0]))).round().tolist()
        [[900.0, 33.0, 33.0, 33.0]]
    """
    known = jnp.clip(reads.sum(-1, keepdims=True), 0.0, 1.0)
    error = 10 ** (-jnp.maximum(qualities, 0.0) / 10)[..., None]
    error = jnp.minimum(error, 0.75)  # then any letter is as probable
    letters = reads * (1 - error) + (known - reads) * error / (_N_LETTERS - 1) + (1 - known) / _N_LETTERS
    kept = jnp.asarray(weights)[..., None]
    return kept * letters + (1 - kept) / _N_LETTERS


class ReadHaplotypePairing(Operator[OperatorConfig]):
    """Set each read beside each haplotype of its site, for an aligner.

    Reads `reads` (reads, positions, 4), distributions over A, C, G, T, `qualities` (reads, positions), Phred, and
    `haplotypes` (haplotypes, haplotype, 4); optionally `haplotype_lengths` (haplotypes,), how many positions count,
    `recalibrated_qualities` (reads, positions), which then count instead, `read_lengths` (reads,), and the
    `base_weights` (reads, positions) of trimmers, whose dropped bases become unknown letters; writes `query`,
    `query_length`, `target` and `target_length`, pairs (reads, haplotypes). In all of them axes of sites may come
    first. No parameters.

    Args:
        config: Nothing can be chosen.
        rngs: Not used: nothing is drawn.

    Example:
        >>> data = {"reads": jnp.eye(4)[None, :2], "qualities": jnp.full((1, 2), 30.0)}
        >>> data["haplotypes"] = jnp.eye(4)[jnp.array([[0, 1, 2], [0, 3, 2]])]
        >>> pairs = ReadHaplotypePairing(OperatorConfig()).apply(data, {}, None)[0]
        >>> pairs["query"].shape, pairs["target"].shape, pairs["query_length"].tolist()
        ((1, 2, 2, 4), (1, 2, 3, 4), [[2, 2]])
    """

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        reads: Float[Array, "*sites reads positions letters"],
        qualities: Float[Array, "*sites reads positions"],
        haplotypes: Float[Array, "*sites haplotypes haplotype letters"],
        haplotype_lengths: Int[Array, "*sites haplotypes"] | None = None,
        recalibrated_qualities: Float[Array, "*sites reads positions"] | None = None,
        read_lengths: Int[Array, "*sites reads"] | None = None,
        base_weights: Float[Array, "*sites reads positions"] | None = None,
    ) -> HaplotypePairs:
        """Return all pairs of reads and haplotypes of each site."""
        quality = qualities if recalibrated_qualities is None else recalibrated_qualities
        letters = believed_letters(reads, quality, 1.0 if base_weights is None else base_weights)
        *sites, n_reads, n_positions, _ = reads.shape
        n_haplotypes, size = haplotypes.shape[-3:-1]
        lengths = jnp.full((*sites, n_reads), n_positions) if read_lengths is None else read_lengths
        ends = jnp.full((*sites, n_haplotypes), size) if haplotype_lengths is None else haplotype_lengths
        pairs = (*sites, n_reads, n_haplotypes)
        return HaplotypePairs(
            jnp.broadcast_to(letters[..., None, :, :], (*pairs, n_positions, _N_LETTERS)),
            jnp.broadcast_to(haplotypes[..., None, :, :, :], (*pairs, size, _N_LETTERS)),
            jnp.broadcast_to(jnp.maximum(lengths, 1)[..., None], pairs),
            jnp.broadcast_to(jnp.maximum(ends, 1)[..., None, :], pairs),
        )
