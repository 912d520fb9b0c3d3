"""At the default softness the error does not grow with n; the soft mask keeps its count. The figures are printed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.core import soft_ops

SOFT_MODES = ("smooth", "c0", "c1", "c2")
SIZES = (10, 100, 1000, 100_000)
MOST = 0.02  # of the standard deviation 1
STATISTICS = {
    "max": (soft_ops.max, np.max),
    "min": (soft_ops.min, np.min),
    "top-5": (lambda x: soft_ops.top_k(x, 5).values, lambda x: np.sort(x)[-5:][::-1]),
    "median": (soft_ops.median, np.median),
    "5 %": (lambda x: soft_ops.quantile(x, 0.05), lambda x: np.quantile(x, 0.05)),
    "95 %": (lambda x: soft_ops.quantile(x, 0.95), lambda x: np.quantile(x, 0.95)),
    "sort": (soft_ops.sort, np.sort),
}


def largest_errors(n):
    """Return for each statistic the largest error of five samples of standard normals, with default arguments."""
    together = jax.jit(
        lambda x: {name: soft(x) for name, (soft, _) in STATISTICS.items() if name != "sort" or n <= 1000}
    )
    worst = {}
    for seed in range(5):
        x = jax.random.normal(jax.random.key(seed), (n,))
        for name, found in together(x).items():
            error = float(np.max(np.abs(found - STATISTICS[name][1](np.asarray(x)))))
            worst[name] = max(worst.get(name, 0.0), error)
    return worst


@pytest.mark.parametrize("n", SIZES)
def test_error_at_the_default_softness(n):
    errors = largest_errors(n)
    print(f"n = {n}: " + ", ".join(f"{name} {error:.4f}" for name, error in errors.items()))
    assert set(errors) == set(STATISTICS) - ({"sort"} if n > 1000 else set())
    assert all(error <= MOST for error in errors.values()), errors


@pytest.mark.parametrize("mode", SOFT_MODES)
def test_a_mask_of_a_million_sums_to_k(mode):
    x = jax.random.normal(jax.random.key(7), (1_000_000,))
    mask_of = jax.jit(functools.partial(soft_ops.top_k_mask, mode=mode))
    off = {}
    for k in (1, 50, 2000, 500_000):
        for softness in (1e-6, 0.01, 0.1, 1.0):
            total = np.asarray(mask_of(x, jnp.float32(k), softness=softness)).sum(dtype=np.float64)
            off[k, softness] = abs(total - k) / k
    k, softness = max(off, key=off.__getitem__)
    print(f"top_k_mask, mode {mode}, n = 1e6: off by {off[k, softness]:.1e} of k at most, at k = {k}, {softness = }")
    assert off[k, softness] <= 1e-4


@pytest.mark.parametrize("mode", SOFT_MODES)
def test_a_low_entry_does_not_pull_the_maximum_down(mode):
    """At a softness that joins 1 and 2, and even -100, the maximum stays above the second largest entry."""
    for softness in (2.0, 10.0, 1000.0):
        for others in ([-100.0], [-100.0] * 50, [-1e20, -jnp.inf]):
            x = jnp.array([1.0, 2.0, *others])
            assert soft_ops.max(x, softness=softness, mode=mode) >= 2
            assert soft_ops.min(-x, softness=softness, mode=mode) <= -2
