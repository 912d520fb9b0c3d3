"""The edge cases on which a comparable library fails, by their numbers in the study of the field, and what is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, SOFT_MODES
from scipy.stats import rankdata

from diffbio.core import soft_ops

INF, NAN = np.inf, np.nan
ROWS = {}
by_name = {case.name: case for case in CASES}
SORTS, ARGSORTS, QUANTILES, MAXIMA = (
    [{"mode": mode, "method": method} for mode, method in by_name[name].combinations()]
    for name in ("sort", "argsort", "quantile", "max")
)
LOCAL_SORTS = [options for options in SORTS if options["method"] == "softsort"]
IN_BLOCKS = [options for options in SORTS if options["method"] == "permutahedron"]
BY_WEIGHTS = [options for options in SORTS if options["method"] != "permutahedron"]


def row(*numbers, what):
    """Note a check as that of these rows."""

    def note(check):
        ROWS.update(dict.fromkeys(numbers, (what, check)))
        return check

    return note


def close(found, wanted, tolerance=1e-5):
    assert found.shape == np.shape(wanted)
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(wanted, np.float64), tolerance, tolerance)


def weighted_gradient(function, x):
    """Return the gradient of the results with weights 1, 2, ..., infinite ones left out."""

    def loss(x):
        result = function(x)
        weights = jnp.arange(1.0, 1.0 + result.size).reshape(result.shape)
        return (jnp.where(jnp.isfinite(result), result, 0) * weights).sum()

    return jax.grad(loss)(jnp.asarray(x))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@row(1, 2, 3, what="hard rank and rank_st along axis 0")
def _():
    for shape in ((3, 3), (2, 2), (2, 3)):
        x = normal(*shape)
        close(soft_ops.rank(x, 0, mode="hard"), rankdata(x, axis=0), 0)
        close(soft_ops.rank_st(x, 0), rankdata(x, axis=0), 0)


@row(4, what="rank_st of all entries")
def _():
    x = normal(2, 3)
    close(soft_ops.rank_st(x, None), rankdata(x), 0)


@row(5, what="hard rank of bfloat16 stays bfloat16")
def _():
    found = soft_ops.rank(jnp.array([3, 1, 2], jnp.bfloat16), mode="hard")
    assert found.dtype == jnp.bfloat16
    close(found, [3, 1, 2], 0)


@row(6, 7, 8, what="shapes of quantiles with a vector of q, all axes and keepdims")
def _():
    x = normal(2, 3)
    for q in (0.3, np.array([0.3, 0.8])):
        for axis in (0, -1, None, (0, 1)):
            for keepdims in (False, True):
                wanted = jnp.quantile(x, q, axis=axis, keepdims=keepdims)
                close(soft_ops.quantile(x, q, axis, softness=1e-6, keepdims=keepdims), wanted)
                entries = 6 if axis in (None, (0, 1)) else x.shape[axis]
                shares = soft_ops.argquantile(x, q, axis, keepdims=keepdims)
                assert shares.shape == (*wanted.shape, entries)


@row(9, what="percentile takes the options of quantile")
def _():
    options = {"method": "softsort", "interpolation": "lower", "mode": "c1", "softness": 0.2}
    x = normal(6)
    close(soft_ops.percentile(x, 40.0, **options), soft_ops.quantile(x, 0.4, **options), 0)


@row(10, what="top_k of more entries than there are")
def _():
    for k in (4, -1):
        for function in (soft_ops.top_k, soft_ops.top_k_mask):
            with pytest.raises(ValueError, match=f"k is {k}; it must be between 0 and 3"):
                function(jnp.arange(3.0), k)


@row(11, what="every method of top_k that is offered works, others are refused")
def _():
    for method in ("auto", "softsort", "neuralsort"):
        close(soft_ops.top_k(jnp.array([1.0, 3.0, 2.0]), 2, softness=1e-3, method=method).values, [3, 2])
    with pytest.raises(ValueError, match="method is 'smooth_sort'; it must be 'auto', 'softsort' or 'neuralsort'"):
        soft_ops.top_k(jnp.arange(3.0), 2, method="smooth_sort")


@row(12, what="top_k_mask of values of size 1e8")
def _():
    x = 1e8 * normal(6)
    for mode in SOFT_MODES:
        for softness in (0.01, 1e6, 1e8):
            mask = soft_ops.top_k_mask(x, 2, softness=softness, mode=mode)
            assert abs(float(mask.sum()) - 2) < 1e-4
        close(soft_ops.top_k_mask(x, 2, mode=mode), x >= np.sort(x)[-2])


@row(13, what="top_k_mask of bfloat16 sums to k but for the rounding of each entry")
def _():
    x = jnp.asarray(normal(1000), jnp.bfloat16)
    for mode in SOFT_MODES:
        mask = soft_ops.top_k_mask(x, 100, softness=0.1, mode=mode)
        assert mask.dtype == jnp.bfloat16
        assert abs(float(mask.astype(jnp.float32).sum()) - 100) < 100 * 2**-9


@row(14, what="top_k_mask with an entry of -inf")
def _():
    x = normal(6)
    x[2] = -INF
    rest = np.delete(np.arange(6), 2)
    for mode in SOFT_MODES:

        def mask(x, mode=mode):
            return soft_ops.top_k_mask(x, 2, softness=0.5, mode=mode)

        close(mask(x)[rest], mask(x[rest]))
        assert mask(x)[2] == 0
        gradient = weighted_gradient(lambda x: mask(x)[rest], x)
        close(gradient[rest], weighted_gradient(mask, x[rest]))
        assert gradient[2] == 0
        assert jnp.abs(gradient).max() > 0.01


@row(15, what="sort with infinities and NaN")
def _():
    for options in BY_WEIGHTS:
        if options["method"] != "neuralsort":  # its scores hold the distances to all entries: finite ones only
            close(soft_ops.sort(jnp.array([3.0, INF, 1.0, -INF]), **options), [-INF, 1, 3, INF])
    for options in LOCAL_SORTS:
        close(soft_ops.sort(jnp.array([3.0, NAN, 1.0, 2.0]), **options), [1, 2, 3, NAN])


@row(16, what="argmax with a -inf, in units of the robust spread")
def _():
    x = np.array([1.0, 2.0, -INF, 1.5, 0.5, 1.2], np.float32)
    for mode in SOFT_MODES:
        shares = soft_ops.argmax(x, mode=mode, scale="robust", softness=0.5)
        assert shares[2] == 0
        close(shares.sum(), 1)
        assert jnp.argmax(shares) == 1
        gradient = weighted_gradient(lambda x, mode=mode: soft_ops.argmax(x, mode=mode, softness=0.5), x)
        assert np.isfinite(gradient).all()


@row(17, what="max with a -inf")
def _():
    x = np.array([1.0, 1.2, -INF], np.float32)
    for options in MAXIMA:
        close(soft_ops.max(x, **options), soft_ops.max(x[:2], **options))
        gradient = jax.grad(lambda x, options=options: soft_ops.max(x, **options))(jnp.asarray(x))
        close(gradient[:2], jax.grad(lambda x, options=options: soft_ops.max(x, **options))(jnp.asarray(x[:2])))
        assert gradient[2] == 0


@row(18, what="sort_st and max_st with infinities")
def _():
    x = jnp.array([3.0, INF, 1.0, -INF])
    for options in SORTS:
        close(soft_ops.sort_st(x, **options), [-INF, 1, 3, INF], 0)
    for options in MAXIMA:
        assert soft_ops.max_st(x, **options) == INF
        assert soft_ops.max_st(-x[:3], **options) == -1


@row(19, what="entries of size 1e20")
def _():
    x, wanted = 1e20 * np.array([3.0, -1.0, 2.0], np.float32), np.array([-1, 2, 3])
    for options in BY_WEIGHTS:
        for softness in (0.01, 1e17):
            close(soft_ops.sort(x, softness=softness, **options) / 1e20, wanted)
    for options in IN_BLOCKS:
        close(soft_ops.sort(x, softness=1e-22, **options) / 1e20, wanted)


@row(20, what="float16 whose variance overflows")
def _():
    x = jnp.array([1000, 100, 200], jnp.float16)
    for options in SORTS:
        softness = 1e-4 if options["method"] == "permutahedron" else 0.01
        found = soft_ops.sort(x, softness=softness, **options)
        assert found.dtype == jnp.float16
        close(found, [100, 200, 1000], 1e-3)


@row(21, what="half precision, n = 512 and softness 0.001")
def _():
    for dtype, rounding in ((jnp.bfloat16, 2**-8), (jnp.float16, 2**-11)):
        x = jnp.asarray(normal(512), dtype)
        for options in SORTS:
            if options["method"] != "sinkhorn":  # O(n^2) 100 times: below
                error = jnp.abs(soft_ops.sort(x, softness=0.001, **options) - jnp.sort(x)).astype(jnp.float32)
                assert error.max() <= 4 * rounding, (options, error.max())


@row(22, what="one outlier does not flatten the rest")
def _():
    x = jnp.array([1.0, 2.0, 3.0, 4.0, 1e4])
    for options in SORTS:
        softness = 1e-5 if options["method"] == "permutahedron" else 0.01
        close(soft_ops.sort(x, softness=softness, **options), x)
    for options in BY_WEIGHTS:
        close(soft_ops.sort(x, scale="robust", **options), x)


@row(23, what="a low entry does not change the maximum")
def _():
    for mode in SOFT_MODES:
        for softness in (0.01, 0.1, 1.0):
            alone = soft_ops.max(jnp.array([1.0, 2.0]), softness=softness, mode=mode)
            close(soft_ops.max(jnp.array([1.0, 2.0, -100.0]), softness=softness, mode=mode), alone)
            assert alone >= 2


@row(24, what="the maximum of 50 ones and 1e4")
def _():
    x = jnp.append(jnp.ones(50), 1e4)
    for options in MAXIMA:
        close(soft_ops.max(x, **options), 1e4)
        close(soft_ops.max(x, softness=10.0, **options), 1e4)


@row(25, what="argmax depends on differences, in units of the softness or of the robust spread")
def _():
    steps = np.arange(3.0, dtype=np.float32)
    for mode in SOFT_MODES:
        wanted = soft_ops.argmax(steps, softness=0.5, mode=mode)
        for size in (1e-2, 1e-4):
            close(soft_ops.argmax(1 + size * steps, softness=0.5 * size, mode=mode), wanted, 5e-3)
        robust = soft_ops.argmax(steps, softness=0.5, mode=mode, scale="robust")
        close(soft_ops.argmax(1 + 1e-2 * steps, softness=0.5, mode=mode, scale="robust"), robust, 1e-3)
        close(soft_ops.argmax(1 + 1e-4 * steps, softness=10.0, mode=mode), np.full(3, 1 / 3), 1e-4)


@row(26, what="gradients of rank and argmax at exact ties")
def _():
    softness, x = 0.01, jnp.array([1.0, 2.0, 2.0, 1.0, 2.0, 2.0])
    most = len(x) / (4 * softness)  # n F'(0) / softness
    for name in ("rank", "argmax"):
        for mode, method in by_name[name].combinations():
            jacobian = jax.jacobian(lambda x, m=(name, mode, method): by_name[m[0]].soft(x, softness, *m[1:]))(x)
            assert np.isfinite(jacobian).all()
            assert jnp.abs(jacobian).max() <= most
            if mode != "c0" or name == "rank":
                assert jnp.abs(jacobian).max() > 1


@row(27, what="gradient of the permutahedron's sort at ties treats equal entries alike")
def _():
    for options in IN_BLOCKS:
        gradient = weighted_gradient(lambda x, o=options: soft_ops.sort(x, softness=0.1, **o), jnp.ones(4))
        close(gradient, np.full(4, 2.5))
        x = jnp.array([1.0, 2.0, 1.0, 2.0])
        gradient = weighted_gradient(lambda x, o=options: soft_ops.sort(x, softness=0.1, **o), x)
        close(gradient, [1.5, 3.5, 1.5, 3.5])


@row(28, what="gradient of max is in [0, 1] and rises with the entry")
def _():
    for mode in SOFT_MODES:
        for softness in (0.01, 1.0, 10.0):
            x = jnp.array([3.0, 1.0, 2.0])
            gradient = jax.grad(lambda x, o=(softness, mode): soft_ops.max(x, softness=o[0], mode=o[1]))(x)
            assert gradient.min() >= 0
            assert gradient[1] <= gradient[2] <= gradient[0]
            close(gradient.sum(), 1)


@row(29, what="median with an outlier")
def _():
    for options in QUANTILES:
        for more in ({}, {"scale": "robust"}):
            assert abs(soft_ops.median(jnp.array([1.0, 2.0, 3.0, 4.0, 100.0]), **options, **more) - 3) < 0.02


@row(30, what="quartiles of 0, ..., 10")
def _():
    for options in QUANTILES:
        close(soft_ops.quantile(jnp.arange(11.0), np.array([0.25, 0.75]), **options), [2.5, 7.5], 1e-3)


@row(31, what="empty input")
def _():
    for options in SORTS:
        assert soft_ops.sort(jnp.zeros(0), **options).shape == (0,)
    for options in ARGSORTS:
        assert soft_ops.argsort(jnp.zeros(0), **options).shape == (0, 0)
    for options in QUANTILES:
        with pytest.raises(ValueError, match="quantile of an empty axis"):
            soft_ops.median(jnp.zeros(0), **options)


@row(32, what="a softness of 0 or below that is known is refused")
def _():
    for case in CASES:
        for softness in (0, -1.0, NAN, np.array([[0.1], [0.0]])):
            with pytest.raises(ValueError, match=r"it must be above 0 .mode='hard' gives the hard answer"):
                case.soft(np.ones((2, 3)), softness, "smooth")


@row(33, what="a traced softness of 0 or below gives the hard answer and finite gradients")
def _():
    """Each function, mode and method: see `test_edge_values`."""
    x = jnp.array([3.0, 1.0, 2.0])
    for softness in (0.0, -1.0):
        for options in SORTS:
            found, gradient = jax.jit(
                jax.value_and_grad(lambda x, s, o=options: soft_ops.sort(x, softness=s, **o)[1], argnums=(0, 1))
            )(x, softness)
            assert found == 2
            close(gradient[0], [0, 0, 1])
            assert np.isfinite(gradient[1])


@row(34, what="one softness per row, inside and outside of a trace")
def _():
    x, softness = normal(2, 6), np.array([[0.1], [1.0]], np.float32)
    for case in CASES:
        wanted = np.stack([case.soft(one, float(s[0]), "smooth") for one, s in zip(x, softness, strict=True)])
        close(case.soft(x, softness, "smooth"), wanted)
        close(jax.jit(lambda x, s, case=case: case.soft(x, s, "smooth"))(x, softness), wanted)


@row(35, 36, what="min of uint8 and argmin of booleans")
def _():
    for mode in ("hard", *SOFT_MODES):
        close(soft_ops.min(np.array([1, 2, 3], np.uint8), mode=mode), 1)
        close(soft_ops.argmin(np.array([True, False, True]), mode=mode), [0, 1, 0])


@row(37, what="Python lists as input")
def _():
    for case in CASES:
        close(case.soft([3.0, 1.0, 2.0], 0.1, "smooth"), case.soft(np.array([3.0, 1.0, 2.0]), 0.1, "smooth"), 0)


@row(38, what="several axes")
def _():
    x = normal(2, 3, 2)
    for axis in ((0, 1), (0, -1)):
        close(soft_ops.max(x, axis, softness=1e-6), x.max(axis))
        close(soft_ops.min(x, axis, softness=1e-6), x.min(axis))
        close(soft_ops.median(x, axis, softness=1e-6), np.median(x, axis))
    for function in (soft_ops.sort, soft_ops.argsort, soft_ops.rank):
        with pytest.raises(TypeError, match="an order needs one axis"):
            function(x, (0, 1))


@row(39, what="traced k")
def _():
    x = normal(6)
    for mode in SOFT_MODES:
        mask = jax.jit(lambda k, mode=mode: soft_ops.top_k_mask(x, k, mode=mode, softness=0.1))
        for k in (2, 2.5):
            close(mask(k), soft_ops.top_k_mask(x, k, mode=mode, softness=0.1))
    with pytest.raises(TypeError, match=r"k of top_k is traced.*top_k_mask takes a traced k"):
        jax.jit(lambda k: soft_ops.top_k(x, k).values)(2)


@row(40, what="round far from 0 and with a large softness")
def _():
    for mode in SOFT_MODES:
        assert soft_ops.round(1e8, mode=mode) == 1e8
        assert abs(soft_ops.round(100.3, softness=5.0, mode=mode) - 100.3) < 1e-3


@row(41, what="clip of infinity")
def _():
    for mode in SOFT_MODES:
        value, gradient = jax.value_and_grad(lambda x, mode=mode: soft_ops.clip(x, 0.0, 1.0, mode=mode))(INF)
        assert (value, gradient) == (1, 0)
        assert soft_ops.clip(-INF, 0.0, 1.0, mode=mode) == 0


@row(42, what="strict and not strict comparisons at equality")
def _():
    for mode in SOFT_MODES:  # a step of any width can't tell them apart
        assert soft_ops.greater(1.0, 1.0, softness=1e-6, mode=mode) == 0.5
        assert soft_ops.greater_equal(1.0, 1.0, softness=1e-6, mode=mode) == 0.5
    assert (soft_ops.greater_st(1.0, 1.0), soft_ops.greater_equal_st(1.0, 1.0)) == (0, 1)
    assert (soft_ops.greater(1.0, 1.0, mode="hard"), soft_ops.greater_equal(1.0, 1.0, mode="hard")) == (0, 1)


@row(43, what="isclose is at most 1")
def _():
    x = 1 + np.linspace(-1e-4, 1e-4, 201, dtype=np.float32)
    for mode in SOFT_MODES:
        assert soft_ops.isclose(1.0, 1.0, mode=mode) == 1
        assert soft_ops.isclose(x, 1.0, mode=mode).max() == 1


@row(44, what="out of the domain shows")
def _():
    assert soft_ops.log(0.0) == -INF
    assert np.isnan([soft_ops.log(-1.0), soft_ops.sqrt(-1.0), soft_ops.arcsin(2.0), soft_ops.arccos(2.0)]).all()
    assert soft_ops.log(0.0) < soft_ops.log(0.5)


@row(45, what="norm of huge and of tiny entries")
def _():
    close(soft_ops.norm(jnp.array([1e20, 1e20])) / 1e20, np.sqrt(2))
    close(jax.grad(soft_ops.norm)(jnp.array([3e-25, 4e-25])), [0.6, 0.8])


@row(46, what="weight 0 on an infinity or NaN")
def _():
    assert soft_ops.where(1.0, 1.0, NAN) == 1
    assert np.isfinite(jax.grad(soft_ops.where, argnums=(0, 1, 2))(1.0, 1.0, NAN)).all()
    assert soft_ops.take_along_axis(jnp.array([1.0, INF]), jnp.array([[1.0, 0.0]])) == 1


@row(47, what="dynamic_slice_in_dim past the end")
def _():
    x = jnp.arange(5.0)
    for start in range(5):
        soft = soft_ops.dynamic_slice_in_dim(x, jax.nn.one_hot(start, 5), 3)
        close(soft, jax.lax.dynamic_slice_in_dim(x, start, 3), 0)


@row(48, what="logic broadcasts")
def _():
    x, y = np.array([[0.0], [0.5], [1.0]]), np.array([[1.0, 0.0, 0.5]])
    close(soft_ops.logical_and(x, y), x * y)
    close(soft_ops.logical_or(x, 0.5), 1 - (1 - x) * 0.5)


@row(49, what="heaviside of NaN")
def _():
    for mode in ("hard", *SOFT_MODES):
        assert np.isnan(soft_ops.heaviside(NAN, mode=mode))


@row(50, what="all of 1000 truths of 0.99")
def _():
    truths = jnp.full(1000, 0.99)
    close(soft_ops.all(truths), 0.99**1000, 1e-4)
    close(soft_ops.all(truths, norm="geometric_mean"), 0.99)


@row(51, what="soft abs is never below |x|")
def _():
    x = np.append(np.linspace(-1, 1, 201), 0.05).astype(np.float32)
    for mode in SOFT_MODES:
        assert (soft_ops.abs(x, mode=mode) >= np.abs(x)).all()


@row(52, what="argmax of values about 100 with softness 1e-6")
def _():
    x = 100 + normal(6)
    for mode in SOFT_MODES:
        close(soft_ops.argmax(x, softness=1e-6, mode=mode), np.eye(6)[x.argmax()])


@row(53, what="forward mode of the permutahedron and of top_k_mask")
def _():
    x = jnp.asarray(normal(6))
    functions = [lambda x, o=options: soft_ops.sort(x, softness=2.0, **o) for options in IN_BLOCKS]
    functions += [lambda x, mode=mode: soft_ops.top_k_mask(x, 2, softness=0.5, mode=mode) for mode in SOFT_MODES]
    for function in functions:
        jacobian = jax.jacfwd(function)(x)
        assert jnp.abs(jacobian).max() > 0.1
        close(jacobian, jax.jacrev(function)(x))


@row(54, what="argsort of half precision stays in it")
def _():
    for dtype in (jnp.bfloat16, jnp.float16):
        for options in ARGSORTS:
            found = soft_ops.argsort(jnp.array([3, 1, 2], dtype), **options)
            assert found.dtype == dtype
            close(found, np.eye(3)[[1, 2, 0]])


@row(55, what="gradient of optimal transport at ties")
def _():
    x = jnp.array([1.0, 2.0, 1.0, 2.0])
    gradient = weighted_gradient(lambda x: soft_ops.sort(x, softness=0.5, method="sinkhorn"), x)
    assert np.isfinite(gradient).all()
    close(gradient[:2], gradient[2:])
    assert gradient[0] < gradient[1]


@row(56, what="projection of ties, and of an outlier")
def _():
    for options in IN_BLOCKS:
        close(soft_ops.sort(jnp.ones(4), softness=0.1, **options), np.ones(4))
        x = jnp.array([1.0, 1.5, 2.0, 2.5, 1000.0])
        close(soft_ops.sort(x, softness=1e-4, **options), x)


@row(57, what="rows of a batch do not change each other")
def _():
    x = normal(3, 6) * np.array([[1.0], [1e6], [1e-3]], np.float32)
    for case in CASES:
        for mode, method in case.combinations():
            whole = case.soft(x, 0.1, mode, method)
            close(whole, np.stack([case.soft(one, 0.1, mode, method) for one in x]))


@row(58, what="sums of the rows and columns of a soft permutation matrix")
def _():
    x = normal(6)
    for options in ARGSORTS:
        matrix = soft_ops.argsort(x, softness=0.2, **options)
        close(matrix.sum(-1), np.ones(6))
        if options["method"] == "sinkhorn":
            close(matrix.sum(-2), np.ones(6), 1e-3)


@pytest.mark.parametrize("number", sorted(ROWS), ids=lambda number: f"row {number} {ROWS[number][0]}")
def test_row(number):
    ROWS[number][1]()


def test_every_row_is_here():
    assert sorted(ROWS) == list(range(1, 59))
