"""Mode hard is jnp, lax or scipy exactly: every axis, shape, dtype, q, infinity and NaN. Masks are compression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cases import CASES

from diffbio.core import soft_ops

AXES = [0, 1, -1, -3, None]
TUPLES = [(-1, 1), (2, 0), (0, 1), (0, 1, 2), (1,), ()]  # most for shapes only
INTERPOLATIONS = ["linear", "lower", "higher", "nearest", "midpoint"]
DTYPES = [jnp.int32, jnp.int8, jnp.uint8, jnp.bool_, jnp.float16, jnp.bfloat16]
by_name = {case.name: case for case in CASES}


@pytest.fixture
def x():
    """Holds ties. All axes are of one length, so that one compilation serves them; shapes have a test of their own."""
    return jnp.asarray(np.random.default_rng(1).integers(-7, 8, (3, 3, 3)) / 4, jnp.float32)


def same(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, np.asarray(expected, np.float32))


def one_hot(index, n):
    return jax.nn.one_hot(index, n)


@pytest.mark.parametrize("axis", AXES)
def test_orders_on_every_axis(x, axis):
    flat, at = (x.ravel(), 0) if axis is None else (x, axis)
    n = flat.shape[at]
    for descending in (False, True):
        options = {"descending": descending, "mode": "hard"}
        same(soft_ops.sort(x, axis, **options), jnp.sort(x, axis, descending=descending))
        order = jnp.argsort(x, axis, descending=descending, stable=True)
        same(soft_ops.argsort(x, axis, **options), one_hot(order, n))
        same(soft_ops.rank(x, axis, **options), scipy.stats.rankdata(-flat if descending else flat, axis=at))
    for k in (0, 2, n):
        values, index = (jnp.moveaxis(one, -1, at) for one in jax.lax.top_k(jnp.moveaxis(flat, at, -1), k))
        found = soft_ops.top_k(x, k, axis, mode="hard")
        same(found.values, values)
        same(found.indices, one_hot(index, n))
        members = one_hot(jnp.moveaxis(index, at, -1), n).sum(-2)
        same(soft_ops.top_k_mask(x, k, axis, mode="hard"), jnp.moveaxis(members, -1, at))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_extremes_on_every_axis(x, axis, reverse):
    options = {"axis": axis % 3, "reverse": reverse}
    same(soft_ops.cumulative_max(x, axis, mode="hard", reverse=reverse), jax.lax.cummax(x, **options))
    same(soft_ops.cumulative_min(x, axis, mode="hard", reverse=reverse), jax.lax.cummin(x, **options))


def rows_over(x, axis):
    """Return the entries that a reduction joins, on the last axis: written out apart from the code under test."""
    axes = sorted(at % 3 for at in (range(3) if axis is None else np.atleast_1d(np.asarray(axis, int)).tolist()))
    moved = np.moveaxis(x, axes, range(3 - len(axes), 3))
    return moved.reshape(*moved.shape[: 3 - len(axes)], -1)


def is_index_of(index, rows, values):
    """Check that a hard index has mass on two entries at most and its mean is the value."""
    index = np.asarray(index)
    assert index.shape == (*values.shape, rows.shape[-1])
    np.testing.assert_allclose((index * rows).sum(-1), values, atol=1e-6)
    np.testing.assert_allclose(index.sum(-1), 1, atol=1e-6)
    assert (np.count_nonzero(index, axis=-1) <= 2).all()


@pytest.mark.parametrize("axis", [*AXES, *TUPLES[:2]])
def test_reductions_over_every_axis(x, axis):
    rows, hard = rows_over(x, axis), {"axis": axis, "mode": "hard"}
    same(soft_ops.max(x, **hard), jnp.max(x, axis))
    same(soft_ops.min(x, **hard), jnp.min(x, axis))
    same(soft_ops.argmax(x, **hard), one_hot(rows.argmax(-1), rows.shape[-1]))
    same(soft_ops.argmin(x, **hard), one_hot(rows.argmin(-1), rows.shape[-1]))
    q = np.array([0.0, 0.3, 0.5, 1.0], np.float32)
    values = jnp.quantile(x, q, axis)
    np.testing.assert_allclose(soft_ops.quantile(x, q, **hard), values, atol=1e-6)
    np.testing.assert_allclose(soft_ops.percentile(x, 100 * q, **hard), values, atol=1e-6)
    np.testing.assert_allclose(soft_ops.median(x, **hard), jnp.median(x, axis), atol=1e-6)
    is_index_of(soft_ops.argquantile(x, q, **hard), rows, values)
    is_index_of(soft_ops.argpercentile(x, 100 * q, **hard), rows, values)
    is_index_of(soft_ops.argmedian(x, **hard), rows, values[2])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_interpolation_and_a_matrix_of_q(x, interpolation):
    q = np.array([[0.0, 0.1, 0.3, 0.5], [0.75, 0.9, 1.0, 0.25]], np.float32)
    for axis in (None, 1):
        # jnp takes no matrix of q; as in numpy, its axes come in front like the one of a vector
        values = jnp.quantile(x, q.ravel(), axis, method=interpolation)
        values = values.reshape(*q.shape, *values.shape[1:])
        options = {"interpolation": interpolation, "mode": "hard"}
        np.testing.assert_allclose(soft_ops.quantile(x, q, axis, **options), values, atol=1e-6)
        np.testing.assert_allclose(soft_ops.percentile(x, 100 * q, axis, **options), values, atol=1e-6)
        np.testing.assert_allclose(soft_ops.median(x, axis, **options), values[0, 3], atol=1e-6)
        is_index_of(soft_ops.argquantile(x, q, axis, **options), rows_over(x, axis), values)


def shapes_of(function, x, *args, **options):
    return jax.tree.map(lambda result: result.shape, jax.eval_shape(lambda x: function(x, *args, **options), x))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [*AXES, *TUPLES])
def test_shapes_of_reductions(axis, keepdims):
    x, n = jnp.zeros((2, 3, 4)), rows_over(np.zeros((2, 3, 4)), axis).shape[-1]
    reduced = shapes_of(jnp.max, x, axis, keepdims=keepdims)
    for mode in ("hard", "smooth"):
        options = {"axis": axis, "keepdims": keepdims, "mode": mode}
        for name in ("max", "min", "median"):
            assert shapes_of(getattr(soft_ops, name), x, **options) == reduced
        for q in (jnp.array([0.5, 0.1]), jnp.full((5, 1), 0.5)):
            assert shapes_of(soft_ops.quantile, x, q, **options) == (*q.shape, *reduced)
            assert shapes_of(soft_ops.argquantile, x, q, **options) == (*q.shape, *reduced, n)
        for name in ("argmax", "argmin", "argmedian"):
            assert shapes_of(getattr(soft_ops, name), x, **options) == (*reduced, n)


@pytest.mark.parametrize("axis", AXES)
def test_shapes_of_orders(axis):
    x, n = jnp.zeros((2, 3, 4)), 24 if axis is None else (2, 3, 4)[axis]
    entries, at = ((24,), 0) if axis is None else ((2, 3, 4), axis)
    first = [*entries]
    first[at] = 2
    for mode in ("hard", "smooth"):
        options = {"axis": axis, "mode": mode}
        assert shapes_of(soft_ops.sort, x, **options) == shapes_of(soft_ops.rank, x, **options) == entries
        assert shapes_of(soft_ops.argsort, x, **options) == (*entries, n)
        assert shapes_of(soft_ops.top_k_mask, x, 2.0, **options) == entries
        assert shapes_of(soft_ops.top_k, x, 2, **options) == ((*first,), (*first, n))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    """Integers and booleans give the default float, half precision the nearest float of its kind."""
    narrow = jnp.array([[3, 0, 1, 120, 7, 3], [2, 2, 5, 1, 0, 9], [1] * 6, [6, 5, 4, 3, 2, 1], [0] * 6]).astype(dtype)
    expected_dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    eps = float(jnp.finfo(expected_dtype).eps)
    for case in CASES:
        found = case.soft(narrow, 0.1, "hard")
        expected = np.asarray(case.hard(narrow.astype(jnp.float32)), np.float32)
        assert found.dtype == expected_dtype, case.name
        assert found.shape == expected.shape, case.name
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=eps, atol=eps / 4, err_msg=case.name)


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (0,)])
def test_empty_axes(shape):
    """Where there is no entry to choose jnp raises; an order or a mask of none is empty."""
    x = jnp.zeros(shape)
    for axis in range(x.ndim):
        options = {"axis": axis, "mode": "hard"}
        n = shape[axis]
        rows = tuple(np.delete(shape, axis))
        reductions = [(jnp.max, soft_ops.max), (jnp.min, soft_ops.min), (jnp.median, soft_ops.median)]
        for hard, soft in reductions:
            if n == 0:
                with pytest.raises((ValueError, TypeError)):
                    hard(x, axis=axis)
                with pytest.raises(ValueError, match=r"of an empty axis .*: there is no entry to choose"):
                    soft(x, **options)
            else:
                same(soft(x, **options), hard(x, axis=axis))
        for index in (soft_ops.argmax, soft_ops.argmin, soft_ops.argmedian):
            if n == 0:
                with pytest.raises(ValueError, match="of an empty axis"):
                    index(x, **options)
            else:
                assert index(x, **options).shape == (*rows, n)
        for mode in ("hard", "smooth", "c0"):
            options["mode"] = mode
            for entries in (soft_ops.sort, soft_ops.rank, soft_ops.cumulative_max, soft_ops.cumulative_min):
                assert entries(x, **options).shape == shape
            assert soft_ops.argsort(x, **options).shape == (*shape, n)
            assert soft_ops.top_k_mask(x, 0, **options).shape == shape
            assert soft_ops.top_k(x, 0, **options).values.shape == (*shape[:axis], 0, *shape[axis + 1 :])


@pytest.mark.parametrize("mode", ["hard", "smooth"])
def test_a_single_entry_is_itself_in_every_mode(mode):
    x = jnp.array([[1.5], [-2.0]])
    options = {"softness": 0.3, "mode": mode}
    same(soft_ops.top_k_mask(x, 1, **options), jnp.ones((2, 1)))
    values, indices = soft_ops.top_k(x, 1, **options)
    same(values, x)
    same(indices, jnp.ones((2, 1, 1)))
    for case in CASES:
        if case.competing and not case.name.startswith("top_k"):
            same(case.soft(x, 0.3, mode), case.limit(np.asarray(x)))


def infinite_rows():
    inf = np.inf
    return jnp.array(
        [[3, -inf, inf, 1, 3, inf], [-inf, 1, 2, -inf, 0, 5], [inf, 1, 2, 7, 0, 5], [-inf, 1, 2, 7, 0, 5], [-inf] * 6]
    )


def test_infinities():
    x = infinite_rows()
    for case in CASES:
        if "quantile" not in case.name and "percentile" not in case.name:  # these: below
            np.testing.assert_array_equal(case.soft(x, 0.1, "hard"), case.hard(x), err_msg=case.name)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_quantiles_of_infinities(interpolation):
    """Where jnp has inf * 0 = NaN, the entry that has no share does not count."""
    x = infinite_rows()
    for q in np.linspace(0, 1, 11).astype(np.float32):
        expected = np.asarray(jnp.quantile(x, q, axis=-1, method=interpolation))
        found = np.asarray(soft_ops.quantile(x, q, -1, interpolation=interpolation, mode="hard"))
        place = float(q) * 5
        ascending = np.sort(x, axis=-1)
        low, high = ascending[:, int(place)], ascending[:, min(int(place) + 1, 5)]
        certain = ~np.isnan(expected)
        np.testing.assert_allclose(found[certain], expected[certain], rtol=1e-6, err_msg=f"q = {q}")
        exact = (np.float32(place) == int(place)) | (low == high)
        np.testing.assert_array_equal(found[exact], low[exact], err_msg=f"q = {q}")


NAN = jnp.array([3.0, jnp.nan, -jnp.inf, jnp.inf, 1.0, 3.0, jnp.nan])


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin", "quantile", "median", "percentile"])
def test_nan_of_reductions(name):
    case = by_name[name]
    np.testing.assert_array_equal(case.soft(NAN, 0.1, "hard"), case.hard(NAN))


@pytest.mark.parametrize("descending", [False, True])
def test_nan_is_last_in_either_order(descending):
    """Ascending as in jnp, which puts it first when descending."""
    options = {"descending": descending, "mode": "hard"}
    numbers = jnp.sort(NAN[~jnp.isnan(NAN)], descending=descending)
    same(soft_ops.sort(NAN, **options), jnp.append(numbers, jnp.full(2, jnp.nan)))
    assert soft_ops.argsort(NAN, **options)[-2:, jnp.isnan(NAN)].sum() == 2


def compressed(case, x, mask):
    """Return what a case should give for the unmasked entries alone, with what is documented for the others."""
    if case.name.startswith("cumulative"):
        return case.limit(np.where(mask, x, -np.inf if case.name.endswith("max") else np.inf))
    if not case.competing:
        return np.where(mask, case.limit(x), 0)
    kept = np.asarray(case.limit(x[:, mask]))
    if case.result == "entries" or case.index:
        spread = np.zeros((*kept.shape[:-1], x.shape[-1]))
        spread[..., mask] = kept
        kept = spread
    if case.name in ("sort", "argsort"):  # the last places have no entry
        kept = np.concatenate([kept, np.zeros((len(x), np.sum(~mask), *kept.shape[2:]))], axis=1)
    return kept


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_masks_are_compression(case):
    # no ties, so that the limit is the hard answer
    x = np.random.default_rng(2).permuted(np.tile(np.arange(6, dtype=np.float32) / 4 - 0.6, (5, 1)), axis=-1)
    mask = np.array([True, False, True, True, False, True])
    np.testing.assert_allclose(case.soft(x, 0.1, "hard", where=mask), compressed(case, x, mask), atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_unknown_mode_is_refused(case):
    with pytest.raises(ValueError, match="mode is 'typo'; it must be one of 'hard', 'smooth', 'c0', 'c1', 'c2'"):
        case.soft(jnp.arange(4.0), 0.1, "typo")
