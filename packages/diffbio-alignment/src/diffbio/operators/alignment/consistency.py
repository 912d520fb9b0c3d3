"""Posteriors of all pairs of sequences, and what third sequences say of them.

If position i of x is aligned with k of z, and k with j of y, then i and j belong together, too. Averaged over all
sequences z, x and y themselves among them,

    P'(i ~ j) = mean over z of sum over k of P(i ~ k) P(k ~ j)

which is one product of matrices; it can be repeated. What comes out below 0.01 is taken for noise, and for none: so
many small numbers would outweigh few large ones. Beside that it is smooth in all posteriors; hard ones that agree stay
as they are.

References:
    Do, Mahabhashyam, Brudno and Batzoglou, ProbCons: probabilistic consistency-based multiple sequence alignment,
    Genome Research 2005.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

LEAST_POSTERIOR = 0.01
"""What is less is taken for none, as ProbCons does."""

PAIRS_AT_ONCE = 16
"""Pairs of sequences that are aligned side by side: enough to fill the lanes of a processor."""


def pairwise_posteriors(
    letters: Float[Array, "sequences positions letters"],
    lengths: Int[Array, " sequences"],
    align: Callable[[Array, Array, Array], Float[Array, "positions positions"]],
) -> Float[Array, "sequences sequences positions positions"]:
    """Return the posterior of each two sequences; that of a sequence with itself is the identity.

    Args:
        letters: Distributions over an alphabet.
        lengths: How many positions count.
        align: From two sequences and their lengths (2,), the probability that two positions are aligned.

    Returns:
        Probabilities, symmetric; 0 beyond the lengths. Memory: 4 bytes per pair of positions.
    """
    n_sequences, n_positions, _ = letters.shape
    first, second = np.triu_indices(n_sequences, 1)

    def of_pair(pair: tuple[Array, Array]) -> Array:
        x, y = pair
        return align(letters[x], letters[y], jnp.stack([lengths[x], lengths[y]]))

    found = lax.map(of_pair, (jnp.asarray(first), jnp.asarray(second)), batch_size=PAIRS_AT_ONCE)
    every = np.arange(n_sequences)
    itself = jnp.eye(n_positions) * (jnp.arange(n_positions) < lengths[:, None])[..., None]
    whole = jnp.zeros((n_sequences, n_sequences, n_positions, n_positions), found.dtype)
    whole = whole.at[first, second].set(found).at[second, first].set(jnp.swapaxes(found, 1, 2))
    return whole.at[every, every].set(itself)


def consistent(
    posteriors: Float[Array, "sequences sequences positions positions"], rounds: int
) -> Float[Array, "sequences sequences positions positions"]:
    """Return posteriors that third sequences have been asked about.

    Args:
        posteriors: By `pairwise_posteriors`.
        rounds: How often; 0 leaves them as they are.

    Returns:
        Probabilities; time grows as the cube of the number of all positions.

    Example:
        >>> exchanged = jnp.zeros((3, 3, 1, 1)).at[0, 1].set(1).at[1, 0].set(1).at[1, 2].set(1).at[2, 1].set(1)
        >>> for number in range(3):
        ...     exchanged = exchanged.at[number, number].set(1)
        >>> round(float(consistent(exchanged, 1)[0, 2, 0, 0]), 2)  # 0 is aligned with 1, and 1 with 2
        0.33
    """
    n_sequences, _, n_positions, _ = posteriors.shape
    size = n_sequences * n_positions
    every = np.arange(n_sequences)

    def ask(current: Array, _: None) -> tuple[Array, None]:
        flat = current.transpose(0, 2, 1, 3).reshape(size, size)
        asked = (flat @ flat / n_sequences).reshape(n_sequences, n_positions, n_sequences, n_positions)
        asked = asked.transpose(0, 2, 1, 3)
        asked = jnp.where(asked < LEAST_POSTERIOR, 0.0, asked)
        return asked.at[every, every].set(current[every, every]), None

    return lax.scan(ask, posteriors, None, length=rounds)[0]
