"""The single-cell losses against scikit-learn, and at their edges."""

from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.cluster import KMeans
from sklearn.metrics import log_loss

from diffbio.core.errors import ContractError, MissingKeyError
from diffbio.losses.singlecell import cell_type_cross_entropy, cluster_compactness


@pytest.fixture
def annotated() -> dict[str, jax.Array]:
    random = np.random.default_rng(0)
    labels = np.r_[np.repeat([0, 1, 2], [12, 5, 3]), [-1] * 6].astype(np.int32)
    return {"cell_type_logits": jnp.asarray(random.normal(0, 2, (26, 3)), jnp.float32), "labels": jnp.asarray(labels)}


@pytest.mark.parametrize("balanced", [False, True])
def test_cross_entropy_is_scikit_learns_log_loss_of_the_labelled(
    annotated: dict[str, jax.Array], balanced: bool, certificate: Callable[..., None]
) -> None:
    probabilities = softmax(np.asarray(annotated["cell_type_logits"][:20], np.float64), axis=1)
    labels = np.asarray(annotated["labels"][:20])
    rarity = (1 / np.bincount(labels))[labels] if balanced else None
    expected = log_loss(labels, probabilities, sample_weight=rarity)
    found = float(cell_type_cross_entropy(annotated, balanced=balanced))
    certificate(
        operator="cell_type_cross_entropy",
        reference=f"scikit-learn {version('scikit-learn')}, log_loss",
        data="20 labelled cells of 26, 3 types",
        quantity=f"{'balanced' if balanced else 'plain'}, relative difference",
        value=abs(found / expected - 1),
        bar="<= 1e-5",
    )
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("balanced", [False, True])
def test_unlabelled_cells_have_no_effect_and_no_gradient(annotated: dict[str, jax.Array], balanced: bool) -> None:
    labelled = {key: value[:20] for key, value in annotated.items()}
    assert cell_type_cross_entropy(annotated, balanced=balanced) == pytest.approx(
        float(cell_type_cross_entropy(labelled, balanced=balanced)), rel=1e-6
    )
    gradient = jax.grad(
        lambda logits: cell_type_cross_entropy({**annotated, "cell_type_logits": logits}, balanced=balanced)
    )(annotated["cell_type_logits"])
    assert (gradient[20:] == 0).all()
    assert (jnp.abs(gradient[:20]).sum(1) > 0).all()


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e8])
def test_cross_entropy_is_finite_without_labels_and_for_huge_logits(
    annotated: dict[str, jax.Array], balanced: bool, scale: float
) -> None:
    for labels in (annotated["labels"], jnp.full(26, -1)):
        value, gradient = jax.value_and_grad(
            lambda logits, labels=labels: cell_type_cross_entropy(
                {"cell_type_logits": logits, "labels": labels}, balanced=balanced
            )
        )(scale * annotated["cell_type_logits"])
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    assert value == 0  # nobody is labelled


def test_compactness_of_hard_clusters_is_the_inertia_of_kmeans_per_cell(certificate: Callable[..., None]) -> None:
    x = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32) + 20
    fitted = KMeans(6, n_init=1, random_state=0).fit(x)
    data = {
        "embeddings": jnp.asarray(x),
        "cluster_assignments": jnp.asarray(np.eye(6, dtype=np.float32)[fitted.labels_]),
        "cluster_centroids": jnp.asarray(fitted.cluster_centers_, jnp.float32),
    }
    found, expected = float(cluster_compactness(data)), fitted.inertia_ / 300
    certificate(
        operator="cluster_compactness",
        reference=f"scikit-learn {version('scikit-learn')}, KMeans.inertia_",
        data="300 x 10 normal numbers around 20, 6 clusters",
        quantity="relative difference",
        value=abs(found / expected - 1),
        bar="<= 1e-5",
    )
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_compactness_of_soft_clusters_is_its_definition(offset: float) -> None:
    random = np.random.default_rng(1)
    x = (random.normal(size=(40, 3)) + offset).astype(np.float32)
    c = (random.normal(size=(5, 3)) + offset).astype(np.float32)
    a = random.dirichlet(np.ones(5), 40).astype(np.float32)
    squares = ((x.astype(np.float64)[:, None] - c.astype(np.float64)) ** 2).sum(-1)
    data = {"embeddings": jnp.asarray(x), "cluster_assignments": jnp.asarray(a), "cluster_centroids": jnp.asarray(c)}
    assert float(cluster_compactness(data)) == pytest.approx((a * squares).sum() / 40, rel=1e-4)
    gradient = jax.grad(lambda c: cluster_compactness({**data, "cluster_centroids": c}))(jnp.asarray(c))
    expected = 2 / 40 * (a.sum(0)[:, None] * c - a.T @ x)
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * (1 + offset / 100))


def test_compactness_has_finite_gradients_on_equal_points() -> None:
    ones = {
        "embeddings": jnp.ones((4, 2)),
        "cluster_assignments": jnp.full((4, 3), 1 / 3),
        "cluster_centroids": jnp.ones((3, 2)),
    }
    value, gradient = jax.value_and_grad(cluster_compactness)(ones)
    assert float(value) == pytest.approx(0, abs=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_errors_name_the_loss_and_the_key(annotated: dict[str, jax.Array]) -> None:
    with pytest.raises(MissingKeyError, match="cell_type_cross_entropy reads 'labels'"):
        cell_type_cross_entropy({"cell_type_logits": jnp.zeros((2, 3))})
    with pytest.raises(MissingKeyError, match="cluster_compactness reads 'cluster_centroids'"):
        cluster_compactness({"embeddings": jnp.zeros((2, 3)), "cluster_assignments": jnp.ones((2, 1))})
    with pytest.raises(ContractError, match="one integer label per cell"):
        cell_type_cross_entropy({**annotated, "labels": annotated["labels"][:, None]})
