"""The copy-number HMM beside hmmlearn and beside all paths; its masks, chromosomes and distances; its training."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from coriell import coriell, starts
from flax import nnx
from jax.test_util import check_grads

from diffbio.core import Pipeline
from diffbio.operators.variant.allele_fraction import AlleleFraction, AlleleFractionConfig
from diffbio.operators.variant.copy_number_hmm import (
    CopyNumberHMM,
    CopyNumberHMMConfig,
    allele_density,
    copy_number_means,
)
from diffbio.operators.variant.depth_correction import DepthCorrection, DepthCorrectionConfig
from diffbio.operators.variant.hidden_chain import best_path, chain_steps, path_sums
from diffbio.operators.variant.noise import neighbour_noise

hmmlearn = pytest.importorskip("hmmlearn.hmm")


def simulated(n_bins: int, *, seed: int = 0, std: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Return copy numbers 1 to 4 in stretches of 40 bins on average, and their log2 ratios."""
    random = np.random.default_rng(seed)
    copies = random.choice([1, 2, 2, 2, 3, 4], size=n_bins)[np.cumsum(random.random(n_bins) < 1 / 40)]
    means = np.asarray(copy_number_means(jnp.arange(5.0), 0.95, 2.0))
    return copies, (means[copies] + std * random.normal(size=n_bins)).astype(np.float32)


def reference(hmm: CopyNumberHMM, **options: object) -> "hmmlearn.GaussianHMM":
    """Return hmmlearn's model of the same parameters."""
    n_states = hmm.config.n_states
    model = hmmlearn.GaussianHMM(n_states, covariance_type="diag", **options)
    model.startprob_ = np.asarray(jax.nn.softmax(hmm.start_logits[...]), float)
    model.startprob_ /= model.startprob_.sum()
    model.transmat_ = np.asarray(jax.nn.softmax(hmm.transition_logits[...], -1), float)
    model.transmat_ /= model.transmat_.sum(1, keepdims=True)
    model.means_ = np.asarray(hmm.means(), float)[:, None]
    model.covars_ = np.broadcast_to(np.exp(2 * np.asarray(hmm.log_std[...], float)), n_states)[:, None].copy()
    return model


def compare(certificate, hmm: CopyNumberHMM, data: dict, data_name: str) -> dict:
    """Compare posterior, likelihood and path with those of hmmlearn, of the bins that count."""
    found = jax.jit(lambda data: hmm.apply(data, {}, None)[0])(data)
    path = np.asarray(jax.jit(lambda data: hmm.most_likely(**data))(data))
    counted = np.asarray(data.get("bin_mask", np.ones(len(path), bool)))
    first = np.asarray(data.get("segment_start", np.arange(len(path)) == 0))
    lengths = np.bincount(np.cumsum(first)[counted])
    model, seen = reference(hmm), np.asarray(data["log2_ratio"], float)[counted, None]
    lengths = lengths[lengths > 0]
    log_likelihood, posterior = model.score_samples(seen, lengths)
    errors = {
        "largest difference of posteriors": np.abs(found["copy_number_posterior"][counted] - posterior).max(),
        "relative difference of log-likelihoods": abs(found["copy_number_log_likelihood"] / log_likelihood - 1),
        "bins whose Viterbi state differs": (path[counted] != model.decode(seen, lengths)[1]).sum(),
    }
    for (quantity, value), bar in zip(errors.items(), (1e-4, 1e-4, 0), strict=True):
        certificate(
            operator="CopyNumberHMM",
            reference="hmmlearn 0.3.3, GaussianHMM",
            data=data_name,
            quantity=quantity,
            value=float(value),
            bar=f"<= {bar:g}",
        )
        assert float(value) <= bar
    return {**found, "path": path}


@pytest.mark.parametrize("n_bins", [300, 20_000])
def test_posterior_likelihood_and_path_are_those_of_hmmlearn(certificate, n_bins: int) -> None:
    copies, log2_ratio = simulated(n_bins)
    hmm = CopyNumberHMM(CopyNumberHMMConfig(change_probability=0.02))
    found = compare(certificate, hmm, {"log2_ratio": log2_ratio}, f"{n_bins} simulated bins of noise 0.2, 7 states")
    assert (found["path"] == copies).mean() > 0.97
    assert np.abs(found["expected_copy_number"] - copies).mean() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("cell_line", ["GM05296", "GM13330"])
def test_clones_of_a_cell_line_are_those_of_hmmlearn(certificate, cell_line: str) -> None:
    clones = coriell(cell_line)
    data = {name: clones[name] for name in ("log2_ratio", "bin_mask")} | {"segment_start": starts(clones["chromosome"])}
    hmm = CopyNumberHMM(CopyNumberHMMConfig(n_states=5, purity=0.7))
    hmm.initialize(**{name: jnp.asarray(data[name]) for name in ("log2_ratio", "bin_mask")})
    found = compare(
        certificate, hmm, data, f"Coriell {cell_line}, {clones['bin_mask'].sum()} clones of chromosomes 1-22"
    )
    if cell_line == "GM05296":
        for chromosome, first, last, copies in ((10, 65_000, 110_000, 3), (11, 35_416, 39_623, 1)):
            there = (clones["chromosome"] == chromosome) & clones["bin_mask"]
            changed = np.flatnonzero(there & (found["path"] == copies))
            inside = np.flatnonzero(there & (clones["position"] >= first) & (clones["position"] <= last))
            print(chromosome, clones["position"][changed[[0, -1]]], clones["position"][inside[[0, -1]]])
            assert abs(changed[0] - inside[0]) <= 1
            assert abs(changed[-1] - inside[-1]) <= 1


def test_sums_are_those_of_all_paths_with_any_softness(certificate) -> None:
    random = np.random.default_rng(1)
    log_density = random.normal(size=(6, 3)).astype(np.float32)
    transition, start = (np.log(random.dirichlet(np.ones(3), size=size)).astype(np.float32) for size in (3, None))
    paths, errors = np.array(list(product(range(3), repeat=6))), []
    weights = start[paths[:, 0]] + log_density[np.arange(6), paths].sum(1)
    weights += transition[paths[:, :-1], paths[:, 1:]].sum(1)
    for softness in (0.1, 1.0, 3.0):
        found = path_sums(chain_steps(log_density, transition, start, softness=softness))
        log_sum = np.logaddexp.reduce(weights / softness)
        shares = np.exp(weights / softness - log_sum)
        posterior = np.array([[shares[paths[:, t] == state].sum() for state in range(3)] for t in range(6)])
        errors += [abs(float(found.log_sum) - log_sum), np.abs(found.posterior - posterior).max()]
    assert (best_path(chain_steps(log_density, transition, start)) == paths[weights.argmax()]).all()
    certificate(
        operator="CopyNumberHMM",
        reference="all paths, enumerated",
        data="6 bins, 3 states, softness 0.1, 1 and 3",
        quantity="largest difference of log-sums and posteriors",
        value=float(max(errors)),
        bar="<= 1e-05",
    )
    assert max(errors) <= 1e-5


def test_chromosomes_are_on_their_own_and_masked_bins_as_if_they_were_not_there() -> None:
    _, log2_ratio = simulated(90)
    hmm = CopyNumberHMM(CopyNumberHMMConfig())
    positions = np.cumsum(np.random.default_rng(0).integers(1, 9, 90)).astype(np.int32) * 300_000
    hidden = np.zeros(90, bool)
    hidden[[0, 1, 30, 50, 70, 89]] = True  # both ends, and the begin of a chromosome
    first = np.isin(np.arange(90), [0, 30, 60])
    data = {"log2_ratio": np.where(hidden, np.nan, log2_ratio).astype(np.float32), "bin_mask": ~hidden}
    data |= {"segment_start": first, "bin_position": positions}
    found = hmm.apply(data, {}, None)[0]
    parts = []
    for begin in (0, 30, 60):
        kept = np.arange(begin, begin + 30)[~hidden[begin : begin + 30]]
        part = {"log2_ratio": log2_ratio[kept], "bin_position": positions[kept]}
        parts.append(hmm.apply(part, {}, None)[0])
    posterior = np.concatenate([part["copy_number_posterior"] for part in parts])
    np.testing.assert_allclose(found["copy_number_posterior"][~hidden], posterior, atol=1e-5)
    total = sum(float(part["copy_number_log_likelihood"]) for part in parts)
    assert float(found["copy_number_log_likelihood"]) == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(found["copy_number_posterior"][50], found["copy_number_posterior"][49], atol=1e-6)


def test_a_state_is_left_at_a_constant_rate() -> None:
    transition = jnp.log(jnp.array([[0.9, 0.08, 0.02], [1e-6, 1 - 2e-6, 1e-6], [0.3, 0.3, 0.4]]))
    distance = jnp.array([0.0, 0.5, 1.5, 4.5, 1004.5])
    steps = np.exp(chain_steps(jnp.zeros((5, 3)), transition, jnp.zeros(3), distance=distance))[1:]
    np.testing.assert_allclose(steps[1], np.exp(transition), rtol=1e-4)
    np.testing.assert_allclose(steps.sum(-1), 1, rtol=1e-5)
    for step, d in zip(steps, (0.5, 1, 3, 1000), strict=True):
        np.testing.assert_allclose(np.diagonal(step), np.exp(np.diagonal(transition)) ** d, rtol=1e-4, atol=1e-30)
        np.testing.assert_allclose(step[0, 1] / step[0, 2], 4, rtol=1e-4)


def test_alleles_tell_copy_numbers_apart() -> None:
    frequency = [0.5, 0.34, 0.66, 0.02, 0.98]
    densities = np.asarray(allele_density(jnp.array(frequency), 4, 0.98, 0.03))
    assert densities[:, 1:].argmax(1).tolist() == [1, 2, 2, 0, 0]
    np.testing.assert_allclose(densities[1], densities[2], atol=1e-4)  # mirrored or not
    grid = jnp.linspace(-0.5, 1.5, 4001)
    np.testing.assert_allclose(np.exp(allele_density(grid, 5, 0.9, 0.05)).mean(0) * 2, 1, rtol=1e-3)
    hmm = CopyNumberHMM(CopyNumberHMMConfig(n_states=4, std=1.0, change_probability=0.05))
    data = {"log2_ratio": np.full(40, 0.3, np.float32)}
    without = hmm.apply(data, {}, None)[0]["expected_copy_number"]
    baf = np.where(np.arange(40) < 20, 0.5, 0.67).astype(np.float32)
    with_alleles = hmm.apply({**data, "baf": baf}, {}, None)[0]["expected_copy_number"]
    np.testing.assert_allclose(without, without[0], atol=0.3)
    np.testing.assert_allclose(np.asarray(with_alleles)[[10, 30]], [2, 3], atol=0.1)
    missing = {"baf": np.full(40, np.nan, np.float32), "baf_mask": np.zeros(40, bool)}
    found = hmm.apply({**data, **missing}, {}, None)[0]["expected_copy_number"]
    np.testing.assert_allclose(found, without, atol=1e-5)  # what is missing is not zero


def test_derivatives_are_those_of_differences() -> None:
    hmm = CopyNumberHMM(CopyNumberHMMConfig(n_states=3, change_probability=0.1))
    graph, params, rest = nnx.split(hmm, nnx.Param, ...)
    data = {"bin_position": jnp.arange(11) * 700_000, "bin_mask": jnp.arange(11) != 4, "baf": jnp.full(11, 0.4)}

    def outputs(log2_ratio: jax.Array, params: nnx.State) -> tuple[jax.Array, ...]:
        found = nnx.merge(graph, params, rest).apply({"log2_ratio": log2_ratio, **data}, {}, None)[0]
        return found["copy_number_log_likelihood"] / 10, found["expected_copy_number"]

    log2_ratio = jnp.asarray(simulated(11, std=0.3)[1])
    check_grads(jax.jit(outputs), (log2_ratio, params), order=1, modes=["rev"], eps=3e-3, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3])
def test_derivatives_are_finite_at_any_scale_and_without_bins(scale: float) -> None:
    log2_ratio = jnp.asarray(scale * simulated(20)[1])
    for softness in (1e-3, 1.0, 100.0):
        hmm = CopyNumberHMM(CopyNumberHMMConfig(n_states=4, temperature=softness))
        for mask in (np.ones(20, bool), np.zeros(20, bool)):

            def total(log2_ratio: jax.Array, hmm: CopyNumberHMM = hmm, mask: np.ndarray = mask) -> jax.Array:
                found = hmm.apply({"log2_ratio": log2_ratio, "bin_mask": mask}, {}, None)[0]
                return (found["expected_copy_number"] ** 2).sum() + found["copy_number_log_likelihood"]

            slopes = jax.grad(total)(log2_ratio)
            assert np.isfinite(slopes).all()
            assert mask.any() or (slopes == 0).all()


def trained(hmm: CopyNumberHMM, data: dict, n_steps: int, rate: float = 0.03) -> float:
    """Fit the parameters by gradient descent on the likelihood, and return the last one, per bin."""
    graph, params, rest = nnx.split(hmm, nnx.Param, ...)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, n_steps))

    @jax.jit
    def fit(params: nnx.State) -> tuple[nnx.State, jax.Array]:
        def loss(params: nnx.State) -> jax.Array:
            found = nnx.merge(graph, params, rest).apply(data, {}, None)[0]
            return -found["copy_number_log_likelihood"] / len(data["log2_ratio"])

        def step(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
            value, slopes = jax.value_and_grad(loss)(carry[0])
            changes, state = optimizer.update(slopes, carry[1])
            return (optax.apply_updates(carry[0], changes), state), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), length=n_steps)
        return params, -losses[-1]

    params, value = fit(params)
    nnx.update(hmm, params)
    return float(value)


@pytest.mark.slow
def test_training_reaches_the_likelihood_of_expectation_maximization(certificate) -> None:
    _, log2_ratio = simulated(1000, std=0.25)
    hmm = CopyNumberHMM(
        CopyNumberHMMConfig(n_states=4, means="free", tied_std=False, std=0.4, purity=0.7, change_probability=0.05)
    )
    hmm.state_mean[...] = jnp.array([-0.7, -0.1, 0.3, 0.8])
    options = {"covars_prior": 0.0, "covars_weight": 1.0, "n_iter": 300, "tol": 1e-6, "init_params": ""}
    em = reference(hmm, **options).fit(log2_ratio[:, None].astype(float)).score(log2_ratio[:, None].astype(float))
    before = float(hmm.apply({"log2_ratio": log2_ratio}, {}, None)[0]["copy_number_log_likelihood"])
    after = 1000 * trained(hmm, {"log2_ratio": log2_ratio}, 1000, rate=0.1)
    certificate(
        operator="CopyNumberHMM",
        reference="hmmlearn 0.3.3, expectation-maximization without priors",
        data="1000 simulated bins, 4 states, all parameters free",
        quantity=f"nats by which maximum likelihood by gradient falls short (from {before:.1f} to {em:.1f})",
        value=em - after,
        bar="<= 0.01",
    )
    assert em - after <= 1e-2


def test_purity_is_learned(certificate) -> None:
    random = np.random.default_rng(3)
    copies = np.repeat([2, 3, 2, 1, 2, 4, 2], 60)
    means = np.asarray(copy_number_means(jnp.arange(7.0), 0.6, 2.0))
    data = {"log2_ratio": (means[copies] + 0.1 * random.normal(size=len(copies))).astype(np.float32)}
    hmm = CopyNumberHMM(CopyNumberHMMConfig(purity=0.8))
    hmm.initialize(**data)
    assert float(jnp.exp(hmm.log_std[...])) == pytest.approx(0.1, rel=0.15)
    trained(hmm, data, 200)
    error = abs(float(jax.nn.sigmoid(hmm.purity_logit[...])) - 0.6)
    certificate(
        operator="CopyNumberHMM",
        reference="the purity of the simulation, 0.6",
        data="420 simulated bins of noise 0.1, started from purity 0.8",
        quantity="difference of the purity of maximum likelihood",
        value=error,
        bar="<= 0.02",
    )
    assert error <= 0.02
    assert (np.asarray(hmm.most_likely(jnp.asarray(data["log2_ratio"]))) == copies).mean() > 0.97


def test_noise_of_neighbours_is_that_of_the_median_whatever_is_masked() -> None:
    _, log2_ratio = simulated(400)
    masked = np.insert(log2_ratio, [0, 7, 400], np.nan)
    noise = float(neighbour_noise(jnp.asarray(log2_ratio)))
    assert noise == pytest.approx(np.median(np.abs(np.diff(log2_ratio))) / 0.6744898 / np.sqrt(2), rel=1e-5)
    assert float(neighbour_noise(jnp.asarray(masked), ~np.isnan(masked))) == pytest.approx(noise, rel=1e-6)
    assert float(neighbour_noise(jnp.ones(5), np.zeros(5, bool))) == pytest.approx(1e-4)


def test_softness_does_not_recompile() -> None:
    hmm = CopyNumberHMM(CopyNumberHMMConfig(n_states=3))
    graph, _ = nnx.split(hmm)
    traced = []

    @jax.jit
    def likelihood(state: nnx.State) -> jax.Array:
        traced.append(state)
        data = {"log2_ratio": jnp.zeros(9)}
        return nnx.merge(graph, state).apply(data, {}, None)[0]["copy_number_log_likelihood"]

    values = []
    for softness in (0.1, 1.0, 3.0):
        hmm.softness.set(softness)
        values.append(float(likelihood(nnx.state(hmm))))
    assert len(traced) == 1
    assert values == sorted(values)


def test_gradients_reach_depth_and_allele_counts_through_a_pipeline() -> None:
    """Reads to copy numbers: masks of the correction and of the sites are those of the model."""
    random = np.random.default_rng(0)
    copies = np.repeat([2, 3, 2, 1, 2], 40)
    gc = random.uniform(0.35, 0.55, 200)
    site_bin = np.repeat(np.arange(200), 4)
    depth = random.poisson(400 * copies / 2 * np.exp(-(((gc - 0.45) / 0.2) ** 2)))
    depth[11] = 0
    alt = random.binomial(
        30,
        random.permuted(
            np.array([[1 / 2, 1 / 2], [1 / 3, 2 / 3], [0.02, 0.98]])[
                np.select([copies == 2, copies == 3], [0, 1], 2)[site_bin]
            ],
            axis=1,
        )[:, 0],
    )
    data = {"depth": depth, "gc": gc, "mappability": np.ones(200), "ref_counts": 30 - alt, "alt_counts": alt}
    data |= {"normal_ref_counts": np.full(800, 15), "normal_alt_counts": np.full(800, 15)}
    data = {name: jnp.asarray(known, jnp.float32) for name, known in data.items()} | {"site_bin": site_bin}
    pipeline = Pipeline(
        DepthCorrection(DepthCorrectionConfig(n_robust=0)),
        AlleleFraction(AlleleFractionConfig(n_bins=200)),
        CopyNumberHMM(CopyNumberHMMConfig(n_states=5, purity=0.98, std=0.1)),
    )

    @jax.jit
    def expected(depth: jax.Array, alt: jax.Array) -> jax.Array:
        found = pipeline.apply({**data, "depth": depth, "alt_counts": alt}, {}, None)[0]
        return found["expected_copy_number"]

    assert (np.round(expected(data["depth"], data["alt_counts"])) == copies).mean() > 0.97
    slopes = jax.grad(lambda *counts: expected(*counts)[38:42].sum(), argnums=(0, 1))(data["depth"], data["alt_counts"])
    assert all(np.isfinite(slope).all() and (np.asarray(slope) != 0).any() for slope in slopes)
    assert slopes[0][11] == 0
