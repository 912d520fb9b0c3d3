"""Likely pairs as lists: what they keep, and their products beside dense ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.operators.alignment.consistency import consistent
from diffbio.operators.alignment.sparse_posteriors import (
    LEAST_POSTERIOR,
    MOST_PARTNERS,
    Posteriors,
    dense_posteriors,
    mean_product,
    sparse_posteriors,
)

LENGTHS = (20, 24, 17, 23)


def relatives(size: int = 24, width: int = 5) -> np.ndarray:
    """Return posteriors of four sequences near the diagonals, of up to `width` partners."""
    random = np.random.default_rng(0)
    n = len(LENGTHS)
    dense = np.zeros((n, n, size, size), np.float32)
    for x in range(n):
        dense[x, x, np.arange(LENGTHS[x]), np.arange(LENGTHS[x])] = 1
        for y in range(x + 1, n):
            near = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) <= width // 2
            near &= (np.arange(size)[:, None] < LENGTHS[x]) & (np.arange(size) < LENGTHS[y])
            dense[x, y] = near * random.random((size, size)) / width
            dense[y, x] = dense[x, y].T
    return dense


def by_numpy(dense: np.ndarray, rounds: int) -> np.ndarray:
    """Return what third sequences say, by sums over all of them and all positions."""
    dense = np.where(dense < LEAST_POSTERIOR, 0, dense)
    every = np.arange(len(dense))
    for _ in range(rounds):
        asked = np.einsum("xzik,zykj->xyij", dense, dense) / len(dense)
        asked = np.where(asked < LEAST_POSTERIOR, 0, asked)
        asked[every, every] = dense[every, every]
        dense = asked
    return dense


def by_jax(dense: jax.Array) -> jax.Array:
    """Return one round by a dense product, which JAX differentiates by itself."""
    asked = jnp.einsum("xzik,zykj->xyij", dense, dense) / len(dense)
    every = np.arange(len(dense))
    return jnp.where(asked < LEAST_POSTERIOR, 0.0, asked).at[every, every].set(dense[every, every])


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_consistency_is_that_of_dense_posteriors(rounds: int) -> None:
    dense = relatives()
    found = dense_posteriors(consistent(sparse_posteriors(jnp.asarray(dense)), rounds))
    expected = by_numpy(dense, rounds)
    assert (expected > 0).sum(-1).max() <= MOST_PARTNERS
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_most_probable_partners_are_kept_at_both() -> None:
    dense = relatives(width=47)
    dense /= np.maximum(dense.sum(-1, keepdims=True), dense.sum(-2, keepdims=True)).max()
    dense[dense > 0] += LEAST_POSTERIOR  # all of them, more than there is room for
    lists = sparse_posteriors(jnp.asarray(dense))
    kept = np.asarray(dense_posteriors(lists))
    np.testing.assert_array_equal(kept, kept.transpose(1, 0, 3, 2))
    assert (kept > 0).sum(-1).max() == MOST_PARTNERS
    of_columns = -np.sort(-dense, -2)[..., MOST_PARTNERS - 1 : MOST_PARTNERS, :]
    of_rows = -np.sort(-dense, -1)[..., MOST_PARTNERS - 1 : MOST_PARTNERS]
    np.testing.assert_array_equal(kept, np.where(dense >= np.maximum(of_columns, of_rows), dense, 0))


def test_what_is_unlikely_is_none_and_nothing_is_as_well() -> None:
    dense = np.zeros((2, 2, 3, 3), np.float32)
    np.testing.assert_array_equal(dense_posteriors(mean_product(sparse_posteriors(jnp.asarray(dense)))), dense)
    dense[0, 1, 0, 1] = dense[1, 0, 1, 0] = LEAST_POSTERIOR / 2
    assert not np.asarray(sparse_posteriors(jnp.asarray(dense)).value).any()


@pytest.mark.slow
def test_derivatives_of_first_and_second_order_are_those_of_the_dense_product() -> None:
    dense = relatives()
    others = ~np.eye(len(dense), dtype=bool)[:, :, None, None]
    weights = jnp.asarray(np.random.default_rng(1).standard_normal(dense.shape) * 100 * others, jnp.float32)
    upper = np.triu(np.ones((4, 4), bool), 1)[:, :, None, None] & (dense > 0)

    def symmetric(change: jax.Array) -> jax.Array:
        """Return posteriors of which one value for a pair is changed at both."""
        changed = jnp.where(upper, change, 0.0)
        return jnp.asarray(dense) * (1 + changed + changed.transpose(1, 0, 3, 2))

    def sparse(change: jax.Array) -> jax.Array:
        asked = mean_product(mean_product(sparse_posteriors(symmetric(change))))
        return (weights * dense_posteriors(asked) ** 2).sum()

    def plain(change: jax.Array) -> jax.Array:
        given = symmetric(change)
        return (weights * by_jax(by_jax(jnp.where(given < LEAST_POSTERIOR, 0.0, given))) ** 2).sum()

    def curved(loss, change: jax.Array) -> jax.Array:
        return jax.grad(lambda change: (jax.grad(loss)(change) ** 2).sum())(change)

    start = jnp.zeros(dense.shape)
    np.testing.assert_allclose(jax.jit(jax.grad(sparse))(start), jax.jit(jax.grad(plain))(start), atol=1e-3)
    found, expected = (jax.jit(lambda c, loss=loss: curved(loss, c))(start) for loss in (sparse, plain))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected).max() > 1


def test_many_families_at_once_are_each_by_itself() -> None:
    families = jnp.stack([jnp.asarray(relatives(width=width)) for width in (3, 5)])
    each = [sparse_posteriors(family) for family in families]
    together: Posteriors = jax.vmap(lambda family: consistent(sparse_posteriors(family), 2))(families)
    for number, lists in enumerate(each):
        alone = consistent(lists, 2)
        np.testing.assert_allclose(together.value[number], alone.value, atol=1e-6)
