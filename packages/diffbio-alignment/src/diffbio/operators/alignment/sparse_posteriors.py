"""Posteriors of many sequences as lists: of each position and each other sequence, the likely partners.

Of the thousands of pairs of positions that two sequences have, few are likely: what is less than 0.01 is taken for
none, and of each row and column the 16 most probable ones are kept. At the default softness rows of real families keep
two or three; after consistency five or six, and the ones beyond 16 are 0.5 % of the sum at most (Patched, Pkinase), and
mostly below 0.1 %. The choice is a constant; what is chosen carries the derivative.

References:
    Do, Mahabhashyam, Brudno and Batzoglou, ProbCons: probabilistic consistency-based multiple sequence alignment,
    Genome Research 2005.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

LEAST_POSTERIOR = 0.01
"""What is less is taken for none, as ProbCons does."""

MOST_PARTNERS = 16
"""How many partners of a position in one other sequence are kept."""

CHOSEN = "chosen"
"""The name of what a gradient needs of a choice, for `jax.checkpoint`."""

_ENTRIES_AT_ONCE = 4096


class Posteriors(NamedTuple):
    """The likely pairs of positions of each two sequences, listed at both.

    Attributes:
        value: Probability that position i of x and its k-th partner in y are aligned; 0 for none. That of a sequence
            with itself is the identity, a constant.
        position: Where in y the partner is; says nothing where the value is 0.
    """

    value: Float[Array, "x y positions partners"]
    position: Int[Array, "x y positions partners"]


def sparse_posteriors(dense: Float[Array, "sequences sequences positions positions"]) -> Posteriors:
    """Return the likely pairs of posteriors that are symmetric, such as `dense_posteriors` gives.

    Args:
        dense: Probability that two positions of two sequences are aligned.

    Returns:
        Lists of up to 16 partners.

    Example:
        >>> exchanged = jnp.array([[0.0, 0.75], [0.005, 0.0]])
        >>> both = jnp.stack([jnp.stack([jnp.eye(2), exchanged]), jnp.stack([exchanged.T, jnp.eye(2)])])
        >>> dense_posteriors(sparse_posteriors(both))[0, 1].tolist()
        [[0.0, 0.75], [0.0, 0.0]]
    """
    rows, _ = jax.vmap(jax.vmap(likely_pairs))(dense)
    return rows


def dense_posteriors(posteriors: Posteriors) -> Float[Array, "sequences sequences positions positions"]:
    """Return probabilities of all pairs of positions; memory: 4 bytes each."""
    return jax.vmap(jax.vmap(_spread))(posteriors.value, posteriors.position)


def likely_pairs(dense: Float[Array, "x y"]) -> tuple[Posteriors, Posteriors]:
    """Return the likely pairs of two sequences, listed at the positions of x, and at those of y.

    A pair stands in both lists or in none. Of pairs that are equally likely there can be more than there is room for;
    the first ones are listed then.
    """
    both = jnp.stack([dense, dense.T])
    ranked = lax.top_k(lax.stop_gradient(both), min(MOST_PARTNERS, dense.shape[0]))
    highest, position = lax.optimization_barrier(ranked)  # else the slice below turns the selection into a full sort
    least = highest[..., -1]
    listed = highest >= jnp.stack([least[1][position[0]], least[0][position[1]]])
    listed = checkpoint_name(listed & (highest >= LEAST_POSTERIOR), CHOSEN)
    position = checkpoint_name(position, CHOSEN)
    value = jnp.where(listed, jnp.take_along_axis(both, position, axis=-1), 0.0)
    return Posteriors(value[0], position[0]), Posteriors(value[1], position[1])


def joined(rows: Posteriors, columns: Posteriors, lengths: Int[Array, " sequences"]) -> Posteriors:
    """Return the posteriors of all sequences from those of the pairs x < y, in the order of `numpy.triu_indices`.

    Args:
        rows: Listed at x (pairs, positions, partners).
        columns: Likewise, at y.
        lengths: How many positions count.
    """
    n_sequences, (_, n_positions, n_partners) = len(lengths), rows.value.shape
    first, second = np.triu_indices(n_sequences, 1)
    every = np.arange(n_sequences)
    within = jnp.arange(n_positions) < lengths[:, None]
    itself = within[..., None] & (jnp.arange(n_partners) == 0)
    own = jnp.arange(n_positions, dtype=rows.position.dtype)[:, None]

    def placed(of_rows: Array, of_columns: Array, of_itself: Array) -> Array:
        whole = jnp.zeros((n_sequences, n_sequences, n_positions, n_partners), of_rows.dtype)
        return whole.at[first, second].set(of_rows).at[second, first].set(of_columns).at[every, every].set(of_itself)

    return Posteriors(
        placed(rows.value, columns.value, itself.astype(rows.value.dtype)),
        placed(rows.position, columns.position, own),
    )


@jax.custom_vjp
def mean_product(posteriors: Posteriors) -> Posteriors:
    """Return the mean over z of the sum over k of P(i ~ k) P(k ~ j), i of x, k of z and j of y, as lists.

    Of pairs of positions of one sequence nothing is asked: they stay as they are. Time grows as sequences³ x positions
    x partners²; only partners that there are count for one of the two factors. Differentiable any number of times.
    """
    value, position = posteriors
    n_sequences = len(value)

    def with_others(x: Array, lists: Posteriors) -> Posteriors:
        entries = _entries(value[x], position[x])

        def with_one(y: Array, lists: Posteriors) -> Posteriors:
            rows, columns = likely_pairs(_product(entries, value[:, y], position[:, y]) / n_sequences)
            return jax.tree.map(
                lambda every, row, column: every.at[x, y].set(row).at[y, x].set(column), lists, rows, columns
            )

        return lax.fori_loop(x + 1, n_sequences, with_one, lists)

    return lax.fori_loop(0, n_sequences, with_others, posteriors)


def _mean_product_forward(posteriors: Posteriors) -> tuple[Posteriors, tuple[Posteriors, Array, Array]]:
    found = mean_product(posteriors)
    return found, (posteriors, found.position, found.value > 0)


def _mean_product_backward(saved: tuple[Posteriors, Array, Array], cotangent: Posteriors) -> tuple[Posteriors]:
    """Return G P, for the cotangent G of P P: as both are symmetric, and listed twice, P G is in it."""
    (value, position), found, listed = saved
    others = ~jnp.eye(len(value), dtype=bool)[:, :, None, None]
    given = jnp.where(listed & others, cotangent.value, 0.0)
    symmetric = given + _mirrored(given, found)
    change = _sampled(symmetric, found, value, position, position) / len(value)
    return (Posteriors(jnp.where(others, change, cotangent.value), _none(position)),)


mean_product.defvjp(_mean_product_forward, _mean_product_backward)


@jax.custom_vjp
def _sampled(left: Array, left_at: Array, right: Array, right_at: Array, at: Array) -> Array:
    """Return the sum over sequences and positions of left x right where `at` says; all are listed at both of a pair."""
    every = jnp.arange(len(left))

    def of_sequence(x: Array) -> Array:
        entries = _entries(left[x], left_at[x])

        def with_one(y: Array) -> Array:
            return jnp.take_along_axis(_product(entries, right[:, y], right_at[:, y]), at[x, y], axis=-1)

        return lax.map(with_one, every)

    return lax.map(of_sequence, every)


def _sampled_forward(*given: Array) -> tuple[Array, tuple[Array, ...]]:
    return _sampled(*given), given


def _sampled_backward(saved: tuple[Array, ...], cotangent: Array) -> tuple:
    left, left_at, right, right_at, at = saved
    to_left = _sampled(cotangent, at, _mirrored(right, right_at), right_at, left_at)
    to_right = _sampled(_mirrored(left, left_at), left_at, cotangent, at, right_at)
    return to_left, _none(left_at), to_right, _none(right_at), _none(at)


_sampled.defvjp(_sampled_forward, _sampled_backward)


class _Entries(NamedTuple):
    """All pairs of positions of one sequence with those of others, one after the other, and then nothing.

    Attributes:
        own: The position in the sequence itself.
        other: Sequence and position of the partner, as one number.
        value: The value of the pair; 0 after the last.
        number: How many there are.
    """

    own: Array
    other: Array
    value: Array
    number: Array


def _entries(value: Float[Array, "y i k"], position: Int[Array, "y i k"]) -> _Entries:
    n_positions = value.shape[1]
    room = -(-value.size // _ENTRIES_AT_ONCE) * _ENTRIES_AT_ONCE
    there = (value != 0).ravel()
    (place,) = jnp.nonzero(there, size=room, fill_value=value.size)
    sequence, own, _ = jnp.unravel_index(place, value.shape)
    other = sequence * n_positions + position.ravel().at[place].get(mode="clip")
    return _Entries(own, other, value.ravel().at[place].get(mode="fill", fill_value=0.0), there.sum())


def _product(
    entries: _Entries, value: Float[Array, "z k partners"], position: Int[Array, "z k partners"]
) -> Float[Array, "i j"]:
    """Return the sum over z and k of entries (i, z, k) and partners j of k; in so many steps as there are entries."""
    n_positions, n_partners = value.shape[1:]
    value, position = value.reshape(-1, n_partners), position.reshape(-1, n_partners)

    def add(step: Array, total: Array) -> Array:
        start = step * _ENTRIES_AT_ONCE
        own, other, weight = (lax.dynamic_slice_in_dim(part, start, _ENTRIES_AT_ONCE) for part in entries[:3])
        partners = value.at[other].get(mode="clip"), position.at[other].get(mode="clip")
        return total.at[own[:, None], partners[1]].add(weight[:, None] * partners[0], mode="drop")

    steps = -(-entries.number // _ENTRIES_AT_ONCE)
    return lax.fori_loop(0, steps, add, jnp.zeros((n_positions, n_positions), value.dtype))


def _mirrored(value: Array, position: Array) -> Array:
    """Return at each position of x what its partner in y lists for it."""
    every = jnp.arange(len(value))

    def of_pair(pair: tuple[Array, Array]) -> Array:
        x, y = pair
        return jnp.take_along_axis(_spread(value[y, x], position[y, x]).T, position[x, y], axis=-1)

    return lax.map(lambda x: lax.map(lambda y: of_pair((x, y)), every), every)


def _spread(value: Float[Array, "i k"], position: Int[Array, "i k"]) -> Float[Array, "i j"]:
    n_positions = len(value)
    return jnp.zeros((n_positions, n_positions), value.dtype).at[jnp.arange(n_positions)[:, None], position].add(value)


def _none(given: Array) -> Array:
    """Return the cotangent of whole numbers."""
    return cast("Array", np.zeros(given.shape, jax.dtypes.float0))
