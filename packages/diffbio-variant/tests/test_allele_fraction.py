"""Allele fractions beside their definitions in NumPy and SciPy, and beside simulated truth; derivatives, training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads

from diffbio.core.errors import ContractError
from diffbio.operators.variant.allele_fraction import (
    AlleleFraction,
    AlleleFractionConfig,
    allele_fractions,
    heterozygous_probability,
)


def simulated(n_sites: int, major: list[float], *, depth: float = 40.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Return sites of bins with these fractions of the major allele, of which a third are heterozygous."""
    random = np.random.default_rng(seed)
    site_bin = np.sort(random.integers(0, len(major), n_sites))
    genotype = random.choice([0.01, 0.5, 0.99], n_sites)
    fraction = np.array(major)[site_bin]
    fraction = np.where(random.random(n_sites) < 0.5, fraction, 1 - fraction)
    fraction = np.where(genotype == 0.5, fraction, genotype)
    counts = {}
    for name, chance in (("", fraction), ("normal_", genotype)):
        reads = random.poisson(depth, n_sites)
        alt = random.binomial(reads, chance)
        counts |= {f"{name}ref_counts": reads - alt, f"{name}alt_counts": alt}
    data = {name: known.astype(np.float32) for name, known in counts.items()}
    return {**data, "site_bin": site_bin.astype(np.int32), "genotype": genotype}


def test_genotypes_and_means_are_those_of_their_definitions(certificate) -> None:
    binom = pytest.importorskip("scipy.stats").binom
    data = simulated(3000, [0.5, 0.7, 0.9, 0.5])
    del data["genotype"]
    found = AlleleFraction(AlleleFractionConfig(n_bins=5)).apply(data, {}, None)[0]
    ref, alt = (data[name].astype(float) for name in ("normal_ref_counts", "normal_alt_counts"))
    likelihoods = [prior * binom.pmf(alt, ref + alt, f) for f, prior in ((0.01, 0.35), (0.5, 0.3), (0.99, 0.35))]
    weight = likelihoods[1] / np.sum(likelihoods, axis=0)
    ref, alt, bins = data["ref_counts"].astype(float), data["alt_counts"].astype(float), data["site_bin"]
    mirrored = 0.5 + np.abs(alt / (ref + alt) - 0.5)
    means = [np.average(mirrored[bins == b], weights=weight[bins == b]) for b in range(4)] + [0.5]
    grid = 0.5 + (np.arange(32) + 0.5) / 64
    each = [0.5 * (binom.pmf(alt, ref + alt, f) + binom.pmf(alt, ref + alt, 1 - f)) for f in grid]
    odds = weight * (np.log(each) - np.log(binom.pmf(alt, ref + alt, 0.5)))
    odds = np.stack([odds[:, bins == b].sum(1) for b in range(5)])
    evidence = np.logaddexp.reduce(odds, axis=1) - np.log(32) + np.log(0.1 / 0.9)
    imbalance = 1 / (1 + np.exp(-evidence))
    fraction = (np.exp(odds - np.logaddexp.reduce(odds, axis=1, keepdims=True)) * grid).sum(1)
    wanted = {
        "heterozygous_probability": weight,
        "mirrored_baf": means,
        "imbalance_probability": imbalance,
        "baf": 0.5 + imbalance * (fraction - 0.5),
    }
    error = max(float(np.abs(np.asarray(found[name]) - known).max()) for name, known in wanted.items())
    certificate(
        operator="AlleleFraction",
        reference="definitions in NumPy and SciPy's binomial distribution, float64",
        data="3000 simulated sites of 40 reads in 5 bins, with a matched normal",
        quantity="largest difference of genotypes, means, fractions and posteriors",
        value=error,
        bar="<= 0.0005",
    )
    assert error <= 5e-4
    assert np.asarray(found["baf_mask"]).tolist() == [True] * 4 + [False]


def test_fractions_and_imbalance_are_those_of_the_simulation(certificate) -> None:
    major = np.tile([0.5, 0.55, 0.6, 0.67, 0.75, 0.9], 8).tolist()
    data = simulated(150 * len(major), major, depth=30)
    genotype = data.pop("genotype")
    found = AlleleFraction(AlleleFractionConfig(n_bins=len(major))).apply(data, {}, None)[0]
    assert ((np.asarray(found["heterozygous_probability"]) > 0.5) == (genotype == 0.5)).mean() > 0.999
    errors = {name: np.abs(np.asarray(found[name]) - major).mean() for name in ("baf", "mirrored_baf")}
    certificate(
        operator="AlleleFraction",
        reference="the fractions of the simulation, 0.5 to 0.9",
        data="48 simulated bins of 50 heterozygous sites of 30 reads",
        quantity=f"mean error of the fraction of the major allele (of mirrored means {errors['mirrored_baf']:.3f})",
        value=float(errors["baf"]),
        bar="<= 0.02",
    )
    assert errors["baf"] <= 0.02 < errors["mirrored_baf"]
    imbalance, major = np.asarray(found["imbalance_probability"]), np.array(major)
    assert imbalance[major == 0.5].max() < 0.5
    assert imbalance[major >= 0.67].min() > 0.9


def test_without_a_normal_sample_sites_are_taken_from_the_tumor() -> None:
    data = simulated(400, [0.5, 0.7])
    genotype = data.pop("genotype")
    tumor = {name: data[name] for name in ("ref_counts", "alt_counts", "site_bin")}
    found = AlleleFraction(AlleleFractionConfig(n_bins=2)).apply(tumor, {}, None)[0]
    assert ((np.asarray(found["heterozygous_probability"]) > 0.5) == (genotype == 0.5)).mean() > 0.99
    with pytest.raises(ContractError, match="give both or neither"):
        AlleleFraction(AlleleFractionConfig(n_bins=2)).apply(
            {**tumor, "normal_ref_counts": data["normal_ref_counts"]}, {}, None
        )


def test_masked_sites_sites_of_no_bin_and_sites_without_reads_have_no_effect() -> None:
    data = simulated(60, [0.5, 0.8])
    del data["genotype"]
    operator = AlleleFraction(AlleleFractionConfig(n_bins=2))
    wanted = operator.apply(data, {}, None)[0]
    more = {name: np.concatenate([known, known[:4]]) for name, known in data.items()}
    more["site_bin"][60:] = [0, -1, 2, 1]
    for name in data:
        if name != "site_bin":
            more[name][60], more[name][63] = np.nan, 0
    found = operator.apply({**more, "site_mask": np.arange(64) != 60}, {}, None)[0]
    for name in ("mirrored_baf", "imbalance_probability", "baf"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-6)
    assert np.asarray(found["heterozygous_probability"])[[60, 63]].tolist() == [0, 0]


def test_derivatives_are_those_of_differences() -> None:
    counts = jnp.array([[4.0, 7.0, 2.0, 6.0, 5.0, 1.0], [5.0, 2.0, 6.0, 3.0, 6.0, 7.0]])
    graph, params, rest = nnx.split(AlleleFraction(AlleleFractionConfig(n_bins=2, error_rate=0.05)), nnx.Param, ...)

    def outputs(ref: jax.Array, alt: jax.Array, params: nnx.State) -> tuple[jax.Array, ...]:
        data = {"ref_counts": ref, "alt_counts": alt, "site_bin": jnp.array([0, 0, 0, 1, 1, 1])}
        found = nnx.merge(graph, params, rest).apply(data, {}, None)[0]
        return tuple(found[name] for name in ("heterozygous_probability", "mirrored_baf", "baf"))

    check_grads(jax.jit(outputs), (*counts, params), order=1, modes=["rev"], eps=1e-2, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e4])
def test_derivatives_are_finite_at_any_scale(scale: float) -> None:
    counts = scale * jnp.array([[4.0, 7.0, 0.0], [4.0, 0.0, 0.0]])

    def total(ref: jax.Array, alt: jax.Array) -> jax.Array:
        weight = heterozygous_probability(ref, alt, error_rate=0.01, prior=0.3, softness=0.1)
        found = allele_fractions(ref, alt, jnp.array([0, 0, 1]), weight, n_bins=3, imbalance_prior=0.1)
        return (found.baf**2).sum() + (found.mirrored_baf**2).sum() + weight.sum()

    assert all(np.isfinite(slope).all() for slope in jax.grad(total, argnums=(0, 1))(*counts))


def test_priors_and_the_error_rate_are_learned() -> None:
    data = simulated(600, [0.5] * 6 + [0.75] * 6)
    genotype = data.pop("genotype")
    operator = AlleleFraction(AlleleFractionConfig(n_bins=12, error_rate=0.3, imbalance_prior=0.9))
    graph, params, rest = nnx.split(operator, nnx.Param, ...)
    optimizer, truth = optax.adam(0.2), jnp.arange(12) >= 6

    @jax.jit
    def step(params: nnx.State, state: optax.OptState) -> tuple:
        def loss(params: nnx.State) -> jax.Array:
            found = nnx.merge(graph, params, rest).apply(data, {}, None)[0]
            sites = (found["heterozygous_probability"] - (genotype == 0.5)) ** 2
            return sites.mean() + ((found["imbalance_probability"] - truth) ** 2).mean()

        value, slopes = jax.value_and_grad(loss)(params)
        changes, state = optimizer.update(slopes, state)
        return optax.apply_updates(params, changes), state, value

    state, losses = optimizer.init(params), []
    for _ in range(40):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
    assert losses[-1] < 0.3 * losses[0]
