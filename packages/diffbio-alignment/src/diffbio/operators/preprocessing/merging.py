"""Merging of overlapping pairs into one read, with the posterior probabilities of the letters.

Hard: with an insert of length T (`pairs`), base i of the merged read is base i of the read, base T - 1 - i of its mate,
complemented, or both. A read says of a true letter l that it is called as such with 1 - p, p = 10^(-quality / 10), and
as each other letter with p / 3. Where both read the base, Bayes' theorem gives

    P(l) ~ P(call of the read | l) P(call of the mate | l)

so that an agreement has the quality of both, about their sum, and of a disagreement the better base wins, with about
the difference. Relaxed, both letters are distributions, and the posteriors are averaged over the distribution of T; as
the softness of that goes to 0, one T is left.

References:
    Edgar and Flyvbjerg, Error filtering, pair assembly and error correction for next-generation sequencing reads,
    Bioinformatics 2015.
    Chen, Zhou, Chen and Gu, fastp: an ultra-fast all-in-one FASTQ preprocessor, Bioinformatics 2018.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, Softness
from diffbio.operators.preprocessing.kept_bases import complement, starting_weights
from diffbio.operators.preprocessing.pairs import PairedAdapterTrimmingConfig, insert_lengths

_KNOWS_NOTHING = 0.75
"""Error probability of a base that is as good as a guess; Phred 0 would say that the base is surely another one."""

_LEAST_ERROR = 1e-10
"""Phred 100: what is better is not told apart."""


class ReadMergingConfig(PairedAdapterTrimmingConfig):
    """When two reads overlap.

    Args:
        min_overlap: Bases, of which more must pair.
        max_differences: Paired bases that may differ.
        max_difference_share: The same as a share of the overlap, above 0 and below 1; the lower limit counts.
        temperature: The softness tau, in bases, above 0.
    """


class CalledRead(NamedTuple):
    """A read as it was sequenced.

    Attributes:
        letters: Distributions over A, C, G, T (positions, 4).
        qualities: Phred (positions,).
        weights: With which each base is kept, 0 to 1; 0 beyond the end (positions,).
    """

    letters: Float[Array, "positions letters"]
    qualities: Float[Array, " positions"]
    weights: Float[Array, " positions"]


class MergedReads(NamedTuple):
    """Pairs that overlap, as one read each.

    Attributes:
        merged_reads: Posterior distributions over the letters; zeros where there is no base (*reads, merged, letters).
        merged_qualities: Phred, of the likeliest letter (*reads, merged).
        merged_base_weights: Probability that there is such a base; 0 of pairs that don't overlap (*reads, merged).
        merged_pass: Probability that the pair overlaps (*reads,).
    """

    merged_reads: Float[Array, "*reads merged letters"]
    merged_qualities: Float[Array, "*reads merged"]
    merged_base_weights: Float[Array, "*reads merged"]
    merged_pass: Float[Array, "*reads"]


def call_likelihoods(
    letters: Float[Array, "*bases letters"], qualities: Float[Array, "*bases"]
) -> Float[Array, "*bases letters"]:
    """Return the probability of what was called, for each letter that may be the true one.

    Args:
        letters: Distributions over the letters that were called (*bases, letters).
        qualities: Phred (*bases,).

    Example:
        >>> likelihoods = call_likelihoods(jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.array(10.0))
        >>> [round(value, 3) for value in likelihoods.tolist()]
        [0.9, 0.033, 0.033, 0.033]
    """
    error = jnp.minimum(10 ** (-qualities / 10), _KNOWS_NOTHING)[..., None]
    return letters * (1 - error) + (1 - letters) * error / (letters.shape[-1] - 1)


@jax.jit
def merged(read: CalledRead, mate: CalledRead, lengths: Float[Array, " inserts"]) -> MergedReads:
    """Return a pair as one read.

    Args:
        read: One read.
        mate: The other read, as it was sequenced.
        lengths: Probability of each length of the insert, by `insert_lengths` (inserts,).

    Returns:
        As many positions as both reads have together. Time grows as the square of that.

    References:
        The qualities are those of Edgar and Flyvbjerg 2015.

    Example:
        >>> read, mate = (jnp.eye(4)[jnp.array(codes)] for codes in ([0, 1, 2], [3, 1, 2]))  # ACG, and CGA turned round
        >>> pair = (CalledRead(letters, jnp.full(3, 20.0), jnp.ones(3)) for letters in (read, mate))
        >>> found = merged(*pair, jnp.eye(7)[4])
        >>> found.merged_reads.argmax(-1).tolist()[:4], [round(float(q), 1) for q in found.merged_qualities[:4]]
        ([0, 1, 2, 0], [20.0, 44.7, 44.7, 20.0])
    """
    n_positions, n_mate = len(read.weights), len(mate.weights)
    size = n_positions + n_mate
    # a base that is not kept says nothing: its likelihoods are those of a guess
    guess = 1 / read.letters.shape[-1]

    def told(called: CalledRead) -> Array:
        return guess + called.weights[:, None] * (call_likelihoods(called.letters, called.qualities) - guess)

    ahead = jnp.pad(told(read), ((0, n_mate), (0, 0)), constant_values=guess)
    turned = jnp.flip(told(mate._replace(letters=complement(mate.letters))), 0)
    turned = jnp.pad(turned, ((size, size), (0, 0)), constant_values=guess)
    there = jnp.pad(read.weights, (0, n_mate))
    turned_there = jnp.pad(jnp.flip(mate.weights), size)
    positions = jnp.arange(size)

    @jax.checkpoint
    def add(total: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        length, probability = at
        begin = size + n_mate - length
        product = ahead * lax.dynamic_slice_in_dim(turned, begin, size)
        posterior = product / product.sum(-1, keepdims=True)
        missing = (1 - there) * (1 - lax.dynamic_slice_in_dim(turned_there, begin, size))
        covered = probability * jnp.where(positions < length, 1 - missing, 0.0)
        return (total[0] + covered[:, None] * posterior, total[1] + covered), None

    start = (jnp.zeros_like(ahead), jnp.zeros_like(there))
    (letters, covered), _ = lax.scan(add, start, (jnp.arange(len(lengths)), lengths))
    some = covered > 0
    letters = letters / jnp.where(some, covered, 1.0)[:, None]
    best = jax.nn.one_hot(letters.argmax(-1), letters.shape[-1], dtype=letters.dtype)
    error = (letters * (1 - best)).sum(-1)  # and not 1 - the best one, which would round to 0
    phred = -10 * jnp.log10(jnp.maximum(error, _LEAST_ERROR))
    return MergedReads(letters, jnp.where(some, phred, 0.0), covered, lengths.sum())


class ReadMerging(Operator[ReadMergingConfig]):
    """Merges pairs that overlap into one read each.

    Reads `reads`, `mate_reads` (*reads, positions, letters), distributions over A, C, G, T, both as sequenced,
    `qualities`, `mate_qualities`, Phred, and optionally `read_lengths`, `mate_lengths` (*reads,), `base_weights` and
    `mate_base_weights`; writes `merged_reads` (*reads, merged, letters), `merged_qualities`, `merged_base_weights`
    (*reads, merged) and `merged_pass` (*reads,).

    Args:
        config: When two reads overlap.
        rngs: Not used: nothing is drawn.

    Example:
        >>> config = ReadMergingConfig(min_overlap=1, max_differences=0.0, temperature=0.001)
        >>> read, mate = (jnp.eye(4)[jnp.array([codes])] for codes in ([0, 1, 2], [3, 1, 2]))
        >>> data = {"reads": read, "mate_reads": mate, "qualities": jnp.full((1, 3), 20.0)}
        >>> data["mate_qualities"] = data["qualities"]
        >>> ReadMerging(config).apply(data, {}, None)[0]["merged_base_weights"].round(2).tolist()
        [[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]]
    """

    def __init__(self, config: ReadMergingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature)

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        reads: Float[Array, "*reads positions letters"],
        qualities: Float[Array, "*reads positions"],
        mate_reads: Float[Array, "*reads mate_positions letters"],
        mate_qualities: Float[Array, "*reads mate_positions"],
        read_lengths: Int[Array, "*reads"] | None = None,
        mate_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
        mate_base_weights: Float[Array, "*reads mate_positions"] | None = None,
    ) -> MergedReads:
        """Return the merged reads, and how likely each pair overlaps."""
        weights = starting_weights(qualities, read_lengths, base_weights)
        mate_weights = starting_weights(mate_qualities, mate_lengths, mate_base_weights)
        find = partial(
            insert_lengths,
            min_overlap=self.config.min_overlap,
            max_differences=self.config.max_differences,
            max_difference_share=self.config.max_difference_share,
            softness=self.softness(),
        )
        merge = merged
        for _ in weights.shape[:-1]:
            find, merge = jax.vmap(find), jax.vmap(merge)
        lengths = find(reads, weights, mate_reads, mate_weights)
        read, mate = CalledRead(reads, qualities, weights), CalledRead(mate_reads, mate_qualities, mate_weights)
        return merge(read, mate, lengths)
