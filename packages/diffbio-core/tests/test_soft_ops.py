"""The five operations that the design fixes from outside, and the mask that gene selection uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core import soft_ops


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (4, 9))


def test_limits_are_the_hard_answers(x):
    tiny = 1e-6
    np.testing.assert_allclose(soft_ops.max(x, softness=tiny), x.max(-1), atol=1e-5)
    np.testing.assert_allclose(soft_ops.argmax(x, softness=tiny), jax.nn.one_hot(x.argmax(-1), 9), atol=1e-5)
    np.testing.assert_allclose(soft_ops.sort(x, softness=tiny), jnp.sort(x), atol=1e-5)
    np.testing.assert_allclose(soft_ops.sort(x, axis=0, softness=tiny), jnp.sort(x, axis=0), atol=1e-5)
    values, indices = soft_ops.top_k(x, 3, softness=tiny)
    hard_values, hard_indices = jax.lax.top_k(x, 3)
    np.testing.assert_allclose(values, hard_values, atol=1e-5)
    np.testing.assert_allclose(indices, jax.nn.one_hot(hard_indices, 9), atol=1e-5)
    np.testing.assert_allclose(soft_ops.greater(x, 0.0, softness=tiny), x > 0, atol=1e-5)
    mask = soft_ops.top_k_mask(x, 3, softness=tiny)
    np.testing.assert_allclose(mask, x >= hard_values[:, -1:], atol=1e-5)


@pytest.mark.parametrize("softness", [1e-6, 0.1, 1.0, 100.0])
def test_mask_sums_to_k_and_shares_ties(softness):
    x = jax.random.normal(jax.random.key(1), (1000,))
    total = float(soft_ops.top_k_mask(x, 50, softness=softness).sum())
    print(f"softness {softness}: sum of the mask of 50 is {total}")
    assert abs(total - 50) < 50 * 1e-5
    np.testing.assert_allclose(soft_ops.top_k_mask(jnp.ones(8), 2, softness=softness), 0.25, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_mask_holds_at_any_scale(scale):
    x = scale * jnp.array([3.0, -1.0, 2.0, 0.0])
    assert soft_ops.top_k_mask(x, 2, softness=1e-3 * scale).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_mask_gradient_is_right_for_entries_and_softness():
    weights = jnp.linspace(-1.0, 1.0, 20)
    x = jax.random.normal(jax.random.key(2), (20,))
    check_grads(
        lambda x, s: (soft_ops.top_k_mask(x, 5, softness=s) * weights).sum(), (x, 0.5), order=2, atol=5e-2, rtol=5e-2
    )


def test_gradients_are_finite_at_ties():
    for function in (soft_ops.max, soft_ops.sort, lambda x: soft_ops.top_k_mask(x, 2), soft_ops.argmax):
        gradient = jax.grad(lambda x, f=function: (f(x) * jnp.arange(1.0, 1.0 + f(x).size)).sum())(jnp.ones(5))
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("k", [0, 10])
def test_k_out_of_range_is_refused(x, k):
    with pytest.raises(ValueError, match=f"k is {k}; it must be between 1 and the 9 entries"):
        soft_ops.top_k_mask(x, k)
    with pytest.raises(ValueError, match=f"k is {k}"):
        soft_ops.top_k(x, k)


def test_masked_entries_get_no_mass(x):
    where = jnp.arange(9) < 5
    assert soft_ops.argmax(x, where=where)[:, 5:].sum() == 0
    np.testing.assert_allclose(soft_ops.max(x, where=where, softness=1e-6), x[:, :5].max(-1), atol=1e-5)
