"""CellTypeClassifier against scikit-learn's logistic regression, and its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from diffbio.core.errors import MissingRandomnessError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.losses.singlecell import cell_type_cross_entropy
from diffbio.operators.singlecell.annotation import CellTypeClassifier, CellTypeClassifierConfig

PENALTY = 0.01  # per cell, on half the squared weights


@pytest.fixture(scope="module")
def cells() -> dict[str, np.ndarray]:
    """Twenty principal components of PBMC 68k in units of the first one's standard deviation, and cell types."""
    annotated = pbmc68k_reduced()
    embeddings = PCA(20, random_state=0).fit_transform(annotated.X.toarray())
    labels = annotated.obs["bulk_labels"].cat.codes.to_numpy().astype(np.int32)
    return {"embeddings": (embeddings / embeddings.std(0)[0]).astype(np.float32), "labels": labels}


def train(classifier: CellTypeClassifier, data: dict[str, np.ndarray], steps: int) -> float:
    """Minimize cross-entropy plus an L2 penalty on the weights by L-BFGS; returns the last gradient's norm."""
    graph, params, rest = nnx.split(classifier, nnx.Param, ...)
    optimizer = optax.lbfgs()

    def loss(params: nnx.State) -> jax.Array:
        model = nnx.merge(graph, params, rest)
        penalty = sum(jnp.square(kernel[...]).sum() for kernel in model.kernels)
        return cell_type_cross_entropy(model.apply(data, {}, None)[0]) + PENALTY / 2 * penalty

    @jax.jit
    def step(params: nnx.State, state: optax.OptState) -> tuple[nnx.State, optax.OptState, jax.Array]:
        value, gradient = optax.value_and_grad_from_state(loss)(params, state=state)
        updates, state = optimizer.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(params, updates), state, optax.tree.norm(gradient)

    state = optimizer.init(params)
    norm = jnp.inf
    for _ in range(steps):
        params, state, norm = step(params, state)
    nnx.update(classifier, params)
    return float(norm)


def test_trained_without_hidden_layers_it_is_scikit_learns_logistic_regression(
    cells: dict[str, np.ndarray], certificate
) -> None:
    classifier = CellTypeClassifier(CellTypeClassifierConfig(n_features=20, n_classes=10))
    norm = train(classifier, cells, steps=200)
    x, y = cells["embeddings"], cells["labels"]
    reference = LogisticRegression(C=1 / (PENALTY * len(x)), tol=1e-8, max_iter=10_000).fit(x, y)
    probabilities = np.asarray(classifier.apply(cells, {}, None)[0]["cell_type_probabilities"])
    expected = reference.predict_proba(x)
    error = np.abs(probabilities - expected).max()
    print(f"last gradient {norm:.1e}")
    certificate(
        operator="CellTypeClassifier",
        reference="scikit-learn LogisticRegression",
        data="PBMC 68k, 20 components, 10 types",
        quantity="largest difference in probability",
        value=error,
        bar="< 2e-3",
    )
    assert error < 2e-3
    assert (probabilities.argmax(1) == expected.argmax(1)).mean() > 0.998


@pytest.mark.slow
def test_hidden_layers_fit_what_no_line_separates() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 2)).astype(np.float32)
    data = {"embeddings": x, "labels": (x.prod(1) > 0).astype(np.int32)}
    linear = LogisticRegression().fit(x, data["labels"]).score(x, data["labels"])
    config = CellTypeClassifierConfig(n_features=2, n_classes=2, hidden_sizes=(16, 8))
    classifier = CellTypeClassifier(config, rngs=nnx.Rngs(0))
    train(classifier, data, steps=100)
    logits = classifier.apply(data, {}, None)[0]["cell_type_logits"]
    accuracy = float((logits.argmax(1) == data["labels"]).mean())
    print(f"accuracy {accuracy:.3f}, of a linear classifier {linear:.3f}")
    assert linear < 0.75
    assert accuracy > 0.95


def test_low_temperature_gives_one_hot_and_leaves_logits_alone() -> None:
    results = []
    for temperature in (1.0, 1e-4):
        config = CellTypeClassifierConfig(n_features=2, n_classes=3, temperature=temperature)
        classifier = CellTypeClassifier(config)
        classifier.kernels[0][...] = jnp.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]])
        results.append(classifier.compute(jnp.array([[1.0, 0.2], [0.1, 0.4]])))
    soft, hard = results
    assert (soft.cell_type_logits == hard.cell_type_logits).all()
    np.testing.assert_allclose(soft.cell_type_probabilities.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(hard.cell_type_probabilities, [[1, 0, 0], [0, 1, 0]], atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-10, 1e10])
def test_values_and_gradients_are_finite_at_any_scale(scale: float) -> None:
    config = CellTypeClassifierConfig(n_features=3, n_classes=4, hidden_sizes=(5,))
    classifier = CellTypeClassifier(config, rngs=nnx.Rngs(0))
    data = {"embeddings": scale * jnp.ones((6, 3)), "labels": jnp.array([0, 1, 2, 3, -1, 0])}
    gradient = nnx.grad(lambda model: cell_type_cross_entropy(model.apply(data, {}, None)[0]))(classifier)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_only_hidden_layers_need_randomness() -> None:
    classifier = CellTypeClassifier(CellTypeClassifierConfig(n_features=3, n_classes=4))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(nnx.state(classifier, nnx.Param)))
    with pytest.raises(MissingRandomnessError, match="rngs"):
        CellTypeClassifier(CellTypeClassifierConfig(n_features=3, n_classes=4, hidden_sizes=(5,)))
