"""Trimming of tails of one letter: G, which two-colour sequencers call where there is no signal, A of mRNA, or any.

Hard (fastp): going back from the 3' end, t bases are a tail as long as at most min(t div 8, 5) of them are another
letter, which is asked from t = 10 on; a tail of 10 bases or more is cut before its first base of that letter. Relaxed,
with t_i and m_i the expected bases and mismatches from base i to the end, each >= of the rule is a sigmoid,

    allowed_i = sum over m from 1 to 5 of sigmoid((t_i - 8 m + 1/2) / tau)    long_i = sigmoid((t_i - 10 + 1/2) / tau)
    tail_i = prod over j >= i of (1 - long_j (1 - sigmoid((allowed_j - m_j + 1/2) / tau)))

and base i is dropped as far as a base of the letter, there or before it, belongs to such a tail. As tau -> 0 this is
the hard rule.

References:
    Chen, Zhou, Chen and Gu, fastp: an ultra-fast all-in-one FASTQ preprocessor, Bioinformatics 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.core.errors import ConfigError
from diffbio.io.sequence.alphabets import DNA
from diffbio.operators.preprocessing.complexity import calls
from diffbio.operators.preprocessing.kept_bases import HALF_A_UNIT, starting_weights
from diffbio.operators.preprocessing.quality_trimming import TrimmedBases


@dataclass(frozen=True, kw_only=True)
class PolyXTrimmingConfig(OperatorConfig):
    """What is a tail; the defaults are those of `fastp -g`. Those of `-x` are ACGT, 9 and true.

    Args:
        letters: Letters that tails may be of, each by itself; "ACGT" for any.
        min_length: Bases of the shortest tail.
        bases_per_mismatch: Bases of a tail for which one of another letter is allowed.
        max_mismatches: Bases of another letter in any tail.
        unknown_fits: Whether N in a tail counts as its letter.
        temperature: The softness tau, in bases.

    Raises:
        ConfigError: There are no letters, or others than A, C, G and T.
    """

    letters: str = "G"
    min_length: Annotated[int, Ge(1)] = 10
    bases_per_mismatch: Annotated[int, Ge(1)] = 8
    max_mismatches: Annotated[int, Ge(0)] = 5
    unknown_fits: bool = False
    temperature: Annotated[float, Gt(0)] = 0.1

    def __post_init__(self) -> None:
        """Check each field, then the letters."""
        super().__post_init__()
        if not self.letters or not set(self.letters) <= set(DNA):
            raise ConfigError(f"PolyXTrimmingConfig.letters is {self.letters!r}; give some of {DNA!r}")


def tail_of(
    matches: Float[Array, "*reads positions"],
    weights: Float[Array, "*reads positions"],
    unknown: Float[Array, "*reads positions"] | None = None,
    *,
    softness: ArrayLike,
    min_length: int = 10,
    bases_per_mismatch: int = 8,
    max_mismatches: int = 5,
) -> Float[Array, "*reads positions"]:
    """Return how far each base belongs to a tail of one letter.

    Args:
        matches: Probability that a base is that letter.
        weights: With which each base has been kept so far, 0 to 1; 0 beyond the end.
        unknown: Probability that a base is N and fits into a tail, but is not its first base.
        softness: tau > 0, in bases.
        min_length: Bases of the shortest tail.
        bases_per_mismatch: Bases of a tail for which one of another letter is allowed.
        max_mismatches: Bases of another letter in any tail.

    Returns:
        From 0 to 1, falling towards the 5' end (*reads, positions).

    References:
        In the limit fastp's tails of G.

    Example:
        >>> is_g = jnp.array([0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1.0])
        >>> tail_of(is_g, jnp.ones(13), softness=0.01).round(2).tolist()
        [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    match, weight = (jnp.flip(values, -1) for values in (matches * weights, weights))
    fits = match if unknown is None else match + jnp.flip(unknown * weights, -1)
    size = jnp.cumsum(weight, -1)
    mismatches = size - jnp.cumsum(fits, -1)
    steps = bases_per_mismatch * jnp.arange(1, max_mismatches + 1)
    allowed = soft_ops.greater(size[..., None] + HALF_A_UNIT, steps, softness=softness).sum(-1)
    long = soft_ops.greater(size + HALF_A_UNIT, min_length, softness=softness)
    within = soft_ops.greater(allowed + HALF_A_UNIT, mismatches, softness=softness)
    goes_on = jnp.cumprod(1 - long * (1 - within), -1)
    becomes_long = jnp.diff(long, axis=-1, prepend=jnp.zeros_like(long[..., :1]))
    is_tail = (becomes_long * goes_on).sum(-1, keepdims=True)  # at its first min_length bases
    belongs = match * ((1 - long) * is_tail + long * goes_on)
    return jnp.flip(jax.lax.cummax(belongs, axis=belongs.ndim - 1, reverse=True), -1)


class PolyXTrimming(Operator[PolyXTrimmingConfig]):
    """Drops tails of one letter from the 3' end of reads.

    Reads `reads` (*reads, positions, letters), distributions over A, C, G, T, and optionally `read_lengths` (*reads,)
    and the `base_weights` (*reads, positions) of earlier trimmers, at whose last kept base the search begins; writes
    `base_weights`. No parameters.

    Args:
        config: What is a tail.
        rngs: Not used: nothing is drawn.

    Example:
        >>> reads = jnp.eye(4)[jnp.array([[0, 1, 3] + [2] * 10])]
        >>> trimmer = PolyXTrimming(PolyXTrimmingConfig(temperature=0.01))
        >>> trimmer.apply({"reads": reads}, {}, None)[0]["base_weights"].round(2).tolist()[0][:5]
        [1.0, 1.0, 1.0, 0.0, 0.0]
    """

    def __init__(self, config: PolyXTrimmingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature)

    def compute(
        self,
        reads: Float[Array, "*reads positions letters"],
        read_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
    ) -> TrimmedBases:
        """Return the weights of the bases; a base goes with the letter of whose tail it is most."""
        config = self.config
        weights = starting_weights(reads[..., 0], read_lengths, base_weights)
        called = jnp.moveaxis(calls(reads), -1, 0)
        matches = called[jnp.array([DNA.index(letter) for letter in config.letters])]
        tails = tail_of(
            matches,
            jnp.broadcast_to(weights, matches.shape),
            jnp.broadcast_to(called[-1], matches.shape) if config.unknown_fits else None,
            softness=self.softness(),
            min_length=config.min_length,
            bases_per_mismatch=config.bases_per_mismatch,
            max_mismatches=config.max_mismatches,
        )
        return TrimmedBases(weights * (1 - tails.max(0)))
