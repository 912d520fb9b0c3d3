"""Values of jnp to the bit, and derivatives that are finite at the edge of the domain and right inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.core.soft_ops import safe_math

NAMES = ["sqrt", "log", "arcsin", "arccos"]


def same_bits(x, y):
    """Whether two arrays are equal to the bit, but for the bits of NaN."""
    one, other = (np.asarray(array) for array in (x, y))
    nan = np.isnan(one)
    return (
        one.dtype == other.dtype
        and np.array_equal(nan, np.isnan(other))
        and one[~nan].tobytes() == other[~nan].tobytes()
    )


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.bfloat16, jnp.float16, jnp.float32])
def test_values_are_those_of_jnp(dtype):
    x = np.array([0.0, 1.0, 2.0])
    if jnp.issubdtype(dtype, jnp.floating):
        x = np.append(x, [-0.0, -1.0, 0.3, 1e-20, -2.0, 1e20, np.inf, -np.inf, np.nan])
    with np.errstate(over="ignore"):
        x = x.astype(dtype)

    def results(x, module):
        return [getattr(module, name)(x) for name in NAMES]

    wide = x if jnp.issubdtype(dtype, jnp.floating) else x.astype(np.float32)
    got, expected = jax.jit(lambda x, wide: (results(x, safe_math), results(wide, jnp)))(x, wide)
    assert all(map(same_bits, got, expected))
    assert same_bits(safe_math.div(x[:, None], x), jnp.divide(x[:, None], x))
    assert jax.eval_shape(safe_math.div, x, 2).dtype == jax.eval_shape(jnp.divide, jnp.asarray(x), 2).dtype


def test_out_of_the_domain_is_not_hidden():
    assert safe_math.log(0.0) == -jnp.inf
    assert safe_math.log(0.5) > safe_math.log(1e-30) > safe_math.log(0.0)
    for value in (
        safe_math.log(-1),
        safe_math.sqrt(-1),
        safe_math.arcsin(2),
        safe_math.arccos(-2),
        safe_math.div(0, 0),
    ):
        assert jnp.isnan(value)
    assert safe_math.div(1.0, 0.0) == jnp.inf


@pytest.mark.parametrize(
    ("name", "edges"),
    [("sqrt", [0.0, -0.0]), ("log", [0.0, -0.0, 1e-40]), ("arcsin", [1.0, -1.0]), ("arccos", [1.0, -1.0])],
)
def test_all_derivatives_are_0_at_the_edge(name, edges):
    function = getattr(safe_math, name)
    derivatives = jax.grad(function), jax.jacfwd(function), jax.hessian(function), jax.grad(jax.grad(function))
    found = jax.jit(jax.vmap(lambda x: [derive(x) for derive in derivatives]))(np.array([*edges, 0.25], np.float32))
    for derivative in found:
        assert not np.asarray(derivative)[:-1].any()
    slope, bend = {
        "sqrt": (1, -2),
        "log": (4, -16),
        "arcsin": (1.0327956, 0.2754121),
        "arccos": (-1.0327956, -0.2754121),
    }[name]
    np.testing.assert_allclose([one[-1] for one in found], [slope, slope, bend, bend], rtol=1e-5)


def test_quotients_have_right_and_finite_derivatives():
    x = np.array([0.0, 1.0, -2.0, 0.0, 1e20, 1e20, np.inf, 1.0, 0.0, 1.5], np.float32)
    y = np.array([0.0, 0.0, -0.0, 1e-20, 1e-20, 1e20, 2.0, np.inf, 1e-40, -0.5], np.float32)
    derivatives = [derive(safe_math.div, (0, 1)) for derive in (jax.jacrev, jax.jacfwd, jax.hessian)]
    backward, forward, bends = jax.jit(jax.vmap(lambda x, y: [derive(x, y) for derive in derivatives]))(x, y)
    for by_x, by_y in (backward, forward):
        assert np.isfinite(by_x).all()
        assert np.isfinite(np.delete(by_y, 4)).all()
        assert not np.any(by_x[:3])
        assert not np.any(by_y[:4])
        np.testing.assert_allclose(by_x[3:6], [1e20, 1e20, 1e-20], rtol=1e-6)
        np.testing.assert_allclose(by_x[9], -2, rtol=1e-6)
        np.testing.assert_allclose(by_y[np.array([5, 9])], [-1e-20, -6], rtol=1e-6)
    bends = np.array(bends)
    assert not bends[..., :3].any()
    np.testing.assert_allclose(bends[..., 9], [[0, -4], [-4, -24]], rtol=1e-6)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (0, 1, 2)])
def test_norm_is_that_of_all_entries_over_the_axes(axis):
    x = np.sin(np.arange(24, dtype=np.float32)).reshape(2, 3, 4)
    for keepdims in (True, False):
        expected = np.sqrt(np.sum(x**2, axis, keepdims=keepdims))
        got = jax.jit(lambda x, k=keepdims: safe_math.norm(x, axis, keepdims=k))(x)
        np.testing.assert_allclose(got, expected, rtol=1e-6, strict=True)


def test_norm_at_any_magnitude():
    norm = jax.jit(jax.value_and_grad(safe_math.norm))
    for scale in (1e-37, 1e-25, 1.0, 1e20, 1e37):
        value, gradient = norm(np.array([3.0 * scale, -4.0 * scale], np.float32))
        np.testing.assert_allclose(value, 5 * scale, rtol=1e-6)
        np.testing.assert_allclose(gradient, [0.6, -0.8], rtol=1e-6)
    for entries, expected in [([0.0, 0.0], 0), ([np.inf, 1.0], np.inf), ([np.inf, -np.inf], np.inf)]:
        value, gradient = norm(np.array(entries, np.float32))
        assert value == expected
        assert gradient.tolist() == [0, 0]
    assert np.isnan(norm(np.array([np.nan, np.inf], np.float32))[0])
    assert jax.jit(jax.hessian(safe_math.norm))(np.zeros(2, np.float32)).tolist() == [[0, 0], [0, 0]]


def test_norm_derivatives_masks_and_dtypes():
    x = np.array([0.3, -1.2, 0.8], np.float32)
    length = np.sqrt(np.sum(x**2))
    bends = (np.eye(3) - np.outer(x, x) / length**2) / length
    np.testing.assert_allclose(jax.jit(jax.hessian(safe_math.norm))(x), bends, rtol=1e-5)
    x, where = (
        jnp.array([[3.0, jnp.nan, 4.0], [jnp.inf, 0.0, 1.0]]),
        jnp.array([[True, False, True], [False, True, True]]),
    )
    gradient = jax.jit(jax.grad(lambda x: safe_math.norm(x, 1, where=where).sum()))(x)
    assert safe_math.norm(x, 1, where=where).tolist() == [5, 1]
    np.testing.assert_allclose(gradient, [[0.6, 0, 0.8], [0, 0, 1]], rtol=1e-6)
    assert safe_math.norm(jnp.full(100, 1e3, jnp.float16)).dtype == jnp.float16
    assert safe_math.norm(jnp.full(100, 1e3, jnp.float16)) == 1e4  # squares overflow in half precision
    assert safe_math.norm([3, 4]) == 5
    assert safe_math.norm(jnp.zeros((0, 2)), axis=0).tolist() == [0, 0]
    assert jax.vmap(safe_math.norm)(jnp.eye(3)).tolist() == [1, 1, 1]
