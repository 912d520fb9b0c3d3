"""Depth correction beside LOWESS and a regression written out; bins that don't count, derivatives, training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads

from diffbio.operators.variant.depth_correction import (
    DepthCorrection,
    DepthCorrectionConfig,
    smooth_curve,
    weighted_median,
)


def simulated(n_bins: int, *, seed: int = 0, mean: float = 400.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return bins with a known curve over GC content and mappability, and their true log2 ratios."""
    random = np.random.default_rng(seed)
    gc = np.clip(random.normal(0.42, 0.06, n_bins), 0.28, 0.65)
    mappability = np.clip(1 - random.exponential(0.03, n_bins), 0, 1)
    mappability[: n_bins // 50] = random.uniform(0, 0.6, n_bins // 50)
    copies = np.full(n_bins, 2.0)
    copies[n_bins // 4 : n_bins // 3], copies[n_bins // 2 : n_bins // 2 + n_bins // 20] = 3, 1
    bias = np.exp(-(((gc - 0.45) / 0.18) ** 2)) * (0.3 + 0.7 * mappability**2)
    depth = random.poisson(mean * bias * copies / 2)
    depth[[7, n_bins - 3]] = 0
    data = {"depth": depth, "gc": gc, "mappability": mappability}
    return {name: known.astype(np.float32) for name, known in data.items()}, np.log2(copies / 2)


def bias(log2_ratio: np.ndarray, truth: np.ndarray, places: np.ndarray) -> float:
    """Return the largest mean error of a stratum of places, of which each has a twentieth of the bins."""
    errors = (log2_ratio - truth)[np.argsort(places)]
    errors = errors - np.median(errors)
    return max(abs(float(np.mean(part))) for part in np.array_split(errors, 20))


def test_bias_is_removed_as_by_lowess(certificate) -> None:
    lowess = pytest.importorskip("statsmodels.nonparametric.smoothers_lowess").lowess
    data, truth = simulated(6000)
    found = DepthCorrection(DepthCorrectionConfig()).apply(data, {}, None)[0]
    counted = np.asarray(found["bin_mask"])
    assert (counted == ((data["depth"] > 0) & (data["mappability"] > 0.8))).all()
    depth, gc, mappability = (data[name][counted].astype(float) for name in ("depth", "gc", "mappability"))
    by_lowess = np.log2(depth)
    for places in (gc, mappability):
        by_lowess = by_lowess - lowess(by_lowess, places, frac=0.2, it=3, return_sorted=False)
    for name, places in (("GC content", gc), ("mappability", mappability)):
        planted, theirs, ours = (
            bias(ratio, truth[counted], places)
            for ratio in (np.log2(depth), by_lowess, np.asarray(found["log2_ratio"])[counted])
        )
        print(f"{name}: planted {planted:.3f}, LOWESS {theirs:.3f}, ours {ours:.3f}")
        certificate(
            operator="DepthCorrection",
            reference="statsmodels 0.15.0, lowess (frac 0.2, it 3)",
            data="6000 simulated bins of 400 reads, with a gain and a loss",
            quantity=f"largest bias left in a stratum of {name}, log2 (planted {planted:.2f}, LOWESS {theirs:.3f})",
            value=ours,
            bar="<= 0.02",
        )
        assert ours <= 0.02 < 0.1 < planted
        assert ours <= theirs + 0.01
    error = np.sqrt(np.mean((np.asarray(found["log2_ratio"])[counted] - truth[counted]) ** 2))
    assert error < 0.15  # about the noise of the reads


def test_the_curve_is_local_linear_regression(certificate) -> None:
    random = np.random.default_rng(0)
    places, weights = random.uniform(0.2, 0.7, 400), random.uniform(0, 1, 400)
    values = np.sin(9 * places) + 2 + 0.2 * random.normal(size=400)
    wanted = []
    for place in places:
        design = np.stack([np.ones(400), places - place], axis=1)
        root = np.sqrt(weights * np.exp(-0.5 * ((places - place) / 0.04) ** 2))
        wanted.append(np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0][0])
    given = (jnp.asarray(known, jnp.float32) for known in (values, places, weights))
    error = float(np.abs(np.asarray(smooth_curve(*given, bandwidth=0.04)) - wanted).max())
    certificate(
        operator="DepthCorrection",
        reference="local linear regression in NumPy, float64, at each bin",
        data="400 simulated bins, bandwidth 0.04",
        quantity="largest difference of the curve, of values from 1 to 3",
        value=error,
        bar="<= 0.005",
    )
    assert error <= 5e-3


def test_outliers_bend_a_robust_curve_less() -> None:
    places = jnp.linspace(0.3, 0.6, 600)
    truth = 1 + 2 * (places - 0.4)
    values = truth + 0.05 * jnp.asarray(np.random.default_rng(0).normal(size=600), jnp.float32)
    values = jnp.where((places > 0.5) & (jnp.arange(600) % 4 == 0), values + 2.0, values)
    errors = [
        float(jnp.abs(smooth_curve(values, places, jnp.ones(600), bandwidth=0.02, n_robust=n) - truth).max())
        for n in (0, 3)
    ]
    assert errors[1] < 0.05 < 0.25 < errors[0]


def test_bins_that_do_not_count_have_no_effect() -> None:
    data, _ = simulated(300)
    hidden = np.arange(300) % 7 == 3
    correction = DepthCorrection(DepthCorrectionConfig())
    given = {name: np.where(hidden, np.nan, known).astype(np.float32) for name, known in data.items()}
    found = correction.apply({**given, "bin_mask": ~hidden}, {}, None)[0]
    alone = correction.apply({name: known[~hidden] for name, known in data.items()}, {}, None)[0]
    for name in ("log2_ratio", "bin_weight", "bin_mask"):
        np.testing.assert_allclose(found[name][~hidden], alone[name], atol=1e-5)
    assert np.isfinite(found["log2_ratio"]).all()
    assert (np.asarray(found["log2_ratio"])[hidden] == 0).all()
    assert not np.asarray(found["bin_mask"])[hidden | (data["depth"] == 0)].any()


def test_a_pool_of_normals_removes_what_no_curve_explains() -> None:
    data, truth = simulated(2000)
    capture = np.random.default_rng(1).lognormal(0, 0.5, 2000).astype(np.float32)
    correction = DepthCorrection(DepthCorrectionConfig())
    errors = {}
    for name, more in (("without", {}), ("with", {"reference_depth": 50 * capture})):
        found = correction.apply({**data, "depth": data["depth"] * capture, **more}, {}, None)[0]
        errors[name] = float(np.std((np.asarray(found["log2_ratio"]) - truth)[np.asarray(found["bin_mask"])]))
    assert errors["with"] < 0.15 < 0.5 < errors["without"]


def test_the_weighted_median_is_numpys() -> None:
    random = np.random.default_rng(0)
    for size in (7, 8):
        values = random.normal(size=size).astype(np.float32)
        weights = (np.arange(size + 3) < size).astype(np.float32)
        padded = np.concatenate([values, np.full(3, 99, np.float32)])
        assert float(weighted_median(padded, weights)) == pytest.approx(float(np.median(values)), rel=1e-6)
    assert float(weighted_median(jnp.ones(3), jnp.zeros(3))) == 0


def test_derivatives_are_those_of_differences() -> None:
    """In float64: with larger steps other bins become the median."""
    data, _ = simulated(40)
    config = DepthCorrectionConfig(gc_bandwidth=0.1, mappability_bandwidth=0.2, temperature=0.1, n_robust=1)
    graph, params, rest = nnx.split(DepthCorrection(config), nnx.Param, ...)

    def outputs(depth: jax.Array, gc: jax.Array, params: nnx.State) -> tuple[jax.Array, ...]:
        given = {"depth": 100 * depth, "gc": gc, "mappability": jnp.asarray(data["mappability"], depth.dtype)}
        found = nnx.merge(graph, params, rest).apply(given, {}, None)[0]
        return found["log2_ratio"][10:], found["bin_weight"]  # without a bin of no reads

    with jax.enable_x64(True):
        point = jax.tree.map(
            lambda known: jnp.asarray(known, jnp.float64), (data["depth"] / 100 + 0.1, data["gc"], params)
        )
        check_grads(jax.jit(outputs), point, order=1, modes=["rev"], eps=1e-6, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_derivatives_are_finite_at_any_scale_and_without_bins(scale: float) -> None:
    data, _ = simulated(50)
    correction = DepthCorrection(DepthCorrectionConfig())

    @jax.jit
    def slopes(depth: jax.Array, mask: jax.Array) -> jax.Array:
        def total(depth: jax.Array) -> jax.Array:
            return (correction.apply({**data, "depth": depth, "bin_mask": mask}, {}, None)[0]["log2_ratio"] ** 2).sum()

        return jax.grad(total)(depth)

    for mask in (np.ones(50, bool), np.zeros(50, bool)):
        assert np.isfinite(slopes(jnp.asarray(scale * data["depth"]), mask)).all()


def test_bandwidths_are_learned() -> None:
    """From bins of known copy number: bandwidths that are much too wide leave bias."""
    data, truth = simulated(1500)
    correction = DepthCorrection(DepthCorrectionConfig(gc_bandwidth=0.3, mappability_bandwidth=0.3, n_robust=1))
    graph, params, rest = nnx.split(correction, nnx.Param, ...)
    optimizer = optax.adam(0.2)

    @jax.jit
    def step(params: nnx.State, state: optax.OptState) -> tuple:
        def loss(params: nnx.State) -> jax.Array:
            found = nnx.merge(graph, params, rest).apply(data, {}, None)[0]
            squares = found["bin_weight"] * (found["log2_ratio"] - truth) ** 2
            return squares.sum() / found["bin_weight"].sum()

        value, slopes = jax.value_and_grad(loss)(params)
        changes, state = optimizer.update(slopes, state)
        return optax.apply_updates(params, changes), state, value

    state, losses = optimizer.init(params), []
    for _ in range(25):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}", [float(jnp.exp(leaf)) for leaf in jax.tree.leaves(params)])
    assert losses[-1] < 0.8 * losses[0]
