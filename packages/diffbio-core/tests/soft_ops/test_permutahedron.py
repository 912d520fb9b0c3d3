"""Projections on the permutahedron against an isotonic regression that pools one violator after the other."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from diffbio.core import soft_ops
from diffbio.core.soft_ops.permutahedron import _isotonic_blocks

SIZES = [1, 2, 3, 17, 100, 3000]


def pooled_one_by_one(z, w):
    """Return the fit of z - w by the entropy of Kullback and Leibler, in float64."""
    blocks = []

    def value(block):
        return np.logaddexp.reduce(z[block]) - np.logaddexp.reduce(w[block])

    for place in range(len(z)):
        blocks.append([place])
        while len(blocks) > 1 and value(blocks[-2]) > value(blocks[-1]):
            last = blocks.pop()
            blocks[-1] = blocks[-1] + last
    return np.concatenate([np.full(len(block), value(block)) for block in blocks])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", ["walk", "descending", "ascending", "constant", "one outlier"])
def test_blocks_are_those_of_isotonic_regression(n, kind):
    rng = np.random.default_rng(n)
    y = {
        "walk": rng.normal(size=n).cumsum(),
        "descending": -np.arange(n),
        "ascending": np.arange(n),
        "constant": np.ones(n),
        "one outlier": np.where(np.arange(n) == 0, 100.0, rng.normal(size=n)),
    }[kind].astype(np.float32)
    fit = _isotonic_blocks(jnp.asarray(y), jnp.zeros(n), jnp.ones(n, bool), "c0")
    wanted = isotonic_regression(y.astype(np.float64)).x
    error = np.abs(np.asarray(fit) - wanted).max() / max(1.0, np.abs(y).max())
    print(f"{kind}, n = {n}: {error:.1e} of the largest value")
    assert error < 2e-6


@pytest.mark.parametrize("n", [1, 2, 17, 200])
def test_blocks_by_kullback_leibler(n):
    z = np.sort(np.random.default_rng(n).normal(size=n)) / 0.3
    w = np.log(np.arange(1, n + 1))
    fit = _isotonic_blocks(jnp.asarray(z, jnp.float32), jnp.asarray(w, jnp.float32), jnp.ones(n, bool), "smooth")
    np.testing.assert_allclose(fit, pooled_one_by_one(z, w), atol=2e-5)


@pytest.mark.parametrize("mode", ["smooth", "c0"])
def test_ranks_stay_in_the_permutahedron(mode):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 50)), jnp.float32)
    ranks = soft_ops.rank(x, softness=0.2, mode=mode, method="permutahedron")
    ascending = jnp.sort(ranks, axis=-1)
    places = jnp.arange(1.0, 51.0)
    # majorized by (1, ..., 50): the smallest k sum to at least 1 + ... + k
    assert (jnp.cumsum(ascending, -1) >= jnp.cumsum(places) - 1e-2).all()
    np.testing.assert_allclose(ranks.sum(-1), places.sum(), rtol=1e-5)
    assert (jnp.argsort(ranks, axis=-1, stable=True) == jnp.argsort(x, axis=-1, stable=True)).all()


def test_ranks_are_exact_where_entries_are_well_apart():
    x = jnp.array([0.0, 10.0, 10.3, 30.0])
    ranks = soft_ops.rank(x, softness=1.0, mode="c0", method="permutahedron")
    np.testing.assert_allclose(ranks, [1.0, 2.35, 2.65, 4.0], atol=1e-5)


def test_sorted_values_are_drawn_together_beyond_the_inverse_softness():
    x = jnp.array([3.0, 0.0, 1.0, 100.0])
    close = soft_ops.sort(x, softness=1e-3, mode="c0", method="permutahedron")
    np.testing.assert_allclose(close, [0.0, 1.0, 3.0, 100.0], atol=1e-5)
    drawn = soft_ops.sort(x, softness=0.5, mode="c0", method="permutahedron")
    assert float(jnp.diff(drawn).max()) <= 2.0 + 1e-5
    np.testing.assert_allclose(drawn.sum(), x.sum(), rtol=1e-6)


@pytest.mark.parametrize("function", [soft_ops.sort, soft_ops.rank])
def test_modes_without_a_projection_are_refused(function):
    with pytest.raises(ValueError, match="method='permutahedron': 'smooth' projects by Kullback-Leibler, 'c0' by L2"):
        function(jnp.arange(3.0), mode="c1", method="permutahedron")
