"""The matrix forms of the soft order, and that the fast forms give the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.core import soft_ops
from diffbio.core.soft_ops.kernel_sums import gaps, kernel_sums

SOFT = ("smooth", "c0", "c1", "c2")


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (3, 40)).at[0, 3].set(0.5).at[0, 7].set(0.5)


def gradient_of(function, x):
    weights = jnp.cos(jnp.arange(function(x).size, dtype=jnp.float32)).reshape(function(x).shape)
    return jax.grad(lambda x: (function(x) * weights).sum())(x)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_kernel_sums_are_those_of_the_matrix(n):
    entries = jnp.sort(jax.random.normal(jax.random.key(n), (3, n)))
    weights = jax.random.normal(jax.random.key(1), (3, n))
    below, above = kernel_sums(gaps(entries, jnp.full((3, 1), 0.3)), weights, 3)
    distance = jnp.abs(entries[:, :, None] - entries[:, None, :]) / 0.3
    for power in range(3):
        kernel = distance**power * jnp.exp(-distance)
        np.testing.assert_allclose(below[power], jnp.einsum("bij,bj->bi", jnp.tril(kernel, -1), weights), atol=1e-5)
        np.testing.assert_allclose(above[power], jnp.einsum("bij,bj->bi", jnp.triu(kernel, 1), weights), atol=1e-5)


@pytest.mark.parametrize("softness", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("where", [None, "some"])
def test_sort_by_prefix_sums_is_softsort(x, softness, where):
    mask = None if where is None else jnp.arange(40) % 3 != 0

    def by_matrix(x):
        weights = soft_ops.argsort(x, softness=softness, where=mask)
        return jnp.einsum("bkn,bn->bk", weights, x)

    def by_sums(x):
        return soft_ops.sort(x, softness=softness, where=mask)

    np.testing.assert_allclose(by_sums(x), by_matrix(x), atol=2e-6)
    wanted = gradient_of(by_matrix, x)
    np.testing.assert_allclose(gradient_of(by_sums, x), wanted, atol=2e-5 * float(jnp.abs(wanted).max()))


@pytest.mark.parametrize("mode", SOFT)
@pytest.mark.parametrize("method", ["softsort", "neuralsort"])
def test_sorted_values_are_the_means_of_the_matrix(x, mode, method):
    weights = soft_ops.argsort(x, softness=0.5, mode=mode, method=method)
    values = soft_ops.sort(x, softness=0.5, mode=mode, method=method)
    np.testing.assert_allclose(values, jnp.einsum("bkn,bn->bk", weights, x), atol=2e-6)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)


@pytest.mark.parametrize("mode", SOFT)
@pytest.mark.parametrize("where", [None, "some"])
def test_values_of_top_k_are_the_means_of_its_indices(x, mode, where):
    mask = None if where is None else jnp.arange(40) % 3 != 0

    def values(x):
        return soft_ops.top_k(x, 5, softness=0.3, mode=mode, where=mask).values

    def means(x):
        return jnp.einsum("bkn,bn->bk", soft_ops.top_k(x, 5, softness=0.3, mode=mode, where=mask).indices, x)

    np.testing.assert_allclose(values(x), means(x), atol=2e-6)
    wanted = gradient_of(means, x)
    np.testing.assert_allclose(gradient_of(values, x), wanted, atol=2e-5 * float(jnp.abs(wanted).max()))
    whole = soft_ops.sort(x, softness=0.3, mode=mode, where=mask, descending=True)
    np.testing.assert_allclose(values(x), whole[:, :5], atol=2e-6)


def test_top_k_shares_a_tie_that_the_kth_place_cuts():
    x = jnp.array([1.0, 1.0, 1.0, 0.0])
    gradient = jax.grad(lambda x: (soft_ops.top_k(x, 2, softness=0.1).values * jnp.array([1.0, 3.0])).sum())(x)
    np.testing.assert_allclose(gradient[:3], 4 / 3, rtol=1e-2)
    assert jnp.ptp(gradient[:2]) < 1e-6


@pytest.mark.parametrize("softness", [0.01, 0.1, 1.0])
def test_sinkhorn_gives_each_entry_away_once(x, softness):
    weights = soft_ops.argsort(x, softness=softness, method="sinkhorn")
    off = float(jnp.abs(weights.sum(-2) - 1).max())
    plain = float(jnp.abs(soft_ops.argsort(x, softness=softness).sum(-2) - 1).max())
    print(f"softness {softness}: columns sum to 1 within {off:.1e} (SoftSort {plain:.1e})")
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
    assert off < 2e-3
    masked = soft_ops.argsort(x, softness=softness, method="sinkhorn", where=jnp.arange(40) < 10)
    np.testing.assert_allclose(masked.sum(-2), jnp.broadcast_to(jnp.arange(40) < 10, (3, 40)), atol=2e-3)


@pytest.mark.parametrize("mode", SOFT)
@pytest.mark.parametrize("method", ["softsort", "neuralsort"])
def test_logarithms_do_not_underflow(x, mode, method):
    weights = soft_ops.argsort(x, softness=0.1, mode=mode, method=method)
    logs = soft_ops.argsort(x, softness=0.1, mode=mode, method=method, log=True)
    np.testing.assert_allclose(jnp.exp(logs), weights, atol=1e-6)
    if mode == "smooth":
        far = soft_ops.argmax(jnp.array([0.0, 1e3]), softness=0.1, log=True)
        np.testing.assert_allclose(far, [-1e4, 0.0])
        assert jnp.isfinite(logs).all()
