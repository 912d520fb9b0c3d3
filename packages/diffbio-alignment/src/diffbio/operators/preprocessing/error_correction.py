"""Correction of sequencing errors by the k-mer spectrum (Musket, Lighter, BFC).

Hard: a word of k bases is solid if it was read at least min_count times. A base is changed to the letter with which
most of the words that cover it are solid, if these are at least min_gain more than with the letter read; in the first
round only if then all of them are. Later rounds change what had a second error nearby. Relaxed, with the votes v_b =
sum over the n covering words of sigmoid((log count - log min_count) / tau_count), and the letters read r_b,

    P(b) ~ exp((v_b + (min_gain - 1/2) r_b - k (n - v_b) (1 - r_b) [first round]) / tau)

As both softnesses -> 0 this is the hard rule. The words are those of the likeliest letters and have no gradient.

References:
    Liu, Schroeder and Schmidt, Musket: a multistage k-mer spectrum-based error corrector for Illumina sequence data,
    Bioinformatics 2013.
    Song, Florea and Langmead, Lighter: fast and memory-efficient sequencing error correction without counting, Genome
    Biology 2014.
    Li, BFC: correcting Illumina sequencing errors, Bioinformatics 2015.
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
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.preprocessing.kept_bases import HALF_A_UNIT, starting_weights
from diffbio.operators.preprocessing.kmer_spectrum import (
    Spectrum,
    bases_of,
    counted_words,
    evidence,
    least_solid_count,
    no_words,
)


@dataclass(frozen=True, kw_only=True)
class KmerErrorCorrectionConfig(OperatorConfig):
    """Words, and when a base is changed.

    Args:
        k: Bases of a word, up to 15; 4^k should be far above the size of the genome.
        n_kmers: Room for the words that were read more than once: somewhat more than the size of the genome.
        min_count: Count from which on a word is solid; `None` for the valley of the histogram of counts.
        min_gain: Solid words that a change must bring, from 1 to k.
        rounds: How often all bases are looked at; the first time only changes count that make all words solid.
        temperature: The softness tau, in words, above 0.
        count_temperature: The softness of the count from which on a word is solid, as a share of it, above 0.
        learnable: Whether training changes that count.
    """

    k: Annotated[int, Ge(3), Le(15)] = 15
    n_kmers: Annotated[int, Ge(1)] = 1_000_000
    min_count: Annotated[float, Ge(1)] | None = None
    min_gain: Annotated[float, Ge(1)] = 2.0
    rounds: Annotated[int, Ge(1)] = 3
    temperature: Annotated[float, Gt(0)] = 0.25
    count_temperature: Annotated[float, Gt(0)] = 0.05
    learnable: bool = False


class CorrectedReads(NamedTuple):
    """Reads with their errors corrected.

    Attributes:
        corrected_reads: Distributions over A, C, G, T; zeros where the reads have none (*reads, positions, letters).
        base_changed: Probability that a base is another one than was read (*reads, positions).
    """

    corrected_reads: Float[Array, "*reads positions letters"]
    base_changed: Float[Array, "*reads positions"]


@partial(jax.jit, static_argnames=("k", "rounds"))
def corrected(
    read: Float[Array, "positions letters"],
    weights: Float[Array, " positions"],
    spectrum: Spectrum,
    log_threshold: ArrayLike,
    *,
    k: int,
    min_gain: ArrayLike = 2.0,
    rounds: int = 3,
    softness: ArrayLike = 0.25,
    count_softness: ArrayLike = 0.05,
) -> CorrectedReads:
    """Return a read with its errors corrected.

    Args:
        read: Distributions over A, C, G, T (positions, 4).
        weights: With which each base is kept, 0 to 1; bases below 1/2 are in no word (positions,).
        spectrum: Counts of words, by `counted_words`.
        log_threshold: Natural logarithm of the count from which on a word is solid.
        k: Bases of a word.
        min_gain: Solid words that a change must bring.
        rounds: How often all bases are looked at.
        softness: tau > 0, in words.
        count_softness: Of the threshold, above 0, in units of the logarithm.

    Returns:
        Corrected letters, and how likely each base was changed. Time grows as rounds x positions x k x log(kmers).

    Example:
        >>> genome = jnp.array([0, 1, 2, 3, 3, 1, 0, 2, 2, 0])
        >>> spectrum = counted_words(jnp.stack([genome] * 5), jnp.ones((5, 10), bool), 4, size=10)
        >>> read = jnp.eye(4)[genome.at[5].set(3)]
        >>> found = corrected(read, jnp.ones(10), spectrum, jnp.log(3.0), k=4, softness=0.01)
        >>> bool((found.corrected_reads.argmax(-1) == genome).all())
        True
    """
    there = read.sum(-1, keepdims=True)

    def once(letters: Array, strict: Array) -> tuple[Array, None]:
        codes, known = bases_of(letters, weights)
        found = evidence(codes, known, spectrum, log_threshold, k=k, softness=count_softness)
        not_solid = found.covering[:, None] - found.votes
        scores = found.votes + (min_gain - HALF_A_UNIT) * letters - strict * k * not_solid * (1 - letters)
        changed = jax.nn.softmax(scores / softness, axis=-1) * there
        # where no word covers a base, nothing speaks for any letter
        return jnp.where((found.covering > 0)[:, None], changed, letters), None

    letters, _ = lax.scan(once, read, (jnp.arange(rounds) == 0).astype(read.dtype))
    return CorrectedReads(letters, jnp.squeeze(there, -1) - (letters * read).sum(-1))


class KmerErrorCorrection(Operator[KmerErrorCorrectionConfig]):
    """Corrects substitutions by what other reads of the same genome say.

    Reads `reads` (*reads, positions, letters), distributions over A, C, G, T, and optionally `read_lengths` (*reads,)
    and `base_weights` (*reads, positions); writes `corrected_reads` and `base_changed`. `initialize` counts the words
    of all reads and sets the count from which on they are solid: give it all reads, or a sample that covers the genome
    well. Parameter, if learnable: the logarithm of that count.

    Args:
        config: Words, and when a base is changed.
        rngs: Not used: nothing is drawn.

    Example:
        >>> config = KmerErrorCorrectionConfig(k=4, n_kmers=20, min_count=3.0, temperature=0.01)
        >>> corrector = KmerErrorCorrection(config)
        >>> genome = jnp.array([0, 1, 2, 3, 3, 1, 0, 2, 2, 0])
        >>> reads = jnp.eye(4)[jnp.stack([genome] * 5 + [genome.at[5].set(3)])]
        >>> corrector.initialize(reads)
        >>> int(corrector.apply({"reads": reads}, {}, None)[0]["corrected_reads"].argmax(-1)[5, 5])
        1
    """

    def __init__(self, config: KmerErrorCorrectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.words, self.log_counts = map(nnx.Variable, no_words(config.n_kmers))
        kind = nnx.Param if config.learnable else nnx.Variable
        self.log_threshold = kind(jnp.log(jnp.float32(config.min_count or 2.0)))
        self.softness = Softness(config.temperature)
        self.count_softness = Softness(config.count_temperature)

    def initialize(
        self,
        reads: Float[Array, "reads positions letters"],
        read_lengths: Int[Array, "reads"] | None = None,
        base_weights: Float[Array, "reads positions"] | None = None,
    ) -> None:
        """Count the words of these reads, and set the threshold.

        Args:
            reads: Distributions over A, C, G, T (reads, positions, 4).
            read_lengths: How many bases of each read count (reads,).
            base_weights: With which each base is kept, 0 to 1 (reads, positions).

        Raises:
            DataError: Reads are shorter than words, or more words were read than there is room for.
        """
        config = self.config
        codes, known = bases_of(reads, starting_weights(reads[..., 0], read_lengths, base_weights))
        spectrum = counted_words(codes, known, config.k, size=config.n_kmers)
        self.words[...], self.log_counts[...] = spectrum
        count = least_solid_count(spectrum) if config.min_count is None else config.min_count
        self.log_threshold[...] = jnp.log(jnp.float32(count - HALF_A_UNIT))  # a word exactly at the threshold is solid

    def compute(
        self,
        reads: Float[Array, "*reads positions letters"],
        read_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
    ) -> CorrectedReads:
        """Return corrected reads."""
        config = self.config
        correct = partial(
            corrected,
            spectrum=Spectrum(self.words[...], self.log_counts[...]),
            log_threshold=self.log_threshold[...],
            k=config.k,
            min_gain=config.min_gain,
            rounds=config.rounds,
            softness=self.softness(),
            count_softness=self.count_softness(),
        )
        for _ in reads.shape[:-2]:
            correct = jax.vmap(correct)
        return correct(reads, starting_weights(reads[..., 0], read_lengths, base_weights))
