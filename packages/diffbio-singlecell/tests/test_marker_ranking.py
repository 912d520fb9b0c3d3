"""Marker ranking: its limit against scanpy on real cells and SciPy, its p-values without difference, its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy.stats import false_discovery_control, kstest, mannwhitneyu

from diffbio.core.errors import ConfigError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.singlecell.marker_ranking import (
    MarkerRanking,
    MarkerRankingConfig,
    adjusted_log_p_values,
    rank_markers,
)


def cells_with_markers(n_cells=60, n_genes=30, seed=0):
    """Return log counts of two groups, of which the first ten genes differ."""
    random = np.random.default_rng(seed)
    group = np.arange(n_cells) % 2
    means = np.full((n_cells, n_genes), 2.0)
    means[:, :5] *= np.where(group == 0, 3.0, 0.5)[:, None]
    means[:, 5:10] *= np.where(group == 1, 3.0, 0.5)[:, None]
    return np.log1p(random.poisson(means)).astype(np.float32), group


@pytest.mark.slow
def test_hard_limit_is_scanpys_wilcoxon_test_on_pbmc(certificate):
    sc = pytest.importorskip("scanpy")
    adata = pbmc68k_reduced()
    expression = adata.to_df().to_numpy()
    types = adata.obs["bulk_labels"].astype("category")
    one_hot = np.eye(10, dtype=np.float32)[types.cat.codes]
    found = MarkerRanking(MarkerRankingConfig(temperature=1e-6)).apply(
        {"normalized": expression, "cluster_assignments": one_hot}, {}, None
    )[0]
    adata.X = expression.astype(np.float64)
    sc.tl.rank_genes_groups(adata, "bulk_labels", method="wilcoxon", tie_correct=True, use_raw=False)
    z_scores, folds, log_p, adjusted = (np.empty((10, 765)) for _ in range(4))
    for k, name in enumerate(types.cat.categories):
        table = sc.get.rank_genes_groups_df(adata, name).set_index("names").loc[adata.var_names]
        z_scores[k], folds[k] = table["scores"], table["logfoldchanges"]
        log_p[k], adjusted[k] = np.log(table["pvals"]), np.log(table["pvals_adj"])
    finite = np.isfinite(log_p) & (np.abs(folds) < 20)  # scanpy's floor shows in genes that one side lacks
    ours = adjusted_log_p_values(found["marker_log_p_values"])
    for quantity, value in (
        ("largest difference of a z score", np.abs(found["marker_z_scores"] - z_scores).max()),
        ("of a log2 fold change", np.abs(found["marker_log2_fold_changes"] - folds)[finite].max()),
        ("of a log p-value, relative", (np.abs(found["marker_log_p_values"] - log_p) / (1 - log_p))[finite].max()),
        ("of an adjusted log p-value, relative", (np.abs(ours - adjusted) / (1 - adjusted))[finite].max()),
    ):
        certificate(
            operator="MarkerRanking",
            reference="scanpy rank_genes_groups, Wilcoxon with tie correction",
            data="PBMC 68k reduced, 765 genes, 10 cell types",
            quantity=quantity,
            value=value,
            bar="<= 1e-3",
        )
        assert value <= 1e-3


def test_auroc_and_p_values_are_scipys(certificate):
    expression, group = cells_with_markers()
    found = rank_markers(jnp.asarray(expression), jnp.eye(2)[group], softness=1e-5)
    statistic, p_values = mannwhitneyu(
        expression[group == 0], expression[group == 1], method="asymptotic", use_continuity=False
    )
    auroc = np.abs(found.marker_auroc[0] - statistic / 900).max()
    certificate(
        operator="MarkerRanking",
        reference="SciPy mannwhitneyu",
        data="60 simulated cells, 30 genes with ties",
        quantity="largest difference of an AUROC",
        value=auroc,
        bar="<= 1e-5",
    )
    assert auroc <= 1e-5
    np.testing.assert_allclose(np.exp(found.marker_log_p_values[0]), p_values, atol=1e-5)
    np.testing.assert_allclose(found.marker_auroc[1], 1 - found.marker_auroc[0], atol=1e-6)


@pytest.mark.parametrize("softness", [1e-4, 0.5])
def test_p_values_without_difference_are_uniform(softness, certificate):
    random = np.random.default_rng(0)
    expression = np.log1p(random.poisson(random.gamma(2.0, 2.0, (1, 2000)), (150, 2000))).astype(np.float32)
    soft = random.dirichlet(np.ones(3), 150).astype(np.float32)
    found = rank_markers(jnp.asarray(expression), jnp.asarray(soft), softness=softness)
    p_values = np.exp(np.asarray(found.marker_log_p_values, np.float64))
    distance = max(kstest(p, "uniform").statistic for p in p_values)
    certificate(
        operator="MarkerRanking",
        reference="uniform distribution",
        data=f"2,000 null genes of 150 cells, soft clusters, softness {softness}",
        quantity="Kolmogorov-Smirnov distance of p-values, worst of 3 clusters",
        value=distance,
        bar="<= 0.0364 (1 % level)",
    )
    assert distance <= 0.0364


def test_adjusted_p_values_are_scipys():
    p_values = np.random.default_rng(0).beta(0.5, 2.0, (3, 40))
    adjusted = np.exp(adjusted_log_p_values(jnp.log(jnp.asarray(p_values, jnp.float32))))
    np.testing.assert_allclose(adjusted, [false_discovery_control(row) for row in p_values], rtol=1e-4)


def test_soft_auroc_is_the_sum_over_pairs():
    expression, _ = cells_with_markers(20, 4)
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.ones(3), 20).astype(np.float32)
    found = rank_markers(jnp.asarray(expression), jnp.asarray(weights), softness=0.4).marker_auroc
    # the step of soft ranks, with the kernel (1 + |z|) exp(-|z|) / 4
    z = (expression[:, None] - expression[None]) / 0.4
    step = np.where(z > 0, 1 - (2 + z) * np.exp(-np.abs(z)) / 4, (2 - z) * np.exp(-np.abs(z)) / 4)
    pairs = np.einsum("ik,jk,ijg->kg", weights, 1 - weights, step)
    sizes = weights.sum(0)[:, None]
    np.testing.assert_allclose(found, pairs / (sizes * (20 - sizes)), atol=1e-5)


def test_chunks_of_genes_change_nothing():
    expression, group = cells_with_markers()
    whole = rank_markers(jnp.asarray(expression), jnp.eye(2)[group], softness=0.1)
    chunked = rank_markers(jnp.asarray(expression), jnp.eye(2)[group], softness=0.1, chunk_size=7)
    for one, other in zip(whole, chunked, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_gradients_are_right():
    expression, _ = cells_with_markers(12, 3)
    random = np.random.default_rng(0)
    expression = jnp.asarray(expression + random.uniform(0, 0.1, expression.shape), jnp.float32)
    logits = jnp.asarray(random.normal(size=(12, 3)), jnp.float32)

    @jax.jit
    def markers(expression, logits, softness):
        return rank_markers(expression, jax.nn.softmax(logits), softness=softness)

    check_grads(markers, (expression, logits, jnp.float32(0.5)), order=1, modes=("rev",), rtol=3e-2, atol=3e-2)


def test_training_clusters_to_have_markers_finds_the_groups():
    expression, group = cells_with_markers()
    expression = jnp.asarray(expression)
    logits = 0.1 * jax.random.normal(jax.random.key(0), (60, 2))
    optimizer = optax.adam(0.1)

    @jax.jit
    def step(logits, state):
        def loss(logits):
            return -jnp.square(rank_markers(expression, jax.nn.softmax(logits), softness=0.3).marker_z_scores).mean()

        value, gradient = jax.value_and_grad(loss)(logits)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(logits, updates), state, value

    state, value = optimizer.init(logits), 0.0
    for _ in range(80):
        logits, state, value = step(logits, state)
    labels = np.asarray(logits).argmax(1)
    agreement = max((labels == group).mean(), (labels != group).mean())
    print(f"mean squared z score {-float(value):.1f}; {agreement:.3f} of the cells in their group")
    assert agreement > 0.95


def test_constant_genes_empty_clusters_and_lone_cells_are_neutral():
    expression = jnp.asarray(np.stack([np.zeros(6), np.full(6, 3.0), np.arange(6.0), np.arange(6.0) * 1e20], 1))
    expression = expression.astype(jnp.float32)
    clusters = jnp.zeros((6, 3)).at[:, 0].set(1.0)  # one holds all, two hold none

    def total(expression, clusters):
        found = rank_markers(expression, clusters, softness=0.1)
        return sum(leaf.sum() for leaf in found), found

    gradients, found = jax.grad(total, argnums=(0, 1), has_aux=True)(expression, clusters)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert (found.marker_auroc == 0.5).all()
    assert (found.marker_z_scores == 0).all()
    assert np.isfinite(found.marker_log2_fold_changes).all()
    halves = rank_markers(expression, jnp.repeat(jnp.eye(2), 3, axis=0), softness=0.1)
    np.testing.assert_allclose(halves.marker_auroc[:, :2], 0.5)
    assert float(halves.marker_auroc[0, 2]) < 0.01
    one = rank_markers(expression[:1], jnp.ones((1, 1)), softness=0.1)
    assert all(np.isfinite(leaf).all() for leaf in one)


def test_errors_say_what_is_wanted():
    with pytest.raises(ConfigError, match="temperature is 0"):
        MarkerRankingConfig(temperature=0.0)
