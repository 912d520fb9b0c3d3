"""Filter of reads of low complexity: few changes from base to base (fastp), or many equal triplets (DUST).

Hard: a read is kept if the share of its bases that differ from the next one is at least a threshold, 0.3; or if its
DUST score, sum over triplets t of c_t (c_t - 1) / 2 / (l - 1) with c_t of the l triplets equal to t, is at most a
threshold, 2. Relaxed, bases and neighbours count with the weights w with which they are kept, and letters p differ by
chance,

    changes = sum_i w_i w_(i+1) (1 - p_i . p_(i+1)) / sum_i w_i w_(i+1)    pass = sigmoid((changes - threshold) / tau)

and the pairs of equal triplets, sum c_t (c_t - 1) / 2, are those expected. As tau -> 0 this is the hard rule. N is a
letter of its own for the changes, as in fastp.

References:
    Chen, Zhou, Chen and Gu, fastp: an ultra-fast all-in-one FASTQ preprocessor, Bioinformatics 2018.
    Morgulis, Gertz, Schaffer and Agarwala, A fast and symmetric DUST implementation to mask low-complexity DNA
    sequences, Journal of Computational Biology 2006.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
from annotated_types import Gt
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.io.sequence.kmers import kmer_counts
from diffbio.operators.preprocessing.kept_bases import certainty, starting_weights

_THRESHOLDS = {"changes": 0.3, "dust": 2.0}
_HALF_A_HUNDREDTH = (
    0.005  # a share given in percent is a multiple of 0.01 of a base: one exactly at the threshold passes
)


@dataclass(frozen=True, kw_only=True)
class ComplexityFilterConfig(OperatorConfig):
    """What complexity is, and how much a read needs.

    Args:
        measure: `changes`, the share of bases that differ from the next one, or `dust`, the DUST score.
        threshold: The least share of changes, or the largest DUST score; `None` for 0.3 and 2.
        temperature: The softness tau, in the unit of the measure.
        learnable: Whether training changes the threshold.
    """

    measure: Literal["changes", "dust"] = "changes"
    threshold: Annotated[float, Gt(0)] | None = None
    temperature: Annotated[float, Gt(0)] = 0.02
    learnable: bool = False


class ComplexReads(NamedTuple):
    """How far each read is kept.

    Attributes:
        complexity_pass: How far a read has the complexity that is asked for, from 0 to 1 (*reads,).
        read_weights: The weights that the reads had, times that (*reads,).
    """

    complexity_pass: Float[Array, "*reads"]
    read_weights: Float[Array, "*reads"]


def calls(reads: Float[Array, "*reads positions letters"]) -> Float[Array, "*reads positions calls"]:
    """Return distributions over the letters and N, as which a base that may be all letters alike counts.

    Args:
        reads: Distributions over n letters; zeros beyond the end.

    Returns:
        Distributions over n + 1 letters; N alone where there were zeros.

    Example:
        >>> calls(jnp.array([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])).tolist()
        [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
    """
    sure = certainty(reads)[..., None]
    return jnp.concatenate([reads * sure, 1 - sure], axis=-1)


def share_of_changes(
    reads: Float[Array, "*reads positions letters"], weights: Float[Array, "*reads positions"]
) -> Float[Array, "*reads"]:
    """Return the expected share of bases that differ from the next one.

    Args:
        reads: Distributions over the letters.
        weights: With which each base is kept, 0 to 1; 0 beyond the end.

    Returns:
        Shares from 0 to 1; 0 for reads of less than two bases.

    References:
        In the limit fastp's complexity / 100.

    Example:
        >>> reads = jnp.eye(4)[jnp.array([0, 0, 0, 1, 2])]  # AAACG
        >>> float(share_of_changes(reads, jnp.ones(5)))
        0.5
    """
    letters = calls(reads)
    together = weights[..., 1:] * weights[..., :-1]
    differ = 1 - (letters[..., 1:, :] * letters[..., :-1, :]).sum(-1)
    return (together * differ).sum(-1) / jnp.maximum(together.sum(-1), 1)


def dust_score(
    reads: Float[Array, "*reads positions letters"], weights: Float[Array, "*reads positions"]
) -> Float[Array, "*reads"]:
    """Return the expected DUST score of each read, as one window.

    Args:
        reads: Distributions over the letters, of at least three positions.
        weights: With which each base is kept, 0 to 1; 0 beyond the end.

    Returns:
        Scores from 0 up, at most half the number of triplets; 0 for reads of less than two triplets.

    References:
        Morgulis, Gertz, Schaffer and Agarwala, A fast and symmetric DUST implementation, Journal of Computational
        Biology 2006.

    Example:
        >>> float(dust_score(jnp.eye(4)[jnp.zeros(7, int)], jnp.ones(7)))  # five times AAA: 10 pairs, over 5 - 1
        2.5
    """
    counts = kmer_counts(reads, 3, weights)
    squares = jnp.square(reads * weights[..., None]).sum(-1)
    with_themselves = (squares[..., :-2] * squares[..., 1:-1] * squares[..., 2:]).sum(-1)
    triplets = (weights[..., :-2] * weights[..., 1:-1] * weights[..., 2:]).sum(-1)
    return (jnp.square(counts).sum(-1) - with_themselves) / 2 / jnp.maximum(triplets - 1, 1)


class ComplexityFilter(Operator[ComplexityFilterConfig]):
    """Drops reads of low complexity.

    Reads `reads` (*reads, positions, letters), distributions over the letters, and optionally `read_lengths` (*reads,),
    the `base_weights` (*reads, positions) of trimmers, `read_mask` (*reads,) and the `read_weights` (*reads,) of
    earlier filters; writes `read_weights`, and why: `complexity_pass` (*reads,). Parameter, if learnable: `threshold`.

    Args:
        config: Measure and threshold.
        rngs: Not used: nothing is drawn.

    Example:
        >>> reads = jnp.eye(4)[jnp.array([[0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 2, 3]])]
        >>> filter_ = ComplexityFilter(ComplexityFilterConfig(temperature=0.001))
        >>> filter_.apply({"reads": reads}, {}, None)[0]["read_weights"].round(2).tolist()
        [0.0, 1.0]
    """

    def __init__(self, config: ComplexityFilterConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        threshold = _THRESHOLDS[config.measure] if config.threshold is None else config.threshold
        self.threshold = (nnx.Param if config.learnable else nnx.Variable)(jnp.float32(threshold))
        self.softness = Softness(config.temperature)

    def compute(
        self,
        reads: Float[Array, "*reads positions letters"],
        *,
        read_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
        read_mask: Bool[Array, "*reads"] | None = None,
        read_weights: Float[Array, "*reads"] | None = None,
    ) -> ComplexReads:
        """Return how far each read passes, and its weight."""
        weights = starting_weights(reads[..., 0], read_lengths, base_weights)
        if self.config.measure == "changes":
            least = self.threshold[...] - _HALF_A_HUNDREDTH / jnp.maximum(weights.sum(-1) - 1, 1)
            passes = soft_ops.greater(share_of_changes(reads, weights), least, softness=self.softness())
        else:
            passes = soft_ops.less(dust_score(reads, weights), self.threshold[...], softness=self.softness())
        before = jnp.ones_like(passes) if read_weights is None else read_weights
        before = before if read_mask is None else jnp.where(read_mask, before, 0)
        return ComplexReads(passes, before * passes)
