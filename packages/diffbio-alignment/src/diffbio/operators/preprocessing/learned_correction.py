"""A small network that corrects sequencing errors from the k-mer spectrum and the qualities, once it is trained.

It relaxes no algorithm: for each base and each of the four letters in its place, six numbers - the share of the
covering words that are solid with it, whether the words that end and begin there are, whether it is the letter read,
that times the quality, and how many words cover the base - go through one hidden layer to a score, and the letters have
the softmax of their scores. All bases and letters share the weights, so that it knows no sequence, and treats the
strands alike up to the order of two inputs. Before it is trained its output means nothing: train it by
`true_base_cross_entropy` on reads whose true letters are known, simulated ones or those of a sequenced control.

References:
    None: it is here for pipelines that are trained as a whole. `KmerErrorCorrection` is the field's rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from flax import nnx
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs
from diffbio.operators.preprocessing.error_correction import CorrectedReads
from diffbio.operators.preprocessing.kept_bases import HALF_A_UNIT, starting_weights
from diffbio.operators.preprocessing.kmer_spectrum import (
    Spectrum,
    bases_of,
    counted_words,
    evidence,
    least_solid_count,
    no_words,
)

N_NUMBERS = 6
"""What the network knows of a letter in a place."""

_USUAL_QUALITY = 40.0


@dataclass(frozen=True, kw_only=True)
class LearnedErrorCorrectionConfig(OperatorConfig):
    """Words, and size of the network.

    Args:
        k: Bases of a word, up to 15.
        n_kmers: Room for the words that were read more than once.
        n_hidden: Hidden units.
        count_temperature: The softness of the count from which on a word is solid, as a share of it, above 0.
    """

    k: Annotated[int, Ge(3), Le(15)] = 15
    n_kmers: Annotated[int, Ge(1)] = 1_000_000
    n_hidden: Annotated[int, Ge(1)] = 16
    count_temperature: Annotated[float, Gt(0)] = 0.05


class LearnedErrorCorrection(Operator[LearnedErrorCorrectionConfig]):
    """Corrects substitutions as it was trained to.

    Reads `reads` (*reads, positions, letters), distributions over A, C, G, T, `qualities` (*reads, positions), Phred,
    and optionally `read_lengths` (*reads,) and `base_weights` (*reads, positions); writes `corrected_reads` and
    `base_changed`. `initialize` counts the words of all reads. Parameters: two layers, and the logarithm of the count
    from which on words are solid.

    Args:
        config: Words, and size of the network.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> corrector = LearnedErrorCorrection(LearnedErrorCorrectionConfig(k=3, n_kmers=9), rngs=nnx.Rngs(0))
        >>> data = {"reads": jnp.eye(4)[None], "qualities": jnp.full((1, 4), 30.0)}
        >>> corrector.initialize(data["reads"])
        >>> corrector.apply(data, {}, None)[0]["corrected_reads"].shape
        (1, 4, 4)
    """

    def __init__(self, config: LearnedErrorCorrectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        self.words, self.log_counts = map(nnx.Variable, no_words(config.n_kmers))
        self.log_threshold = nnx.Param(jnp.log(jnp.float32(2.0)))
        self.hidden = nnx.Linear(N_NUMBERS, config.n_hidden, rngs=rngs)
        self.score = nnx.Linear(config.n_hidden, 1, use_bias=False, rngs=rngs)  # one for all letters would cancel
        self.count_softness = Softness(config.count_temperature)

    def initialize(
        self,
        reads: Float[Array, "reads positions letters"],
        read_lengths: Int[Array, "reads"] | None = None,
        base_weights: Float[Array, "reads positions"] | None = None,
    ) -> None:
        """Count the words of these reads, and set the count from which on they are solid.

        Args:
            reads: Distributions over A, C, G, T (reads, positions, 4).
            read_lengths: How many bases of each read count (reads,).
            base_weights: With which each base is kept, 0 to 1 (reads, positions).

        Raises:
            DataError: Reads are shorter than words, or more words were read than there is room for.
        """
        codes, known = bases_of(reads, starting_weights(reads[..., 0], read_lengths, base_weights))
        spectrum = counted_words(codes, known, self.config.k, size=self.config.n_kmers)
        self.words[...], self.log_counts[...] = spectrum
        self.log_threshold[...] = jnp.log(jnp.float32(least_solid_count(spectrum) - HALF_A_UNIT))

    def compute(
        self,
        reads: Float[Array, "*reads positions letters"],
        qualities: Float[Array, "*reads positions"],
        read_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
    ) -> CorrectedReads:
        """Return corrected reads."""
        look_up = partial(
            evidence,
            spectrum=Spectrum(self.words[...], self.log_counts[...]),
            log_threshold=self.log_threshold[...],
            k=self.config.k,
            softness=self.count_softness(),
        )
        for _ in reads.shape[:-2]:
            look_up = jax.vmap(look_up)
        found = look_up(*bases_of(reads, starting_weights(qualities, read_lengths, base_weights)))
        covering = found.covering[..., None]
        numbers = (
            found.votes / jnp.maximum(covering, 1.0),
            found.left,
            found.right,
            reads,
            reads * qualities[..., None] / _USUAL_QUALITY,
            jnp.broadcast_to(covering / self.config.k, reads.shape),
        )
        scores = self.score(nnx.relu(self.hidden(jnp.stack(numbers, axis=-1))))[..., 0]
        there = reads.sum(-1, keepdims=True)
        corrected = jax.nn.softmax(scores, axis=-1) * there
        return CorrectedReads(corrected, there[..., 0] - (corrected * reads).sum(-1))
