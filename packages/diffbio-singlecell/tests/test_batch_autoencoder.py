"""Autoencoders that take batches out: the signs of their gradients, and training that mixes batches and keeps types."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.metrics import silhouette_score

from diffbio.core.errors import ConfigError, MissingRandomnessError
from diffbio.losses.singlecell.batch import adversarial_batch_correction, batch_reconstruction, mmd_batch_correction
from diffbio.operators.singlecell.batch_autoencoder import (
    AdversarialBatchCorrection,
    AdversarialBatchCorrectionConfig,
    MMDBatchCorrection,
    MMDBatchCorrectionConfig,
    reverse_gradient,
)

SIZES = {"n_features": 12, "n_batches": 3, "n_latents": 4, "hidden_sizes": (32,)}


def shifted_types(n_cells: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return four types of cells in three batches of unlike size, shifted as far as types are apart."""
    random = np.random.default_rng(seed)
    types = random.integers(0, 4, n_cells)
    batches = random.choice(3, n_cells, p=[0.6, 0.3, 0.1])
    cells = 2.5 * random.normal(size=(4, 12))[types] + random.normal(size=(n_cells, 12))
    cells += 1.5 * random.normal(size=(3, 12))[batches] + 0.5 * random.normal(size=(3, 4, 12))[batches, types]
    return cells.astype(np.float32), batches.astype(np.int32), types


def gap(cells: np.ndarray, batches: np.ndarray, types: np.ndarray) -> float:
    """Return the mean distance between the batches of a type over the spread of all cells."""
    means = np.array([[cells[(types == t) & (batches == b)].mean(0) for b in range(3)] for t in range(4)])
    apart = [np.linalg.norm(means[:, i] - means[:, j], axis=1).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    return float(np.mean(apart) / np.sqrt(cells.var(0).sum()))


def trained(operator, loss, data: dict, *, n_steps: int, momentum: float = 0.9) -> dict:
    """Return what the operator writes after so many steps of Adam on all cells."""
    operator.initialize(jnp.asarray(data["embeddings"]))
    graphdef, params, rest = nnx.split(operator, nnx.Param, ...)
    optimizer = optax.adam(3e-3, b1=momentum)

    def outputs(params: nnx.State) -> dict:
        return nnx.merge(graphdef, params, rest).apply(data, {}, None)[0]

    def step(state: tuple, _: None) -> tuple:
        params, memory = state
        updates, memory = optimizer.update(jax.grad(lambda p: loss(outputs(p)))(params), memory)
        return (optax.apply_updates(params, updates), memory), None

    run = jax.jit(lambda state: jax.lax.scan(step, state, length=n_steps)[0])
    return outputs(run((params, optimizer.init(params)))[0])


def built(kind: type):
    config = {
        MMDBatchCorrection: MMDBatchCorrectionConfig,
        AdversarialBatchCorrection: AdversarialBatchCorrectionConfig,
    }
    return kind(config[kind](**SIZES), rngs=nnx.Rngs(0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MMDBatchCorrection, AdversarialBatchCorrection])
def test_training_mixes_batches_and_keeps_types(kind: type, certificate) -> None:
    """The worst of three starts counts: one good start of two sides that learn against each other proves little."""
    cells, batches, types = shifted_types()
    data = {"embeddings": cells, "batch_labels": batches}
    before, apart = gap(cells, batches, types), silhouette_score(cells, types)
    ratios, kept = {"latent": [], "corrected_embeddings": []}, []
    for seed in range(3):
        if kind is MMDBatchCorrection:
            operator = MMDBatchCorrection(MMDBatchCorrectionConfig(**SIZES), rngs=nnx.Rngs(seed))
            found = trained(operator, lambda x: mmd_batch_correction(x, n_batches=3), data, n_steps=250)
        else:
            config = AdversarialBatchCorrectionConfig(**SIZES)
            operator = AdversarialBatchCorrection(config, rngs=nnx.Rngs(seed))
            found = trained(operator, adversarial_batch_correction, data, n_steps=1000, momentum=0.5)
        for key, of_starts in ratios.items():
            of_starts.append(before / gap(np.asarray(found[key]), batches, types))
            kept.append(silhouette_score(found[key], types))
        assert batch_reconstruction(found) < 0.5
    print({key: np.round(of_starts, 1).tolist() for key, of_starts in ratios.items()})
    print(f"silhouette of types {apart:.2f}, then at least {min(kept):.2f}")
    for key, of_starts in ratios.items():
        certificate(
            operator=kind.__name__,
            reference="uncorrected",
            data="four simulated types in three batches, 600 x 12",
            quantity=f"gap between batches in {key}, before / after, worst of 3 starts",
            value=min(of_starts),
            bar="> 5",
        )
        assert min(of_starts) > 5
    assert min(kept) >= apart


@pytest.mark.slow
def test_the_discriminator_learns_to_recognize_batches_and_the_encoder_to_hide_them() -> None:
    """Each side alone, moved along its gradient, changes the cross-entropy as it should."""
    cells, batches, _ = shifted_types(200)
    operator = built(AdversarialBatchCorrection)
    data = {"embeddings": cells, "batch_labels": batches}

    def recognized(operator: AdversarialBatchCorrection) -> jax.Array:
        result = operator.apply(data, {}, None)[0]
        return adversarial_batch_correction(result, penalty=0.0) - batch_reconstruction(result)

    gradients = nnx.grad(recognized)(operator)
    changes = {}
    for side in ("discriminator", "autoencoder"):
        moved = nnx.clone(operator)
        layers = moved.discriminator if side == "discriminator" else moved.autoencoder.encoder
        slopes = gradients.discriminator if side == "discriminator" else gradients.autoencoder.encoder
        for place in range(len(layers.kernels)):
            layers.kernels[place][...] -= 0.01 * slopes.kernels[place][...]
        changes[side] = float(recognized(moved) - recognized(operator))
    print("change of the cross-entropy by a step of each side:", changes)
    assert changes["discriminator"] < 0 < changes["autoencoder"]


def test_without_reversal_the_encoder_does_not_move() -> None:
    cells, batches, _ = shifted_types(50)
    config = AdversarialBatchCorrectionConfig(**SIZES, reversal=0.0)
    operator = AdversarialBatchCorrection(config, rngs=nnx.Rngs(0))

    def recognized(cells: jax.Array) -> jax.Array:
        return operator.compute(cells, batches).batch_logits.var()

    assert not np.any(jax.grad(recognized)(jnp.asarray(cells)))
    assert float(jax.grad(lambda x: 2.0 * reverse_gradient(x, 3.0))(1.0)) == -6.0


def test_the_decoder_is_told_the_batch_and_a_cell_without_one_gets_their_mean() -> None:
    cells, batches, _ = shifted_types(30)
    operator = built(MMDBatchCorrection)
    told = operator.compute(jnp.asarray(cells), jnp.asarray(batches))
    untold = operator.compute(jnp.asarray(cells), jnp.full(30, -1))
    assert np.abs(told.reconstructed_embeddings - told.corrected_embeddings).max() > 0.01
    np.testing.assert_array_equal(untold.reconstructed_embeddings, untold.corrected_embeddings)
    np.testing.assert_array_equal(told.latent, untold.latent)


def test_slopes_are_those_of_finite_differences_and_move_the_discriminator_alone() -> None:
    cells, batches, _ = shifted_types(6)
    operator = built(AdversarialBatchCorrection)
    found = operator.compute(jnp.asarray(cells), jnp.asarray(batches))

    def log_probabilities(latent: np.ndarray) -> np.ndarray:
        scores = jax.nn.log_softmax(operator.discriminator(jnp.asarray(latent, jnp.float32)))
        return np.asarray(scores)[np.arange(6), batches].astype(np.float64)

    latent, squared = np.asarray(found.latent), np.zeros(6)
    for place in range(4):
        step = 0.02 * np.eye(4)[place]
        squared += ((log_probabilities(latent + step) - log_probabilities(latent - step)) / 0.04) ** 2
    np.testing.assert_allclose(found.batch_slopes, squared, rtol=2e-2)

    gradients = nnx.grad(lambda op: op.compute(jnp.asarray(cells), jnp.asarray(batches)).batch_slopes.sum())(operator)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nnx.state(gradients.autoencoder)))
    assert np.any(gradients.discriminator.kernels[0][...])


@pytest.mark.parametrize("kind", [MMDBatchCorrection, AdversarialBatchCorrection])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e20])
def test_cells_of_any_scale_give_finite_values_and_gradients(kind: type, scale: float) -> None:
    cells, batches, _ = shifted_types(20)
    cells = jnp.asarray(scale * cells)
    operator = built(kind)
    operator.initialize(cells)

    def total(operator) -> jax.Array:
        result = operator.compute(cells, jnp.asarray(batches))
        return result.latent.sum() + (result.corrected_embeddings / max(scale, 1e-30)).mean()

    value, gradients = nnx.value_and_grad(total)(operator)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="n_batches is 1; it must be an integer >= 2"):
        MMDBatchCorrectionConfig(n_features=3, n_batches=1)
    with pytest.raises(MissingRandomnessError):
        MMDBatchCorrection(MMDBatchCorrectionConfig(n_features=3, n_batches=2))
    with pytest.raises(MissingRandomnessError):
        AdversarialBatchCorrection(AdversarialBatchCorrectionConfig(n_features=3, n_batches=2))
