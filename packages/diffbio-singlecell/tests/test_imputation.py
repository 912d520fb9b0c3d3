"""Diffusion imputation against graphtools, the graph library of MAGIC.

`data/diffusion_reference.npz` was made with graphtools 2.1.0 from 40 cells of
`scanpy.datasets.pbmc68k_reduced()` (six principal components, six genes):

    graph = graphtools.Graph(embeddings.astype(float), n_pca=None, knn=5, knn_max=15, decay=1, thresh=1e-4)
    diffusion_operator = graph.diff_op.toarray()
    imputed_counts = numpy.linalg.matrix_power(diffusion_operator, 3) @ counts
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from scipy.stats import spearmanr

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.normalization import PCAProjection, PCAProjectionConfig
from diffbio.operators.singlecell import (
    DiffusionImputation,
    DiffusionImputationConfig,
    DiffusionPseudotime,
    DiffusionPseudotimeConfig,
    SoftClusteringConfig,
    SoftKMeansClustering,
    diffusion_imputation,
)
from diffbio.operators.singlecell.imputation import alpha_decay, square_root_proportions

REFERENCE = Path(__file__).parent / "data" / "diffusion_reference.npz"


def counts_of(n_cells=30, n_genes=12, seed=0):
    rates = np.random.default_rng(seed).gamma(1.0, 3.0, size=(2, n_genes))[np.arange(n_cells) % 2]
    return np.random.default_rng(seed + 1).poisson(rates).astype(np.float32)


def impute(counts, **config):
    return DiffusionImputation(DiffusionImputationConfig(**config)).apply({"counts": counts}, {}, None)[0]


def test_operator_and_imputed_counts_are_those_of_graphtools(certificate):
    reference = np.load(REFERENCE)
    identity = jnp.eye(len(reference["counts"]))
    walk = diffusion_imputation(identity, reference["embeddings"], n_steps=1).imputed_counts
    imputed = impute_on(reference["counts"], reference["embeddings"])
    differences = (
        np.abs(walk - reference["diffusion_operator"]).max(),
        np.abs(imputed - reference["imputed_counts"]).max(),
    )
    measured = zip(("of the walk", "of counts up to 215"), differences, ("<= 1e-6", "<= 1e-4"), strict=True)
    for quantity, value, bar in measured:
        certificate(
            operator="DiffusionImputation",
            reference="graphtools 2.1.0",
            data="PBMC 68k, 40 cells x 6 components",
            quantity=f"largest difference {quantity}",
            value=value,
            bar=bar,
        )
    assert differences[0] < 1e-6
    assert differences[1] < 1e-4
    assert reference["imputed_counts"].max() > 1


def impute_on(counts, embeddings, **config):
    operator = DiffusionImputation(DiffusionImputationConfig(**config))
    return operator.apply({"counts": counts, "graph_embeddings": embeddings}, {}, None)[0]["imputed_counts"]


def test_hard_limit_is_the_nearest_neighbor_graph():
    cells = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    distances = np.linalg.norm(cells[:, None] - cells, axis=-1)
    rank = distances.argsort(1).argsort(1)
    graph = np.select([rank < 5, rank == 5], [1.0, np.exp(-1.0)], 0.0)
    graph = graph + graph.T
    walk = graph / graph.sum(1, keepdims=True)
    errors = []
    for decay in (1.0, 10.0, 100.0, 1e4, 1e6):
        found = diffusion_imputation(jnp.eye(40), cells, decay=decay, n_steps=1).imputed_counts
        errors.append(np.abs(found - walk).max())
    print("difference from the hard graph as decay grows:", " ".join(f"{e:.1e}" for e in errors))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5


def test_neighbors_decay_and_time_matter():
    counts = counts_of(60)
    default = impute(counts)["imputed_counts"]
    for other in ({"n_neighbors": 10}, {"max_neighbors": 8}, {"decay": 4.0}, {"diffusion_time": 1}):
        change = float(jnp.abs(impute(counts, **other)["imputed_counts"] - default).max())
        print(f"{other} changes the counts by up to {change:.2f}")
        assert change > 0.1
    np.testing.assert_array_equal(impute(counts, diffusion_time=0)["imputed_counts"], counts)


def magic(counts, n_pca=100, knn=5, knn_max=15, decay=1.0, n_steps=3):
    """Impute as published, in NumPy: library size, square root, PCA, adaptive kernel, random walk."""
    rooted = np.sqrt(1e4 * counts.astype(float) / counts.sum(1, keepdims=True))
    left, values, _ = np.linalg.svd(rooted - rooted.mean(0), full_matrices=False)
    components = left[:, :n_pca] * values[:n_pca]
    squared = (components**2).sum(1)[:, None] - 2 * components @ components.T + (components**2).sum(1)
    distances = np.sqrt(np.maximum(squared, 0))
    np.fill_diagonal(distances, 0)
    kernel = np.eye(len(counts))
    for cell, row in enumerate(distances):
        nearest = np.argsort(row, kind="stable")[: knn_max + 1]
        nearest = nearest[nearest != cell]
        kernel[cell, nearest] = np.exp(-((row[nearest] / row[nearest[knn - 1]]) ** decay))
    kernel = (kernel + kernel.T) / 2
    walk = kernel / kernel.sum(1, keepdims=True)
    return np.linalg.matrix_power(walk, n_steps) @ rooted, walk, rooted


def as_magic(counts, n_pca=100):
    projection = PCAProjection(PCAProjectionConfig(n_genes=counts.shape[1], n_components=n_pca), rngs=nnx.Rngs(0))
    imputer = DiffusionImputation(DiffusionImputationConfig())
    pipeline = Pipeline(
        projection.reads(scaled="rooted"), imputer.reads(counts="rooted", graph_embeddings="embeddings")
    )
    rooted = 100 * square_root_proportions(counts)
    pipeline.initialize(rooted=rooted)
    return np.asarray(pipeline.apply({"rooted": rooted}, {}, None)[0]["imputed_counts"])


def test_pipeline_is_magic_as_published_on_pbmc(certificate):
    scanpy = pytest.importorskip("scanpy")
    counts = np.expm1(scanpy.datasets.pbmc68k_reduced().raw.X.toarray()).astype(np.float32)
    expected = magic(counts)[0]
    found = as_magic(counts)
    varying = expected.std(0) > 0
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(found.T[varying], expected.T[varying], strict=True)]
    certificate(
        operator="DiffusionImputation",
        reference="MAGIC's recipe in NumPy",
        data="PBMC 68k, 700 cells x 765 genes",
        quantity="least correlation of a gene",
        value=min(correlations),
        bar=">= 0.99",
    )
    print(f"largest difference {np.abs(found - expected).max():.1e} on values up to {expected.max():.1f}")
    assert min(correlations) >= 0.99


@pytest.mark.slow
def test_pipeline_is_magic_on_raw_counts_with_the_graph_of_graphtools(certificate):
    graphtools = pytest.importorskip("graphtools")
    celltypist = pytest.importorskip("celltypist")
    pandas = pytest.importorskip("pandas")
    table = Path(celltypist.__file__).parent / "data" / "samples" / "sample_cell_by_gene.csv"
    counts = pandas.read_csv(table, index_col=0).to_numpy(np.float32)
    counts = counts[:, (counts > 0).sum(0) >= 10]
    rooted = np.sqrt(1e4 * counts.astype(float) / counts.sum(1, keepdims=True))
    left, values, _ = np.linalg.svd(rooted - rooted.mean(0), full_matrices=False)
    found = as_magic(counts)

    def expected(data, **how):
        graph = graphtools.Graph(data, knn=5, knn_max=15, decay=1, thresh=1e-4, random_state=0, **how)
        return np.linalg.matrix_power(graph.diff_op.toarray(), 3) @ rooted

    where = {
        "operator": "DiffusionImputation",
        "reference": "graphtools 2.1.0",
        "data": f"CellTypist's sample, {counts.shape[0]} cells x {counts.shape[1]:,} genes, raw counts",
        "bar": ">= 0.99",
    }
    exact = expected(left[:, :100] * values[:100], n_pca=None)
    least = min(np.corrcoef(a, b)[0, 1] for a, b in zip(found.T, exact.T, strict=True))
    certificate(quantity="least correlation of a gene, exact components", value=least, **where)
    # its own PCA is a random one, which gives other graphs with other seeds
    overall = np.corrcoef(found.ravel(), expected(rooted, n_pca=100).ravel())[0, 1]
    certificate(quantity="correlation of all values, its own PCA", value=overall, **where)
    assert least >= 0.99
    assert overall >= 0.99


def test_two_cell_types_keep_their_gap_and_lose_their_noise(certificate):
    random = np.random.default_rng(0)
    types = np.arange(100) % 2
    rates = np.where(types[:, None] == 0, [20.0] * 10 + [4.0] * 10, [4.0] * 10 + [20.0] * 10)
    counts = random.poisson(rates).astype(np.float32)
    imputed = np.asarray(impute(counts)["imputed_counts"])

    def gap(x):
        return x[types == 0, 0].mean() - x[types == 1, 0].mean()

    def noise(x):
        return np.sqrt(np.mean((x - rates) ** 2))

    print(f"gap {gap(counts):.2f} -> {gap(imputed):.2f}; error {noise(counts):.2f} -> {noise(imputed):.2f}")
    certificate(
        operator="DiffusionImputation",
        reference="truth",
        data="two simulated types, 100 cells",
        quantity="share of the gap between types that is kept",
        value=gap(imputed) / gap(counts),
        bar=">= 0.8",
    )
    assert gap(imputed) >= 0.8 * gap(counts)
    assert noise(imputed) < 0.5 * noise(counts)


def test_constants_stay_and_means_are_means():
    counts = counts_of()
    counts[:, 0] = 7.0
    imputed = impute(counts)["imputed_counts"]
    np.testing.assert_allclose(imputed[:, 0], 7.0, rtol=1e-5)
    assert (imputed >= 0).all()
    assert (imputed.max(0) <= counts.max(0) + 1e-4).all()


def test_depth_does_not_choose_neighbors():
    counts = counts_of() + 1.0
    depth = np.random.default_rng(0).uniform(0.5, 4.0, (len(counts), 1)).astype(np.float32)
    np.testing.assert_allclose(square_root_proportions(counts), square_root_proportions(counts * depth), rtol=1e-5)


def test_gradients_are_right_by_counts_and_coordinates():
    random = np.random.default_rng(0)
    counts, cells = (jnp.asarray(random.gamma(2.0, size=(12, 3)), jnp.float32) for _ in range(2))

    def imputed(y, x, decay):
        return diffusion_imputation(y, x, n_neighbors=3, decay=decay, n_steps=2)

    check_grads(imputed, (counts, cells, jnp.float32(2.0)), order=1, modes=("rev",), rtol=2e-2, atol=2e-2, eps=1e-3)


@pytest.mark.parametrize("decay", [0.3, 1.0, 40.0])
@pytest.mark.parametrize("case", ["zeros", "constant", "duplicates", "tiny", "huge", "empty cells"])
def test_hard_cases_give_finite_values_and_gradients(case, decay):
    counts = counts_of(20)
    counts[: {"duplicates": 12, "empty cells": 12}.get(case, 0)] = counts[0] if case == "duplicates" else 0.0
    counts = counts * {"zeros": 0.0, "tiny": 1e-20, "huge": 1e20}.get(case, 1.0)
    counts = jnp.ones_like(counts) if case == "constant" else jnp.asarray(counts, jnp.float32)
    imputer = DiffusionImputation(DiffusionImputationConfig(decay=decay))
    imputed, pullback = jax.vjp(lambda x: imputer.apply({"counts": x}, {}, None)[0]["imputed_counts"], counts)
    assert np.isfinite(imputed).all()
    assert np.isfinite(pullback(jnp.ones_like(imputed))[0]).all()


def test_affinity_at_and_beyond_the_bandwidth():
    affinities = alpha_decay(jnp.array([[0.0, 0.0, 1.0], [0.5, 1.0, 9.0]]), 2, decay=50.0)
    np.testing.assert_allclose(affinities, [[1, 1, 0], [1, np.exp(-1), 0]], atol=1e-6)


def test_memory_grows_with_cells_times_genes():
    scratch = []
    for n_cells in (4000, 8000):
        shape = jax.ShapeDtypeStruct((n_cells, 200), jnp.float32)
        gradient = jax.grad(lambda x: (impute(x)["imputed_counts"] ** 2).sum())
        compiled = jax.jit(gradient).lower(shape).compile().memory_analysis()
        scratch.append(compiled.temp_size_in_bytes / (4 * n_cells * 200))
    print(f"scratch of the gradient at 4000 and 8000 cells: {scratch[0]:.1f}, {scratch[1]:.1f} arrays of cells x genes")
    assert scratch[1] < 18


def test_cells_come_in_no_order():
    counts = counts_of()
    order = np.random.default_rng(0).permutation(len(counts))
    np.testing.assert_allclose(
        impute(counts[order])["imputed_counts"], impute(counts)["imputed_counts"][order], rtol=1e-4, atol=1e-4
    )


def test_wrong_sizes_are_refused():
    with pytest.raises(ContractError, match="distance to neighbour 5, but there are 5 cells"):
        impute(counts_of(5))
    with pytest.raises(ConfigError, match="max_neighbors is 3; it must be at least n_neighbors, which is 5"):
        DiffusionImputationConfig(max_neighbors=3)


def test_impute_cluster_order_keeps_everything():
    counts = counts_of(40, 20)
    imputer = DiffusionImputation(DiffusionImputationConfig())
    clusterer = SoftKMeansClustering(SoftClusteringConfig(n_clusters=3, n_features=20), rngs=nnx.Rngs(0))
    pseudotime = DiffusionPseudotime(DiffusionPseudotimeConfig())
    result, _, _ = imputer.apply({"counts": counts}, {}, None)
    result["embeddings"] = result["imputed_counts"]
    result, _, _ = clusterer.apply(result, {}, None)
    result, _, _ = pseudotime.apply(result, {}, None)
    assert {"counts", "imputed_counts", "cluster_assignments", "pseudotime"} <= result.keys()
    np.testing.assert_array_equal(result["counts"], counts)
    assert result["imputed_counts"].shape == (40, 20)
    assert result["cluster_assignments"].shape == (40, 3)
    assert result["pseudotime"].shape == (40,)


@pytest.mark.slow
def test_imputation_recovers_what_was_dropped_on_pbmc():
    scanpy = pytest.importorskip("scanpy")
    expression = np.expm1(scanpy.datasets.pbmc68k_reduced().raw.X.toarray()).astype(np.float32)
    expressed = expression[:, (expression > 0).mean(0) > 0.3]
    dropped = np.where(np.random.default_rng(0).random(expressed.shape) < 0.3, 0.0, expressed).astype(np.float32)
    hidden = (expressed > 0) & (dropped == 0)
    imputed = np.asarray(impute(dropped)["imputed_counts"])
    guess = np.broadcast_to(dropped.mean(0), dropped.shape)
    found, baseline = (spearmanr(x[hidden], expressed[hidden])[0] for x in (imputed, guess))
    print(f"Spearman of {hidden.sum()} hidden values: imputed {found:.3f}, mean of the gene {baseline:.3f}")
    assert found > baseline
