"""Score and posterior of the alignment of two sequences, with a softness.

Hard: the best score over all alignments. Relaxed, over all alignments a,

    score = tau log sum_a exp(score_a / tau)        P(i ~ j) = sum of exp((score_a - score) / tau) over a with i ~ j

so that the score is smooth in the substitution scores and both gap costs, its derivative by the score of a pair is the
probability that these two are aligned, and that by the gap cost less the expected number of gaps. As tau -> 0 the score
is that of the best alignment; the probabilities become 1 along it, shared where several are best.

A gap of n positions costs gap_open + (n - 1) gap_extend, as in parasail; BLAST and EMBOSS count one more gap_extend in
their first position.

References:
    Daily, Parasail: SIMD C library for global, semi-global, and local pairwise sequence alignments, BMC Bioinformatics
    2016.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.ends import LOCAL, Ends
from diffbio.operators.alignment.partition import log_partition, sum_and_expectations
from diffbio.operators.alignment.recurrence import Pair


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
def soft_score(
    scores: Float[Array, "query target"],
    lengths: Int[Array, "2"],
    *,
    gap_open: ArrayLike,
    gap_extend: ArrayLike,
    softness: ArrayLike,
    ends: Ends = LOCAL,
    band: int | None = None,
) -> Float[Scalar, ""]:
    """Return the score alone, in memory linear in the lengths; arguments as those of `soft_alignment`.

    Example:
        >>> scores = 2 * jnp.eye(4)[jnp.array([0, 1, 3])] - 1
        >>> round(float(soft_score(scores, jnp.array([3, 4]), gap_open=2.0, gap_extend=1.0, softness=0.1)), 1)
        2.0
    """
    softness = jnp.asarray(softness, scores.dtype)
    return softness * log_partition(_in_nats(scores, lengths, gap_open, gap_extend, softness), ends, band)


def pair_lengths(
    query: Float[Array, "*pairs query letters"],
    target: Float[Array, "*pairs target letters"],
    query_length: Int[Array, "*pairs"] | None,
    target_length: Int[Array, "*pairs"] | None,
) -> Int[Array, "*pairs 2"]:
    """Return how many positions of each pair count: all of those for which no length is given."""
    both = (query, query_length), (target, target_length)
    lengths = [jnp.full(x.shape[:-2], x.shape[-2]) if length is None else length for x, length in both]
    return jnp.stack(lengths, axis=-1)


def _in_nats(scores: Array, lengths: Array, gap_open: ArrayLike, gap_extend: ArrayLike, softness: Array) -> Pair:
    return Pair(scores / softness, jnp.asarray(gap_open) / softness, jnp.asarray(gap_extend) / softness, lengths)


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
    pair = _in_nats(scores, lengths, gap_open, gap_extend, softness)
    log_sum, expected = sum_and_expectations(pair, ends, band)
    return SoftAlignment(softness * log_sum, expected.matches, expected.opens, expected.extends)
