"""Soft k-means: its limit against scikit-learn on real cells, its start, its operator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from diffbio.core.errors import ContractError, MissingRandomnessError
from diffbio.operators.singlecell import (
    SoftClusteringConfig,
    SoftKMeansClustering,
    clustering,
    kmeans_plus_plus,
    soft_kmeans,
)


def blobs(n_cells=60, seed=0):
    random = np.random.default_rng(seed)
    types = np.arange(n_cells) % 3
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    return (centres[types] + random.normal(size=(n_cells, 2))).astype(np.float32), types


def pbmc():
    scanpy = pytest.importorskip("scanpy")
    return scanpy.datasets.pbmc68k_reduced()


def test_hard_limit_is_lloyds_algorithm_on_pbmc(certificate):
    cells = pbmc().obsm["X_pca"].astype(np.float32)
    start = np.asarray(kmeans_plus_plus(cells, 8, key=jax.random.key(0)))
    lloyd = KMeans(8, init=start, n_init=1, algorithm="lloyd", tol=0, max_iter=300).fit(cells.astype(np.float64))
    for softness in (1.0, 1e-1, 1e-2, 1e-3):
        soft = soft_kmeans(cells, start, softness=softness, n_iterations=lloyd.n_iter_ + 5)
        moved = np.abs(soft.cluster_centroids - lloyd.cluster_centers_).max()
        same = (np.asarray(soft.cluster_assignments).argmax(1) == lloyd.labels_).mean()
        print(f"softness {softness:g}: centroids differ by {moved:.1e}, labels agree for {same:.4f} of the cells")
    certificate(
        operator="SoftKMeansClustering",
        reference="scikit-learn 1.9.1",
        data="PBMC 68k, 700 cells x 50 components, 8 clusters",
        quantity="largest difference of centroids to Lloyd's at softness 1e-3",
        value=moved,
        bar="<= 1e-4",
    )
    assert moved <= 1e-4
    assert same == 1.0


def test_initialized_clusterer_is_as_good_as_scikit_learn_on_pbmc():
    adata = pbmc()
    cells, truth = adata.obsm["X_pca"][:, :20].astype(np.float32), adata.obs["bulk_labels"]
    ours, theirs = [], []
    for seed in range(5):
        clusterer = SoftKMeansClustering(SoftClusteringConfig(n_clusters=8, n_features=20), rngs=nnx.Rngs(seed))
        clusterer.initialize(cells, key=jax.random.key(seed))
        result, _, _ = clusterer.apply({"embeddings": cells}, {}, None)
        ours.append(adjusted_rand_score(truth, np.asarray(result["cluster_assignments"]).argmax(1)))
        theirs.append(adjusted_rand_score(truth, KMeans(8, n_init=1, random_state=seed).fit_predict(cells)))
    print(f"ARI with bulk labels, mean of 5: ours {np.mean(ours):.3f}, scikit-learn {np.mean(theirs):.3f}")
    assert np.mean(ours) > np.mean(theirs) - 0.05


def test_one_step_is_expectation_maximization():
    cells, _ = blobs()
    start, softness = cells[:4], 3.0
    squared = ((cells[:, None].astype(float) - start) ** 2).sum(-1)
    weights = np.exp(-squared / softness)
    weights /= weights.sum(1, keepdims=True)
    found = soft_kmeans(cells, start, softness=softness, n_iterations=1)
    np.testing.assert_allclose(found.cluster_centroids, weights.T @ cells / weights.sum(0)[:, None], atol=1e-4)
    fixed = soft_kmeans(cells, start, softness=softness, n_iterations=0)
    np.testing.assert_allclose(fixed.cluster_assignments, weights, atol=1e-5)
    np.testing.assert_array_equal(fixed.cluster_centroids, start)


def plain_soft_kmeans(cells, centroids, softness, n_iterations):
    def assigned(centroids):
        squared = jnp.sum((cells[:, None] - centroids) ** 2, axis=-1)
        return jax.nn.softmax(-squared / softness, axis=1)

    for _ in range(n_iterations):
        shares = assigned(centroids)
        centroids = shares.T @ cells / shares.sum(0)[:, None]
    return assigned(centroids), centroids


@pytest.mark.parametrize("cached", [1, 7, 30, 2**18])
def test_blocks_change_neither_values_nor_gradients(cached, monkeypatch):
    monkeypatch.setattr(clustering, "_CACHED", cached * 5)  # in blocks of 1, 7, 30 and all of the 60 cells
    cells, _ = blobs()
    point = (jnp.asarray(cells), jnp.asarray(cells[:3]) + 0.5, jnp.float32(4.0))

    def ours(x, c, s):
        return clustering.soft_kmeans.__wrapped__(x, c, softness=s, n_iterations=3)

    weights = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    found, pull = jax.vjp(jax.jit(ours), *point)
    expected, pull_plain = jax.vjp(jax.jit(lambda x, c, s: plain_soft_kmeans(x, c, s, 3)), *point)
    cotangents = (jnp.asarray(weights), jnp.ones((3, 2)))
    gradients, plain_gradients = pull(type(found)(*cotangents)), pull_plain(cotangents)
    for a, b in zip([*found, *gradients], [*expected, *plain_gradients], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("scale", "softness"), [(1.0, 1e-30), (1e-12, 1e-24), (1e12, 1e24), (1e15, 1e-3)])
def test_any_scale_and_softness_give_finite_values_and_gradients(scale, softness):
    cells, types = blobs()
    cells = jnp.asarray(cells * np.float32(scale))
    found, pull = jax.vjp(
        lambda x, c, s: soft_kmeans(x, c, softness=s, n_iterations=3), cells, cells[:3], jnp.float32(softness)
    )
    assert adjusted_rand_score(types, np.asarray(found.cluster_assignments).argmax(1)) > 0.9
    gradients = pull(jax.tree.map(lambda x: jnp.ones_like(x).at[0].set(0), found))
    assert all(np.isfinite(g).all() for g in gradients)


def test_memory_of_the_gradient_does_not_grow_with_the_steps():
    cells, start = (jax.ShapeDtypeStruct((rows, 50), jnp.float32) for rows in (20_000, 10))
    scratch = []
    for n_iterations in (2, 8):
        gradient = jax.grad(
            lambda x, c, n=n_iterations: (soft_kmeans(x, c, softness=1.0, n_iterations=n).cluster_centroids ** 2).sum()
        )
        compiled = jax.jit(gradient).lower(cells, start).compile().memory_analysis()
        scratch.append(compiled.temp_size_in_bytes / (4 * 20_000 * 50))
    print(f"scratch of the gradient for 2 and 8 steps: {scratch[0]:.1f}, {scratch[1]:.1f} arrays of cells x features")
    assert scratch[1] < 5


def test_centroid_without_cells_stays():
    cells, _ = blobs()
    start = jnp.concatenate([jnp.asarray(cells[:3]), jnp.full((1, 2), 1e3)])
    found = soft_kmeans(cells, start, softness=1.0)
    np.testing.assert_array_equal(found.cluster_centroids[3], start[3])
    gradient = jax.grad(lambda c: soft_kmeans(cells, c, softness=1.0).cluster_centroids.sum())(start)
    assert np.isfinite(gradient).all()


def test_centroids_merge_above_the_critical_softness():
    cells, _ = blobs()
    critical = 2 * np.linalg.eigvalsh(np.cov(cells.T, bias=True)).max()
    start = kmeans_plus_plus(cells, 3, key=jax.random.key(0))
    spread = [
        float(soft_kmeans(cells, start, softness=f * critical, n_iterations=500).cluster_centroids.std(0).max())
        for f in (0.8, 1.2)
    ]
    print(f"spread of centroids below and above the critical softness {critical:.1f}: {spread}")
    assert spread[0] > 0.1 > 1e-3 > spread[1]


def test_cells_far_from_the_origin_are_clustered_as_well():
    cells, types = blobs()
    far = cells + np.float32(1e4)
    found = soft_kmeans(far, far[:3], softness=0.1)
    assert adjusted_rand_score(types, np.asarray(found.cluster_assignments).argmax(1)) == 1.0


def test_start_is_spread_out_and_distinct():
    cells = np.repeat(np.arange(5.0, dtype=np.float32), 20)[:, None]  # 5 distinct cells, 20 of each
    for seed in range(20):
        start = kmeans_plus_plus(cells, 5, key=jax.random.key(seed))
        assert sorted(start.ravel().tolist()) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert np.isfinite(kmeans_plus_plus(cells, 8, key=jax.random.key(0))).all()  # more than distinct cells
    assert kmeans_plus_plus(cells, 1, key=jax.random.key(0)).shape == (1, 1)


def test_start_costs_no_more_than_that_of_scikit_learn():
    from sklearn.cluster import kmeans_plusplus

    cells = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32)

    def cost(centroids):
        return ((cells[:, None] - np.asarray(centroids)) ** 2).sum(-1).min(1).mean()

    ours = np.mean([cost(kmeans_plus_plus(cells, 10, key=jax.random.key(s))) for s in range(30)])
    theirs = np.mean([cost(kmeans_plusplus(cells, 10, random_state=s)[0]) for s in range(30)])
    print(f"mean squared distance to the start: ours {ours:.3f}, scikit-learn {theirs:.3f}")
    assert ours < 1.05 * theirs


def test_more_clusters_than_cells_are_refused():
    with pytest.raises(ContractError, match="5 clusters were asked for among 4 cells"):
        kmeans_plus_plus(jnp.zeros((4, 2)), 5, key=jax.random.key(0))


def test_gradients_are_right_by_cells_centroids_and_softness():
    cells, _ = blobs(12)

    def clusters(x, c, s):
        return soft_kmeans(x, c, softness=s, n_iterations=3)

    point = (jnp.asarray(cells), jnp.asarray(cells[:3]) + 0.5, jnp.float32(4.0))
    check_grads(clusters, point, order=1, modes=("rev",), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("cells", [np.zeros((9, 2)), np.ones((9, 2)), np.full((9, 2), 1e6)])
def test_constant_cells_give_finite_values_and_gradients(cells):
    cells = jnp.asarray(cells, jnp.float32)
    start = kmeans_plus_plus(cells, 3, key=jax.random.key(0))
    gradients = jax.grad(lambda x, c: soft_kmeans(x, c, softness=1.0).cluster_assignments[:, 0].sum(), (0, 1))
    assert all(np.isfinite(g).all() for g in gradients(cells, start))


def test_operator_works_untrained_initialized_and_on_new_cells():
    config = SoftClusteringConfig(n_clusters=3, n_features=2, temperature=0.5)
    clusterer = SoftKMeansClustering(config, rngs=nnx.Rngs(42))
    cells, types = blobs()
    result, _, _ = clusterer.apply({"embeddings": cells}, {}, None)
    np.testing.assert_allclose(result["cluster_assignments"].sum(1), 1.0, rtol=1e-5)
    clusterer.initialize(cells, key=jax.random.key(0))
    result, _, _ = clusterer.apply({"embeddings": cells}, {}, None)
    assert adjusted_rand_score(types, np.asarray(result["cluster_assignments"]).argmax(1)) == 1.0
    np.testing.assert_allclose(result["cluster_centroids"], clusterer.centroids[...], atol=1e-2)  # at rest

    fixed = SoftClusteringConfig(n_clusters=3, n_features=2, temperature=0.5, n_iterations=0)
    mapper = SoftKMeansClustering(fixed, rngs=nnx.Rngs(0))
    mapper.centroids[...] = clusterer.centroids[...]
    new, _ = blobs(9, seed=1)
    together = mapper.apply({"embeddings": new}, {}, None)[0]["cluster_assignments"]
    alone = [mapper.apply({"embeddings": new[i : i + 1]}, {}, None)[0]["cluster_assignments"][0] for i in range(9)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


def test_names_that_are_promised():
    config = SoftClusteringConfig(n_clusters=10, n_features=50, temperature=1.0)
    clusterer = SoftKMeansClustering(config, rngs=nnx.Rngs(42))
    assert clusterer.centroids[...].shape == (10, 50)
    with pytest.raises(MissingRandomnessError):
        SoftKMeansClustering(config)
    learnable = SoftClusteringConfig(n_clusters=2, n_features=2, learnable_temperature=True)
    assert len(jax.tree.leaves(nnx.state(SoftKMeansClustering(learnable, rngs=nnx.Rngs(0)), nnx.Param))) == 2
