"""Running soft extremes are the soft extremes of all prefixes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.core import soft_ops

SOFT_MODES = ("smooth", "c0", "c1", "c2")
N = 9
INF = jnp.inf
each_mode = pytest.mark.parametrize("mode", SOFT_MODES)
each_algorithm = pytest.mark.parametrize("mode", ["smooth", "c0"])  # c1 and c2 differ from c0 in a power
PAIRS = {"max": (soft_ops.cumulative_max, soft_ops.max), "min": (soft_ops.cumulative_min, soft_ops.min)}
each_side = pytest.mark.parametrize("side", PAIRS)


@pytest.fixture
def x():
    """Two rows, the second with ties."""
    rows = np.random.default_rng(0).normal(size=(2, N)).astype(np.float32)
    rows[1, [3, 6]] = rows[1, [0, 5]]
    return jnp.asarray(rows)


def prefixes(reverse):
    """Return for each place the mask of the entries up to it."""
    return np.triu(np.ones((N, N), bool)) if reverse else np.tri(N, dtype=bool)


@functools.cache
def compiled(function, **options):
    return jax.jit(functools.partial(function, **options))


def over_prefixes(whole, x, mask, mode, *, reverse=False):
    """Return the soft extreme of each prefix, softness 0.7, by the function for whole rows."""
    counts = prefixes(reverse) & np.broadcast_to(mask, x.shape)[:, None, :]
    each = jnp.broadcast_to(x[:, None, :], counts.shape)
    return compiled(whole, axis=-1, softness=0.7, mode=mode)(each, where=counts)


@each_side
@each_mode
def test_each_place_is_the_extreme_of_its_prefix(x, side, mode):
    running, whole = PAIRS[side]
    masks = {"all": True, "some": np.arange(N) % 3 != 1, "not the first": np.arange(N) > 2, "none": np.zeros(N, bool)}
    for reverse in (False, True) if side == "max" else (False,):
        for name, mask in masks.items():
            expected = over_prefixes(whole, x, mask, mode, reverse=reverse)
            found = compiled(running, softness=0.7, mode=mode, reverse=reverse)(x, where=np.broadcast_to(mask, x.shape))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


@each_algorithm
def test_axes_and_softness_per_row(x, mode):
    softness = jnp.array([[0.1], [2.0]])
    found = soft_ops.cumulative_max(x, softness=softness, mode=mode)
    np.testing.assert_allclose(soft_ops.cumulative_max(x.T, 0, softness=softness.T, mode=mode), found.T, rtol=1e-6)
    for row, one, expected in zip(x, softness, found, strict=True):
        np.testing.assert_allclose(soft_ops.cumulative_max(row, softness=one, mode=mode), expected, rtol=1e-5)
    robust = soft_ops.cumulative_max(x, softness=0.3, mode=mode, scale="robust")
    np.testing.assert_allclose(
        soft_ops.cumulative_max(1e6 * x, softness=0.3, mode=mode, scale="robust"), 1e6 * robust, rtol=1e-5
    )


@pytest.mark.parametrize(("side", "mode"), [*(("max", mode) for mode in SOFT_MODES), ("min", "smooth")])
def test_gradient_is_the_argmax_of_the_prefix(x, side, mode):
    """Also at ties, which share it alike, and with a masked entry, which gets none."""
    running, mask = PAIRS[side][0], np.arange(N) != 4

    def slopes(x):
        def function(row):
            return running(row, softness=0.7, mode=mode, where=mask)

        return jax.vmap(jax.jacrev(function))(x), jax.vmap(jax.jacfwd(function))(x)

    expected = over_prefixes(soft_ops.argmax if side == "max" else soft_ops.argmin, x, mask, mode)
    for found in jax.jit(slopes)(x):
        np.testing.assert_allclose(found, expected, atol=2e-6)


@each_mode
def test_gradient_in_the_softness(x, mode):
    counts = jnp.broadcast_to(prefixes(False), (2, N, N))
    each = jnp.broadcast_to(x[:, None, :], (2, N, N))

    def both(softness):
        return (
            soft_ops.cumulative_max(x, softness=softness, mode=mode),
            soft_ops.max(each, -1, softness=softness, mode=mode, where=counts),
        )

    np.testing.assert_allclose(*jax.jit(jax.jacfwd(both))(0.7), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["hard", "smooth", "c0"])
@pytest.mark.parametrize("reverse", [False, True])
def test_infinities(mode, reverse):
    """One infinite entry decides from its place on; before it, and where it is -inf, nothing is lost."""
    rows = jnp.array([[0.0, 1.0, INF, 2.0], [-INF, 0.0, 3.0, -INF], [-INF, -INF, 1.0, INF], [INF, INF, -INF, 0.0]])
    hard = jax.lax.cummax(rows, axis=1, reverse=reverse)

    def both(rows, mask):
        found = soft_ops.cumulative_max(rows, softness=1e-3, mode=mode, reverse=reverse)
        return jnp.where(mask, found, 0).sum(), found

    run = compiled(jax.value_and_grad(both, has_aux=True))
    (_, found), finite_only = run(rows, jnp.isfinite(hard))
    np.testing.assert_allclose(found, hard, atol=1e-5)
    assert np.isfinite(finite_only).all()
    assert np.isfinite(run(rows, True)[1]).all()


@each_algorithm
def test_a_masked_entry_changes_nothing(x, mode):
    mask = np.arange(N) != 3

    def weighted(x):
        found = soft_ops.cumulative_max(x, softness=0.5, mode=mode, where=mask)
        return (found * jnp.cos(jnp.arange(9.0))).sum(), found

    run = jax.jit(jax.value_and_grad(weighted, has_aux=True))
    (_, clean), clean_slope = run(x)
    for bad in (INF, -INF, jnp.nan):
        (_, found), slope = run(x.at[:, 3].set(bad))
        np.testing.assert_array_equal(found, clean)
        np.testing.assert_array_equal(slope, clean_slope)
    assert (clean_slope[:, 3] == 0).all()
    np.testing.assert_array_equal(clean[:, 3], clean[:, 2])


@each_algorithm
def test_ties_and_scales(mode):
    """Of a constant row, each prefix shares its gradient alike, at any scale and softness."""
    shares = prefixes(False) / np.arange(1, N + 1)[:, None]

    def both(x, softness):
        def function(x):
            return soft_ops.cumulative_max(x, softness=softness, mode=mode)

        return function(x), jax.jacrev(function)(x)

    run = jax.jit(both)
    for scale in (1e-20, 1.0, 1e20):
        for softness in (0.1 * scale, 0.01):
            np.testing.assert_allclose(run(jnp.full(N, scale), softness)[1], shares, rtol=1e-5)
            found, slopes = run(scale * jnp.arange(float(N)), softness)
            assert np.isfinite(found).all()
            np.testing.assert_allclose(slopes.sum(-1), 1, rtol=1e-5)


def test_nan_spreads_from_its_place_on(x):
    for mode in ("smooth", "c0"):
        found = soft_ops.cumulative_max(x.at[0, 4].set(jnp.nan), mode=mode)
        assert np.isnan(found[0]).tolist() == [False] * 4 + [True] * 5, mode
        assert np.isfinite(found[1]).all()


@each_algorithm
def test_half_precision(x, mode):
    for dtype in (jnp.bfloat16, jnp.float16):
        narrow = x.astype(dtype)
        found = soft_ops.cumulative_max(narrow, softness=0.3, mode=mode)
        assert found.dtype == dtype
        wide = soft_ops.cumulative_max(narrow.astype(jnp.float32), softness=0.3, mode=mode)
        np.testing.assert_array_equal(found, wide.astype(dtype))


@pytest.mark.parametrize("function", [soft_ops.cumulative_max, soft_ops.cumulative_min])
def test_errors(function):
    with pytest.raises(ValueError, match="softness is 0; it must be above 0"):
        function(jnp.ones(3), softness=0)
    with pytest.raises(ValueError, match="scale is 'typo'"):
        function(jnp.ones(3), scale="typo")
    with pytest.raises(ValueError, match="axis 2 is out of bounds for array of dimension 1"):
        function(jnp.ones(3), 2)
    with pytest.raises(ValueError, match=r"softness has shape \(3,\).*one per row"):
        function(jnp.ones((2, 3)), softness=jnp.ones(3))
