"""Alignment of two sequences with a softness: Smith-Waterman, and Needleman-Wunsch with ends that may be free.

Both have score and posterior of `soft_alignment`, which says what is relaxed and what tau -> 0 gives.

References:
    Smith and Waterman, Identification of common molecular subsequences, Journal of Molecular Biology 1981.
    Needleman and Wunsch, A general method applicable to the search for similarities, Journal of Molecular Biology 1970.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.io.sequence.alphabets import encode
from diffbio.operators.alignment.best_path import best_path
from diffbio.operators.alignment.ends import LOCAL, Ends, FreeEnd, ends_of, require_each_end_once
from diffbio.operators.alignment.hard_alignment import HardAlignment, written_out
from diffbio.operators.alignment.recurrence import Pair
from diffbio.operators.alignment.scoring import ScoredAlignment, ScoringConfig
from diffbio.operators.alignment.soft_alignment import SoftAlignment, pair_lengths, soft_score

_PAIRS_AT_ONCE = 16
"""Pairs that are aligned side by side: enough to fill the lanes of a processor."""


@dataclass(frozen=True, kw_only=True)
class SmithWatermanConfig(ScoringConfig):
    """Scores of local alignments.

    Args:
        alphabet: The letters, in the order of the sequences' last axis.
        matrix: Name of a substitution matrix, or path of its file; see `substitution_matrix`.
        gap_open: Cost of the first position of a gap, above 0.
        gap_extend: Cost of each further one, above 0.
        temperature: The softness tau, in the unit of the scores.
        learnable: Whether training changes the matrix and the gap costs.
        band: Largest difference of the positions of an aligned pair; `None` for any.
    """

    band: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True, kw_only=True)
class NeedlemanWunschConfig(SmithWatermanConfig):
    """Scores of alignments from end to end.

    Args:
        alphabet: The letters, in the order of the sequences' last axis.
        matrix: Name of a substitution matrix, or path of its file; see `substitution_matrix`.
        gap_open: Cost of the first position of a gap, above 0.
        gap_extend: Cost of each further one, above 0.
        temperature: The softness tau, in the unit of the scores.
        learnable: Whether training changes the matrix and the gap costs.
        band: Largest difference of the positions of an aligned pair; `None` for any.
        free_ends: Ends of which positions may stay outside at no cost; all four for overlaps, the two of the target to
            fit the query into it.

    Raises:
        ConfigError: An end is named twice.
    """

    free_ends: tuple[FreeEnd, ...] = ()

    def __post_init__(self) -> None:
        """Check each field, then that no end is named twice."""
        super().__post_init__()
        require_each_end_once("NeedlemanWunschConfig", self.free_ends)


class _PairwiseAlignment[C: SmithWatermanConfig](ScoredAlignment[C]):
    """Inputs that all pairwise alignments share."""

    def __init__(self, config: C, *, ends: Ends, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.ends = ends

    def compute(
        self,
        query: Float[Array, "*pairs query letters"],
        target: Float[Array, "*pairs target letters"],
        query_length: Int[Array, "*pairs"] | None = None,
        target_length: Int[Array, "*pairs"] | None = None,
    ) -> SoftAlignment:
        """Return score and posterior of each pair."""
        lengths = pair_lengths(query, target, query_length, target_length)
        align: Callable[..., SoftAlignment] = partial(self.align, ends=self.ends, band=self.config.band)
        for _ in query.shape[:-2]:
            align = jax.vmap(align)
        return align(query, target, lengths)

    def score_matrix(
        self,
        queries: Float[Array, "queries query letters"],
        query_lengths: Int[Array, " queries"],
        targets: Float[Array, "targets target letters"],
        target_lengths: Int[Array, " targets"],
    ) -> Float[Array, "queries targets"]:
        """Return the score of each query with each target; one query, for one against many.

        Args:
            queries: Distributions over the letters.
            query_lengths: How many positions of each count.
            targets: Distributions over the letters.
            target_lengths: How many positions of each count.

        Returns:
            Scores, with derivatives. Time grows as the product of all positions; memory of the scores as a few queries
            and targets at a time.

        Example:
            >>> aligner = SmoothSmithWaterman(SmithWatermanConfig(alphabet="ACGT", matrix="NUC.4.4", temperature=0.01))
            >>> words, lengths = jnp.eye(4)[jnp.array([[0, 1], [1, 2], [0, 3]])], jnp.array([2, 2, 2])
            >>> aligner.score_matrix(words[:1], lengths[:1], words, lengths).round(1).tolist()
            [[10.0, 5.0, 5.0]]
        """

        def score(pair: tuple[Array, Array]) -> Array:
            row, column = pair
            scores = self.position_scores(queries[row], targets[column])
            both = jnp.stack([query_lengths[row], target_lengths[column]])
            softness, band = self.softness(), self.config.band
            return soft_score(scores, both, **self.gap_costs, softness=softness, ends=self.ends, band=band)

        rows, columns = jnp.indices((len(queries), len(targets)))
        found = lax.map(score, (rows.ravel(), columns.ravel()), batch_size=_PAIRS_AT_ONCE)
        return found.reshape(rows.shape)

    def hard_alignment(self, query: str, target: str) -> HardAlignment:
        """Return the best alignment of two strings, with its CIGAR and the aligned letters.

        Args:
            query: Letters of the alphabet, or codes for several of them.
            target: Likewise.

        Raises:
            DataError: A sequence is empty, or has another letter.

        Example:
            >>> aligner = SmoothSmithWaterman(SmithWatermanConfig(gap_open=8.0, gap_extend=8.0))
            >>> aligner.hard_alignment("HEAGAWGHEE", "PAWHEAE").cigar
            '2=1I2='
        """
        both = encode([query, target], self.config.alphabet)
        scores = self.position_scores(*jnp.asarray(both.letters))
        path = best_path(Pair(scores, **self.gap_costs, lengths=jnp.asarray(both.lengths)), self.ends, self.config.band)
        return written_out(path, query.upper(), target.upper())


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

    def __init__(self, config: SmithWatermanConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, ends=LOCAL, rngs=rngs)


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

    def __init__(self, config: NeedlemanWunschConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, ends=ends_of(config.free_ends), rngs=rngs)
