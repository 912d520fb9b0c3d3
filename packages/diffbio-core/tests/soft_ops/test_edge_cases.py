"""Edge cases at which soft operations of the field were seen to fail: the right behaviour, one test per case.

The rows are numbered as in the survey that found them. Where a method is not offered here (optimal transport, sorting
networks), its nearest counterpart is tested for the same quality.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import rankdata

from diffbio.core import soft_ops

INF, NAN = jnp.inf, jnp.nan
SOFT = ("smooth", "c0", "c1", "c2")
RAGGED = jnp.array([[3.0, 1.0, 2.0], [1.0, 5.0, 4.0]])
SQUARE = jnp.array([[3.0, 1.0, 2.0], [1.0, 5.0, 4.0], [2.0, 0.0, 9.0]])


def close(found, wanted, tolerance=1e-5):
    np.testing.assert_allclose(np.asarray(found, np.float32), np.asarray(wanted, np.float32), atol=tolerance, rtol=1e-5)


def weighted(function):
    return lambda x: jnp.sum(function(x) * jnp.arange(1.0, 1.0 + function(x).size).reshape(function(x).shape))


class TestRanks:
    @pytest.mark.parametrize("x", [SQUARE, SQUARE[:2, :2], RAGGED], ids=["3 x 3", "2 x 2", "2 x 3"])
    @pytest.mark.parametrize("axis", [0, 1, -1, -2])
    def test_rows_1_to_3_hard_and_straight_through_on_any_axis(self, x, axis):
        wanted = rankdata(x, axis=axis)
        close(soft_ops.rank(x, axis, mode="hard"), wanted, 0)
        close(soft_ops.rank_st(x, axis, softness=0.5), wanted, 0)

    def test_row_4_all_entries_as_one_row(self):
        close(soft_ops.rank_st(RAGGED, None), rankdata(RAGGED), 0)
        assert jax.grad(lambda x: soft_ops.rank_st(x, None, softness=1.0)[0])(RAGGED).shape == RAGGED.shape

    @pytest.mark.parametrize("function", [soft_ops.rank, soft_ops.sort, soft_ops.argsort, soft_ops.median])
    @pytest.mark.parametrize("mode", ["hard", "smooth"])
    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
    def test_rows_5_and_54_half_precision_comes_back(self, function, mode, dtype):
        assert function(jnp.array([3, 1, 2], dtype), mode=mode).dtype == dtype

    @pytest.mark.parametrize("method", ["prefix", "pairwise", "permutahedron"])
    def test_row_26_gradient_at_ties_is_bounded_and_symmetric(self, method):
        n, softness = 6, 0.1
        weights = jnp.arange(n) - (n - 1) / 2
        gradient = jax.grad(lambda x: (soft_ops.rank(x, softness=softness, method=method) * weights).sum())(jnp.ones(n))
        close(gradient, -gradient[::-1], 1e-4)
        if method != "permutahedron":
            assert float(
                jnp.abs(jax.jacobian(lambda x: soft_ops.rank(x, softness=softness, method=method))(jnp.ones(n))).max()
            ) <= n / (4 * softness)
        assert jnp.isfinite(gradient).all()

    def test_section_2_2_ranks_stay_in_range_and_sum_up(self):
        x = jax.random.normal(jax.random.key(0), (1000,))
        for mode in SOFT:
            ranks = soft_ops.rank(x, softness=0.1, mode=mode)
            assert 1 <= float(ranks.min()) < float(ranks.max()) <= 1000
            assert float(ranks.sum()) == pytest.approx(500500, rel=1e-5)


class TestQuantiles:
    q = jnp.array([0.25, 0.5])

    @pytest.mark.parametrize("mode", ["hard", "smooth"])
    @pytest.mark.parametrize("axis", [None, 0, 1])
    @pytest.mark.parametrize("keepdims", [False, True])
    @pytest.mark.parametrize("q", [0.5, q], ids=["one q", "two"])
    def test_rows_6_to_8_shapes_of_vector_q(self, mode, axis, keepdims, q):
        wanted = jnp.quantile(RAGGED, q, axis=axis, keepdims=keepdims)
        found = soft_ops.quantile(RAGGED, q, axis, keepdims=keepdims, mode=mode, softness=1e-5)
        assert found.shape == wanted.shape
        close(found, wanted, 1e-4)

    @pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "nearest", "midpoint"])
    def test_row_9_percentile_interpolates_as_asked(self, interpolation):
        found = soft_ops.percentile(RAGGED, 30.0, 1, interpolation=interpolation, softness=1e-5)
        close(found, jnp.percentile(RAGGED, 30.0, axis=1, method=interpolation), 1e-4)

    @pytest.mark.parametrize("method", ["threshold", "softsort", "neuralsort"])
    def test_rows_29_and_30_accuracy(self, method):
        close(soft_ops.median(jnp.array([1.0, 2.0, 3.0, 4.0, 100.0]), method=method), 3.0, 0.02)
        close(soft_ops.quantile(jnp.arange(11.0), jnp.array([0.25, 0.75]), method=method), [2.5, 7.5], 0.02)


class TestTopK:
    @pytest.mark.parametrize("function", [soft_ops.top_k, soft_ops.top_k_mask, soft_ops.top_k_st])
    @pytest.mark.parametrize("k", [4, -1])
    def test_row_10_k_out_of_range(self, function, k):
        with pytest.raises(ValueError, match=f"k is {k}; it must be between 0 and 3, the number of entries"):
            function(jnp.arange(3.0), k)

    def test_row_10_k_at_its_bounds(self):
        x = jnp.array([3.0, 1.0, 2.0])
        assert soft_ops.top_k(x, 0).values.shape == (0,)
        assert soft_ops.top_k_mask(x, 0).tolist() == [0.0] * 3
        close(soft_ops.top_k(x, 3).values, [3.0, 2.0, 1.0])
        assert soft_ops.top_k_mask(x, 3).tolist() == [1.0] * 3

    def test_row_11_every_method_of_the_signature_works(self):
        for name in ("sort", "argsort", "rank", "top_k", "quantile", "max"):
            function = getattr(soft_ops, name)
            for method in inspect.signature(function, eval_str=True).parameters["method"].annotation.__args__:
                extra = {"top_k": (2,), "quantile": (0.5,)}.get(name, ())
                assert np.isfinite(jax.tree.leaves(function(jnp.arange(3.0), *extra, method=method))[0]).all()
        with pytest.raises(ValueError, match="method is 'smooth_sort'; it must be 'auto', 'softsort' or 'neuralsort'"):
            soft_ops.top_k(jnp.arange(3.0), 2, method="smooth_sort")

    @pytest.mark.parametrize("mode", SOFT)
    @pytest.mark.parametrize("scale", [1e-20, 1e8, 1e20])
    def test_row_12_mask_sums_to_k_at_any_scale(self, mode, scale):
        mask = soft_ops.top_k_mask(
            scale * jnp.array([3.0, 1.0, 2.0, -5.0]), 2, mode=mode, softness=min(1.0, scale) * 1e-3
        )
        close(mask, [1.0, 0.0, 1.0, 0.0])

    def test_row_13_bfloat16_sums_to_k(self):
        x = jax.random.normal(jax.random.key(0), (1000,)).astype(jnp.bfloat16)
        mask = soft_ops.top_k_mask(x, 100, softness=0.1)
        assert mask.dtype == jnp.bfloat16
        assert float(mask.astype(jnp.float32).sum()) == pytest.approx(100, rel=2e-3)

    @pytest.mark.parametrize("mode", SOFT)
    def test_row_14_an_infinite_entry(self, mode):
        x = jnp.array([-INF, 1.0, 1.1, 2.0, INF])
        mask = soft_ops.top_k_mask(x, 2.5, softness=0.1, mode=mode)
        close(mask[jnp.array([0, 4])], [0.0, 1.0])
        assert float(mask.sum()) == pytest.approx(2.5, rel=1e-5)
        gradient = jax.grad(lambda x: soft_ops.top_k_mask(x, 2.5, softness=0.1, mode=mode)[2])(x)
        assert np.isfinite(gradient).all()
        assert gradient[2] > 0

    def test_row_39_traced_k(self):
        assert jax.jit(lambda k: soft_ops.top_k_mask(jnp.arange(5.0), k, softness=1e-3))(2).tolist() == [0, 0, 0, 1, 1]
        with pytest.raises(TypeError, match=r"k of top_k is traced, .* top_k_mask takes a traced k"):
            jax.jit(lambda k: soft_ops.top_k(jnp.arange(5.0), k))(2)


class TestInfinities:
    x = jnp.array([2.0, INF, -INF, 1.0])

    @pytest.mark.parametrize("mode", SOFT)
    def test_row_15_sort_puts_infinities_at_the_ends(self, mode):
        assert soft_ops.sort(self.x, softness=0.01, mode=mode).tolist() == [-INF, 1.0, 2.0, INF]

        def finite_part(x, softness):
            return soft_ops.sort(x, softness=softness, mode=mode)[1:3] @ jnp.array([1.0, 2.0])

        for gradient in jax.grad(finite_part, argnums=(0, 1))(self.x, 0.3):
            assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("method", ["softsort", "neuralsort", "sinkhorn", "permutahedron"])
    def test_row_15_nan_goes_last_in_either_direction_and_has_no_gradient(self, method):
        for mode in {"sinkhorn": ("smooth",), "permutahedron": ("smooth", "c0")}.get(method, SOFT):
            for descending, wanted in ((False, [1.0, 2.0, NAN]), (True, [2.0, 1.0, NAN])):

                def ordered(x, mode=mode, descending=descending):
                    return soft_ops.sort(x, softness=0.1, mode=mode, method=method, descending=descending)

                x = jnp.array([2.0, NAN, 1.0])
                np.testing.assert_allclose(ordered(x), wanted, atol=1e-3, err_msg=mode)
                gradient = jax.grad(lambda x, ordered=ordered: ordered(x)[:2].sum())(x)
                np.testing.assert_allclose(gradient, [1.0, 0.0, 1.0], atol=1e-2, err_msg=mode)

    @pytest.mark.parametrize("mode", [*SOFT, "hard"])
    def test_row_15_nan_shows_in_ranks_membership_and_quantiles(self, mode):
        """As in scipy and numpy; masked, it changes nothing."""
        x, where = jnp.array([[2.0, NAN, 1.0], [3.0, 1.0, 2.0]]), jnp.array([True, False, True])
        rank_methods = ("auto", "pairwise", "permutahedron")[: 3 if mode in ("smooth", "c0", "hard") else 2]
        for of_rows in (
            *(functools.partial(soft_ops.rank, method=method) for method in rank_methods),
            functools.partial(soft_ops.top_k_mask, k=1.5),
            functools.partial(soft_ops.quantile, q=0.3, axis=-1),
            functools.partial(soft_ops.argquantile, q=0.3, axis=-1),
            functools.partial(soft_ops.max, axis=-1),
        ):
            found = of_rows(x, mode=mode)
            assert np.isnan(found[0]).all(), of_rows
            assert np.isfinite(found[1]).all(), of_rows
            assert np.isfinite(of_rows(x, mode=mode, where=where)).all(), of_rows

    @pytest.mark.parametrize("mode", SOFT)
    @pytest.mark.parametrize("scale", ["absolute", "robust"])
    def test_rows_16_and_17_minus_infinity_has_no_mass_and_no_nan(self, mode, scale):
        x = jnp.array([1.0, -INF, 2.0, 1.5, 0.5])
        weights = soft_ops.argmax(x, softness=0.1, mode=mode, scale=scale)
        assert weights[1] == 0
        assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
        value, gradient = jax.value_and_grad(lambda x: soft_ops.max(x, softness=0.1, mode=mode, scale=scale))(x)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()

    def test_row_18_straight_through_passes_infinities(self):
        assert soft_ops.sort_st(self.x).tolist() == [-INF, 1.0, 2.0, INF]
        assert soft_ops.max_st(self.x) == INF
        assert soft_ops.min_st(self.x) == -INF

    def test_row_41_clip_of_infinity(self):
        for mode in SOFT:
            assert float(soft_ops.clip(INF, 0.0, 1.0, mode=mode)) == pytest.approx(1)
            assert float(jax.grad(lambda x, m=mode: soft_ops.clip(x, 0.0, 1.0, mode=m))(INF)) == 0

    def test_row_46_weight_0_hides_what_is_not_finite(self):
        value, gradient = jax.value_and_grad(lambda c: soft_ops.where(c, 1.0, NAN))(1.0)
        assert value == 1
        assert np.isfinite(gradient)
        assert soft_ops.take_along_axis(jnp.array([1.0, INF]), jnp.array([[1.0, 0.0]])).tolist() == [1.0]

    def test_row_49_nan_stays_nan(self):
        assert np.isnan(soft_ops.heaviside(NAN, mode="hard"))
        assert np.isnan(soft_ops.heaviside(NAN))


class TestScales:
    @pytest.mark.parametrize("scale", [1e-20, 1e20])
    @pytest.mark.parametrize(
        "function", [soft_ops.sort, soft_ops.argsort, soft_ops.rank, soft_ops.max, soft_ops.median]
    )
    def test_row_19_results_scale_with_the_input(self, function, scale):
        x = jnp.array([3.0, -1.0, 2.0, 0.5])
        wanted = function(x, softness=0.3)
        unit = scale if function in (soft_ops.sort, soft_ops.max, soft_ops.median) else 1.0
        close(function(scale * x, softness=scale * 0.3) / unit, wanted, 1e-4)
        gradient = jax.grad(lambda x: (function(x, softness=scale * 0.3) / unit).sum())(scale * x)
        assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("scale", [1e-20, 1e20])
    def test_row_19_default_softness_gives_no_nan(self, scale):
        x = scale * jnp.array([3.0, -1.0, 2.0, 0.5])
        for function in (soft_ops.sort, soft_ops.rank, soft_ops.max, soft_ops.median, soft_ops.argmax):
            value, gradient = function(x), jax.grad(weighted(function))(x)
            assert np.isfinite(value).all()
            assert np.isfinite(gradient).all()

    def test_rows_20_and_21_half_precision(self):
        x = jnp.array([100, 200, 1000], jnp.float16)
        for method in ("softsort", "neuralsort", "permutahedron"):
            mode = "c0" if method == "permutahedron" else "smooth"
            softness = 1e-3 if method == "permutahedron" else 1.0
            assert soft_ops.sort(x, softness=softness, method=method, mode=mode).tolist() == [100, 200, 1000]
        many = jax.random.normal(jax.random.key(0), (512,)).astype(jnp.bfloat16)
        for method in ("softsort", "neuralsort"):
            found = soft_ops.sort(many, softness=1e-3, method=method).astype(jnp.float32)
            close(found, jnp.sort(many).astype(jnp.float32), 0.02)

    def test_row_22_one_outlier_moves_nothing_else(self):
        for mode in SOFT:
            close(
                soft_ops.sort(jnp.array([1.0, 2.0, 3.0, 4.0, 1e4]), softness=0.01, mode=mode), [1, 2, 3, 4, 1e4], 1e-3
            )

    @pytest.mark.parametrize("mode", SOFT)
    def test_row_23_an_irrelevant_low_value_pulls_nothing(self, mode):
        for softness in (0.01, 0.1, 1.0):
            without = soft_ops.max(jnp.array([1.0, 2.0]), softness=softness, mode=mode)
            close(soft_ops.max(jnp.array([1.0, 2.0, -100.0]), softness=softness, mode=mode), without)
            assert float(without) >= 2

    @pytest.mark.parametrize("mode", SOFT)
    def test_row_24_the_excess_over_the_maximum_is_bounded(self, mode):
        n, softness = 51, 0.5
        x = jnp.concatenate([jnp.ones(n - 1), jnp.array([1e4])])
        bound = {"smooth": np.log(n), "c0": 1 / 2, "c1": 4 / 3, "c2": 9 / 4}[mode] * softness
        for values in (x, jnp.ones(n)):
            excess = float(soft_ops.max(values, softness=softness, mode=mode) - values.max())
            assert -1e-6 <= excess <= bound + 1e-6
        for name in ("softsort", "neuralsort"):
            assert float(soft_ops.sort(x, softness=softness, mode=mode, method=name)[-1]) <= 1e4

    def test_row_25_noise_is_amplified_only_when_asked_for(self):
        x = 1 + 1e-2 * jnp.array([0.0, 1.0, 2.0])
        close(soft_ops.argmax(x, softness=1.0), [1 / 3] * 3, 0.01)
        robust = soft_ops.argmax(x, softness=1.0, scale="robust")
        close(robust, soft_ops.argmax(jnp.array([0.0, 1.0, 2.0]), softness=1.0, scale="robust"), 1e-3)

    def test_row_52_tiny_softness_beside_values_of_100(self):
        x = 100 + jax.random.normal(jax.random.key(0), (20,))
        for mode in SOFT:
            close(soft_ops.argmax(x, softness=1e-6, mode=mode), jax.nn.one_hot(x.argmax(), 20))


class TestGradients:
    @pytest.mark.parametrize("method", ["softsort", "neuralsort", "sinkhorn", "permutahedron"])
    def test_rows_27_and_55_equal_entries_share_the_gradient(self, method):
        gradient = jax.grad(weighted(lambda x: soft_ops.sort(x, softness=0.1, method=method)))(jnp.ones(4))
        close(gradient, jnp.full(4, 2.5), 1e-3)

    def test_row_26_argmax_at_ties(self):
        jacobian = jax.jacobian(lambda x: soft_ops.argmax(x, softness=0.1))(jnp.ones(4))
        close(jacobian, jacobian.T)
        assert float(jnp.abs(jacobian).max()) <= 4 / (4 * 0.1)

    @pytest.mark.parametrize("mode", SOFT)
    def test_row_28_gradient_of_max_is_a_distribution_that_rises_with_x(self, mode):
        gradient = jax.grad(lambda x: soft_ops.max(x, softness=1.0, mode=mode))(jnp.array([3.0, 1.0, 2.0]))
        assert (gradient >= 0).all()
        assert float(gradient.sum()) == pytest.approx(1, abs=1e-6)
        assert gradient[0] >= gradient[2] >= gradient[1]

    @pytest.mark.parametrize("method", ["softsort", "permutahedron"])
    def test_row_53_forward_mode(self, method):
        x = jnp.array([3.0, 1.0, 2.0])
        for function in (
            lambda x: soft_ops.sort(x, softness=0.5, method=method),
            lambda x: soft_ops.top_k_mask(x, 1.5, softness=0.5),
            lambda x: soft_ops.median(x, softness=0.5),
            lambda x: soft_ops.rank(x, softness=0.5),
        ):
            close(jax.jacfwd(function)(x), jax.jacrev(function)(x), 1e-5)

    def test_row_56_four_ties_stay_ties(self):
        for method in ("softsort", "neuralsort", "permutahedron"):
            close(soft_ops.sort(jnp.ones(4), softness=0.5, method=method), jnp.ones(4))

    def test_row_57_rows_do_not_see_each_other(self):
        x = jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 1e6]])
        for method in ("softsort", "neuralsort", "permutahedron", "sinkhorn"):
            alone = soft_ops.sort(x[0], softness=0.1, method=method)
            close(soft_ops.sort(x, softness=0.1, method=method)[0], alone)

    def test_row_58_doubly_stochastic_when_asked_for(self):
        x = jax.random.normal(jax.random.key(0), (8,))
        weights = soft_ops.argsort(x, softness=0.3, method="sinkhorn")
        close(weights.sum(0), jnp.ones(8), 1e-3)
        close(weights.sum(1), jnp.ones(8), 1e-5)
