"""VAENormalizer: its likelihood by scipy, what it leaves out (depth, batch), training, and scVI beside it."""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import special, stats

from diffbio.core import Pipeline
from diffbio.core.errors import ContractError, MissingRandomnessError
from diffbio.losses.singlecell.elbo import negative_elbo
from diffbio.operators.normalization.vae_normalization import VAENormalizer, VAENormalizerConfig
from diffbio.operators.normalization.variational import one_hot_conditions
from diffbio.training import ArrayDataset, FitResult, fit, transform

N_GENES = 30


def simulated(n_cells: int, *, seed: int = 0, batch_effect: float = 0.0) -> dict[str, np.ndarray]:
    """Return negative binomial counts of three groups of cells, of unlike depth, in two batches."""
    random = np.random.default_rng(seed)
    profiles = np.random.default_rng(7).dirichlet(np.full(N_GENES, 0.7), 3)
    groups, batches = random.integers(3, size=n_cells), random.integers(2, size=n_cells)
    shift = batch_effect * np.random.default_rng(8).normal(size=N_GENES)
    rates = profiles[groups] * np.exp(shift * batches[:, None])
    depth = random.lognormal(5.5, 0.5, (n_cells, 1))
    mean = depth * rates / rates.sum(1, keepdims=True)
    counts = random.poisson(mean * random.gamma(5.0, 1 / 5.0, mean.shape)).astype(np.float32)
    return {"counts": counts, "groups": groups, "batch_labels": batches.astype(np.int32)}


def kernels_alone(weights):
    """Return which weights may decay: the matrices; not the biases and dispersions, which hold what the genes are."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path), weights)


def trained(
    data: dict[str, np.ndarray],
    *,
    epochs: int,
    batch_size: int | None = None,
    learning_rate: float = 1e-2,
    warm_up: int = 0,
    weight_decay: float = 0.0,
    **config,
) -> FitResult:
    """Return a fit of the normalizer, whose KL term is warmed up over so many steps."""
    counts = data["counts"]
    normalizer = VAENormalizer(VAENormalizerConfig(n_genes=counts.shape[1], **config), rngs=nnx.Rngs(0))
    normalizer.initialize(jnp.asarray(counts))
    return fit(
        Pipeline(normalizer, names=("vae",)),
        ArrayDataset(data),
        negative_elbo,
        optimizer=optax.adamw(learning_rate, weight_decay=weight_decay, mask=kernels_alone),
        epochs=epochs,
        key=jax.random.key(0),
        batch_size=batch_size,
        anneal={"vae": lambda step: jnp.minimum(1.0, (step + 1) / warm_up)} if warm_up else None,
        progress=False,
    )


@functools.cache
def small() -> FitResult:
    """Return a fit on three simulated groups."""
    return trained(simulated(300), epochs=60, batch_size=100, warm_up=90, n_latent=3, hidden_sizes=(24,))


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_reconstruction_is_the_likelihood_by_scipy(likelihood: str) -> None:
    config = VAENormalizerConfig(n_genes=N_GENES, n_latent=2, likelihood=likelihood, hidden_sizes=(8,))
    normalizer = VAENormalizer(config, rngs=nnx.Rngs(0))
    counts = jnp.asarray(simulated(20)["counts"])
    normalizer.initialize(counts)
    data, _, _ = normalizer.apply({"counts": counts}, {}, None, key=jax.random.key(0))
    decoder = normalizer.decoder
    mean = np.asarray(counts.sum(1, keepdims=True) * decoder.rates(data["latent"]), float)
    if likelihood == "poisson":
        expected = stats.poisson.logpmf(counts, mean)
    else:
        dispersion = np.exp(np.asarray(decoder.log_inverse_dispersion[...], float))
        expected = stats.nbinom.logpmf(counts, dispersion, dispersion / (dispersion + mean))
    if likelihood == "zinb":
        logits = np.asarray(decoder.dropout(decoder.hidden(data["latent"])), float)
        expected += special.log_expit(-logits)
        expected = np.where(counts == 0, np.logaddexp(special.log_expit(logits), expected), expected)
    np.testing.assert_allclose(data["reconstruction_log_likelihood"], expected.sum(1), rtol=1e-5)
    variance = np.exp(np.asarray(data["latent_logvar"], float))
    kl = 0.5 * (variance + np.square(data["latent_mean"]) - 1 - np.log(variance)).sum(1)
    np.testing.assert_allclose(data["kl_divergence"], kl, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_depth_changes_the_posterior_but_not_what_is_normalized() -> None:
    normalizer = small().pipeline["vae"]
    assert isinstance(normalizer, VAENormalizer)
    normalizer = nnx.clone(normalizer)
    counts = jnp.asarray(simulated(50, seed=1)["counts"])
    key = jax.random.key(0)
    shallow, deep = normalizer.compute(counts, key=key), normalizer.compute(5 * counts, key=key)
    np.testing.assert_allclose(deep.normalized, shallow.normalized, rtol=1e-4)
    np.testing.assert_allclose(deep.latent_mean, shallow.latent_mean, rtol=1e-4, atol=1e-4)
    assert (deep.latent_logvar < shallow.latent_logvar).mean() > 0.99  # a deeper cell is known better
    np.testing.assert_allclose(deep.normalized.sum(1), 1e4, rtol=1e-5)
    other = normalizer.compute(counts, key=jax.random.key(1))
    assert (other.normalized == shallow.normalized).all()
    assert (other.latent != shallow.latent).any()


def test_training_finds_the_groups_and_beats_the_mean_of_the_genes() -> None:
    result, held_out = small(), simulated(200, seed=2)
    assert result.compilations <= 1  # the warm-up of the KL term compiles nothing again
    losses = result.history.columns()["train_loss"]
    assert losses[-1] < losses[0]
    data = transform(result.pipeline, ArrayDataset(held_out), key=jax.random.key(0))
    counts = held_out["counts"]
    depth = counts.sum(1, keepdims=True)

    def deviance(rates: np.ndarray) -> float:
        return float(-stats.poisson.logpmf(counts, depth * rates / rates.sum(1, keepdims=True)).mean())

    pooled = deviance(np.broadcast_to(simulated(300)["counts"].sum(0), counts.shape))
    print(f"Poisson surprise of held-out counts {deviance(data['normalized']):.3f}, by the mean of genes {pooled:.3f}")
    assert deviance(data["normalized"]) < 0.8 * pooled
    latent, groups = data["latent_mean"], held_out["groups"]
    centres = np.stack([latent[groups == group].mean(0) for group in range(3)])
    nearest = np.square(latent[:, None] - centres).sum(-1).argmin(1)
    assert (nearest == groups).mean() > 0.95


def test_each_cell_is_seen_alone_so_minibatches_change_nothing() -> None:
    pipeline, data = small().pipeline, ArrayDataset(simulated(50, seed=3))
    whole = transform(pipeline, data, key=jax.random.key(0))
    parts = transform(pipeline, data, batch_size=7, key=jax.random.key(0))
    for name in ("normalized", "latent_mean", "kl_divergence"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-3, atol=1e-4)


def test_decoded_as_one_batch_cells_lose_the_batch_effect() -> None:
    cells = simulated(400, batch_effect=1.0)
    result = trained(
        cells, epochs=150, batch_size=100, n_latent=3, hidden_sizes=(24,), n_batches=2, dispersion="gene-batch"
    )
    batch, groups = cells["batch_labels"], cells["groups"]

    def gap(labels: np.ndarray) -> float:
        """Return the mean absolute difference of log expression between batches, within groups."""
        given = ArrayDataset({"counts": cells["counts"], "batch_labels": labels})
        logs = np.log(transform(result.pipeline, given, key=jax.random.key(0))["normalized"])
        means = [[logs[(groups == group) & (batch == b)].mean(0) for b in range(2)] for group in range(3)]
        return float(np.abs(np.diff(means, axis=1)).mean())

    own, common = gap(batch), gap(np.zeros_like(batch))
    print(f"log difference between batches {own:.3f}, decoded as one batch {common:.3f}")
    assert common < 0.4 * own


def test_unknown_conditions_are_a_share_of_each_level() -> None:
    known = one_hot_conditions(jnp.array([[0, 2], [1, -1]]), (2, 3))
    np.testing.assert_allclose(known, [[1, 0, 0, 0, 1], [0, 1, 1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    with pytest.raises(ContractError, match="1 covariates"):
        one_hot_conditions(jnp.array([[0]]), (2, 3))


def test_elbo_takes_the_weight_of_the_data_or_the_one_given() -> None:
    data = {
        "reconstruction_log_likelihood": jnp.array([-5.0, -7.0]),
        "kl_divergence": jnp.array([1.0, 3.0]),
        "kl_weight": jnp.float32(0.25),
    }
    assert float(negative_elbo(data)) == 6.5
    assert float(negative_elbo(data, kl_weight=1.0)) == 8.0
    with pytest.raises(KeyError, match="kl_divergence"):
        negative_elbo({"reconstruction_log_likelihood": jnp.zeros(2)})


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_values_and_gradients_are_finite_for_odd_cells(likelihood: str) -> None:
    config = VAENormalizerConfig(n_genes=4, n_latent=2, hidden_sizes=(5,), likelihood=likelihood)

    @nnx.jit
    def loss_and_gradient(model: VAENormalizer, counts: jax.Array):
        def loss(model: VAENormalizer) -> jax.Array:
            return negative_elbo(model.apply({"counts": counts}, {}, None, key=jax.random.key(0))[0])

        return nnx.value_and_grad(loss)(model)

    for scale in (0.0, 1e-6, 1.0, 1e6):
        counts = scale * jnp.array([[0.0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [3, 0, 5, 2], [3, 0, 5, 2]])
        normalizer = VAENormalizer(config, rngs=nnx.Rngs(0))
        normalizer.initialize(counts)
        loss, gradient = loss_and_gradient(normalizer, counts)
        assert np.isfinite(loss), scale
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)), scale


def test_one_gene_and_one_cell_are_enough() -> None:
    normalizer = VAENormalizer(VAENormalizerConfig(n_genes=1, n_latent=1, target_sum=1.0), rngs=nnx.Rngs(0))
    normalizer.initialize(jnp.array([[3.0]]))
    cell = normalizer.compute(jnp.array([3.0]), key=jax.random.key(0))
    assert cell.normalized.tolist() == [1.0]
    assert cell.kl_divergence.shape == ()


def test_it_needs_randomness() -> None:
    with pytest.raises(MissingRandomnessError, match="rngs"):
        VAENormalizer(VAENormalizerConfig(n_genes=3))


def test_losses_and_metrics_of_the_neighbours_take_its_outputs() -> None:
    clustering = pytest.importorskip("calibrax.metrics.functional.clustering")
    divergence = pytest.importorskip("artifex.generative_models.core.losses.divergence")
    cells = simulated(150, seed=4)
    data = transform(small().pipeline, ArrayDataset(cells), key=jax.random.key(0))
    kl = divergence.gaussian_kl_divergence(jnp.asarray(data["latent_mean"]), jnp.asarray(data["latent_logvar"]))
    assert float(kl) == pytest.approx(float(data["kl_divergence"].mean()), rel=1e-4)
    score = float(clustering.silhouette_score(jnp.asarray(data["latent_mean"]), jnp.asarray(cells["groups"])))
    print(f"silhouette of the groups in latent_mean: {score:.3f}")
    assert score > 0.3


@functools.cache
def celltypist_counts(n_genes: int = 1500) -> np.ndarray:
    """Return the counts of CellTypist's sample, for the genes whose log-normalized counts vary most."""
    celltypist = pytest.importorskip("celltypist")
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(Path(celltypist.__file__).parent / "data/samples/sample_cell_by_gene.csv", index_col=0)
    counts = np.round(table.to_numpy()).astype(np.float32)
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    return counts[:, np.sort(np.argsort(-logs.var(0), kind="stable")[:n_genes])]


def scvi_of(counts: np.ndarray, likelihood: str, epochs: int):
    """Return a trained SCVI and its seconds per epoch."""
    anndata = pytest.importorskip("anndata")
    scvi = pytest.importorskip("scvi")
    scvi.settings.seed = 0
    scvi.settings.verbosity = 30
    cells = anndata.AnnData(counts)
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, n_latent=10, n_hidden=128, n_layers=1, gene_likelihood=likelihood)
    start = time.perf_counter()
    model.train(
        max_epochs=epochs,
        train_size=1.0,
        batch_size=64,
        accelerator="cpu",
        plan_kwargs={"n_epochs_kl_warmup": epochs // 2},
        enable_progress_bar=False,
        logger=None,
    )
    return model, (time.perf_counter() - start) / epochs


def held_out_likelihood(model, counts: np.ndarray) -> tuple[float, float]:
    """Return the mean reconstruction log-likelihood and the mean ELBO per held-out cell, over draws of the latent."""
    if isinstance(model, Pipeline):
        cells = ArrayDataset({"counts": counts})
        drawn = [transform(model, cells, key=jax.random.key(seed)) for seed in range(5)]
        likelihood = float(np.mean([data["reconstruction_log_likelihood"].mean() for data in drawn]))
        return likelihood, likelihood - float(drawn[0]["kl_divergence"].mean())
    import anndata

    cells = anndata.AnnData(counts)
    drawn = [float(model.get_reconstruction_error(cells)["reconstruction_loss"]) for _ in range(5)]
    return -float(np.mean(drawn)), float(np.mean([float(model.get_elbo(cells)) for _ in range(5)]))


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_held_out_likelihood_is_that_of_scvi_or_better(likelihood: str, certificate) -> None:
    pytest.importorskip("scvi")
    counts, epochs = celltypist_counts(), 200
    order = np.random.default_rng(0).permutation(len(counts))
    train, test = counts[order[112:]], counts[order[:112]]
    steps = len(train) // 64
    result = trained(
        {"counts": train},
        epochs=epochs,
        batch_size=64,
        learning_rate=1e-3,
        warm_up=epochs // 2 * steps,
        weight_decay=3.0,
        likelihood=likelihood,
    )
    reference, reference_seconds = scvi_of(train, likelihood, epochs)
    ours, our_bound = held_out_likelihood(result.pipeline, test)
    theirs, their_bound = held_out_likelihood(reference, test)
    seconds = float(np.median(result.history.columns()["seconds"]))
    print(f"{likelihood}: log-likelihood {ours:.1f}, scVI {theirs:.1f}; ELBO {our_bound:.1f}, scVI {their_bound:.1f}")
    print(f"seconds per epoch {seconds:.3f}, scVI {reference_seconds:.3f}")
    for quantity, value in (
        ("held-out reconstruction log-likelihood over SCVI's, 1 = equal, less is better", ours / theirs),
        ("held-out ELBO over SCVI's, 1 = equal, less is better", our_bound / their_bound),
    ):
        certificate(
            operator="VAENormalizer",
            reference="scvi-tools SCVI 1.5.1",
            data=f"CellTypist sample, 447 cells trained, 112 held out, 1,500 genes, {likelihood}",
            quantity=quantity,
            value=value,
            bar="<= 1.01",
        )
        assert value <= 1.01


@pytest.mark.slow
def test_an_epoch_over_many_cells_beside_scvi(certificate) -> None:
    """Counts drawn from a trained model stand for more cells than the real sample has."""
    pytest.importorskip("scvi")
    counts = celltypist_counts()
    model = trained({"counts": counts}, epochs=100, batch_size=64, learning_rate=1e-3).pipeline["vae"]
    random, n_cells = np.random.default_rng(0), 6_000
    source = random.integers(len(counts), size=n_cells)
    posterior = model.compute(jnp.asarray(counts[source]), key=jax.random.key(1))
    dispersion = np.exp(np.asarray(model.decoder.log_inverse_dispersion[...]))
    depth = counts[source].sum(1, keepdims=True) * random.lognormal(0, 0.3, (n_cells, 1))
    means = np.asarray(model.decoder.rates(posterior.latent)) * depth
    drawn = random.poisson(means * random.gamma(dispersion, 1 / dispersion, means.shape)).astype(np.float32)
    train, test = drawn[:5_000], drawn[5_000:]
    epochs = 20
    result = trained({"counts": train}, epochs=epochs, batch_size=64, learning_rate=1e-3, warm_up=10 * 78)
    reference, reference_seconds = scvi_of(train, "nb", epochs)
    ours, theirs = held_out_likelihood(result.pipeline, test)[0], held_out_likelihood(reference, test)[0]
    seconds = float(np.median(result.history.columns()["seconds"]))
    print(f"5,000 drawn cells: log-likelihood {ours:.1f}, scVI {theirs:.1f}")
    print(f"seconds per epoch {seconds:.2f}, scVI {reference_seconds:.2f}")
    certificate(
        operator="VAENormalizer",
        reference="scvi-tools SCVI 1.5.1",
        data="5,000 cells drawn from a model of the CellTypist sample, 1,000 held out, nb, 20 epochs",
        quantity="held-out reconstruction log-likelihood over SCVI's, 1 = equal, less is better",
        value=ours / theirs,
        bar="<= 1.01",
    )
    assert ours / theirs <= 1.01
