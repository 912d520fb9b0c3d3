"""Selection by soft indices: one-hot ones give what jnp and lax give, others the mean under the distribution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from diffbio.core.soft_ops import selection


def one_hot(index, n):
    return np.eye(n, dtype=np.float32)[np.asarray(index)]


def as_expected(result, expected):
    assert result.dtype == (expected.dtype if jnp.issubdtype(expected.dtype, jnp.floating) else jnp.float32)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected).astype(result.dtype), strict=True)


@pytest.fixture
def x():
    return np.sin(np.arange(60, dtype=np.float32)).reshape(3, 4, 5)


@pytest.fixture
def weights():
    return np.array([[0.1, 0.3, 0.2, 0.15, 0.25], [0.4, 0.0, 0.1, 0.3, 0.2]], np.float32)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes_are_those_of_jnp_as_floats(dtype):
    x, mask, index = np.array([[0, 1, 3], [1, 0, 1]]).astype(dtype), np.array([True, False, True]), np.array([[1], [2]])

    @jax.jit
    def both(x):
        return [
            (selection.where(mask, x, x[::-1]), jnp.where(mask, x, x[::-1])),
            (selection.take(x, one_hot([2, 0], 3), 1), jnp.take(x, np.array([2, 0]), 1)),
            (selection.take_along_axis(x, one_hot(index, 3)), jnp.take_along_axis(x, index, -1)),
            (selection.dynamic_slice_in_dim(x, one_hot(1, 3), 2, 1), lax.dynamic_slice_in_dim(x, 1, 2, 1)),
        ]

    for got, expected in both(x):
        as_expected(got, expected)
    narrow = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    assert jax.eval_shape(lambda x: selection.where(mask, x, 1), x).dtype == narrow


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_one_hot_take_along_axis(x, axis):
    n, results = x.shape[axis], []
    for picks in (1, 6):
        shape = np.where(np.arange(3) == axis % 3, picks, x.shape)
        for wanted in (shape, np.where(np.arange(3) == axis % 3, picks, 1)):
            index = 7 * np.arange(wanted.prod()).reshape(wanted) % n
            results.append((one_hot(index, n), index))
    got = jax.jit(lambda soft: [selection.take_along_axis(x, one, axis) for one in soft])([one for one, _ in results])
    for one, (_, index) in zip(got, results, strict=True):
        expected = np.take_along_axis(
            x, np.broadcast_to(index, np.where(np.arange(3) == axis % 3, index.shape, x.shape)), axis
        )
        as_expected(one, expected)


def test_one_hot_take_along_flattened(x):
    index = np.array([0, 59, 7])
    as_expected(selection.take_along_axis(x, one_hot(index, 60), None), jnp.take_along_axis(x, index, None))


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("index", [1, [2, 0], [[1, 2], [0, 0]]])
def test_one_hot_take_with_index_of_any_shape(x, axis, index):
    n = x.size if axis is None else x.shape[axis]
    got = jax.jit(lambda soft: selection.take(x, soft, axis))(one_hot(index, n))
    as_expected(got, np.take(x, np.asarray(index), axis))


def test_one_hot_choose():
    index, choices = np.array([[0, 1, 2], [2, 1, 0]]), np.arange(9, dtype=np.float32).reshape(3, 3)
    mixed = [choices[0], np.float32(7), np.array([[1], [2]], np.float32)]
    got = jax.jit(lambda soft: [selection.choose(soft, choices), selection.choose(soft, mixed)])(one_hot(index, 3))
    as_expected(got[0], np.choose(index, choices))
    as_expected(got[1], np.choose(index, mixed))
    as_expected(selection.choose(one_hot(1, 3), choices), choices[1])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_dynamic_index_and_slice(x, axis):
    n = x.shape[axis]

    @jax.jit
    def both(soft, at):
        slices = [
            (selection.dynamic_slice_in_dim(x, soft, size, axis), lax.dynamic_slice_in_dim(x, at, size, axis))
            for size in (0, 1, 2, n)
        ]
        return slices + [
            (selection.dynamic_index_in_dim(x, soft, axis, keepdims=k), lax.dynamic_index_in_dim(x, at, axis, k))
            for k in (True, False)
        ]

    for at in range(n):  # starts too late for the window are clamped
        for got, expected in both(one_hot(at, n), at):
            as_expected(got, expected)


def test_one_hot_dynamic_slice(x):
    starts, sizes = (2, 1, 4), (2, 3, 2)
    soft = tuple(one_hot(start, n) for start, n in zip(starts, x.shape, strict=True))
    got = jax.jit(lambda soft: selection.dynamic_slice(x, soft, sizes))(soft)
    as_expected(got, lax.dynamic_slice(x, starts, sizes))


def test_soft_indices_give_means(x, weights):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    starts = weights[0]
    thirds, quarters = np.full(3, 1 / 3, np.float32), np.full(4, 1 / 4, np.float32)

    @jax.jit
    def results(weights):
        return (
            selection.take(x, weights, 2),
            jax.vmap(lambda w: selection.dynamic_index_in_dim(x, w, 2, keepdims=False), out_axes=-1)(weights),
            selection.dynamic_slice_in_dim(x, weights[0], 3, 2),
            selection.dynamic_slice(x, (thirds, quarters, weights[0]), (3, 1, 5)),
        )

    taken, mapped, window, block = results(weights)
    close(taken, np.einsum("abn,kn->abk", x, weights))
    close(mapped, taken)
    windows = np.stack([x[..., min(start, 2) :][..., :3] for start in range(5)])
    close(window, np.tensordot(starts, windows, 1))
    close(block, x.mean(1, keepdims=True))
    assert np.isclose(selection.where(0.25, 8.0, 4.0), 5.0)


def test_derivatives_are_right(x, weights):
    def results(x, w):
        return (
            selection.where(w[0], x[0], 2 * x[1]),
            selection.take_along_axis(x, w[None, None], 2),
            selection.take(x, w, 2),
            selection.choose(w[0], x[0, 0]),
            selection.dynamic_slice(x, (w[0, :3], w[0, :4], w[1]), (2, 2, 2)),
        )

    with jax.enable_x64(True):
        check_grads(jax.jit(results), (x.astype(float), weights.astype(float)), order=1, modes=["rev"])


SELECTIONS = {
    "take": lambda v, w: selection.take(v, w)[None],
    "take_along_axis": lambda v, w: selection.take_along_axis(v, w[None]),
    "choose": lambda v, w: selection.choose(w, v)[None],
    "dynamic_index_in_dim": selection.dynamic_index_in_dim,
    "dynamic_slice_in_dim": lambda v, w: selection.dynamic_slice_in_dim(v, w, 1),
    "dynamic_slice": lambda v, w: selection.dynamic_slice(v, [w], [1]),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_what_has_no_weight_contributes_nothing(name):
    derived = jax.jit(jax.value_and_grad(lambda v, w: SELECTIONS[name](v, w)[0], (0, 1)))
    for bad in (np.nan, np.inf, -np.inf):
        values = np.array([1.0, bad, 3.0, 5.0], np.float32)
        value, (by_value, by_weight) = derived(values, np.array([0.5, 0.0, 0.5, 0.0], np.float32))
        assert value == 2
        assert by_value.tolist() == [0.5, 0, 0.5, 0]
        assert by_weight.tolist() == [1, 0, 3, 5]  # that of the finite entry without weight too
        with_weight, _ = derived(values, np.array([0.5, 0.5, 0.0, 0.0], np.float32))
        np.testing.assert_array_equal(with_weight, np.float32(bad))  # a non-finite entry that counts shows
    both_signs, _ = derived(np.array([np.inf, -np.inf, 3.0, 5.0], np.float32), np.full(4, 0.25, np.float32))
    assert np.isnan(both_signs)


def test_where_ignores_the_side_that_is_not_taken():
    value, gradients = jax.value_and_grad(selection.where, (0, 1, 2))(1.0, 1.0, jnp.nan)
    assert value == 1
    assert [float(gradient) for gradient in gradients] == [1, 1, 0]
    assert selection.where(jnp.array([0, 1]), jnp.inf, 2.0).tolist() == [2, jnp.inf]
    assert selection.where([True, False], [1, 2], [3, 4]).tolist() == [1, 4]
    assert float(jax.grad(selection.where)(1.0, 1e20, 2.0)) == jnp.float32(1e20)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: selection.take(x, jnp.ones((2, 3)), 2), r"soft_index has shape \(2, 3\); it must be \(..., 5\)"),
        (lambda x: selection.take(x, 1.0), r"soft_index has shape \(\); it must be \(..., 60\)"),
        (lambda x: selection.take(x, jnp.ones(3), 3), r"axis is 3; x of shape \(3, 4, 5\) has 3 axes"),
        (
            lambda x: selection.take_along_axis(x, jnp.ones((2, 5))),
            r"shape \(2, 5\); for x of .* 4 axes that broadcast with \(3, 4, picks, 5\)",
        ),
        (
            lambda x: selection.take_along_axis(x, jnp.ones((2, 4, 1, 5))),
            r"shape \(2, 4, 1, 5\); .* broadcast with \(3, 4, picks, 5\)",
        ),
        (lambda x: selection.choose(jnp.ones((4, 2)), x), r"soft_index has shape \(4, 2\); it must be \(..., 3\)"),
        (lambda x: selection.dynamic_index_in_dim(x, jnp.ones((1, 3))), r"shape \(1, 3\); it must be \(3,\)"),
        (lambda x: selection.dynamic_slice_in_dim(x, jnp.ones(4), 2), r"soft_start_index has shape \(4,\); .* \(3,\)"),
        (lambda x: selection.dynamic_slice_in_dim(x, jnp.ones(3), 4), "slice_size is 4; it must be between 0 and 3"),
        (
            lambda x: selection.dynamic_slice(x, [jnp.ones(3)], [1]),
            "there are 1 soft_start_indices and 1 slice_sizes; x",
        ),
        (lambda x: selection.where(jnp.ones(2), x, 0.0), "ncompatible shapes"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, call, message):
    with pytest.raises(ValueError, match=message):
        call(x)
