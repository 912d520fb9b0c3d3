"""Filter of reads by quality, unknown bases and length (`fastp -q -u -e -n -l`, `cutadapt --max-ee --max-n -m -M`).

Hard: a read passes a criterion if its number, counted over the bases that are kept, is within the limit, and is kept if
it passes all. Relaxed, a base counts with its weight, and passing is sigmoid((number - limit) / (tau |limit|)), or of
the opposite for an upper limit. As tau -> 0 this is the hard rule. Whole numbers are compared with the middle between
limit and next number, so that a read exactly at the limit passes.

References:
    Chen, Zhou, Chen and Gu, fastp: an ultra-fast all-in-one FASTQ preprocessor, Bioinformatics 2018.
    Edgar and Flyvbjerg, Error filtering, pair assembly and error correction for next-generation sequencing reads,
    Bioinformatics 2015 (expected errors).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.core.errors import ConfigError
from diffbio.operators.preprocessing.kept_bases import HALF_A_UNIT, certainty, starting_weights

_HALF_A_HUNDREDTH_OF_A_BASE = 0.005
"""A percentage of a whole length is a multiple of a hundredth."""


@dataclass(frozen=True, kw_only=True)
class QualityFilterConfig(OperatorConfig):
    """Limits; `None` switches a criterion off.

    Args:
        min_mean_quality: Phred.
        qualified: Quality that a base needs to count as qualified, Phred.
        max_unqualified: Percentage of the bases that may be unqualified.
        max_unknown: Number of bases that may be N.
        max_expected_errors: Sum of the error probabilities.
        min_length: Bases.
        max_length: Bases.
        temperature: The softness tau, as a share of each limit (of 1 where the limit is below 1), above 0.
        learnable: Whether training changes the limits.

    Raises:
        ConfigError: The shortest length is above the longest.
    """

    min_mean_quality: Annotated[float, Ge(0)] | None = None
    qualified: Annotated[float, Ge(0)] = 15.0
    max_unqualified: Annotated[float, Ge(0), Le(100)] | None = 40.0
    max_unknown: Annotated[float, Ge(0)] | None = 5.0
    max_expected_errors: Annotated[float, Gt(0)] | None = None
    min_length: Annotated[float, Ge(0)] | None = 15.0
    max_length: Annotated[float, Ge(0)] | None = None
    temperature: Annotated[float, Gt(0)] = 0.05
    learnable: bool = False

    def __post_init__(self) -> None:
        """Check each field, then that some length passes."""
        super().__post_init__()
        if self.min_length is not None and self.max_length is not None and self.min_length > self.max_length:
            raise ConfigError(
                f"QualityFilterConfig.min_length is {self.min_length} and max_length {self.max_length}; no read passes"
            )


class ReadNumbers(NamedTuple):
    """What a read is judged by, over the bases that are kept.

    Attributes:
        lengths: Bases (*reads,).
        mean_quality: Phred, 0 for an empty read (*reads,).
        unqualified: Bases below the quality that counts as qualified (*reads,).
        unknown: Bases that are N (*reads,).
        expected_errors: Sum of the error probabilities (*reads,).
    """

    lengths: Float[Array, "*reads"]
    mean_quality: Float[Array, "*reads"]
    unqualified: Float[Array, "*reads"]
    unknown: Float[Array, "*reads"]
    expected_errors: Float[Array, "*reads"]


class FilteredReads(NamedTuple):
    """How far each read is kept, and how far it passes each criterion; all from 0 to 1, (*reads,).

    Attributes:
        read_weights: Those before, times all that follow.
        mean_quality_pass: By `min_mean_quality`.
        unqualified_pass: By `max_unqualified`.
        unknown_pass: By `max_unknown`.
        expected_errors_pass: By `max_expected_errors`.
        length_pass: By `min_length` and `max_length`.
    """

    read_weights: Float[Array, "*reads"]
    mean_quality_pass: Float[Array, "*reads"]
    unqualified_pass: Float[Array, "*reads"]
    unknown_pass: Float[Array, "*reads"]
    expected_errors_pass: Float[Array, "*reads"]
    length_pass: Float[Array, "*reads"]


def read_numbers(
    qualities: Float[Array, "*reads positions"],
    weights: Float[Array, "*reads positions"],
    unknown: Float[Array, "*reads positions"],
    *,
    qualified: ArrayLike = 15.0,
    softness: ArrayLike = 0.1,
) -> ReadNumbers:
    """Return lengths, qualities and errors of reads.

    Args:
        qualities: Phred (*reads, positions).
        weights: With which each base is kept, 0 to 1; 0 beyond the end (*reads, positions).
        unknown: Probability that a base is N (*reads, positions).
        qualified: Phred.
        softness: Of the comparison with it, Phred, above 0.

    Returns:
        Five numbers for each read.

    Example:
        >>> numbers = read_numbers(jnp.array([10.0, 20.0, 30.0]), jnp.ones(3), jnp.zeros(3), softness=0.01)
        >>> float(numbers.mean_quality), float(numbers.unqualified), round(float(numbers.expected_errors), 3)
        (20.0, 1.0, 0.111)
    """
    lengths = weights.sum(-1)
    kept = jnp.where(weights > 0, qualities, 0.0)  # what stands beyond the end may be anything
    low = soft_ops.less(kept + HALF_A_UNIT, qualified, softness=softness)
    return ReadNumbers(
        lengths=lengths,
        mean_quality=(weights * kept).sum(-1) / jnp.where(lengths > 0, lengths, 1.0),
        unqualified=(weights * low).sum(-1),
        unknown=(weights * unknown).sum(-1),
        expected_errors=(weights * 10 ** (-kept / 10)).sum(-1),
    )


class QualityFilter(Operator[QualityFilterConfig]):
    """Drops reads of low quality, with many unknown bases, or of a wrong length.

    Reads `qualities` (*reads, positions), Phred, and optionally `reads` (*reads, positions, letters), of which N is
    known, `read_lengths` (*reads,), the `base_weights` (*reads, positions) of trimmers, `read_mask` (*reads,) and the
    `read_weights` (*reads,) of earlier filters; writes `read_weights`, and why: `mean_quality_pass`,
    `unqualified_pass`, `unknown_pass`, `expected_errors_pass` and `length_pass` (*reads,). Parameters, if learnable:
    the limits.

    Args:
        config: Limits.
        rngs: Not used: nothing is drawn.

    Example:
        >>> config = QualityFilterConfig(min_mean_quality=20.0, min_length=3.0, temperature=0.001)
        >>> data = {"qualities": jnp.array([[30.0, 31.0, 25.0], [16.0, 20.0, 17.0]])}
        >>> QualityFilter(config).apply(data, {}, None)[0]["read_weights"].round(2).tolist()
        [1.0, 0.0]
    """

    def __init__(self, config: QualityFilterConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable

        def limit(value: float | None) -> nnx.Variable | None:
            return None if value is None else kind(jnp.float32(value))

        self.min_mean_quality = limit(config.min_mean_quality)
        self.qualified = limit(None if config.max_unqualified is None else config.qualified)
        self.max_unqualified = limit(config.max_unqualified)
        self.max_unknown = limit(config.max_unknown)
        self.max_expected_errors = limit(config.max_expected_errors)
        self.min_length = limit(config.min_length)
        self.max_length = limit(config.max_length)
        self.softness = Softness(config.temperature)

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        qualities: Float[Array, "*reads positions"],
        reads: Float[Array, "*reads positions letters"] | None = None,
        read_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
        read_mask: Bool[Array, "*reads"] | None = None,
        read_weights: Float[Array, "*reads"] | None = None,
    ) -> FilteredReads:
        """Return the weights of the reads, and how far they pass each criterion."""
        weights = starting_weights(qualities, read_lengths, base_weights)
        unknown = jnp.zeros_like(qualities) if reads is None else 1 - certainty(reads)
        qualified = 0.0 if self.qualified is None else self.qualified[...]
        width = self.softness() * max(self.config.qualified, 1.0)
        numbers = read_numbers(qualities, weights, unknown, qualified=qualified, softness=width)
        length = numbers.lengths
        half_a_mean = HALF_A_UNIT / jnp.maximum(length, 1.0)
        share = _HALF_A_HUNDREDTH_OF_A_BASE / jnp.maximum(length, 1.0) * 100
        percentage = 100 * numbers.unqualified / jnp.maximum(length, 1.0)
        passes = (
            self._above(numbers.mean_quality + half_a_mean, self.min_mean_quality, self.config.min_mean_quality),
            self._above(-percentage + share, self.max_unqualified, self.config.max_unqualified, sign=-1),
            self._above(-numbers.unknown + HALF_A_UNIT, self.max_unknown, self.config.max_unknown, sign=-1),
            self._above(-numbers.expected_errors, self.max_expected_errors, self.config.max_expected_errors, sign=-1),
            self._above(length + HALF_A_UNIT, self.min_length, self.config.min_length)
            * self._above(-length + HALF_A_UNIT, self.max_length, self.config.max_length, sign=-1),
        )
        before = jnp.ones_like(length) if read_weights is None else read_weights
        before = before if read_mask is None else jnp.where(read_mask, before, 0)
        return FilteredReads(before * jnp.stack(passes).prod(0), *passes)

    def _above(self, numbers: Array, limit: nnx.Variable | None, scale: float | None, sign: int = 1) -> Array:
        """Return how far numbers are above a limit; an upper limit comes with both signs turned."""
        if limit is None or scale is None:
            return jnp.ones_like(numbers)
        return soft_ops.greater(numbers, sign * limit[...], softness=self.softness() * max(scale, 1.0))
