"""The pair HMM: how likely two sequences are related, and which of their positions correspond.

Hard: the log-odds S of the most likely alignment (Viterbi), against a model of two unrelated sequences. Relaxed, over
all alignments a from end to end,

    log-odds = tau log sum_a exp(S_a / tau)        P(i ~ j) = sum of exp((S_a - log-odds) / tau) over a with i ~ j

With tau = 1, and only so, these are the likelihood ratio and the posterior of the model. As tau -> 0 they become those
of the most likely alignment.

Probabilities and states are those of `pair_model`.

References:
    Durbin, Eddy, Krogh and Mitchison, Biological sequence analysis, 1998, chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.io.sequence.alphabets import PROTEIN
from diffbio.operators.alignment.ends import GLOBAL, Ends, FreeEnd, ends_of, require_each_end_once
from diffbio.operators.alignment.pair_model import PairModel, pair_weights
from diffbio.operators.alignment.soft_alignment import pair_lengths, soft_alignment
from diffbio.operators.alignment.substitution import substitution_matrix, symmetric
from diffbio.operators.alignment.target_frequencies import target_frequencies

_LN2 = 0.6931471805599453


@dataclass(frozen=True, kw_only=True)
class PairHMMConfig(OperatorConfig):
    """Probabilities of a pair HMM, before training.

    Args:
        alphabet: The letters, in the order of the sequences' last axis.
        matrix: Substitution matrix whose target frequencies the pairs of letters have; see `substitution_matrix`.
        identity: In place of a matrix, the probability that the letters of a pair are equal, whichever it is; `None`
            for the matrix.
        gap_open: Probability delta of a gap in the one, and of one in the other sequence, before each pair of letters.
        gap_extend: Probability epsilon that a gap goes on.
        end: Probability that the alignment ends; without gaps it has 1 / end - 1 letters on average.
        temperature: The softness tau; with 1 the log-odds are a likelihood ratio.
        band: Largest difference of the positions of an aligned pair; `None` for any.
        free_ends: Ends of which positions may stay outside, as if unrelated; the two of the target to fit a read into a
            haplotype.
        learnable: Whether training changes the probabilities.

    Raises:
        ConfigError: An end is named twice.
    """

    alphabet: str = PROTEIN
    matrix: str = "BLOSUM62"
    identity: Annotated[float, Gt(0), Lt(1)] | None = None
    gap_open: Annotated[float, Gt(0), Lt(1)] = 0.05
    gap_extend: Annotated[float, Gt(0), Lt(1)] = 0.7
    end: Annotated[float, Gt(0), Lt(1)] = 0.01
    temperature: Annotated[float, Gt(0)] = 1.0
    band: Annotated[int, Ge(1)] | None = None
    free_ends: tuple[FreeEnd, ...] = ()
    learnable: bool = True

    def __post_init__(self) -> None:
        """Check each field, then that no end is named twice."""
        super().__post_init__()
        require_each_end_once("PairHMMConfig", self.free_ends)


class PairAlignment(NamedTuple):
    """How two sequences are related.

    Attributes:
        pair_log_odds: That they are related, against that they are not, in bits (*pairs,).
        pair_log_likelihood: Log-probability of both, in nats (*pairs,).
        alignment_posterior: Probability that two positions are aligned (*pairs, query, target); rows and columns sum to
            at most 1.
        gap_opens: Expected number of gaps (*pairs,).
        gap_extends: Expected number of further positions in gaps (*pairs,).
    """

    pair_log_odds: Float[Array, "*pairs"]
    pair_log_likelihood: Float[Array, "*pairs"]
    alignment_posterior: Float[Array, "*pairs query target"]
    gap_opens: Float[Array, "*pairs"]
    gap_extends: Float[Array, "*pairs"]


@partial(jax.jit, static_argnames=("band", "ends"))
def pair_alignment(
    model: PairModel,
    query: Float[Array, "query letters"],
    target: Float[Array, "target letters"],
    lengths: Int[Array, "2"],
    *,
    softness: ArrayLike = 1.0,
    band: int | None = None,
    ends: Ends = GLOBAL,
) -> PairAlignment:
    """Return log-odds, log-likelihood and posterior of two sequences.

    Args:
        model: Probabilities of the pair HMM.
        query: Distributions over the letters; see `pair_weights`.
        target: Likewise.
        lengths: How many positions of each count, the first ones; none may.
        softness: tau > 0; with 1 sums over alignments, towards 0 the most likely one (Viterbi).
        band: Largest difference of the positions of an aligned pair, in a sum over fewer alignments.
        ends: Which ends are free: letters outside of the alignment are as those of unrelated sequences.

    Returns:
        Log-odds () in bits, log-likelihood () in nats, posterior (query, target), 0 beyond the lengths, and expected
        gaps (). Time grows as query x target; memory as that of `soft_alignment`.

    References:
        Durbin et al. 1998, the forward and backward algorithms of pair HMMs.

    Example:
        >>> pairs = jnp.where(jnp.eye(4) == 1, 0.22, 0.01)
        >>> model = PairModel(pairs, jnp.float32(0.05), jnp.float32(0.5), jnp.float32(0.1))
        >>> found = pair_alignment(model, jnp.eye(4)[jnp.array([0, 1, 3])], jnp.eye(4), jnp.array([3, 4]))
        >>> round(float(found.pair_log_odds), 2), found.alignment_posterior.argmax(1).tolist()  # ACT and ACGT
        (3.68, [0, 1, 3])
    """
    pair, once, unrelated = pair_weights(model, query, target, lengths)
    found = soft_alignment(
        pair.scores,
        lengths,
        gap_open=pair.gap_open,
        gap_extend=pair.gap_extend,
        softness=softness,
        ends=ends,
        band=band,
    )
    log_odds = found.alignment_score + once
    return PairAlignment(log_odds / _LN2, log_odds + unrelated, *found[1:])


def _pairs(config: PairHMMConfig) -> np.ndarray:
    """Return the probability of each pair of letters before training (letters, letters)."""
    if config.identity is None:
        return np.asarray(target_frequencies(substitution_matrix(config.matrix, config.alphabet)).pairs)
    n_letters = len(config.alphabet)
    equal, other = config.identity / n_letters, (1 - config.identity) / (n_letters * (n_letters - 1))
    return np.where(np.eye(n_letters) == 1, equal, other)


class PairHMM(Operator[PairHMMConfig]):
    """Tell whether sequences are related, and align them, by the probabilities of a pair HMM.

    Reads `query` (*pairs, query, letters) and `target` (*pairs, target, letters), distributions over the letters, and
    optionally `query_length` and `target_length` (*pairs,), how many positions count; writes `pair_log_odds` (*pairs,)
    in bits, `pair_log_likelihood` (*pairs,) in nats, `alignment_posterior` (*pairs, query, target), `gap_opens` and
    `gap_extends` (*pairs,). Parameters, if learnable, are logits: `pair_logits` (letters, letters), the softmax of
    whose symmetric part counts, `gap_open_logit`, `gap_extend_logit` and `end_logit`, whose logistic function does.

    Args:
        config: Probabilities to start from.
        rngs: Not used: nothing is drawn.

    Raises:
        ConfigError: The matrix implies no probabilities of letters; see `target_frequencies`.

    Example:
        >>> hmm = PairHMM(PairHMMConfig(alphabet="ACGT", matrix="NUC.4.4", end=0.1))
        >>> data = {"query": jnp.eye(4)[jnp.array([[0, 1, 2, 3]] * 2)]}  # ACGT, beside ACGT and TGCA
        >>> data["target"] = data["query"].at[1].set(data["query"][0, ::-1])
        >>> [round(log_odds, 1) for log_odds in hmm.apply(data, {}, None)[0]["pair_log_odds"].tolist()]
        [8.7, -1.1]
    """

    def __init__(self, config: PairHMMConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        pairs = _pairs(config)
        self.pair_logits = kind(jnp.asarray(np.log(pairs), jnp.float32))
        self.gap_open_logit, self.gap_extend_logit, self.end_logit = (
            kind(jnp.float32(np.log(chance / (1 - chance))))
            for chance in (config.gap_open, config.gap_extend, config.end)
        )
        self.softness = Softness(config.temperature)

    def model(self) -> PairModel:
        """Return the probabilities that the parameters stand for."""
        logits = symmetric(self.pair_logits[...])
        chances = (self.gap_open_logit, self.gap_extend_logit, self.end_logit)
        pairs = jax.nn.softmax(logits.ravel()).reshape(logits.shape)
        return PairModel(pairs, *(jax.nn.sigmoid(logit[...]) for logit in chances))

    def compute(
        self,
        query: Float[Array, "*pairs query letters"],
        target: Float[Array, "*pairs target letters"],
        query_length: Int[Array, "*pairs"] | None = None,
        target_length: Int[Array, "*pairs"] | None = None,
    ) -> PairAlignment:
        """Return log-odds, log-likelihood and posterior of each pair."""
        align: Callable[..., PairAlignment] = partial(
            pair_alignment,
            self.model(),
            softness=self.softness(),
            band=self.config.band,
            ends=ends_of(self.config.free_ends),
        )
        for _ in query.shape[:-2]:
            align = jax.vmap(align)
        return align(query, target, pair_lengths(query, target, query_length, target_length))
