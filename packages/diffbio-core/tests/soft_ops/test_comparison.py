"""Soft comparisons: jnp's answers in the limit, exact values at equality, and gradients at ties and infinities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core.soft_ops import comparison

MODES = ["smooth", "c0", "c1", "c2"]
NAMES = ["greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "isclose"]
AT_EQUALITY = dict(zip(NAMES, [0.5, 0.5, 0.5, 0.5, 1, 0, 1], strict=True))
EDGES = np.array([0.0, 1.0, -1.0, 1e-20, -1e-20, 1e20, -1e20, 3e38, -3e38, np.inf, -np.inf], np.float32)
PAIRS = tuple(side.ravel() for side in np.meshgrid(EDGES, EDGES))
every_mode = pytest.mark.parametrize("mode", MODES)
every_function = pytest.mark.parametrize("name", NAMES)


def all_of_them(x, y, softness=0.1, **options):
    return {name: getattr(comparison, name)(x, y, softness=softness, **options) for name in NAMES}


@functools.cache
def _compiled(mode):
    one = functools.partial(all_of_them, mode=mode)

    def derived(x, y, s):
        slopes = jax.jacrev(one, (0, 1, 2))(x, y, s)
        return {"value": one(x, y, s), "slopes": slopes, "bend": jax.hessian(one)(x, y, s)}

    return jax.jit(jax.vmap(derived))


def at(mode, x, y, softness=0.1):
    """Value, slopes (in x, y and the softness) and second derivative (in x) by name, of up to 128 entries.

    All have one shape, so that each mode is compiled once for the whole file.
    """
    given = np.broadcast_arrays(*(np.asarray(one, np.float32) for one in (x, y, softness)))
    found = _compiled(mode)(*(np.resize(one, 128) for one in given))
    return jax.tree.map(lambda result: np.asarray(result)[: given[0].size], found)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_, jnp.bfloat16, jnp.float16, jnp.float32])
def test_hard_mode_is_jnp_and_results_are_floats(dtype):
    floating = jnp.issubdtype(dtype, jnp.floating)
    x = np.array([0.0, 1.0, 2.0, 200.0] + floating * [-0.5, np.nan, np.inf, -np.inf])
    x, y = (np.asarray(side.ravel()).astype(dtype) for side in np.meshgrid(x, x))
    hard, classical, soft = jax.jit(
        lambda x, y: (
            all_of_them(x, y, mode="hard"),
            {name: getattr(jnp, name)(x, y) for name in NAMES},
            all_of_them(x, y, 1e-6, mode="c0"),
        )
    )(x, y)
    nan = np.isnan(x.astype(float)) | np.isnan(y.astype(float))
    apart = ~nan & (x != y)
    for name, result in hard.items():
        assert result.dtype == soft[name].dtype == (dtype if floating else jnp.float32)
        expected, relaxed = (np.asarray(answer[name]).astype(float) for answer in (classical, soft))
        np.testing.assert_array_equal(np.asarray(result).astype(float), expected, err_msg=name)
        np.testing.assert_array_equal(np.isnan(relaxed), nan)
        np.testing.assert_allclose(relaxed[apart], expected[apart], atol=1e-6)


def test_integers_too_large_for_floats_are_told_apart_in_hard_mode():
    assert float(comparison.greater(2**24 + 1, 2**24, mode="hard")) == 1
    assert float(comparison.equal(2**24 + 1, 2**24, mode="hard")) == 0


@every_mode
def test_values_at_equality_are_exact_at_every_softness(mode):
    for softness in (1e-6, 0.1, 1e6):
        for name, value in at(mode, EDGES, EDGES, softness)["value"].items():
            np.testing.assert_array_equal(value, np.full(value.shape, AT_EQUALITY[name]), err_msg=name)


def test_strict_and_not_strict_differ_at_equality_in_hard_mode_only():
    answers = {name: float(value) for name, value in all_of_them(1.0, 1.0, mode="hard").items()}
    assert [answers[name] for name in NAMES] == [0, 1, 0, 1, 1, 0, 1]


@every_mode
def test_limit_is_the_hard_answer_also_when_a_traced_softness_is_not_positive(mode):
    x, y = np.array([0.0, 1.0, 1.0, 1e20], np.float32), np.array([0.5, 1.0, 0.9, -np.inf], np.float32)
    for softness in (1e-6, 0.0, -1.0):
        found = at(mode, x, y, softness)
        for name, value in found["value"].items():
            expected = np.where(x == y, AT_EQUALITY[name], getattr(np, name)(x, y))
            np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=name)
            assert all(np.isfinite(slope).all() for slope in found["slopes"][name][:2]), name


@every_mode
def test_closed_forms(mode):
    d = np.linspace(-1.2, 1.2, 49, dtype=np.float32)
    z = d / 0.25
    t = np.clip(z / {"smooth": 1, "c0": 2, "c1": 3, "c2": 3.75}[mode], -1, 1)
    forms = {"c0": (1 + t) / 2, "c1": 0.5 + (3 * t - t**3) / 4, "c2": 0.5 + (15 * t - 10 * t**3 + 3 * t**5) / 16}
    truth = forms.get(mode, 1 / (1 + np.exp(-z)))
    bump = 4 * truth * (1 - truth)
    got = at(mode, d, 0.0, 0.25)["value"]
    for name, wanted in zip(NAMES, [truth, truth, 1 - truth, 1 - truth, bump, 1 - bump, bump], strict=True):
        np.testing.assert_allclose(got[name], wanted, atol=2e-6, err_msg=name)


@every_mode
def test_results_stay_in_the_unit_interval(mode):
    x = np.append(np.linspace(-1e-3, 1e-3, 2001), np.linspace(-2, 2, 999)).astype(np.float32)
    for name, value in jax.jit(lambda x: all_of_them(x, 0.0, mode=mode))(x).items():
        assert value.min() >= 0, name
        assert value.max() <= 1, name


@every_mode
def test_isclose_is_1_within_the_tolerance_and_falls_beyond(mode):
    y = np.array([-2.0, 0.0, 3.0], np.float32)
    x = y + np.linspace(-1.0, 1.0, 41, dtype=np.float32)[:, None]
    close = functools.partial(comparison.isclose, rtol=0.1, atol=0.05, softness=0.05, mode=mode)
    got = np.asarray(jax.jit(close)(x, y))
    excess = np.abs(x - y) - (0.05 + 0.1 * np.abs(y))
    assert (got[excess < -1e-6] == 1).all()
    assert (got[excess > 0.01] < 1).all()
    half = {"smooth": 1.763, "c0": 1.414, "c1": 1.48, "c2": 1.51}[mode]  # where 4 F(z) F(-z) is about 1/2
    np.testing.assert_array_equal(got > 0.5, excess < 0.05 * half)
    at_infinity = at(mode, [np.inf, np.inf, 1, np.inf], [np.inf, -np.inf, np.inf, 1])["value"]["isclose"]
    assert at_infinity.tolist() == [1, 0, 0, 0]


@every_mode
def test_derivatives_are_right(mode):
    x, y, s, h = np.array([-0.7, -0.2, 0.3, 0.83]), np.array([0.31, -0.33, 0.17, -1.4]), 0.41, 5e-3
    in_x = at(mode, x + h, y, s), at(mode, x - h, y, s)
    in_y = at(mode, x, y + h, s), at(mode, x, y - h, s)
    in_softness = at(mode, x, y, s + h), at(mode, x, y, s - h)
    here = at(mode, x, y, s)
    for name in NAMES:
        for slope, (higher, lower) in zip(here["slopes"][name], (in_x, in_y, in_softness), strict=True):
            difference = (higher["value"][name] - lower["value"][name]) / (2 * h)
            np.testing.assert_allclose(slope, difference, atol=2e-3, err_msg=name)
        if mode in ("smooth", "c2"):
            difference = (in_x[0]["slopes"][name][0] - in_x[1]["slopes"][name][0]) / (2 * h)
            np.testing.assert_allclose(here["bend"][name], difference, atol=2e-2, err_msg=name)


def test_derivatives_are_right_to_double_precision():
    with jax.enable_x64(True):
        given = np.array([-0.9, 0.3]), np.array([0.1, 0.2]), 0.31
        check_grads(jax.jit(all_of_them), given, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_equal_bends_at_equality_as_it_should():
    bend = at("smooth", 1.0, 1.0, 0.5)["bend"]["equal"]
    assert np.isclose(bend, -8 * 0.25**2 / 0.5**2)  # 4 F(z) F(-z) bends as -8 F'(0)^2


@pytest.mark.parametrize("mode", [*MODES, "hard"])
def test_gradients_are_finite_at_ties_and_at_any_magnitude(mode):
    for softness, inputs in [(1e-30, "xy"), (1e-18, "xys"), (0.1, "xys"), (1e10, "xys")]:
        for name, slopes in at(mode, *PAIRS, softness)["slopes"].items():
            for by, slope in zip(inputs, slopes, strict=False):
                assert np.isfinite(slope).all(), (name, softness, by)


@pytest.mark.parametrize("mode", ["smooth", "c2"])
def test_masked_entries_are_0_without_gradient(mode):
    x, y = np.array([np.nan, 0.3, np.inf, -0.2], np.float32), np.array([0.0, 0.25, -np.inf, np.nan], np.float32)
    where = np.array([False, True, False, False])
    masked = functools.partial(all_of_them, mode=mode, where=where)
    values, slopes = jax.jit(lambda x, y: (masked(x, y), jax.jacrev(masked, (0, 1))(x, y)))(x, y)
    alone = at(mode, x, y)
    for name, value in values.items():
        np.testing.assert_allclose(value, np.where(where, alone["value"][name], 0), rtol=1e-6)
        for slope, wanted in zip(slopes[name], alone["slopes"][name][:2], strict=True):
            np.testing.assert_allclose(slope, np.diag(np.where(where, wanted, 0)), rtol=1e-6)


def test_masked_entries_are_0_in_hard_mode():
    x, where = np.array([np.nan, 0.3, np.inf], np.float32), np.array([False, True, False])
    assert comparison.equal(x, x, mode="hard", where=where).tolist() == [0, 1, 0]


@every_function
def test_arguments_broadcast_and_may_be_lists(name):
    function = getattr(comparison, name)
    x, y, softness = [0, 1, 2], np.array([[0.5], [1.0]], np.float32), np.array([0.1, 0.2, 0.3], np.float32)
    table = jax.jit(lambda y: function(x, y, softness=softness))(y)
    assert jax.eval_shape(lambda y: function(x, y, softness=softness, mode="hard"), y).shape == table.shape == (2, 3)
    np.testing.assert_allclose(table, [at("smooth", x, row, softness)["value"][name] for row in y], rtol=1e-5)
    assert jax.eval_shape(function, jnp.ones(3, jnp.bfloat16), 1).dtype == jnp.bfloat16


@every_function
def test_wrong_softness_and_mode_are_refused(name):
    function = getattr(comparison, name)
    for softness in (0.0, -1.0, np.array([0.1, 0.0])):
        with pytest.raises(
            ValueError, match=r"softness is .*; it must be above 0 \(mode='hard' gives the hard answer\)"
        ):
            function(1.0, 2.0, softness=softness)
    with pytest.raises(ValueError, match="mode is 'smoth'; it must be one of 'hard', 'smooth', 'c0', 'c1', 'c2'"):
        function(1.0, 2.0, mode="smoth")
