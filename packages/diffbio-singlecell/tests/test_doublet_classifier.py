"""DoubletClassifier: simulation, Bayes' rule, training, and Scrublet beside it on real cells with known doublets."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.decomposition import PCA
from sklearn.metrics import log_loss, roc_auc_score

from diffbio.core import Pipeline
from diffbio.core.errors import ContractError, MissingRandomnessError
from diffbio.losses.singlecell.doublets import doublet_cross_entropy
from diffbio.operators.singlecell.doublet_classifier import (
    DoubletClassifier,
    DoubletClassifierConfig,
    doublet_probability,
    simulate_doublets,
)
from diffbio.training import ArrayDataset, FitResult, fit, transform


def with_known_doublets(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return 400 cells of four types, of unlike depth, and 40 sums of two others; and which are the sums."""
    random = np.random.default_rng(seed)
    profiles = random.dirichlet(np.full(60, 0.4), 4)
    types = random.integers(4, size=480)
    cells = random.poisson(random.lognormal(5.5, 0.5, (480, 1)) * profiles[types]).astype(np.float32)
    counts = np.concatenate([cells[:400], cells[400:440] + cells[440:]])
    return counts, np.repeat([0, 1], [400, 40])


def kernels_alone(weights):
    return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path), weights)


def trained(counts: np.ndarray, *, epochs: int = 30, seed: int = 0, **config) -> FitResult:
    classifier = DoubletClassifier(DoubletClassifierConfig(n_genes=counts.shape[1], **config), rngs=nnx.Rngs(seed))
    classifier.initialize(jnp.asarray(counts))
    cells = classifier.training_cells(jnp.asarray(counts), key=jax.random.key(seed))
    return fit(
        Pipeline(classifier, names=("classifier",)),
        ArrayDataset({name: np.asarray(array) for name, array in cells._asdict().items()}),
        doublet_cross_entropy,
        optimizer=optax.adamw(3e-3, weight_decay=3.0, mask=kernels_alone),
        epochs=epochs,
        batch_size=64,
        key=jax.random.key(seed),
        progress=False,
    )


@functools.cache
def small() -> tuple[FitResult, np.ndarray, np.ndarray]:
    counts, doublets = with_known_doublets()
    return trained(counts, n_components=10, expected_doublet_rate=40 / 440), counts, doublets


def test_simulated_doublets_are_sums_of_two_different_cells() -> None:
    counts = jnp.asarray(2.0 ** np.arange(6)[:, None])  # a sum tells which cells are in it
    cells = simulate_doublets(counts, 500, key=jax.random.key(0))
    assert (cells.counts[:6] == counts).all()
    assert cells.doublet_labels.tolist() == [0] * 6 + [1] * 500
    sums = np.asarray(cells.counts[6:, 0]).astype(int)
    assert all(total.bit_count() == 2 for total in sums.tolist())
    assert len(set(sums.tolist())) == 15  # every pair comes up
    again = simulate_doublets(counts, 500, key=jax.random.key(1))
    assert (again.counts != cells.counts).any()
    with pytest.raises(ContractError, match="two cells"):
        simulate_doublets(counts[:1], 3, key=jax.random.key(0))


def test_probability_is_bayes_rule_on_known_densities() -> None:
    """Where the densities are known the logit is too, and the share of doublets at each logit is the probability."""
    random = np.random.default_rng(0)
    rate, ratio, n = 0.1, 3.0, 200_000
    doublets = random.random(n) < rate
    x = random.normal(np.where(doublets, 2.0, 0.0))
    density = np.exp(-0.5 * np.square(x - 2.0))
    observed = rate * density + (1 - rate) * np.exp(-0.5 * np.square(x))
    logits = jnp.asarray(np.log(ratio * density / observed), jnp.float32)
    probability = np.asarray(doublet_probability(logits, simulated_ratio=ratio, expected_doublet_rate=rate))
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.0)):
        inside = (probability >= low) & (probability <= high)
        assert doublets[inside].mean() == pytest.approx(probability[inside].mean(), abs=0.02)
    assert probability.mean() == pytest.approx(rate, abs=0.002)


def test_trained_it_finds_doublets_that_depth_does_not_show() -> None:
    result, counts, doublets = small()
    data = transform(result.pipeline, ArrayDataset({"counts": counts}))
    ours, depth = roc_auc_score(doublets, data["doublet_logits"]), roc_auc_score(doublets, counts.sum(1))
    print(f"area under the curve {ours:.3f}, of the depth {depth:.3f}")
    assert ours > 0.9
    assert ours > depth + 0.05
    assert 20 < data["doublet_probabilities"].sum() < 60
    assert ((data["doublet_probabilities"] >= 0) & (data["doublet_probabilities"] <= 1)).all()
    assert result.history.columns()["train_loss"][-1] < result.history.columns()["train_loss"][0]


def test_a_higher_expected_rate_means_more_doublets_in_the_same_order() -> None:
    result, counts, _ = small()
    few = result.pipeline["classifier"].compute(jnp.asarray(counts))
    more = doublet_probability(few.doublet_logits, simulated_ratio=2.0, expected_doublet_rate=0.3)
    assert (more >= few.doublet_probabilities).all()
    assert more.sum() > 1.5 * few.doublet_probabilities.sum()


def test_features_are_scikit_learns_components_in_standard_deviations() -> None:
    counts, _ = with_known_doublets()
    classifier = DoubletClassifier(DoubletClassifierConfig(n_genes=60, n_components=3), rngs=nnx.Rngs(0))
    classifier.initialize(jnp.asarray(counts))
    normalized = np.log1p(1e4 * counts / counts.sum(1, keepdims=True)).astype(np.float64)
    expected = PCA(3, svd_solver="full").fit_transform(normalized)
    expected /= expected.std(0, ddof=1)
    actual = (normalized - classifier.mean[...]) @ classifier.components[...] * classifier.scale[...]
    np.testing.assert_allclose(actual, expected, atol=2e-3)


def test_loss_is_scikit_learns() -> None:
    logits, labels = np.array([-2.0, 0.3, 4.0], np.float32), np.array([0, 1, 0])
    expected = log_loss(labels, 1 / (1 + np.exp(-logits.astype(float))))
    data = {"doublet_logits": jnp.asarray(logits), "doublet_labels": jnp.asarray(labels)}
    assert float(doublet_cross_entropy(data)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(KeyError, match="doublet_labels"):
        doublet_cross_entropy({"doublet_logits": jnp.zeros(2)})


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e5])
def test_values_and_gradients_are_finite_for_odd_cells(scale: float) -> None:
    counts = scale * jnp.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 1], [3, 0, 5], [3, 0, 5]])
    classifier = DoubletClassifier(DoubletClassifierConfig(n_genes=3, n_components=3), rngs=nnx.Rngs(0))
    classifier.initialize(counts)
    graph, state = nnx.split(classifier)

    def total(state: nnx.State, counts: jax.Array) -> jax.Array:
        scores = nnx.merge(graph, state).compute(counts)
        return scores.doublet_logits.sum() + scores.doublet_probabilities.sum()

    value, slopes = jax.value_and_grad(total, argnums=(0, 1))(state, counts)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, slopes)))


def test_what_can_not_be_built_says_so() -> None:
    with pytest.raises(MissingRandomnessError, match="rngs"):
        DoubletClassifier(DoubletClassifierConfig(n_genes=40))
    with pytest.raises(ContractError, match="30 components of 3 genes"):
        DoubletClassifier(DoubletClassifierConfig(n_genes=3), rngs=nnx.Rngs(0))
    classifier = DoubletClassifier(DoubletClassifierConfig(n_genes=40, n_components=10), rngs=nnx.Rngs(0))
    with pytest.raises(ContractError, match="10"):
        classifier.initialize(jnp.ones((4, 40)))


@pytest.mark.slow
def test_doublets_among_real_cells_beside_scrublet(certificate) -> None:
    """Fifty sums of two cells each stand among 509 cells of CellTypist's sample; over three draws of them."""
    scrublet = pytest.importorskip("scrublet")
    celltypist = pytest.importorskip("celltypist")
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(Path(celltypist.__file__).parent / "data/samples/sample_cell_by_gene.csv", index_col=0)
    cells = np.round(table.to_numpy()).astype(np.float32)
    cells = cells[:, (cells > 0).sum(0) >= 3]
    doublets = np.repeat([0, 1], [509, 50])
    ours, theirs, by_depth, totals = [], [], [], []
    for seed in range(3):
        random = np.random.default_rng(seed)
        order = random.permutation(559)
        singlets = cells[order[:509]]
        counts = np.concatenate([singlets, cells[order[509:]] + singlets[random.integers(0, 509, 50)]])
        logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
        variable = counts[:, np.sort(np.argsort(-logs.var(0), kind="stable")[:1500])]
        result = trained(variable, expected_doublet_rate=50 / 559)
        data = transform(result.pipeline, ArrayDataset({"counts": variable}))
        scores, _ = scrublet.Scrublet(counts, expected_doublet_rate=50 / 559, random_state=seed).scrub_doublets(
            verbose=False
        )
        ours.append(roc_auc_score(doublets, data["doublet_logits"]))
        theirs.append(roc_auc_score(doublets, scores))
        by_depth.append(roc_auc_score(doublets, counts.sum(1)))
        totals.append(float(data["doublet_probabilities"].sum()))
        sure = data["doublet_probabilities"] > np.quantile(data["doublet_probabilities"], 0.95)
        print(f"ours {ours[-1]:.3f}, Scrublet {theirs[-1]:.3f}, depth {by_depth[-1]:.3f}; sum {totals[-1]:.1f} of 50")
        print(
            f"top 5 %: {data['doublet_probabilities'][sure].mean():.2f} expected, {doublets[sure].mean():.2f} doublets"
        )
    data = "CellTypist sample, 509 cells and 50 summed doublets, mean of 3 draws"
    rows = [
        ("scrublet 0.2.3", "area under the ROC curve", np.mean(ours), ">= 0.85"),
        ("scrublet 0.2.3", "area less Scrublet's", np.mean(ours) - np.mean(theirs), ">= 0"),
        ("known doublets", "sum of the probabilities over the doublets", np.mean(totals) / 50, "0.6 to 1.4"),
    ]
    for reference, quantity, value, bar in rows:
        certificate(
            operator="DoubletClassifier", reference=reference, data=data, quantity=quantity, value=float(value), bar=bar
        )
    assert np.mean(ours) >= 0.85
    assert np.mean(ours) >= np.mean(theirs)
    assert 0.6 <= np.mean(totals) / 50 <= 1.4
