"""Edge cases of arguments: empty axes, softness, dtypes, lists, axes, domains; rows as in test_edge_cases.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.core import soft_ops

INF, NAN = jnp.inf, jnp.nan
SOFT = ("smooth", "c0", "c1", "c2")
RAGGED = jnp.array([[3.0, 1.0, 2.0], [1.0, 5.0, 4.0]])


def close(found, wanted, tolerance=1e-5):
    np.testing.assert_allclose(np.asarray(found, np.float32), np.asarray(wanted, np.float32), atol=tolerance, rtol=1e-5)


class TestArguments:
    FUNCTIONS = (soft_ops.sort, soft_ops.argsort, soft_ops.median, soft_ops.rank, soft_ops.max, soft_ops.argmax)

    @pytest.mark.parametrize("mode", ["hard", "smooth"])
    def test_row_31_empty_input(self, mode):
        assert soft_ops.sort(jnp.zeros(0), mode=mode).shape == (0,)
        assert soft_ops.argsort(jnp.zeros(0), mode=mode).shape == (0, 0)
        assert soft_ops.argsort(jnp.zeros((2, 0)), method="sinkhorn").shape == (2, 0, 0)
        assert soft_ops.rank(jnp.zeros((2, 0)), mode=mode).shape == (2, 0)
        for function in (soft_ops.median, soft_ops.max, soft_ops.argmax):
            with pytest.raises(
                ValueError, match=r"of an empty axis \(x has shape \(0,\)\): there is no entry to choose"
            ):
                function(jnp.zeros(0), mode=mode)

    @pytest.mark.parametrize("softness", [0.0, -1.0, NAN])
    @pytest.mark.parametrize("function", [*FUNCTIONS, soft_ops.relu])
    def test_row_32_softness_that_is_known_not_to_be_positive(self, function, softness):
        with pytest.raises(
            ValueError, match=r"softness is .*; it must be above 0 \(mode='hard' gives the hard answer\)"
        ):
            function(jnp.arange(3.0), softness=softness)

    @pytest.mark.parametrize("softness", [0.0, -1.0])
    @pytest.mark.parametrize("function", [*FUNCTIONS, soft_ops.relu])
    def test_row_33_softness_that_is_not_positive_under_jit(self, function, softness):
        x = jnp.array([3.0, 1.0, 2.0])
        run = jax.jit(lambda x, s: function(x, softness=s))
        close(run(x, softness), function(x, mode="hard"))
        for gradient in jax.grad(lambda x, s: run(x, s).sum(), argnums=(0, 1))(x, softness):
            assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_row_34_softness_per_row(self, function):
        axis = {"axis": -1}
        per_row = function(RAGGED, softness=jnp.array([[0.1], [2.0]]), **axis)
        for row, softness in enumerate((0.1, 2.0)):
            close(per_row[row], function(RAGGED[row], softness=softness, **axis))
        with pytest.raises(
            ValueError, match=r"softness has shape \(3,\); for x of shape \(2, 3\) and axis=-1 .* one per row"
        ):
            function(RAGGED, softness=jnp.ones(3), **axis)

    def test_rows_35_and_36_unsigned_and_bool(self):
        assert float(soft_ops.min(jnp.array([1, 2, 3], jnp.uint8))) == pytest.approx(1)
        close(soft_ops.argmin(jnp.array([True, False])), [0.0, 1.0])

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_row_37_lists(self, function):
        close(function([3, 1, 2], softness=0.5), function(jnp.array([3.0, 1.0, 2.0]), softness=0.5))

    @pytest.mark.parametrize("function", [soft_ops.max, soft_ops.min, soft_ops.median])
    def test_row_38_several_axes(self, function):
        close(function(RAGGED, (0, 1)), function(RAGGED, None))
        with pytest.raises(TypeError, match="an order needs one axis"):
            soft_ops.sort(RAGGED[None], (0, 1))

    def test_row_40_round_of_large_numbers_and_softness(self):
        assert float(soft_ops.round(1e8)) == 1e8
        assert float(soft_ops.round(100.3, softness=5.0)) == pytest.approx(100.3, abs=1e-3)

    def test_row_42_equality_is_one_half_by_convention_and_exact_straight_through(self):
        for function, wanted in ((soft_ops.greater_st, 0.0), (soft_ops.greater_equal_st, 1.0)):
            assert float(function(1.0, 1.0, softness=1e-6)) == wanted
        assert float(soft_ops.greater(1.0, 1.0)) == float(soft_ops.greater_equal(1.0, 1.0)) == 0.5

    def test_row_43_isclose_is_a_truth_value(self):
        for softness in (1e-6, 0.1, 10.0):
            assert float(soft_ops.isclose(1.0, 1.0, softness=softness)) == 1

    def test_row_44_domain_errors_show(self):
        assert float(soft_ops.log(0.0)) == -INF
        for value in (soft_ops.log(-1.0), soft_ops.sqrt(-1.0), soft_ops.arcsin(2.0)):
            assert np.isnan(value)

    def test_row_45_norm_at_both_ends(self):
        assert float(soft_ops.norm(jnp.array([1e20, 1e20]))) == pytest.approx(np.sqrt(2) * 1e20, rel=1e-6)
        close(jax.grad(soft_ops.norm)(jnp.array([3e-25, 4e-25])), [0.6, 0.8])

    def test_row_47_a_slice_past_the_end_is_clamped(self):
        start = jnp.array([0.0, 0.0, 0.0, 1.0])
        close(
            soft_ops.dynamic_slice_in_dim(jnp.arange(4.0), start, 2),
            jax.lax.dynamic_slice_in_dim(jnp.arange(4.0), 3, 2),
        )

    def test_row_48_logic_broadcasts(self):
        assert soft_ops.logical_and(jnp.ones((3, 1)), jnp.ones((1, 3))).shape == (3, 3)
        assert soft_ops.logical_or(jnp.ones(3), 0.5).shape == (3,)

    def test_row_50_all_of_many(self):
        assert float(soft_ops.all(jnp.full(1000, 0.99), norm="geometric_mean")) == pytest.approx(0.99, rel=1e-4)

    def test_row_51_abs_lies_above(self):
        x = jnp.linspace(-1.0, 1.0, 21)
        for mode in SOFT:
            assert (soft_ops.abs(x, mode=mode) >= jnp.abs(x) - 1e-7).all()

    @pytest.mark.parametrize(("argument", "value"), [("mode", "soft"), ("scale", "zscore")])
    def test_unknown_words_are_answered_with_the_known_ones(self, argument, value):
        with pytest.raises(ValueError, match=f"{argument} is '{value}'; it must be "):
            soft_ops.sort(jnp.arange(3.0), **{argument: value})
