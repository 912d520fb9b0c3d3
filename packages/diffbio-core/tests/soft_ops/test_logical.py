"""Soft logic: jnp's answers on 0 and 1, the two norms, and gradients at the corners."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core.soft_ops import logical

NORMS = ["product", "geometric_mean"]
PAIRWISE = ["logical_and", "logical_or", "logical_xor"]
REDUCING = ["all", "any"]
every_norm = pytest.mark.parametrize("norm", NORMS)


def pairwise(x, y, norm):
    return {name: getattr(logical, name)(x, y, norm=norm) for name in PAIRWISE}


def reducing(x, axis=None, **options):
    return {name: getattr(logical, name)(x, axis, **options) for name in REDUCING}


@every_norm
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.bfloat16, jnp.float16, jnp.float32])
def test_answers_on_0_and_1_are_those_of_jnp(norm, dtype):
    x, y = (np.asarray(side).astype(dtype) for side in ([[0], [1]], [0, 1]))
    table = np.array([[0, 0, 0], [0, 1, 0], [1, 1, 1]]).astype(dtype)
    axes = (None, 0, -1, (0, 1))

    @jax.jit
    def answers(x, y, table):
        return pairwise(x, y, norm), [reducing(table, axis, norm=norm, keepdims=True) for axis in axes]

    pairs, reduced = answers(x, y, table)
    floating = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    for name, value in pairs.items():
        assert value.dtype == floating
        np.testing.assert_array_equal(value, getattr(np, name)(x.astype(bool), y.astype(bool)), err_msg=name)
    for axis, found in zip(axes, reduced, strict=True):
        for name, value in found.items():
            assert value.dtype == floating
            np.testing.assert_array_equal(
                value, getattr(np, name)(table.astype(bool), axis, keepdims=True), err_msg=name
            )
    np.testing.assert_array_equal(logical.logical_not(y), [1, 0])
    assert logical.logical_not(y).dtype == floating


def test_closed_forms():
    x, y = np.array([0.1, 0.5, 0.9], np.float32), np.array([[0.2], [0.7]], np.float32)
    product, geometric = jax.jit(lambda x, y: [pairwise(x, y, norm) | reducing(x, norm=norm) for norm in NORMS])(x, y)
    wanted = {
        "logical_and": (x * y, np.sqrt(x * y)),
        "logical_or": (1 - (1 - x) * (1 - y), 1 - np.sqrt((1 - x) * (1 - y))),
        "logical_xor": (x + y - 2 * x * y, np.sqrt(x * (1 - y)) + np.sqrt((1 - x) * y)),
        "all": (np.prod(x), np.prod(x) ** (1 / 3)),
        "any": (1 - np.prod(1 - x), 1 - np.prod(1 - x) ** (1 / 3)),
    }
    for name, forms in wanted.items():
        np.testing.assert_allclose(product[name], forms[0], rtol=2e-6, err_msg=name)
        np.testing.assert_allclose(geometric[name], forms[1], rtol=2e-6, err_msg=name)


def test_many_truths():
    product, geometric = (jax.jit(jax.value_and_grad(lambda x, n=n: logical.all(x, norm=n))) for n in NORMS)
    truths = np.full(1000, 0.99, np.float32)
    print("all of 1000 truths of 0.99:", float(product(truths)[0]), float(geometric(truths)[0]))
    assert np.isclose(product(truths)[0], 0.99**1000, rtol=1e-3)
    assert np.isclose(geometric(truths)[0], 0.99)
    value, gradient = geometric(np.full(1000, 0.01, np.float32))  # their product underflows, its root must not
    assert np.isclose(value, 0.01)
    np.testing.assert_allclose(gradient, 1e-3, rtol=1e-4)
    assert np.isclose(logical.logical_and(1e-30, 1e-30, norm="geometric_mean"), 1e-30)


@every_norm
def test_truths_stay_in_the_unit_interval(norm):
    x, y = np.random.default_rng(0).random((2, 20_000), np.float32)
    x, y = np.append(x, x), np.append(y, 1 - x)  # the second half is where the exclusive or reaches 1
    for name, value in jax.jit(lambda x, y: pairwise(x, y, norm))(x, y).items():
        assert value.min() >= 0, name
        assert value.max() <= 1, name
    sums = np.array([1.0000001, 0.5], np.float32)  # of weights: rounding may leave them above 1
    for value in jax.jit(lambda x: pairwise(x, x, norm) | reducing(x, norm=norm))(sums).values():
        assert np.isfinite(value).all()


@every_norm
def test_derivatives_are_right(norm):
    with jax.enable_x64(True):
        given = np.array([0.2, 0.55, 0.85]), np.array([0.7, 0.4, 0.1])
        both = jax.jit(lambda x, y: pairwise(x, y, norm) | reducing(x, norm=norm))
        check_grads(both, given, order=1)


@every_norm
def test_derivatives_are_finite_at_the_corners(norm):
    corners = np.array([0.0, 1.0, 0.5, 1e-20, 1e-40], np.float32)
    x, y = (side.ravel() for side in np.meshgrid(corners, corners))
    together = functools.partial(pairwise, norm=norm)
    slopes = jax.jit(jax.vmap(lambda x, y: [derive(together, (0, 1))(x, y) for derive in (jax.jacrev, jax.jacfwd)]))
    for gradient in jax.tree.leaves(slopes(x, y)):
        assert np.isfinite(gradient).all()
    reduced = functools.partial(reducing, norm=norm)
    derivatives = jax.jit(lambda x: [derive(reduced)(x) for derive in (jax.jacrev, jax.jacfwd, jax.hessian)])
    for row in ([0.0, 0.0, 0.5], [0.0, 0.5, 1.0], [1.0, 1.0, 0.5], [1.0, 0.0, 1e-40]):
        for gradient in jax.tree.leaves(derivatives(np.array(row, np.float32))):
            assert np.isfinite(gradient).all()


def test_product_gradients_are_right_with_factors_of_0():
    gradients = jax.jit(jax.jacrev(reducing))
    np.testing.assert_allclose(gradients(np.array([0.0, 0.5, 0.4], np.float32))["all"], [0.2, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(gradients(np.array([0.0, 0.0, 0.4], np.float32))["all"], [0, 0, 0])
    np.testing.assert_allclose(gradients(np.array([1.0, 0.5, 0.6], np.float32))["any"], [0.2, 0, 0], rtol=1e-6)
    long = np.full(1001, 0.99, np.float32)
    long[7] = 0
    gradient = np.asarray(gradients(long)["all"])
    assert np.isclose(gradient[7], 0.99**1000, rtol=1e-3)
    assert not np.delete(gradient, 7).any()


@every_norm
def test_masks_and_nothing_to_join(norm):
    x = np.array([[0.5, np.nan, 0.125], [np.nan, np.inf, -3.0]], np.float32)
    where = np.array([[True, False, True], [False, False, False]])

    @jax.jit
    def results(x):
        masked = functools.partial(reducing, axis=1, norm=norm, where=where)
        return (
            masked(x),
            jax.jacrev(masked)(x),
            reducing(x[0, ::2], norm=norm),
            reducing(x, 1, norm=norm, where=where[0]),
        )

    values, gradients, alone, of_row = results(x)
    for name, empty in [("all", 1), ("any", 0)]:
        np.testing.assert_allclose(values[name], [alone[name], empty])
        assert of_row[name][0] == values[name][0]
        with_gradient = np.zeros((2, 2, 3), bool)
        with_gradient[0, 0] = where[0]
        np.testing.assert_array_equal(gradients[name] != 0, with_gradient)
        assert getattr(logical, name)(np.zeros((0, 2)), 0, norm=norm).tolist() == [empty, empty]


@every_norm
def test_arguments_broadcast_may_be_lists_and_map(norm):
    shapes = jax.eval_shape(lambda: pairwise(np.ones((3, 1)), np.ones((1, 3)), norm))
    assert {value.shape for value in shapes.values()} == {(3, 3)}
    table, mapped = jax.jit(lambda x: (pairwise([0.25, 1], 0.5, norm), jax.vmap(lambda x: pairwise(x, 0.5, norm))(x)))(
        np.array([0.25, 1], np.float32)
    )
    for name in PAIRWISE:
        np.testing.assert_allclose(table[name], mapped[name], rtol=1e-6)
    assert (
        jax.eval_shape(lambda x: logical.logical_and(x, 0, norm=norm), jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
    )
    assert np.isnan(logical.all(np.array([0.5, np.nan]), norm=norm))


@pytest.mark.parametrize("name", PAIRWISE + REDUCING)
def test_unknown_norm_is_refused(name):
    arguments = (0.5, 0.5) if name in PAIRWISE else (np.ones(2),)
    with pytest.raises(ValueError, match="norm is 'minimum'; it must be one of 'product', 'geometric_mean'"):
        getattr(logical, name)(*arguments, norm="minimum")
