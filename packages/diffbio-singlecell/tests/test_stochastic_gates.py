"""StochasticGateSelection: its formulas, its edges, and panels of genes that it finds by training."""

from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads
from scipy.stats import norm

from diffbio.core.errors import ConfigError, MissingRandomnessError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.stochastic_gates import (
    StochasticGateSelection,
    StochasticGateSelectionConfig,
    open_probability,
    stochastic_gates,
)


class LinearOnGates(nnx.Module):
    """The gates and a linear classifier behind them."""

    def __init__(self, n_genes: int, n_types: int) -> None:
        self.gates = StochasticGateSelection(StochasticGateSelectionConfig(n_genes=n_genes), rngs=nnx.Rngs(0))
        self.weights = nnx.Param(jnp.zeros((n_genes, n_types)))
        self.bias = nnx.Param(jnp.zeros(n_types))


def train(
    scaled: np.ndarray, labels: np.ndarray, *, penalty: float, ridge: float, n_steps: int, seed: int
) -> np.ndarray:
    """Return the means of the gates after training on the class-balanced cross-entropy of a linear classifier.

    The loss has penalty * mean gate probability + ridge * squared weights added.
    """
    data, n_types = {"scaled": jnp.asarray(scaled)}, labels.max() + 1
    weights = jnp.asarray((len(labels) / n_types / np.bincount(labels))[labels], jnp.float32)
    structure, params, rest = nnx.split(LinearOnGates(scaled.shape[1], n_types), nnx.Param, ...)
    optimizer = optax.adam(0.03)

    def loss(params: nnx.State, key: jax.Array) -> jax.Array:
        model = nnx.merge(structure, params, rest)
        result = model.gates.apply(data, {}, None, key)[0]
        logits = result["gated"] @ model.weights[...] + model.bias[...]
        surprise = (weights * optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels))).mean()
        size = penalty * result["gate_probability"].mean() + ridge * jnp.square(model.weights[...]).sum()
        return surprise + size

    @jax.jit
    def fit(params: nnx.State, key: jax.Array) -> nnx.State:
        def step(carry: tuple, key: jax.Array) -> tuple:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, n_steps))[0][0]

    return np.asarray(nnx.merge(structure, fit(params, jax.random.key(seed)), rest).gates.mean[...])


def panel_of(means: np.ndarray, most: int) -> np.ndarray:
    best = np.argsort(-means)[:most]
    return best[means[best] > 0]


def test_training_finds_the_genes_that_tell_types_apart() -> None:
    """Of 120 genes, 6 tell three types apart; the others vary as much."""
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    scaled = random.normal(size=(300, 120)).astype(np.float32)
    for gene in range(6):
        scaled[:, gene] += 1.5 * (labels == gene % 3)
    scaled = (scaled - scaled.mean(0)) / scaled.std(0)
    panel = panel_of(train(scaled, labels, penalty=3.0, ridge=0.1, n_steps=500, seed=0), 120)
    print(f"panel of {len(panel)} genes: {sorted(panel)}")
    assert set(range(6)) <= set(panel)
    assert len(panel) < 12


@pytest.mark.slow
def test_a_trained_panel_beats_the_most_dispersed_genes(certificate: Callable[..., None]) -> None:
    sc = pytest.importorskip("scanpy")
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedShuffleSplit

    cells = pbmc68k_reduced()
    expression, labels = cells.X.toarray(), cells.obs["bulk_labels"].cat.codes.to_numpy().astype(int)
    sizes, ours, theirs = [], [], []
    splits = StratifiedShuffleSplit(20, test_size=0.3, random_state=1).split(expression, labels)
    for seed, (seen, held_out) in enumerate(splits):
        std = expression[seen].std(0, ddof=1)
        scaled = np.clip((expression - expression[seen].mean(0)) / np.where(std > 0, std, 1), -10, 10)

        def score(genes: np.ndarray, scaled=scaled, seen=seen, held_out=held_out) -> float:
            # of C = 0.01, 0.1, 1, balanced or not, what suits the reference best
            classifier = LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
            classifier.fit(scaled[seen][:, genes], labels[seen])
            return f1_score(labels[held_out], classifier.predict(scaled[held_out][:, genes]), average="macro")

        runs = [
            train(scaled[seen], labels[seen], penalty=4.0, ridge=1.0, n_steps=600, seed=3 * seed + i) for i in range(3)
        ]
        panel = panel_of(np.clip(runs, -1, 1.5).mean(0), 90)  # a gate beyond is open, or closed, at any noise
        table = sc.pp.highly_variable_genes(sc.AnnData(expression[seen]), n_top_genes=90, inplace=False)
        sizes.append(len(panel))
        ours.append(score(panel))
        theirs.append(score(np.flatnonzero(table["highly_variable"])))
    gain = np.subtract(ours, theirs)
    print(
        f"macro-F1: {np.mean(ours):.3f} with {np.mean(sizes):.0f} genes by gates, {np.mean(theirs):.3f} with 90 by "
        f"dispersion; gain {gain.mean():.3f} +- {gain.std(ddof=1) / np.sqrt(len(gain)):.3f} (standard error)"
    )
    certificate(
        operator="StochasticGateSelection",
        reference=f"90 genes by dispersion, scanpy {version('scanpy')}",
        data="PBMC 68k, 700 cells x 765 genes, 20 splits",
        quantity=f"held-out macro-F1 of {np.mean(sizes):.0f} genes, less the reference's {np.mean(theirs):.3f}",
        value=float(gain.mean()),
        bar="> 0",
    )
    assert max(sizes) <= 90
    assert gain.mean() > 0


def test_probability_is_that_of_the_draws() -> None:
    mean = jnp.array([-1.0, -0.2, 0.0, 0.3, 0.5, 2.0])
    draws = jax.vmap(lambda key: stochastic_gates(mean, sigma=0.5, key=key))(jax.random.split(jax.random.key(0), 20000))
    np.testing.assert_allclose((draws > 0).mean(0), open_probability(mean, sigma=0.5), atol=0.01)
    np.testing.assert_allclose(open_probability(mean, sigma=0.5), norm.cdf(np.asarray(mean) / 0.5), atol=1e-6)
    assert float(draws.min()) == 0
    assert float(draws.max()) == 1


def test_eval_turns_the_noise_off_and_train_on() -> None:
    operator = StochasticGateSelection(StochasticGateSelectionConfig(n_genes=50), rngs=nnx.Rngs(0))
    data = {"scaled": jnp.ones((2, 50))}
    noisy = [operator.apply(data, {}, None, jax.random.key(seed))[0]["gene_gate"] for seed in (0, 1, 0)]
    assert not np.allclose(noisy[0], noisy[1])
    np.testing.assert_array_equal(noisy[0], noisy[2])
    operator.eval()
    np.testing.assert_array_equal(operator.apply(data, {}, None, jax.random.key(3))[0]["gene_gate"], 0.5)
    operator.train()
    np.testing.assert_array_equal(operator.apply(data, {}, None, jax.random.key(0))[0]["gene_gate"], noisy[0])


def test_annealing_the_noise_compiles_nothing_again() -> None:
    operator = StochasticGateSelection(StochasticGateSelectionConfig(n_genes=5), rngs=nnx.Rngs(0))
    traces = 0

    @nnx.jit
    def total(operator: StochasticGateSelection, key: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return operator.compute(jnp.ones((2, 5)), key=key).gated.sum()

    for sigma in (0.5, 0.1, 1e-6):
        operator.softness.set(sigma)
        value = total(operator, jax.random.key(0))
    assert traces == 1
    np.testing.assert_allclose(value, 5.0, rtol=1e-4)


def test_gradients_match_finite_differences() -> None:
    mean = jnp.array([-0.6, -0.1, 0.35, 0.8, 1.7])

    def gates(mean: jax.Array, sigma: jax.Array) -> jax.Array:
        gate = stochastic_gates(mean, sigma=sigma, key=jax.random.key(1))
        return jnp.concatenate([gate, open_probability(mean, sigma=sigma)])

    check_grads(gates, (mean, jnp.float32(0.3)), order=1, modes=["rev"], eps=1e-3, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("mean", [0.0, -1e30, 1e30, 1e-30])
def test_extreme_means_are_finite(mean: float) -> None:
    means = jnp.full(3, mean, jnp.float32)

    def total(means: jax.Array, sigma: jax.Array) -> jax.Array:
        gate = stochastic_gates(means, sigma=sigma, key=jax.random.key(0))
        return (gate + open_probability(means, sigma=sigma)).sum()

    gradients = jax.grad(total, (0, 1))(means, jnp.float32(0.5))
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_closed_gate_can_come_back_by_the_noise() -> None:
    means = jnp.full(1, -0.3)
    slopes = [
        float(jax.grad(lambda m, k=k: stochastic_gates(m, sigma=0.5, key=k).sum())(means)[0])
        for k in jax.random.split(jax.random.key(0), 40)
    ]
    assert 0 < np.mean(slopes) < 1
    assert float(jax.grad(lambda m: stochastic_gates(m, sigma=0.5).sum())(means)[0]) == 0


def test_one_gene_one_cell_and_errors() -> None:
    operator = StochasticGateSelection(StochasticGateSelectionConfig(n_genes=1), rngs=nnx.Rngs(0))
    data, _, _ = operator.apply({"scaled": jnp.ones(1)}, {}, None, jax.random.key(0))
    assert data["gated"].shape == (1,)
    with pytest.raises(MissingRandomnessError, match="pass a random key"):
        operator.apply({"scaled": jnp.ones(1)}, {}, None)
    with pytest.raises(MissingRandomnessError):
        StochasticGateSelection(StochasticGateSelectionConfig(n_genes=1))
    with pytest.raises(ConfigError, match="temperature is 0"):
        StochasticGateSelectionConfig(n_genes=1, temperature=0.0)
