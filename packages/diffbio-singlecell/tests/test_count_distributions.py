"""Count distributions against scipy in float64, their limits, gradients and draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special, stats

from diffbio.operators.normalization.count_distributions import (
    draw_negative_binomial,
    draw_poisson,
    draw_zero_inflated,
    gaussian_kl,
    negative_binomial_log_pmf,
    poisson_log_pmf,
    zero_inflated_log_pmf,
)

COUNTS = np.array([0, 1, 2, 3, 5, 8, 20, 100, 1000, 10_000], np.float32)
MEANS = np.array([1e-6, 1e-3, 0.1, 0.7, 1, 2, 5, 20, 99, 101, 1100, 9900, 1e6], np.float32)
DISPERSIONS = np.array([1e-3, 0.05, 0.3, 1, 2, 10, 100, 1000], np.float32)


def deviation(ours, reference) -> float:
    """Return the largest difference, relative where a log-probability is larger than 1 in magnitude."""
    reference = np.asarray(reference, np.float64)
    return float((np.abs(np.asarray(ours, np.float64) - reference) / np.maximum(1, np.abs(reference))).max())


def grid(*axes: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.meshgrid(*axes, indexing="ij"))


def test_poisson_is_scipys(certificate) -> None:
    counts, means = grid(COUNTS, MEANS)
    expected = stats.poisson.logpmf(counts, means.astype(float))
    error = deviation(poisson_log_pmf(counts, means), expected)
    certificate(
        operator="poisson_log_pmf",
        reference="scipy stats.poisson (float64)",
        data="counts 0 to 10,000, means 1e-6 to 1e6",
        quantity="largest difference (relative above 1 nat)",
        value=error,
        bar="<= 1e-5",
    )
    assert error <= 1e-5


def test_negative_binomial_is_scipys(certificate) -> None:
    counts, means, dispersions = grid(COUNTS, MEANS, DISPERSIONS)
    exact = dispersions.astype(float)
    expected = stats.nbinom.logpmf(counts, exact, exact / (exact + means.astype(float)))
    error = deviation(negative_binomial_log_pmf(counts, means, dispersions), expected)
    certificate(
        operator="negative_binomial_log_pmf",
        reference="scipy stats.nbinom (float64)",
        data="counts 0 to 10,000, means 1e-6 to 1e6, inverse dispersions 1e-3 to 1e3",
        quantity="largest difference (relative above 1 nat)",
        value=error,
        bar="<= 1e-5",
    )
    assert error <= 1e-5


def test_zero_inflated_mixes_the_point_at_zero_with_scipys_nbinom(certificate) -> None:
    logits = np.array([-30, -2, 0, 1, 30], np.float32)
    counts, means, dispersions, logits = grid(COUNTS, MEANS, DISPERSIONS, logits)
    exact = dispersions.astype(float)
    nb = stats.nbinom.logpmf(counts, exact, exact / (exact + means.astype(float)))
    kept = special.log_expit(-logits.astype(float)) + nb
    expected = np.where(counts == 0, np.logaddexp(special.log_expit(logits.astype(float)), kept), kept)
    error = deviation(zero_inflated_log_pmf(counts, means, dispersions, logits), expected)
    certificate(
        operator="zero_inflated_log_pmf",
        reference="scipy stats.nbinom (float64) and a point at 0",
        data="counts 0 to 10,000, means 1e-6 to 1e6, inverse dispersions 1e-3 to 1e3, dropout logits -30 to 30",
        quantity="largest difference (relative above 1 nat)",
        value=error,
        bar="<= 1e-5",
    )
    assert error <= 1e-5
    assert float(zero_inflated_log_pmf(0.0, 5.0, 2.0, 0.0)) == pytest.approx(-0.6147, abs=1e-3)
    assert (zero_inflated_log_pmf(COUNTS, 5.0, 2.0, -jnp.inf) == negative_binomial_log_pmf(COUNTS, 5.0, 2.0)).all()


@pytest.mark.parametrize("inverse_dispersion", [1e9, 1e12, 1e20, np.inf])
def test_without_dispersion_it_is_the_poisson(inverse_dispersion: float) -> None:
    counts, means = grid(COUNTS[:9], MEANS[:11])
    poisson = stats.poisson.logpmf(counts, means.astype(float))
    allowed = 1e-5 + np.square(means.max() + counts.max()) / min(inverse_dispersion, 1e15)
    assert deviation(negative_binomial_log_pmf(counts, means, inverse_dispersion), poisson) < allowed


def test_probabilities_sum_to_one() -> None:
    counts = jnp.arange(4000.0)
    for log_pmf in (
        poisson_log_pmf(counts, 17.0),
        negative_binomial_log_pmf(counts, 17.0, 0.7),
        zero_inflated_log_pmf(counts, 17.0, 0.7, -0.3),
    ):
        assert float(jnp.exp(log_pmf).sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("log_pmf", [poisson_log_pmf, negative_binomial_log_pmf, zero_inflated_log_pmf])
def test_gradients_are_those_of_differences(log_pmf) -> None:
    with jax.enable_x64(True):
        counts = jnp.array([0.0, 2.0, 7.5, 40.0, 3.0])
        parameters = (
            jnp.array([0.3, 1.5, 7.4, 3.0, 60.0]),
            jnp.array([0.5, 3.0, 40.0, 0.2, 9.0]),
            jnp.array([-0.4, 0.1, 2.0, -3.0, 0.0]),
        )[: log_pmf.__code__.co_argcount - 1]
        check_grads(jax.jit(lambda *given: log_pmf(counts, *given)), parameters, order=2, rtol=1e-4)
        above_zero = jnp.where(counts == 0, 0.6, counts)
        check_grads(jax.jit(lambda x: log_pmf(x, *parameters)), [above_zero], order=1, rtol=1e-4)


def test_closed_form_gradient_by_dispersion_keeps_its_digits() -> None:
    """The textbook difference of digammas has no right digit left here in float32."""
    counts, mean, dispersion = 3.0, 2.0, 1e4
    slope = jax.grad(negative_binomial_log_pmf, argnums=2)(counts, mean, jnp.float32(dispersion))
    expected = ((mean - counts) ** 2 - counts) / (-2 * dispersion**2)  # the first term in 1 / dispersion
    assert float(slope) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("log_pmf", [poisson_log_pmf, negative_binomial_log_pmf, zero_inflated_log_pmf])
def test_values_and_gradients_are_finite_everywhere(log_pmf) -> None:
    extremes = grid(
        np.array([0, 1e-3, 1, 1e6], np.float32),
        np.array([0, 1e-30, 1e-6, 1, 1e12, 1e30], np.float32),
        np.array([0, 1e-30, 1e-3, 1, 1e12, 1e30, np.inf], np.float32),
        np.array([-np.inf, -1e4, 0, 1e4], np.float32),
    )[: log_pmf.__code__.co_argcount]
    points = [jnp.asarray(axis.ravel()) for axis in extremes]
    value, pull = jax.vjp(log_pmf, *points)
    for array in (value, *pull(jnp.ones_like(value))):
        assert np.isfinite(array).all()


def test_shapes_broadcast_and_integers_are_counts_too() -> None:
    dispersion = jnp.linspace(0.5, 2.0, 4)
    counts = jnp.arange(12).reshape(3, 4)
    log_pmf, pull = jax.vjp(lambda t: negative_binomial_log_pmf(counts, jnp.float32(2.0), t), dispersion)
    assert log_pmf.shape == (3, 4)
    assert log_pmf.dtype == jnp.float32
    assert pull(log_pmf)[0].shape == (4,)
    assert jax.vmap(negative_binomial_log_pmf, (0, None, None))(counts, 2.0, dispersion) == pytest.approx(log_pmf)


@pytest.mark.parametrize(("mean", "dispersion"), [(0.4, 0.2), (30.0, 5.0), (12.0, 1e9)])
def test_draws_have_the_moments_of_the_distribution(mean: float, dispersion: float) -> None:
    n = 40_000
    means = jnp.full(n, mean)
    variance = mean + mean**2 / dispersion
    drawn = {
        "poisson": (draw_poisson(means, key=jax.random.key(0)), mean, mean),
        "nb": (draw_negative_binomial(means, dispersion, key=jax.random.key(1)), mean, variance),
        "zinb": (
            draw_zero_inflated(means, dispersion, jnp.log(1 / 3), key=jax.random.key(2)),
            0.75 * mean,
            0.75 * variance + 0.75 * 0.25 * mean**2,
        ),
    }
    for name, (counts, expected, expected_variance) in drawn.items():
        assert (counts == jnp.round(counts)).all()
        assert (counts >= 0).all()
        assert float(counts.mean()) == pytest.approx(expected, abs=5 * np.sqrt(expected_variance / n)), name
        assert float(counts.var()) == pytest.approx(expected_variance, rel=0.15), name


def test_draws_depend_on_the_key_alone() -> None:
    means = jnp.full(100, 5.0)
    first, again, other = (draw_negative_binomial(means, 2.0, key=jax.random.key(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert (draw_negative_binomial(means, 1e-30, key=jax.random.key(0)) >= 0).all()


def test_gaussian_divergence_is_the_integral() -> None:
    x = np.linspace(-30, 30, 200_001)
    q, p = stats.norm(0.7, np.exp(0.25)), stats.norm(-0.2, np.exp(-0.15))
    expected = np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x)
    kl = gaussian_kl(jnp.array([0.7]), jnp.array([0.5]), jnp.array([-0.2]), jnp.array([-0.3]))
    assert float(kl) == pytest.approx(expected, rel=1e-5)
    assert float(gaussian_kl(jnp.zeros(3), jnp.full(3, 1e-4))) == pytest.approx(0.75e-8, rel=1e-2)
