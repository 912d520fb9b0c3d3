"""The probabilities of a pair HMM, and what they are as scores and costs of alignment.

Before each pair of letters, and before the end, there is a gap in the target with probability delta, and then, on its
own, a gap in the query with probability delta. A gap goes on with probability epsilon. Then, unless the alignment ends,
which it does with probability eta, comes a pair (a, b) with probability p[a,b]. So the states M (a pair, and the
begin), X (a letter of the query alone) and Y (one of the target alone) go to

    |   | X       | Y                   | M, or the end with probability eta |
    |---|---------|---------------------|------------------------------------|
    | M | delta   | (1 - delta) delta   | (1 - delta)^2                      |
    | X | epsilon | (1 - epsilon) delta | (1 - epsilon) (1 - delta)          |
    | Y | 0       | epsilon             | 1 - epsilon                        |

Letters in gaps have the chances q of letters in pairs. Unrelated sequences have letters by q, and end after each with
probability eta. Divided by their likelihood, that of an alignment is exp of a sum of scores and costs,

    score of a pair    log p[a,b] / (q[a] q[b]) + 2 log(1 - delta) - log(1 - eta)
    cost of a gap      -log(delta (1 - epsilon) / ((1 - delta) (1 - eta))), and -log(epsilon / (1 - eta)) for
                       each further letter
    once               2 log(1 - delta) - log(eta)

so that all sums over alignments are those of global alignment with affine gaps.

References:
    Durbin, Eddy, Krogh and Mitchison, Biological sequence analysis, 1998, chapter 4.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Scalar

from diffbio.core.errors import ContractError
from diffbio.operators.alignment.recurrence import Pair

_LEAST = 1e-30  # of probabilities, so that their logarithms are finite


class PairModel(NamedTuple):
    """The probabilities of a pair HMM.

    Attributes:
        pairs: Of two letters in a pair; symmetric, of sum 1. Their margins are the chances of letters.
        gap_open: delta.
        gap_extend: epsilon.
        end: eta.
    """

    pairs: Float[Array, "letters letters"]
    gap_open: Float[Scalar, ""]
    gap_extend: Float[Scalar, ""]
    end: Float[Scalar, ""]


class PairWeights(NamedTuple):
    """A pair HMM as scores and costs of global alignment, in nats.

    Attributes:
        pair: Log-odds of pairs of positions, costs of gaps, and lengths.
        once: What every alignment has beside, to be its log-odds.
        unrelated: Log-likelihood of the sequences if unrelated.
    """

    pair: Pair
    once: Float[Scalar, ""]
    unrelated: Float[Scalar, ""]


def pair_weights(
    model: PairModel,
    query: Float[Array, "query letters"],
    target: Float[Array, "target letters"],
    lengths: Int[Array, "2"],
) -> PairWeights:
    """Return the scores and costs that a pair HMM has for two sequences.

    Args:
        model: Its probabilities.
        query: How likely what was seen at a position is for each letter, up to a factor: a distribution over the
            letters, one letter, or several in equal parts for a code. All letters alike, or none, say nothing.
        target: Likewise.
        lengths: How many positions of each count, the first ones.

    Raises:
        ContractError: Letters differ in number.

    Example:
        >>> model = PairModel(jnp.eye(2) / 2, jnp.float32(0.1), jnp.float32(0.5), jnp.float32(0.01))
        >>> weights = pair_weights(model, jnp.eye(2), jnp.eye(2), jnp.array([2, 2]))
        >>> round(float(weights.pair.scores[0, 0]), 3)  # log 2 + 2 log 0.9 - log 0.99
        0.492
    """
    if not query.shape[-1] == target.shape[-1] == model.pairs.shape[0]:
        raise ContractError(
            f"query and target have distributions over {query.shape[-1]} and {target.shape[-1]} letters, and the model "
            f"has {model.pairs.shape[0]}; encode both with the alphabet of the model"
        )
    opened, extended, ended = (_log(chance) for chance in model[1:])
    not_opened, not_extended, not_ended = (_log(1 - chance) for chance in model[1:])
    x, y = (_counted(letters, length) for letters, length in ((query, lengths[0]), (target, lengths[1])))
    background = model.pairs.sum(axis=1)
    chance_x, chance_y = (jnp.matmul(letters, background, precision=lax.Precision.HIGHEST) for letters in (x, y))
    joint = jnp.einsum("ia,ab,jb->ij", x, model.pairs, y, precision=lax.Precision.HIGHEST)
    log_x, log_y = (jnp.where(chance > 0, _log(chance), 0.0) for chance in (chance_x, chance_y))
    seen = (chance_x[:, None] > 0) & (chance_y > 0)
    odds = jnp.where(seen, _log(joint) - log_x[:, None] - log_y, 0.0)
    return PairWeights(
        Pair(
            odds + 2 * not_opened - not_ended,
            not_opened + not_ended - opened - not_extended,
            not_ended - extended,
            lengths,
        ),
        once=2 * not_opened - ended,
        unrelated=log_x.sum() + log_y.sum() + lengths.sum() * not_ended + 2 * ended,
    )


def _log(chance: Array) -> Array:
    return jnp.log(jnp.maximum(chance, _LEAST))


def _counted(letters: Array, length: Int[Scalar, ""]) -> Array:
    """Return the letters with zeros beyond the length, so that nothing there reaches a derivative."""
    return jnp.where(jnp.arange(len(letters))[:, None] < length, letters, 0.0)
