"""Posteriors of all pairs of sequences, and what third sequences say of them.

If position i of x is aligned with k of z, and k with j of y, then i and j belong together, too. Averaged over all
sequences z, x and y themselves among them,

    P'(i ~ j) = mean over z of sum over k of P(i ~ k) P(k ~ j)

which can be repeated. What is below 0.01, before and after, is taken for noise, and for none: so many small numbers
would outweigh few large ones. Beside that it is smooth in all posteriors; hard ones that agree stay as they are.

References:
    Do, Mahabhashyam, Brudno and Batzoglou, ProbCons: probabilistic consistency-based multiple sequence alignment,
    Genome Research 2005.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.operators.alignment.sparse_posteriors import CHOSEN, Posteriors, joined, likely_pairs, mean_product

PAIRS_AT_ONCE = 16
"""Pairs of sequences that are aligned side by side: enough to fill the lanes of a processor."""


def pairwise_posteriors(
    letters: Float[Array, "sequences positions letters"],
    lengths: Int[Array, " sequences"],
    align: Callable[[Array, Array, Array], Float[Array, "positions positions"]],
) -> Posteriors:
    """Return the posterior of each two sequences; that of a sequence with itself is the identity.

    Args:
        letters: Distributions over an alphabet.
        lengths: How many positions count.
        align: From two sequences and their lengths (2,), the probability that two positions are aligned.

    Returns:
        The likely pairs of positions. Memory: 128 bytes per position and other sequence, and what aligning 16 pairs
        takes; the gradient aligns again.
    """
    n_sequences = len(letters)
    first, second = np.triu_indices(n_sequences, 1)
    at_once = min(PAIRS_AT_ONCE, max(len(first), 1))
    rest = -len(first) % at_once  # some pairs twice rather than a second program for fewer at once
    pairs = tuple(jnp.asarray(np.pad(side, (0, rest), mode="edge")) for side in (first, second))

    def of_pair(pair: tuple[Array, Array]) -> tuple[Posteriors, Posteriors]:
        x, y = pair
        return likely_pairs(align(letters[x], letters[y], jnp.stack([lengths[x], lengths[y]])))

    again = jax.checkpoint(of_pair, policy=jax.checkpoint_policies.save_only_these_names(CHOSEN))
    listed = lax.map(again, pairs, batch_size=at_once)
    rows, columns = jax.tree.map(lambda every: every[: len(first)], listed)
    return joined(rows, columns, lengths)


def consistent(posteriors: Posteriors, rounds: int) -> Posteriors:
    """Return posteriors that third sequences have been asked about.

    Args:
        posteriors: By `pairwise_posteriors` or `sparse_posteriors`.
        rounds: How often; 0 leaves them as they are.

    Returns:
        The likely pairs of positions; time grows as sequences³ x positions.

    Example:
        >>> from diffbio.operators.alignment.sparse_posteriors import dense_posteriors, sparse_posteriors
        >>> exchanged = jnp.zeros((3, 3, 1, 1)).at[0, 1].set(1).at[1, 0].set(1).at[1, 2].set(1).at[2, 1].set(1)
        >>> for number in range(3):
        ...     exchanged = exchanged.at[number, number].set(1)
        >>> asked = consistent(sparse_posteriors(exchanged), 1)
        >>> round(float(dense_posteriors(asked)[0, 2, 0, 0]), 2)  # 0 is aligned with 1, and 1 with 2
        0.33
    """
    return lax.scan(lambda current, _: (mean_product(current), None), posteriors, None, length=rounds)[0]
