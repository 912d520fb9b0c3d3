"""MaskedDenoiser: how it hides counts, what it imputes, and molecular cross-validation on real cells."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads
from scipy import stats

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, MissingRandomnessError
from diffbio.losses.singlecell.masked_values import masked_values
from diffbio.operators.singlecell.denoising import MaskedDenoiser, MaskedDenoiserConfig, mask, posterior_mean, thin
from diffbio.training import ArrayDataset, FitResult, fit, transform

SCHEMES = pytest.mark.parametrize("scheme", ["thinning", "masking"])


def simulated(n_cells: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return Poisson counts of two groups of cells over 40 genes, and the rates behind them."""
    random = np.random.default_rng(0)
    profiles = random.dirichlet(np.full(40, 1.0), 2)
    rates = random.lognormal(5.0, 0.3, (n_cells, 1)) * profiles[np.arange(n_cells) % 2]
    return random.poisson(rates).astype(np.float32), rates


def trained(counts: np.ndarray, *, epochs: int, batch_size: int, loss=masked_values, **config) -> FitResult:
    denoiser = MaskedDenoiser(MaskedDenoiserConfig(n_genes=counts.shape[1], **config), rngs=nnx.Rngs(0))
    denoiser.initialize(jnp.asarray(counts))
    return fit(
        Pipeline(denoiser, names=("denoiser",)),
        ArrayDataset({"counts": counts}),
        loss,
        optimizer=optax.adam(3e-3),
        epochs=epochs,
        batch_size=batch_size,
        key=jax.random.key(0),
        progress=False,
    )


def imputed(result: FitResult, counts: np.ndarray) -> np.ndarray:
    return transform(result.pipeline, ArrayDataset({"counts": counts}), key=jax.random.key(1))["imputed_counts"]


@functools.cache
def small(scheme: str) -> FitResult:
    return trained(simulated()[0], epochs=40, batch_size=100, scheme=scheme, n_latent=3, hidden_sizes=(24,))


def test_thinning_deals_out_molecules_and_gives_independent_parts() -> None:
    counts = jnp.asarray(np.random.default_rng(0).poisson(6.0, 40_000), jnp.float32)
    parts = thin(counts, 0.3, key=jax.random.key(0))
    assert (parts.seen + parts.hidden == counts).all()
    assert parts.mask.all()
    assert float(parts.seen.mean()) == pytest.approx(1.8, rel=0.02)
    assert abs(np.corrcoef(parts.seen, parts.hidden)[0, 1]) < 0.02
    nothing, everything = (thin(counts, fraction, key=jax.random.key(0)).seen for fraction in (0.0, 1.0))
    assert not nothing.any()
    assert (everything == counts).all()


def test_masking_hides_whole_counts() -> None:
    counts = jnp.arange(1.0, 20_001.0)
    parts = mask(counts, 0.7, key=jax.random.key(0))
    assert (parts.seen + parts.hidden == counts).all()
    assert ((parts.hidden > 0) == parts.mask).all()
    assert float(parts.mask.mean()) == pytest.approx(0.3, abs=0.02)


@pytest.mark.slow
@SCHEMES
def test_the_prediction_of_a_hidden_count_does_not_see_it(scheme: str) -> None:
    """If what is hidden takes no part in its own prediction, its mean is right on average."""
    counts, _ = simulated(1000)
    denoiser, compute = small(scheme).pipeline["denoiser"], nnx.jit(MaskedDenoiser.compute)
    data = compute(denoiser, jnp.asarray(counts), key=jax.random.key(2))
    hidden = np.asarray(data.hidden_counts)[np.asarray(data.hidden_mask)]
    expected = np.asarray(data.hidden_mean)[np.asarray(data.hidden_mask)]
    assert hidden.mean() == pytest.approx(expected.mean(), rel=0.03)
    moved = jnp.where(data.hidden_mask, data.hidden_counts + 5, 0) + counts - data.hidden_counts
    if scheme == "masking":
        again = compute(denoiser, moved, key=jax.random.key(2))
        np.testing.assert_allclose(again.hidden_mean, data.hidden_mean, rtol=1e-5)


@pytest.mark.slow
@SCHEMES
def test_trained_it_is_nearer_to_the_rates_than_counts_and_means_are(scheme: str) -> None:
    counts, rates = simulated()
    result = small(scheme)
    ours = imputed(result, counts)
    mean = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    errors = [float(np.square(estimate - rates).mean()) for estimate in (ours, counts, mean)]
    print(
        f"{scheme}: squared error {errors[0]:.3f}, of the counts {errors[1]:.3f}, of the mean of genes {errors[2]:.3f}"
    )
    assert errors[0] < 0.5 * min(errors[1:])
    assert (ours > 0).all()
    assert (ours != counts).all()  # zeros and all others are imputed too
    assert result.compilations <= 1


@SCHEMES
def test_the_gap_between_two_groups_is_kept(scheme: str) -> None:
    counts, _ = simulated()
    ours = imputed(small(scheme), counts)
    before, after = (np.linalg.norm(x[::2].mean(0) - x[1::2].mean(0)) for x in (counts, ours))
    print(f"{scheme}: gap {before:.2f} before, {after:.2f} after")
    assert 0.8 * before < after < 1.2 * before


def test_no_key_changes_what_is_imputed() -> None:
    counts, _ = simulated(20)
    denoiser = small("thinning").pipeline["denoiser"]
    one, other = (denoiser.compute(jnp.asarray(counts), key=jax.random.key(seed)) for seed in (0, 1))
    assert (one.imputed_counts == other.imputed_counts).all()
    assert (one.hidden_counts != other.hidden_counts).any()


def test_the_order_of_the_genes_means_nothing() -> None:
    counts, _ = simulated(20)
    order = np.random.default_rng(0).permutation(counts.shape[1])
    denoiser = nnx.clone(small("thinning").pipeline["denoiser"])
    expected = denoiser.compute(jnp.asarray(counts), key=jax.random.key(0)).imputed_counts[:, order]
    first, last = denoiser.encoder.layers[0], denoiser.decoder.log_rates
    first.kernel[...] = first.kernel[...][order]
    last.kernel[...], last.bias[...] = last.kernel[...][:, order], last.bias[...][order]
    dispersion = denoiser.decoder.log_inverse_dispersion
    dispersion[...] = dispersion[...][:, order]
    actual = denoiser.compute(jnp.asarray(counts[:, order]), key=jax.random.key(0)).imputed_counts
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_loss_is_the_likelihood_by_scipy() -> None:
    random = np.random.default_rng(0)
    mean = random.gamma(2.0, 2.0, (5, 4)).astype(np.float32)
    counts, hidden = random.poisson(mean).astype(np.float32), random.random((5, 4)) < 0.5
    dispersion = np.array([0.5, 1.0, 3.0, 20.0], np.float32)
    data = {"hidden_counts": counts, "hidden_mean": mean, "hidden_mask": hidden, "inverse_dispersion": dispersion}
    data = {name: jnp.asarray(array) for name, array in data.items()}
    poisson = -np.where(hidden, stats.poisson.logpmf(counts, mean), 0).sum(1).mean()
    nb = -np.where(hidden, stats.nbinom.logpmf(counts, dispersion, dispersion / (dispersion + mean)), 0).sum(1).mean()
    assert float(masked_values(data, likelihood="poisson")) == pytest.approx(poisson, rel=1e-5)
    assert float(masked_values(data)) == pytest.approx(nb, rel=1e-5)
    check_grads(lambda mean: masked_values({**data, "hidden_mean": mean}), [data["hidden_mean"]], order=1, rtol=2e-2)
    with pytest.raises(ConfigError, match="gamma"):
        masked_values(data, likelihood="gamma")  # pyright: ignore[reportArgumentType]
    with pytest.raises(KeyError, match="hidden_mean"):
        masked_values({"hidden_counts": data["hidden_counts"]})


def test_posterior_lies_between_count_and_mean_and_has_its_limits() -> None:
    counts, mean = jnp.array([0.0, 1.0, 50.0]), jnp.array([2.0, 2.0, 2.0])
    np.testing.assert_allclose(posterior_mean(counts, mean, 1e12), mean, rtol=1e-6)
    np.testing.assert_allclose(posterior_mean(counts, mean, 1e-12), counts, atol=1e-6)
    np.testing.assert_allclose(posterior_mean(counts, mean, 3.0), mean * (3 + counts) / (3 + mean), rtol=1e-6)


@SCHEMES
def test_values_and_gradients_are_finite_for_odd_cells(scheme: str) -> None:
    config = MaskedDenoiserConfig(n_genes=4, n_latent=2, hidden_sizes=(5,), scheme=scheme)

    @nnx.jit
    def outcome(model: MaskedDenoiser, counts: jax.Array):
        def loss(model: MaskedDenoiser) -> jax.Array:
            data = model.apply({"counts": counts}, {}, None, key=jax.random.key(0))[0]
            return masked_values(data) + data["imputed_counts"].mean()

        return nnx.value_and_grad(loss)(model)

    for scale in (0.0, 1e-3, 1.0, 1e5):
        counts = scale * jnp.array([[0.0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [3, 0, 5, 2], [3, 0, 5, 2]])
        denoiser = MaskedDenoiser(config, rngs=nnx.Rngs(0))
        denoiser.initialize(counts)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome(denoiser, counts))), scale


def test_it_needs_randomness() -> None:
    with pytest.raises(MissingRandomnessError, match="rngs"):
        MaskedDenoiser(MaskedDenoiserConfig(n_genes=3))


@pytest.mark.slow
@SCHEMES
def test_it_predicts_the_half_of_real_molecules_that_it_never_saw(scheme: str, certificate) -> None:
    celltypist = pytest.importorskip("celltypist")
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(Path(celltypist.__file__).parent / "data/samples/sample_cell_by_gene.csv", index_col=0)
    counts = np.round(table.to_numpy())
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    counts = counts[:, np.sort(np.argsort(-logs.var(0), kind="stable")[:1500])]
    seen = np.random.default_rng(0).binomial(counts.astype(int), 0.5).astype(np.float32)
    held_out = counts - seen
    ours = imputed(trained(seen, epochs=60, batch_size=64, scheme=scheme), seen)
    mean = seen.sum(1, keepdims=True) * seen.sum(0) / seen.sum()

    def surprise(estimate: np.ndarray) -> float:
        return float(-stats.poisson.logpmf(held_out, estimate).mean())

    def error(estimate: np.ndarray) -> float:
        return float(np.square(estimate - held_out).mean())

    # the input can't predict by itself where it is 0: give it the floor that suits it best
    floored = min(surprise(np.maximum(seen, floor)) for floor in (0.01, 0.03, 0.1, 0.2, 0.3, 0.5))
    figures = {
        "Poisson surprise over that of the mean of the genes": surprise(ours) / surprise(np.maximum(mean, 1e-3)),
        "Poisson surprise over that of the input, with its best floor": surprise(ours) / floored,
        "squared error over that of the mean of the genes": error(ours) / error(mean),
        "squared error over that of the input": error(ours) / error(seen),
    }
    for quantity, value in figures.items():
        certificate(
            operator="MaskedDenoiser",
            reference="molecular cross-validation",
            data=f"CellTypist sample, 559 cells, 1,500 genes, {scheme}; the held-out half of the molecules",
            quantity=quantity,
            value=value,
            bar="< 1",
        )
        assert value < 1, quantity
