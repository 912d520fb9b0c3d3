"""Alignment of two sequences with a softness: Smith-Waterman, and Needleman-Wunsch with ends that may be free.

Hard: the best score over all alignments, and the alignment that has it. Relaxed, over all alignments a,

    score = tau log sum_a exp(score_a / tau)        P(i ~ j) = sum of exp((score_a - score) / tau) over a with i ~ j

so that the score is smooth in the substitution scores and both gap costs, its derivative by the score of a pair is the
probability that these two are aligned, and that by the gap cost less the expected number of gaps. As tau -> 0 the score
is that of the best alignment; the probabilities become 1 along it, shared where several are best.

A gap of n positions costs gap_open + (n - 1) gap_extend, as in parasail; BLAST and EMBOSS count one more gap_extend in
their first position.

References:
    Smith and Waterman, Identification of common molecular subsequences, Journal of Molecular Biology 1981.
    Needleman and Wunsch, A general method applicable to the search for similarities, Journal of Molecular Biology 1970.
    Daily, Parasail: SIMD C library for global, semi-global, and local pairwise sequence alignments, BMC Bioinformatics
    2016.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.errors import ConfigError
from diffbio.operators.alignment.ends import LOCAL, Ends
from diffbio.operators.alignment.partition import expectations, log_partition
from diffbio.operators.alignment.recurrence import Pair
from diffbio.operators.alignment.substitution import substitution_matrix, substitution_scores, symmetric

FreeEnd = Literal["query_begin", "query_end", "target_begin", "target_end"]


@dataclass(frozen=True, kw_only=True)
class SmithWatermanConfig(OperatorConfig):
    """Scores of local alignments.

    Args:
        alphabet: The letters, in the order of the sequences' last axis.
        matrix: Name of a substitution matrix, or path of its file; see `substitution_matrix`.
        gap_open: Cost of the first position of a gap, above 0.
        gap_extend: Cost of each further one, above 0.
        temperature: The softness tau, in the unit of the scores.
        band: Largest difference of the positions of an aligned pair; `None` for any.
        learnable: Whether training changes the matrix and the gap costs.
    """

    alphabet: str = "ARNDCQEGHILKMFPSTWYV"
    matrix: str = "BLOSUM62"
    gap_open: Annotated[float, Gt(0)] = 11.0
    gap_extend: Annotated[float, Gt(0)] = 1.0
    temperature: Annotated[float, Gt(0)] = 1.0
    band: Annotated[int, Ge(1)] | None = None
    learnable: bool = False


@dataclass(frozen=True, kw_only=True)
class NeedlemanWunschConfig(SmithWatermanConfig):
    """Scores of alignments from end to end.

    Args:
        alphabet: The letters, in the order of the sequences' last axis.
        matrix: Name of a substitution matrix, or path of its file; see `substitution_matrix`.
        gap_open: Cost of the first position of a gap, above 0.
        gap_extend: Cost of each further one, above 0.
        temperature: The softness tau, in the unit of the scores.
        band: Largest difference of the positions of an aligned pair; `None` for any.
        learnable: Whether training changes the matrix and the gap costs.
        free_ends: Ends of which positions may stay outside at no cost; all four for overlaps, the two of the target to
            fit the query into it.

    Raises:
        ConfigError: An end is named twice.
    """

    free_ends: tuple[FreeEnd, ...] = ()

    def __post_init__(self) -> None:
        """Check each field, then that no end is named twice."""
        super().__post_init__()
        if len(set(self.free_ends)) < len(self.free_ends):
            raise ConfigError(f"NeedlemanWunschConfig.free_ends is {self.free_ends!r}; name each end once")


class SoftAlignment(NamedTuple):
    """What all alignments of two sequences have, weighted.

    Attributes:
        alignment_score: In the unit of the substitution scores (*pairs,).
        alignment_posterior: Probability that two positions are aligned (*pairs, query, target); rows and columns sum to
            at most 1.
        gap_opens: Expected number of gaps (*pairs,).
        gap_extends: Expected number of further positions in gaps (*pairs,).
    """

    alignment_score: Float[Array, "*pairs"]
    alignment_posterior: Float[Array, "*pairs query target"]
    gap_opens: Float[Array, "*pairs"]
    gap_extends: Float[Array, "*pairs"]


@partial(jax.jit, static_argnames=("ends", "band"))
def soft_alignment(
    scores: Float[Array, "query target"],
    lengths: Int[Array, "2"],
    *,
    gap_open: ArrayLike,
    gap_extend: ArrayLike,
    softness: ArrayLike,
    ends: Ends = LOCAL,
    band: int | None = None,
) -> SoftAlignment:
    """Return score and posterior of the alignment of two sequences.

    Args:
        scores: Of aligning a position of the query with one of the target.
        lengths: How many positions of query and target count, each at least 1.
        gap_open: Cost of the first position of a gap.
        gap_extend: Cost of each further one.
        softness: tau > 0, in the unit of the scores.
        ends: Which ends are free.
        band: Largest difference of the positions of an aligned pair.

    Returns:
        Score (), posterior (query, target), 0 beyond the lengths, and expected gaps. Time grows as query x target, or
        with a band as (query + target) x band; the memory of the score is linear in the lengths, that of the posterior
        and of gradients 8 bytes per cell beside it.

    References:
        In the limit parasail's scores.

    Example:
        >>> scores = 2 * jnp.eye(4)[jnp.array([0, 1, 3])] - 1  # the query ACT against the target ACGT
        >>> found = soft_alignment(scores, jnp.array([3, 4]), gap_open=2.0, gap_extend=1.0, softness=0.1, ends=Ends())
        >>> round(float(found.alignment_score), 2), found.alignment_posterior[2].round(2).tolist()
        (1.0, [0.0, 0.0, 0.0, 1.0])
    """
    softness = jnp.asarray(softness, scores.dtype)
    pair = Pair(scores / softness, jnp.asarray(gap_open) / softness, jnp.asarray(gap_extend) / softness, lengths)
    expected = expectations(pair, ends, band)
    score = softness * log_partition(pair, ends, band)
    return SoftAlignment(score, expected.matches, expected.opens, expected.extends)


class _PairwiseAlignment[C: SmithWatermanConfig](Operator[C]):
    """Parameters and inputs that all pairwise alignments share."""

    def __init__(self, config: C, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.substitution = kind(jnp.asarray(substitution_matrix(config.matrix, config.alphabet)))
        self.log_gap_open = kind(jnp.log(jnp.float32(config.gap_open)))
        self.log_gap_extend = kind(jnp.log(jnp.float32(config.gap_extend)))
        self.softness = Softness(config.temperature)

    @property
    def ends(self) -> Ends:
        """Which ends are free."""
        raise NotImplementedError

    def compute(
        self,
        query: Float[Array, "*pairs query letters"],
        target: Float[Array, "*pairs target letters"],
        query_length: Int[Array, "*pairs"] | None = None,
        target_length: Int[Array, "*pairs"] | None = None,
    ) -> SoftAlignment:
        """Return score and posterior of each pair."""
        lengths = jnp.stack(
            [
                jnp.full(sequence.shape[:-2], sequence.shape[-2]) if length is None else length
                for sequence, length in ((query, query_length), (target, target_length))
            ],
            axis=-1,
        )
        align: Callable[..., SoftAlignment] = self._align
        for _ in query.shape[:-2]:
            align = jax.vmap(align)
        return align(query, target, lengths)

    def _align(self, query: Array, target: Array, lengths: Array) -> SoftAlignment:
        return soft_alignment(
            substitution_scores(query, target, symmetric(self.substitution[...])),
            lengths,
            gap_open=jnp.exp(self.log_gap_open[...]),
            gap_extend=jnp.exp(self.log_gap_extend[...]),
            softness=self.softness(),
            ends=self.ends,
            band=self.config.band,
        )


class SmoothSmithWaterman(_PairwiseAlignment[SmithWatermanConfig]):
    """Align the most similar parts of two sequences.

    Reads `query` (*pairs, query, letters) and `target` (*pairs, target, letters), distributions over the letters, and
    optionally `query_length` and `target_length` (*pairs,), how many positions count; writes `alignment_score`
    (*pairs,), `alignment_posterior` (*pairs, query, target), `gap_opens` and `gap_extends` (*pairs,). Parameters, if
    learnable: `substitution` (letters, letters), whose symmetric part counts, and the logarithms of the gap costs.

    Args:
        config: Scores and gap costs.
        rngs: Not used: the matrix is the one that the configuration names.

    Example:
        >>> aligner = SmoothSmithWaterman(SmithWatermanConfig(alphabet="ACGT", matrix="NUC.4.4", temperature=0.01))
        >>> data = {"query": jnp.eye(4)[None, jnp.array([0, 1, 2])], "target": jnp.eye(4)[None]}
        >>> round(float(aligner.apply(data, {}, None)[0]["alignment_score"][0]), 1)
        15.0
    """

    @property
    def ends(self) -> Ends:
        """Which ends are free: all."""
        return LOCAL


class SmoothNeedlemanWunsch(_PairwiseAlignment[NeedlemanWunschConfig]):
    """Align two sequences from end to end, or with free ends (semi-global).

    Reads `query` (*pairs, query, letters) and `target` (*pairs, target, letters), distributions over the letters, and
    optionally `query_length` and `target_length` (*pairs,), how many positions count; writes `alignment_score`
    (*pairs,), `alignment_posterior` (*pairs, query, target), `gap_opens` and `gap_extends` (*pairs,). Parameters, if
    learnable: `substitution` (letters, letters), whose symmetric part counts, and the logarithms of the gap costs.

    Args:
        config: Scores, gap costs and free ends.
        rngs: Not used: the matrix is the one that the configuration names.

    Example:
        >>> config = NeedlemanWunschConfig(alphabet="ACGT", matrix="NUC.4.4", temperature=0.01, gap_open=4.0)
        >>> data = {"query": jnp.eye(4)[None, jnp.array([0, 1, 2])], "target": jnp.eye(4)[None]}
        >>> round(float(SmoothNeedlemanWunsch(config).apply(data, {}, None)[0]["alignment_score"][0]), 1)
        11.0
    """

    @property
    def ends(self) -> Ends:
        """Which ends are free, in the words of the recurrence."""
        free = self.config.free_ends
        return Ends(
            x_begin="query_begin" in free,
            x_end="query_end" in free,
            y_begin="target_begin" in free,
            y_end="target_end" in free,
        )
