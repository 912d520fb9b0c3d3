"""Differential distribution: its limit against SciPy on real cells, its p-values without difference, its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy.stats import ks_2samp, kstest, kstwobign, wasserstein_distance

from diffbio.core.errors import ConfigError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.singlecell.differential_distribution import (
    DifferentialDistribution,
    DifferentialDistributionConfig,
    distribution_differences,
    permutation_p_values,
)


def two_types(n_genes=200):
    """Return the expression of monocytes and NK cells (PBMC 68k), and which are NK cells."""
    adata = pbmc68k_reduced()
    types = adata.obs["bulk_labels"].to_numpy()
    chosen = np.isin(types, ["CD14+ Monocyte", "CD56+ NK"])
    return adata.to_df().to_numpy()[chosen][:, :n_genes], (types[chosen] == "CD56+ NK").astype(np.float32)


def test_hard_limit_is_scipys_on_pbmc(certificate):
    expression, condition = two_types()
    found = DifferentialDistribution(DifferentialDistributionConfig(temperature=1e-6)).apply(
        {"normalized": expression, "condition": condition}, {}, None
    )[0]
    first, second = expression[condition == 0].astype(float), expression[condition == 1].astype(float)
    statistics = np.array([ks_2samp(*genes).statistic for genes in zip(first.T, second.T, strict=True)])
    distances = np.array([wasserstein_distance(*genes) for genes in zip(first.T, second.T, strict=True)])
    for quantity, value, reference in (
        ("largest difference of a KS statistic", np.abs(found["ks_statistics"] - statistics).max(), "ks_2samp"),
        (
            "largest difference of a 1-Wasserstein distance",
            np.abs(found["wasserstein_distances"] - distances).max(),
            "wasserstein_distance",
        ),
    ):
        certificate(
            operator="DifferentialDistribution",
            reference=f"SciPy {reference}",
            data="PBMC 68k reduced, monocytes and NK cells, 200 genes",
            quantity=quantity,
            value=value,
            bar="<= 1e-5",
        )
        assert value <= 1e-5


def test_weights_count_as_repeated_cells():
    random = np.random.default_rng(0)
    expression = random.poisson(2.0, (30, 5)).astype(np.float32)
    condition = (np.arange(30) < 12).astype(np.float32)
    repeats = random.integers(1, 4, 30)
    weighted = distribution_differences(
        jnp.asarray(expression), jnp.asarray(condition), jnp.asarray(repeats, jnp.float32), softness=0.1
    )
    repeated = distribution_differences(
        jnp.asarray(expression.repeat(repeats, 0)), jnp.asarray(condition.repeat(repeats)), softness=0.1
    )
    np.testing.assert_allclose(weighted.ks_statistics, repeated.ks_statistics, atol=1e-5)
    np.testing.assert_allclose(weighted.wasserstein_distances, repeated.wasserstein_distances, atol=1e-5)


def test_soft_statistic_is_the_largest_soft_difference():
    random = np.random.default_rng(0)
    expression = random.normal(size=20).astype(np.float32)
    condition = np.arange(20) % 2
    found = distribution_differences(expression[:, None], jnp.asarray(condition, jnp.float32), softness=0.3)
    ascending = np.sort(expression.astype(float))
    z = ((ascending[:-1] + ascending[1:])[:, None] / 2 - expression) / 0.3
    step = np.where(z > 0, 1 - (2 + z) * np.exp(-np.abs(z)) / 4, (2 - z) * np.exp(-np.abs(z)) / 4)
    difference = step[:, condition == 1].mean(1) - step[:, condition == 0].mean(1)
    assert abs(float(found.ks_statistics[0]) - np.abs(difference).max()) < 1e-6


def test_asymptotic_p_values_are_kolmogorovs():
    random = np.random.default_rng(0)
    for shift in (0.0, 0.1, 0.3, 1.0, 3.0):
        expression = np.concatenate([random.normal(size=210), shift + random.normal(size=190)]).astype(np.float32)
        condition = jnp.repeat(jnp.array([0.0, 1.0]), jnp.array([210, 190]), total_repeat_length=400)
        found = distribution_differences(expression[:, None], condition, softness=1e-5)
        root = np.sqrt(210 * 190 / 400)
        expected = kstwobign.logsf((root + 0.12 + 0.11 / root) * float(found.ks_statistics[0]))
        assert abs(float(found.ks_log_p_values[0]) - expected) < 1e-3 * (1 + abs(expected))
        scipy_p = ks_2samp(expression[:210], expression[210:], method="asymp").pvalue
        assert abs(np.exp(float(found.ks_log_p_values[0])) - scipy_p) < 0.03


def test_asymptotic_p_values_without_difference_are_uniform(certificate):
    random = np.random.default_rng(0)
    expression = jnp.asarray(random.normal(size=(464, 2000)), jnp.float32)
    condition = jnp.asarray(random.permutation(np.arange(464) < 211), jnp.float32)
    found = distribution_differences(expression, condition, softness=1e-3)
    distance = kstest(np.exp(np.asarray(found.ks_log_p_values, float)), "uniform").statistic
    certificate(
        operator="DifferentialDistribution",
        reference="uniform distribution",
        data="2,000 null genes without ties, 211 and 253 cells",
        quantity="Kolmogorov-Smirnov distance of asymptotic p-values",
        value=distance,
        bar="<= 0.05",
    )
    assert distance <= 0.05


def test_permutation_p_values_without_difference_are_uniform_with_ties_too(certificate):
    random = np.random.default_rng(0)
    # the conditions are drawn anew for every block of genes, for all genes of a block share the permutations
    p_values = []
    for block in range(20):
        expression = np.log1p(random.poisson(1 + random.gamma(2.0, 2.0, (1, 50)), (60, 50))).astype(np.float32)
        condition = jnp.asarray(random.permutation(np.arange(60) < 25), jnp.float32)
        p_values.append(
            permutation_p_values(
                jnp.asarray(expression), condition, softness=0.3, n_permutations=199, key=jax.random.key(block)
            )
        )
    for name, values in zip(("Kolmogorov-Smirnov", "1-Wasserstein"), np.concatenate(p_values, 1), strict=True):
        distance = kstest(values, "uniform").statistic
        certificate(
            operator="DifferentialDistribution",
            reference="uniform distribution",
            data="1,000 null genes of counts, 25 and 35 cells",
            quantity=f"Kolmogorov-Smirnov distance of permutation p-values, {name}",
            value=distance,
            bar="<= 0.0515 (1 % level)",
        )
        assert distance <= 0.0515


def test_permutation_p_values_find_a_difference_of_shape_alone():
    random = np.random.default_rng(0)
    alike = random.normal(size=(200, 1))
    two_humps = np.concatenate(
        [random.normal(size=100) * 1.5, np.tile([-1.5, 1.5], 50) + 0.1 * random.normal(size=100)]
    )
    expression = jnp.asarray(np.column_stack([alike, two_humps]), jnp.float32)
    p_values = permutation_p_values(
        expression, jnp.repeat(jnp.array([0.0, 1.0]), 100), softness=0.05, n_permutations=199, key=jax.random.key(0)
    )
    for values in p_values:
        assert float(values[1]) < 0.05 < float(values[0])


def test_gradients_are_right():
    random = np.random.default_rng(0)
    expression = jnp.asarray(random.normal(size=(10, 3)), jnp.float32)
    condition = jnp.asarray(random.uniform(0.1, 0.9, 10), jnp.float32)
    weight = jnp.asarray(random.uniform(0.5, 1.5, 10), jnp.float32)

    @jax.jit
    def differences(expression, condition, weight, softness):
        return distribution_differences(expression, condition, weight, softness=softness)

    point = (expression, condition, weight, jnp.float32(0.3))
    check_grads(differences, point, order=1, modes=("rev",), eps=1e-3, rtol=3e-2, atol=3e-2)


def test_training_a_shift_brings_the_distributions_together():
    random = np.random.default_rng(0)
    expression = jnp.asarray(random.normal(size=(100, 4)), jnp.float32)
    condition = jnp.repeat(jnp.array([0.0, 1.0]), 50)
    expression = expression + 2 * condition[:, None]
    optimizer = optax.adam(0.05)

    @jax.jit
    def step(shift, state):
        def loss(shift):
            found = distribution_differences(expression - shift * condition[:, None], condition, softness=0.3)
            return found.ks_statistics.mean()

        value, gradient = jax.value_and_grad(loss)(shift)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(shift, updates), state, value

    shift = jnp.zeros(4)
    state = optimizer.init(shift)
    for _ in range(100):
        shift, state, _ = step(shift, state)
    print("shifts found by the soft KS statistic:", shift.round(2).tolist())
    assert np.abs(np.asarray(shift) - 2).max() < 0.5


def test_constants_empty_conditions_and_lone_cells_are_neutral():
    columns = [np.zeros(6), np.full(6, 3.0), np.arange(6.0), np.arange(6.0) * 1e30, np.arange(6.0) * 1e-30]
    expression = jnp.asarray(np.stack(columns, 1), jnp.float32)

    @jax.jit
    def gradients(expression, condition):
        def total(expression, condition):
            found = distribution_differences(expression, condition, softness=0.1)
            return sum(leaf.sum() for leaf in found), found

        return jax.grad(total, argnums=(0, 1), has_aux=True)(expression, condition)

    for condition in (jnp.zeros(6), jnp.ones(6), jnp.array([0.0, 0, 0, 1, 1, 1])):
        slopes, found = gradients(expression, condition)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((slopes, found)))
        assert (np.asarray(found.ks_statistics)[:2] < 1e-6).all()
        assert (np.asarray(found.ks_log_p_values)[:2] > -1e-6).all()
        if condition.sum() in (0, 6):
            assert not np.any(found.ks_statistics)
            assert not np.any(found.wasserstein_distances)
    for n_cells in (1, 2):
        one = distribution_differences(jnp.ones((n_cells, 1)), jnp.ones(n_cells), softness=0.1)
        assert float(one.ks_statistics[0]) == 0.0


def test_chunks_of_genes_change_nothing():
    expression, condition = two_types(20)
    whole = distribution_differences(expression, jnp.asarray(condition), softness=0.1)
    chunked = distribution_differences(expression, jnp.asarray(condition), softness=0.1, chunk_size=3)
    for one, other in zip(whole, chunked, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_errors_say_what_is_wanted():
    with pytest.raises(ConfigError, match="temperature is 0"):
        DifferentialDistributionConfig(temperature=0.0)
