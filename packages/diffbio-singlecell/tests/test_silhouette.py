"""Silhouettes against scikit-learn and scib-metrics on real cells, by their definition, and at their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn
from jax.test_util import check_grads
from sklearn.metrics import silhouette_samples as sklearn_samples
from sklearn.metrics import silhouette_score as sklearn_score

from diffbio.core.errors import ContractError, MissingKeyError
from diffbio.losses.singlecell.silhouette import (
    batch_silhouette,
    cell_type_silhouette,
    cluster_silhouette,
    silhouette_batch,
    silhouette_samples,
    silhouette_score,
)

scanpy = pytest.importorskip("scanpy")

SKLEARN = f"scikit-learn {sklearn.__version__}"
PBMC = "PBMC 68k, 700 cells, 50 components"


@pytest.fixture(scope="module")
def pbmc() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 50 principal components, cell types and cell-cycle phases of 700 cells."""
    adata = scanpy.datasets.pbmc68k_reduced()
    types, phases = (adata.obs[name].cat.codes.to_numpy().astype(int) for name in ("bulk_labels", "phase"))
    return adata.obsm["X_pca"].astype(np.float32), types, phases


def one_hot(labels: np.ndarray) -> jax.Array:
    return jax.nn.one_hot(labels, int(labels.max()) + 1)


def by_definition(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return the soft silhouettes cell by cell, for clusters that each have a cell's worth of other members."""
    distances = np.linalg.norm(x[:, None].astype(float) - x, axis=-1)
    found = np.zeros(len(x))
    for i in range(len(x)):
        other = np.arange(len(x)) != i
        mean = np.array([np.average(distances[i, other], weights=p[other, k]) for k in range(p.shape[1])])
        for k in range(p.shape[1]):
            nearest = np.delete(mean, k).min()
            found[i] += p[i, k] * (nearest - mean[k]) / max(nearest, mean[k])
    return found


def test_one_hot_silhouettes_are_those_of_scikit_learn(pbmc, certificate):
    cells, types, phases = pbmc
    for name, labels in (("cell types", types), ("phases", phases)):
        expected = sklearn_samples(cells.astype(float), labels)
        found = silhouette_samples(cells, one_hot(labels))
        difference = np.abs(found - expected).max()
        certificate(
            operator="silhouette_samples",
            reference=SKLEARN,
            data=f"{PBMC}, {name}",
            quantity="largest difference",
            value=difference,
            bar="<= 1e-5",
        )
        assert difference <= 1e-5
        assert float(silhouette_score(cells, one_hot(labels))) == pytest.approx(expected.mean(), abs=1e-6)
    assert expected.min() < -0.2  # the data tell signs and sizes apart
    assert sklearn_samples(cells, types).max() > 0.3


def test_soft_silhouettes_are_their_definition():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 3)).astype(np.float32)
    p = random.dirichlet(np.ones(4), 40).astype(np.float32)
    np.testing.assert_allclose(silhouette_samples(x, p), by_definition(x, p), atol=2e-6)


def test_soft_silhouettes_tend_to_hard_ones(pbmc):
    cells, types, _ = pbmc
    hard = sklearn_samples(cells.astype(float), types)
    logits = 3 * one_hot(types) + np.random.default_rng(0).uniform(size=(700, 10))
    errors = [float(np.abs(silhouette_samples(cells, jax.nn.softmax(logits / t)) - hard).max()) for t in (1, 0.3, 0.05)]
    print("difference from the hard silhouettes as the assignments harden:", " ".join(f"{e:.1e}" for e in errors))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("block_size", [1, 7, 700, 5000])
def test_blocks_do_not_change_the_result(pbmc, block_size):
    cells, types, _ = (part[:60] for part in pbmc)
    expected = silhouette_samples(cells, one_hot(types))
    np.testing.assert_allclose(silhouette_samples(cells, one_hot(types), block_size=block_size), expected, atol=1e-6)


@pytest.mark.slow
def test_batch_silhouette_is_that_of_scib_metrics(pbmc, certificate):
    scib = pytest.importorskip("scib_metrics")
    cells, types, phases = pbmc
    shifted = cells + 3 * (phases == 1)[:, None]
    for name, embeddings in (("phases as batches", cells), ("one phase shifted", shifted)):
        expected = scib.silhouette_batch(embeddings, types, phases)
        difference = abs(float(silhouette_batch(embeddings, one_hot(types), one_hot(phases))) - expected)
        label = abs(1 - 2 * float(cell_type(embeddings, types)) - (2 * scib.silhouette_label(embeddings, types) - 1))
        for function, value in (("silhouette_batch", difference), ("silhouette_label", label)):
            certificate(
                operator=function,
                reference=f"scib-metrics {scib.__version__}",
                data=f"{PBMC}, {name}",
                quantity="difference",
                value=value,
                bar="<= 1e-5",
            )
            assert value <= 1e-5


def cell_type(embeddings, types):
    return cell_type_silhouette({"embeddings": embeddings, "labels": jnp.asarray(types)}, n_classes=10)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_batch_silhouette_is_its_definition(pbmc, shift, certificate):
    cells, types, phases = pbmc
    cells = cells + shift * (phases == 1)[:, None].astype(np.float32)
    means = []
    for label in np.unique(types):
        inside = types == label
        n_batches = len(np.unique(phases[inside]))
        if 1 < n_batches < inside.sum():
            means.append((1 - np.abs(sklearn_samples(cells[inside].astype(float), phases[inside]))).mean())
    found = silhouette_batch(cells, one_hot(types), one_hot(phases))
    loss = batch_silhouette(
        {"embeddings": cells, "labels": types, "batch_labels": phases},
        n_classes=12,  # two more than there are
        n_batches=4,
    )
    assert float(loss) == pytest.approx(1 - float(found), abs=1e-6)
    certificate(
        operator="silhouette_batch",
        reference=SKLEARN,
        data=f"{PBMC}, phases as batches, one shifted by {shift:g}",
        quantity="difference",
        value=abs(float(found) - np.mean(means)),
        bar="<= 1e-5",
    )
    assert float(found) == pytest.approx(np.mean(means), abs=1e-5)


def test_types_in_one_batch_do_not_count():
    cells = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    types, batches = np.repeat([0, 1, 2], [6, 4, 2]), np.array([0, 1] * 3 + [1] * 4 + [0, 1])
    only_first = 1 - np.abs(sklearn_samples(cells[:6].astype(float), batches[:6])).mean()
    assert float(silhouette_batch(cells, one_hot(types), one_hot(batches))) == pytest.approx(only_first, abs=1e-6)
    assert float(silhouette_batch(cells[6:], one_hot(types[6:]), one_hot(batches[6:]))) == 1.0


def test_singletons_unlabelled_cells_and_empty_clusters():
    cells = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    labels = np.r_[np.repeat([0, 1, 3], [14, 9, 1]), [-1] * 6]  # nobody in cluster 2, one cell in cluster 3
    expected = sklearn_samples(cells[:24].astype(float), labels[:24])
    found = silhouette_samples(cells, jax.nn.one_hot(labels, 5))
    np.testing.assert_allclose(found[:24], expected, atol=1e-6)
    np.testing.assert_array_equal(found[23:], 0)
    loss = cell_type_silhouette({"embeddings": cells, "labels": jnp.asarray(labels)}, n_classes=5)
    assert float(loss) == pytest.approx((1 - sklearn_score(cells[:24], labels[:24])) / 2, abs=1e-6)


def test_the_value_is_continuous_as_a_cluster_empties():
    cells = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    hard = jax.nn.one_hot(np.r_[np.zeros(10, int), np.ones(10, int)], 3)
    values = []
    for leak in (1e-2, 1e-4, 1e-6, 1e-13, 0.0):  # into an empty third cluster, which is then the nearest to many
        values.append(float(silhouette_score(cells, (1 - leak) * hard + leak * jnp.eye(3)[2])))
    np.testing.assert_allclose(values[1:], values[-1], atol=2e-3)
    assert abs(values[0] - values[-1]) < 0.1
    one = [float(silhouette_score(cells, jnp.array([1 - leak, leak]) * jnp.ones((20, 1)))) for leak in (1e-4, 0.0)]
    np.testing.assert_allclose(one, 0, atol=2e-3)  # all in one cluster: no reward


def test_gradients_are_those_of_finite_differences():
    random = np.random.default_rng(0)
    cells = jnp.asarray(random.normal(size=(14, 3)), jnp.float32)
    logits = jnp.asarray(random.normal(size=(14, 3)), jnp.float32)

    def loss(cells, logits):
        return cluster_silhouette({"embeddings": cells, "cluster_assignments": jax.nn.softmax(logits)})

    check_grads(loss, (cells, logits), 1, modes=["fwd", "rev"], rtol=2e-2, eps=1e-3)
    batches, types = one_hot(np.arange(14) % 2), one_hot(np.arange(14) // 7)
    check_grads(lambda x: silhouette_batch(x, types, batches), (cells,), 1, modes=["fwd", "rev"], rtol=2e-2, eps=1e-3)


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e15])
def test_gradients_are_finite_for_duplicates_singletons_and_any_scale(scale):
    cells = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    cells[5:10] = cells[4]
    labels = np.r_[np.zeros(10, int), np.ones(9, int), 2]
    reference = jax.grad(silhouette_score)(jnp.asarray(cells), jax.nn.one_hot(labels, 4))
    for x in (cells, np.zeros_like(cells)):
        gradients = jax.grad(silhouette_score, argnums=(0, 1))(jnp.asarray(scale * x), jax.nn.one_hot(labels, 4))
        assert all(np.isfinite(gradient).all() for gradient in gradients)
        assert np.isfinite(jax.grad(silhouette_batch)(scale * x, one_hot(labels % 2), one_hot(labels))).all()
    np.testing.assert_allclose(
        jax.grad(silhouette_score)(jnp.asarray(scale * cells), jax.nn.one_hot(labels, 4)) * scale, reference, atol=1e-5
    )
    for few in (1, 2):
        assert np.isfinite(jax.grad(silhouette_score)(jnp.asarray(cells[:few]), jnp.eye(2)[:few])).all()
        assert float(silhouette_score(cells[:few], jnp.eye(2)[:few])) == 0


def test_near_cells_far_from_the_origin_keep_their_silhouettes():
    random = np.random.default_rng(0)
    cells = np.concatenate([random.normal(size=(20, 2)), random.normal(size=(20, 2)) + 1, [[4000.0, 0.0]] * 2])
    cells, labels = cells.astype(np.float32), np.repeat([0, 1, 2], [20, 20, 2])
    np.testing.assert_allclose(
        silhouette_samples(cells, one_hot(labels)), sklearn_samples(cells.astype(float), labels), atol=1e-5
    )


def test_memory_holds_no_matrix_of_all_pairs():
    cells, assignments = (jax.ShapeDtypeStruct((20_000, width), jnp.float32) for width in (50, 10))
    compiled = jax.jit(jax.grad(silhouette_score, argnums=(0, 1))).lower(cells, assignments).compile()
    scratch = compiled.memory_analysis().temp_size_in_bytes
    print(f"scratch of the gradient for 20,000 cells: {scratch / 1e6:.0f} MB; a matrix of all pairs has 1600 MB")
    assert scratch < 80e6


def test_descent_separates_types_and_mixes_batches():
    random = np.random.default_rng(0)
    types, batches = np.arange(80) % 2, np.arange(80) // 2 % 2
    x = random.normal(size=(80, 3)) + 1.5 * types[:, None] * [1, 0, 0] + 3 * batches[:, None] * [0, 1, 0]
    data = {"embeddings": jnp.asarray(x, jnp.float32), "labels": types, "batch_labels": batches}

    def corrected(shift):
        return {**data, "embeddings": data["embeddings"] - shift * batches[:, None]}

    gradient = jax.jit(jax.grad(lambda s: batch_silhouette(corrected(s), n_classes=2, n_batches=2)))
    shift = jnp.zeros(3)
    for _ in range(60):
        shift = shift - 2 * gradient(shift)
    print("the batch effect (0, 3, 0) is found as", np.round(shift, 2))
    np.testing.assert_allclose(shift, [0, 3, 0], atol=0.6)
    logits = jnp.zeros((80, 2)) + 0.1 * random.normal(size=(80, 2))

    def clustering(logits):
        cells = jnp.asarray(x * [3, 1, 0.3], jnp.float32)
        return cluster_silhouette({"embeddings": cells, "cluster_assignments": jax.nn.softmax(logits)})

    before = clustering(logits)
    step = jax.jit(lambda logits: logits - 200 * jax.grad(clustering)(logits))
    for _ in range(100):
        logits = step(logits)
    print(f"loss of the clusters: {before:.3f} -> {clustering(logits):.3f}")
    assert clustering(logits) < before - 0.15


def test_errors_say_what_is_wanted():
    cells = jnp.zeros((4, 2))
    with pytest.raises(ContractError, match="at least 2"):
        silhouette_samples(cells, jnp.ones((4, 1)))
    with pytest.raises(ContractError, match=r"shape \(3, 2\) for 4 cells"):
        silhouette_score(cells, jnp.ones((3, 2)))
    with pytest.raises(ContractError, match=r"shape \(4,\) for 4 cells.*one_hot"):
        silhouette_samples(cells, jnp.zeros(4))
    with pytest.raises(MissingKeyError, match="batch_silhouette reads 'batch_labels'"):
        batch_silhouette({"embeddings": cells, "labels": jnp.zeros(4, int)}, n_classes=1, n_batches=2)
