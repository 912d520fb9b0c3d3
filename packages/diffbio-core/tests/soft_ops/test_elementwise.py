"""Relaxed steps, ramps and stairs: their limits, their derivatives, and the edges where others go wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core.soft_ops import elementwise

MODES = ["smooth", "c0", "c1", "c2"]
SOFT = {
    "sigmoidal": elementwise.sigmoidal,
    "relu": elementwise.relu,
    "sign": elementwise.sign,
    "abs": elementwise.abs,
    "clip": lambda x, **options: elementwise.clip(x, -1, 1, **options),
    "round": elementwise.round,
}
HARD = {
    "sigmoidal": lambda x: jnp.heaviside(x, jnp.asarray(0.5, jnp.result_type(x, 0.0))),
    "relu": jax.nn.relu,
    "sign": jnp.sign,
    "abs": jnp.abs,
    "clip": lambda x: jnp.clip(x, -1, 1),
    "round": jnp.round,
}
EDGES = np.array([0.0, -0.5, 0.5, -1.0, 1.0, 1e-20, -1e-20, 1e20, -1e20, 1e8, np.inf, -np.inf], np.float32)
every_function = pytest.mark.parametrize("name", SOFT)
every_mode = pytest.mark.parametrize("mode", MODES)


def all_of_them(x, softness=0.1, **options):
    return {name: function(x, softness=softness, **options) for name, function in SOFT.items()}


@functools.cache
def _compiled(mode):
    one = functools.partial(all_of_them, mode=mode)
    return jax.jit(
        jax.vmap(
            lambda x, s: {"value": one(x, s), "slopes": jax.jacrev(one, (0, 1))(x, s), "bend": jax.hessian(one)(x, s)}
        )
    )


def at(mode, x, softness):
    """Value, slopes (in x and in the softness) and second derivative (in x) by name, of up to 64 entries.

    All have one shape, so that each mode is compiled once for the whole file.
    """
    x, softness = np.broadcast_arrays(np.asarray(x, np.float32), np.asarray(softness, np.float32))
    found = _compiled(mode)(np.resize(x, 64), np.resize(softness, 64))
    return jax.tree.map(lambda result: np.asarray(result)[: x.size], found)


@every_mode
def test_two_have_a_second_name(mode):
    x = np.array([-0.3, 0.0, 0.2], np.float32)
    first, second = (
        at(mode, x, 0.1)["value"],
        jax.jit(lambda x: [elementwise.heaviside(x, mode=mode), elementwise.softrelu(x, mode=mode)])(x),
    )
    np.testing.assert_allclose(second, [first["sigmoidal"], first["relu"]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.bfloat16, jnp.float16, jnp.float32])
def test_hard_mode_is_jnp_to_the_bit(dtype):
    floating = jnp.issubdtype(dtype, jnp.floating)
    x = np.array([-2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5, 2.6] + floating * [np.nan, np.inf, -np.inf])
    x = jnp.asarray(x, dtype) if floating else jnp.asarray(x.astype(int), dtype)
    classical = {name: function(x if floating else x.astype(jnp.int32)) for name, function in HARD.items()}
    for name, result in jax.jit(lambda x: all_of_them(x, mode="hard"))(x).items():
        assert result.dtype == (dtype if floating else jnp.float32)
        assert np.asarray(result).tobytes() == np.asarray(classical[name].astype(result.dtype)).tobytes(), name
        assert jax.eval_shape(SOFT[name], x).dtype == result.dtype


@every_mode
def test_limit_is_the_hard_answer_also_when_a_traced_softness_is_not_positive(mode):
    x = np.array([-np.inf, -1e20, -2.7, -0.3, 0.2, 0.7, 1.8, 1e20, np.inf], np.float32)
    for softness in (1e-6, 0.0, -1.0):
        found = at(mode, x, softness)
        for name, value in found["value"].items():
            np.testing.assert_allclose(value, HARD[name](x), atol=3e-6, err_msg=name)
            assert np.isfinite(found["slopes"][name][0]).all(), name


@every_mode
def test_derivatives_are_right(mode):
    x, s, h = np.array([-1.93, -1.13, -0.71, 0.02, 0.31, 0.64, 1.21, 2.01]), 0.41, 5e-3
    higher, lower, softer, harder = at(mode, x + h, s), at(mode, x - h, s), at(mode, x, s + h), at(mode, x, s - h)
    here = at(mode, x, s)
    for name in SOFT:
        difference = (higher["value"][name] - lower["value"][name]) / (2 * h)
        np.testing.assert_allclose(here["slopes"][name][0], difference, atol=2e-3, err_msg=name)
        difference = (softer["value"][name] - harder["value"][name]) / (2 * h)
        np.testing.assert_allclose(here["slopes"][name][1], difference, atol=2e-3, err_msg=name)
        if mode in ("smooth", "c2") or name in ("relu", "abs", "clip"):  # these are one class smoother than a step
            difference = (higher["slopes"][name][0] - lower["slopes"][name][0]) / (2 * h)
            np.testing.assert_allclose(here["bend"][name], difference, atol=2e-2, err_msg=name)


def test_derivatives_are_right_to_double_precision():
    with jax.enable_x64(True):
        x = np.array([-1.2, 0.3, 0.7])
        check_grads(jax.jit(all_of_them), (x, 0.31), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)
        assert elementwise.round(x).dtype == jnp.float64


@every_mode
def test_derivatives_are_the_relaxed_ones_also_at_ties(mode):
    x = np.linspace(-2, 2, 17, dtype=np.float32)  # holds the kinks
    found = at(mode, x, 0.3)
    np.testing.assert_allclose(found["slopes"]["relu"][0], found["value"]["sigmoidal"], atol=1e-6)
    np.testing.assert_allclose(found["slopes"]["abs"][0], found["value"]["sign"], atol=1e-6)
    np.testing.assert_allclose(found["value"]["sign"], 2 * found["value"]["sigmoidal"] - 1, atol=1e-6)
    clip = functools.partial(elementwise.clip, softness=0.3, mode=mode)
    slopes = jax.jit(jax.vmap(jax.grad(clip, argnums=(0, 1, 2)), (0, None, None)))
    assert np.isfinite(slopes(np.full(17, np.inf, np.float32), 0.0, np.inf)).all()
    for a, b in [(-1.0, 0.5), (0.5, 0.5), (-np.inf, 1.0), (0.0, np.inf)]:
        above_a, above_b = at(mode, x - a, 0.3)["value"]["sigmoidal"], at(mode, x - b, 0.3)["value"]["sigmoidal"]
        for slope, wanted in zip(slopes(x, a, b), (above_a - above_b, 1 - above_a, above_b), strict=True):
            np.testing.assert_allclose(slope, wanted, atol=1e-6)


def test_closed_forms():
    x = np.array([-3.0, -0.4, 0.0, 0.05, 2.0], np.float32)
    smooth, linear = at("smooth", x, 0.5)["value"], at("c0", x, 0.1)["value"]
    np.testing.assert_allclose(smooth["sigmoidal"], 1 / (1 + np.exp(-2 * x)), rtol=1e-6)
    np.testing.assert_allclose(smooth["relu"], np.log1p(np.exp(2 * x)) / 2, rtol=1e-5)
    np.testing.assert_allclose(linear["sigmoidal"], np.clip(0.5 + x / 0.4, 0, 1), rtol=1e-6)


@pytest.mark.parametrize(("mode", "excess"), [("smooth", 2 * np.log(2)), ("c0", 1), ("c1", 9 / 8), ("c2", 75 / 64)])
def test_magnitude_lies_above_the_true_one_by_at_most_what_the_page_says(mode, excess):
    x = np.linspace(-3, 3, 61, dtype=np.float32)
    x[30] = 0
    above = at(mode, x, 0.5)["value"]["abs"] - np.abs(x)
    assert above.min() >= 0
    assert np.isclose(above.max(), above[30])
    assert np.isclose(above[30], 0.5 * excess)
    assert at(mode, 0.05, 0.1)["value"]["abs"] > 0.05


@pytest.mark.parametrize("mode", [*MODES, "hard"])
def test_gradients_are_finite_at_the_edges(mode):
    for softness in (1e-30, 0.1, 1e20):
        found = at(mode, EDGES, softness)
        for name in SOFT:
            assert np.isfinite(found["slopes"][name][0]).all(), (name, softness)
            if softness == 0.1:
                assert np.isfinite(found["slopes"][name][1]).all(), name
                assert np.isfinite(found["bend"][name]).all(), name


@pytest.mark.parametrize("mode", ["smooth", "c2"])
def test_nan_shows_and_masked_entries_are_0_without_gradient(mode):
    x, where = np.array([np.nan, 0.3, np.inf, -0.2], np.float32), np.array([False, True, False, True])
    masked = functools.partial(all_of_them, mode=mode, where=where)
    values, slopes = jax.jit(lambda x: (masked(x), jax.jacrev(masked)(x)))(x)
    alone = at(mode, x, 0.1)
    for name, value in values.items():
        assert np.isnan(alone["value"][name]).tolist() == [True, False, False, False]
        np.testing.assert_allclose(value, np.where(where, alone["value"][name], 0), rtol=1e-6)
        np.testing.assert_allclose(slopes[name], np.diag(np.where(where, alone["slopes"][name][0], 0)), rtol=1e-6)


def test_masked_entries_are_0_in_hard_mode():
    x, where = np.array([np.nan, 0.3, np.inf]), np.array([False, True, False])
    for value in jax.jit(lambda x: all_of_them(x, mode="hard", where=where))(x).values():
        assert np.asarray(value)[::2].tolist() == [0, 0]


@every_function
def test_arrays_of_softness_lists_and_transformations(name):
    x, softness = [-0.7, 0.1, 1.2], np.array([[0.1], [2.0]], np.float32)
    table = jax.jit(lambda s: SOFT[name](x, softness=s))(softness)
    assert table.shape == (2, 3)
    assert jax.eval_shape(lambda s: SOFT[name](x, softness=s, mode="hard"), softness).shape == (2, 3)
    rows = [at("smooth", x, row)["value"][name] for row in softness]
    np.testing.assert_allclose(table, rows, rtol=1e-6)


@every_function
def test_wrong_softness_and_mode_are_refused(name):
    for softness in (0.0, -1.0, np.array([0.1, 0.0, 0.1])):
        with pytest.raises(
            ValueError, match=r"softness is .*; it must be above 0 \(mode='hard' gives the hard answer\)"
        ):
            SOFT[name](1.0, softness=softness)
    with pytest.raises(ValueError, match="mode is 'smoth'; it must be one of 'hard', 'smooth', 'c0', 'c1', 'c2'"):
        SOFT[name](1.0, mode="smoth")


@every_mode
def test_round_keeps_its_place_far_from_0_and_at_any_softness(mode):
    far = np.array([1e8, -3e9, 1e20, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(at(mode, far, 5.0)["value"]["round"], far)
    near = np.array([100.3, -7.8, 0.5, 1.5, 2.0], np.float32)
    np.testing.assert_allclose(at(mode, near, 5.0)["value"]["round"], near, atol=1e-3)
    pace = at(mode, near[:2], 5.0)["slopes"]["round"][0]  # apart from the seams of c0
    np.testing.assert_allclose(pace, 1, atol=0.01)
    x = np.arange(-18, 19, dtype=np.float32) / 4
    k = np.arange(-200, 200)
    steps = jax.jit(lambda s: elementwise.sigmoidal(x[:, None] - k - 0.5, softness=s, mode=mode) - (k < 0))
    for softness in (1e-6, 0.05, 0.3, 0.45):
        got = at(mode, x, softness)["value"]["round"]
        np.testing.assert_allclose(got, np.sum(steps(softness), -1), atol=1e-5)
        assert (np.diff(got) > -1e-5).all()
        np.testing.assert_allclose(got[::2], x[::2], atol=1e-5)  # integers, and halfway the mean of both neighbours


@every_mode
def test_clip_at_infinity_and_between_equal_bounds(mode):
    clip = jax.jit(functools.partial(elementwise.clip, mode=mode))
    x = np.array([np.inf, -np.inf, 1e20, -1e20, 0.2], np.float32)
    np.testing.assert_allclose(clip(x, 0.0, 1.0)[:4], [1, 0, 1, 0])
    np.testing.assert_array_equal(clip(x, -np.inf, np.inf), x)
    np.testing.assert_allclose(clip(x, 0.5, 0.5), 0.5)


def test_clip_bounds_broadcast_and_must_be_in_order():
    bounds = np.array([[0.0], [0.5]]), np.array([0.5, 0.5])
    assert elementwise.clip(0.2, *bounds, mode="hard").tolist() == [[np.float32(0.2)] * 2, [0.5] * 2]
    assert jax.eval_shape(elementwise.clip, jnp.ones(2, jnp.bfloat16), 0, 1).dtype == jnp.bfloat16
    with pytest.raises(
        ValueError, match=r"a is 2.0 and b is 1.0; the lower bound a must not be above the upper bound b"
    ):
        elementwise.clip(1.0, 2.0, 1.0)
