"""The implicit threshold and the order statistic that brackets it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.core import soft_ops
from diffbio.core.soft_ops.modes import step
from diffbio.core.soft_ops.order_statistic import mth_largest, order_statistic, robust_spread
from diffbio.core.soft_ops.threshold import threshold

SOFT = ("smooth", "c0", "c1", "c2")


@pytest.mark.parametrize("n", [1, 2, 33, 1000])
def test_mth_largest_is_that_of_a_sort(n):
    x = jax.random.normal(jax.random.key(n), (4, n)) * 10.0 ** jnp.arange(-20, 20, 10)[:, None]
    x = x.at[:, n // 2].set(x[:, 0]).at[0, -1].set(-jnp.inf).at[1, -1].set(jnp.inf).at[2, 0].set(0.0)
    for m in {1, (n + 1) // 2, n}:
        found = mth_largest(x, jnp.full((4, 1), m))[:, 0]
        np.testing.assert_array_equal(found, -jnp.sort(-x, axis=-1)[:, m - 1])


def test_mth_largest_differs_per_row_and_skips_masked_entries():
    x = jnp.array([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    mask = jnp.array([[True, True, True, True], [False, True, True, True]])
    assert mth_largest(x, jnp.array([[2], [3]]), mask)[:, 0].tolist() == [3.0, 1.0]


def test_gradient_of_an_order_statistic_is_shared_by_equal_entries():
    x = jnp.array([1.0, 5.0, 5.0, 7.0])
    gradient = jax.grad(lambda x: order_statistic(x, jnp.array([2])).sum())(x)
    assert gradient.tolist() == [0.0, 0.5, 0.5, 0.0]


def test_robust_spread_is_the_standard_deviation_of_normal_data_and_blind_to_outliers():
    x = 3 * jax.random.normal(jax.random.key(0), (20000,))
    spread = float(robust_spread(x, None)[0])
    assert abs(spread - 3) < 0.1
    assert float(robust_spread(x.at[0].set(1e20), None)[0]) == pytest.approx(spread, rel=1e-3)
    mask = jnp.ones(20100, bool).at[20000:].set(False)
    padded = jnp.concatenate([x, jnp.full(100, jnp.nan)])
    assert float(robust_spread(padded, mask)[0]) == pytest.approx(spread, rel=1e-6)
    assert float(robust_spread(jnp.ones(5), None)[0]) > 0


@pytest.mark.parametrize("mode", SOFT)
@pytest.mark.parametrize("softness", [1e-3, 0.1, 10.0])
def test_steps_at_the_threshold_sum_to_the_target(mode, softness):
    x = jax.random.normal(jax.random.key(0), (3, 500))
    target = jnp.array([[0.3], [100.0], [498.7]])
    soft = jnp.full((3, 1), softness)
    found = threshold(x, soft, target, None, mode)
    total = step((x - found) / softness, mode).sum(-1, keepdims=True)
    # a threshold next to an entry is as exact as the floats around it
    np.testing.assert_allclose(total, target, atol=1e-3 + 1e-6 / softness)


@pytest.mark.parametrize("mode", SOFT)
@pytest.mark.parametrize("softness", [1e-6, 0.1, 1.0, 100.0])
def test_mask_sums_to_k_and_shares_ties(mode, softness):
    x = jax.random.normal(jax.random.key(1), (1000,))
    for k in (0, 0.5, 1, 50, 999.5, 1000):
        total = float(soft_ops.top_k_mask(x, k, softness=softness, mode=mode).sum())
        assert abs(total - k) <= 1e-4 * k
    np.testing.assert_allclose(soft_ops.top_k_mask(jnp.ones(8), 2, softness=softness, mode=mode), 0.25, rtol=1e-5)


def test_mode_c0_is_the_projection_on_the_capped_simplex():
    x = jax.random.normal(jax.random.key(2), (50,))
    mask = soft_ops.top_k_mask(x, 7, softness=0.25, mode="c0")
    # optimality of min |mask - x|^2 for 0 <= mask <= 1, sum = 7: x - mask is one constant inside, more at 1, less at 0
    multiplier = (x - mask)[(mask > 1e-4) & (mask < 1 - 1e-4)]
    assert jnp.ptp(multiplier) < 1e-5
    assert (x - mask)[mask >= 1].min() >= multiplier.max() - 1e-5
    assert (x - mask)[mask <= 0].max() <= multiplier.min() + 1e-5


def test_k_has_a_gradient_and_may_be_traced_and_differ_per_row():
    x = jax.random.normal(jax.random.key(3), (2, 30))
    slope = jax.grad(lambda k: soft_ops.top_k_mask(x[0], k, softness=0.1).sum())(4.3)
    assert abs(float(slope) - 1) < 1e-5
    k = jnp.array([[2.0], [9.5]])
    totals = jax.jit(lambda x, k: soft_ops.top_k_mask(x, k, softness=0.1).sum(-1))(x, k)
    np.testing.assert_allclose(totals, k[:, 0], rtol=1e-5)
    beyond = jax.jit(lambda k: soft_ops.top_k_mask(x[0], k))(jnp.float32(31.0))
    assert beyond.tolist() == [1.0] * 30


@pytest.mark.parametrize("k", [-1, 10])
def test_k_out_of_range_is_refused(k):
    x = jnp.arange(9.0)
    for function in (soft_ops.top_k_mask, soft_ops.top_k):
        with pytest.raises(ValueError, match=f"k is {k}; it must be between 0 and 9, the number of entries"):
            function(x, k)
    with pytest.raises(TypeError, match="top_k_mask takes a traced k"):
        jax.jit(lambda k: soft_ops.top_k(x, k).values)(2)
