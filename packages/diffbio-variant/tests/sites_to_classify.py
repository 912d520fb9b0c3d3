"""Sites whose genotypes are known, to train classifiers on: a few drawn at random, and many of simulated files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from diffbio.core import Operator
from diffbio.losses.variant.genotypes import genotype_cross_entropy
from diffbio.operators.variant.haplotype_genotypes import HaplotypeGenotyping, HaplotypeGenotypingConfig
from diffbio.operators.variant.read_support import read_support
from diffbio.pipelines.variant.simulation import simulate_reads
from diffbio.pipelines.variant.sites import read_sites
from diffbio.testing import Example

Sites = dict[str, np.ndarray]
_SITE = 5


def arrays_of(example: Example) -> Sites:
    """Return the data of a conformance example."""
    return {key: np.asarray(array) for key, array in example.data.items()}


def random_sites(n_sites: int, *, n_reads: int = 10, error: float = 0.05, seed: int = 0) -> Sites:
    """Return sites of single letters in windows of 11 columns, with up to so many reads over all of it."""
    random = np.random.default_rng(seed)
    shape = n_sites, n_reads, 11
    reference = random.integers(4, size=(n_sites, 11))
    haplotypes = np.repeat(reference[:, None], 2, axis=1)
    haplotypes[:, 1, _SITE] = (reference[:, _SITE] + random.integers(1, 4, size=n_sites)) % 4
    genotype = random.integers(3, size=n_sites).astype(np.int32)
    of_variant = random.random(shape[:2]) < genotype[:, None] / 2
    true = np.where(of_variant[..., None], haplotypes[:, 1:], haplotypes[:, :1])
    shown = np.where(random.random(shape) < error, random.integers(4, size=shape), true)
    letters = np.eye(4, dtype=np.float32)
    return {
        "reads": letters[shown],
        "qualities": random.integers(8, 18, size=shape).astype(np.float32),
        "base_positions": np.broadcast_to(np.arange(11, dtype=np.int32), shape).copy(),
        "reference": letters[reference],
        "haplotypes": letters[haplotypes],
        "haplotype_lengths": np.full((n_sites, 2), 11, np.int32),
        "mapping_qualities": random.integers(20, 61, size=shape[:2]).astype(np.float32),
        "reverse_strand": random.random(shape[:2]) < 0.5,
        "read_mask": np.arange(n_reads) < random.integers(4, n_reads + 1, size=(n_sites, 1)),
        "genotype": genotype,
    }


def simulated_sites(folder: Path, seeds: range, *, depth: float = 10.0, size: int = 25_000) -> Sites:
    """Return the candidates of simulated genomes with about 2 % errors, with what a model believes of them.

    The model is that of haplotypes with the letter at the site, or the gap after it, in place of alignments.
    """
    parts: list[Sites] = []
    for seed in seeds:
        files = simulate_reads(folder / str(seed), seed=seed, size=size, depth=depth, mean_quality=20.0)
        sites = read_sites(files.reads, reference=files.reference, truth=files.truth, max_reads=24)
        parts.append(sites.take(np.arange(len(sites))))
    data = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    weights = data["base_weights"] * (np.arange(data["reads"].shape[2]) < data["read_lengths"][..., None])
    names = ("reads", "base_positions", "haplotypes", "haplotype_lengths", "insertions", "deletions")
    reads, columns, *shown = (jnp.asarray(data[name]) for name in names)
    support = read_support(reads, jnp.asarray(weights), columns, None, *shown, site=24)
    at_site = (data["qualities"] * (data["base_positions"] == 24)).sum(-1)
    error = 10 ** (-np.maximum(at_site, 2) / 10)
    odds = np.log(3 * (1 - error) / error) * (2 * np.asarray(support) - 1)
    scores = np.stack([np.zeros_like(odds), odds], axis=-1)
    believes = HaplotypeGenotyping(HaplotypeGenotypingConfig())
    found = believes.apply({**data, "alignment_score": scores}, {}, None)[0]
    return {**data, "call_posteriors": np.asarray(found["call_posteriors"])}


def trained(operator: Operator[Any], data: Sites, *, steps: int, rate: float = 1e-2, batch: int = 64) -> Operator[Any]:
    """Return the operator after Adam with a cosine schedule on random batches."""
    structure, params, rest = nnx.split(operator, nnx.Param, ...)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def loss(params: nnx.State, rows: Mapping[str, np.ndarray]) -> jax.Array:
        return genotype_cross_entropy(nnx.merge(structure, params, rest).apply(rows, {}, None)[0])

    @jax.jit
    def step(params: nnx.State, state: optax.OptState, rows: Mapping[str, np.ndarray]):
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
        return optax.apply_updates(params, updates), state

    state, random = optimizer.init(params), np.random.default_rng(0)
    for _ in range(steps):
        chosen = random.integers(len(data["genotype"]), size=batch)
        params, state = step(params, state, {key: array[chosen] for key, array in data.items()})
    return nnx.merge(structure, params, rest)


def costs(operator: Operator[Any], data: Sites) -> float:
    """Return the cross-entropy of the true genotypes, in nats, over as many batches of 64 as there are."""
    apply = jax.jit(lambda rows: genotype_cross_entropy(operator.apply(rows, {}, None)[0]))
    firsts = range(0, len(data["genotype"]) - 63, 64)
    return float(np.mean([apply({key: array[first : first + 64] for key, array in data.items()}) for first in firsts]))


def cost_of_prior(train: Sites, held_out: Sites) -> float:
    """Return the cross-entropy of the shares that the genotypes have."""
    shares = np.bincount(train["genotype"], minlength=3) / len(train["genotype"])
    return float(-np.log(shares[held_out["genotype"]]).mean())


def cost_of_model(data: Sites) -> float:
    """Return the cross-entropy of `call_posteriors`, of the sites that `costs` looks at."""
    seen = len(data["genotype"]) // 64 * 64
    chosen = data["call_posteriors"][np.arange(seen), data["genotype"][:seen]]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def require_that_it_learns(
    operator: Operator[Any], certificate: Callable[..., None], name: str, *, most: float, steps: int = 120
) -> None:
    """Train a classifier on random sites, without a model beside it, and compare it with the shares of genotypes."""
    train, held_out = random_sites(384), random_sites(256, seed=1)
    value, prior = costs(trained(operator, train, steps=steps), held_out), cost_of_prior(train, held_out)
    certificate(
        operator=name, reference="the shares of the genotypes",
        data=f"256 random sites of 4 to 10 reads, after {steps} steps on 384 others",
        quantity="cross-entropy, share of the reference's", value=value / prior, bar=f"<= {most}",
    )  # fmt: skip
    assert value < most * prior


def require_that_it_corrects(
    make: Callable[[], Operator[Any]], folder: Path, certificate: Callable[..., None], name: str
) -> tuple[Sites, Sites]:
    """Train a classifier on simulated sites beside a model of the reads; it must be better. Return the sites."""
    train, held_out = simulated_sites(folder, range(100, 112)), simulated_sites(folder, range(8))
    value, model = costs(trained(make(), train, steps=100, rate=3e-3), held_out), cost_of_model(held_out)
    certificate(
        operator=name, reference="HaplotypeGenotyping, not trained",
        data=f"{len(held_out['genotype'])} candidates of 8 simulated genomes, depth 10, after 100 steps on 12 others",
        quantity="cross-entropy, share of the reference's", value=value / model, bar="<= 0.97",
    )  # fmt: skip
    assert value < 0.97 * model
    return train, held_out


def require_that_it_works_alone(make: Callable[[], Operator[Any]], train: Sites, held_out: Sites) -> None:
    """Train a classifier on sites of which no model has said anything."""
    alone: list[Sites] = [{k: a for k, a in part.items() if k != "call_posteriors"} for part in (train, held_out)]
    assert costs(trained(make(), alone[0], steps=150, rate=3e-3), alone[1]) < 0.4 * cost_of_prior(*alone)
