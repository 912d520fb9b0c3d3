"""The filter beside thresholds in NumPy and bcftools, and what training makes of it on simulated calls."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pysam
import pytest
from alignments import ex1
from flax import nnx
from jax.test_util import check_grads
from sequenced import genome

from diffbio.core.errors import ConfigError
from diffbio.losses.variant import filter_cross_entropy, precision_recall, soft_f_beta_loss
from diffbio.operators.variant.variant_filter import (
    SoftVariantFilter,
    SoftVariantFilterConfig,
    feature_scales,
)

FEATURES = ("QUAL", "INFO/DP", "INFO/AD[1]", "INFO/MQ", "INFO/BQBZ", "INFO/RPBZ", "INFO/FS")


class Calls(NamedTuple):
    """Variants of a file: their features, kinds and what they are."""

    features: np.ndarray
    kind: np.ndarray
    names: list[tuple[int, str, str]]


def read_calls(path: Path) -> Calls:
    """Return the variants of a VCF file."""
    rows, kinds, names = [], [], []
    with pysam.VariantFile(str(path)) as file:
        for record in file:
            values = [record.qual]
            for name in FEATURES[1:]:
                key, _, place = name.removeprefix("INFO/").partition("[")
                value = record.info.get(key)
                if place:
                    value = dict(enumerate(value or ())).get(int(place.rstrip("]")))
                values.append(value)
            rows.append([np.nan if value is None else value for value in values])
            kinds.append("INDEL" in record.info)
            names.append((record.pos, record.ref, record.alts[0] if record.alts else ""))
    return Calls(np.array(rows, np.float32), np.array(kinds, np.int32), names)


def call(folder: Path, fasta: Path, bam: Path, *options: str) -> Path:
    """Return the VCF file of all sites at which anything speaks for a variant."""
    path = folder / "calls.vcf"
    pileup = ["bcftools", "mpileup", "-f", str(fasta), "-Q", "1", "-a", "INFO/AD", str(bam)]
    calls = ["bcftools", "call", "-m", "-A", "-P", "0.9", *options, "-o", str(path)]
    printed = subprocess.run(pileup, check=True, capture_output=True).stdout
    subprocess.run(calls, check=True, capture_output=True, input=printed)
    return path


def needs(*programs: str) -> None:
    """Skip where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


def test_the_limit_is_that_of_thresholds() -> None:
    """With features exactly at thresholds, and missing ones."""
    random = np.random.default_rng(0)
    features = random.integers(0, 60, size=(500, 3)).astype(np.float32)
    features[random.random((500, 3)) < 0.1] = np.nan
    config = SoftVariantFilterConfig(
        features=("QUAL", "INFO/DP", "INFO/MQ"), lower=(20, None, 10), upper=(None, 40, 50), temperature=1e-7
    )
    operator = SoftVariantFilter(config)
    operator.initialize(features)
    found = operator.apply({"variant_features": features}, {}, None)[0]
    quality, depth, mapping = features.T
    fails = np.stack([quality < 20, depth > 40, (mapping < 10) | (mapping > 50)], axis=1)
    np.testing.assert_allclose(found["filter_reasons"], fails, atol=1e-6)
    np.testing.assert_allclose(found["pass_probability"], ~fails.any(1), atol=1e-6)
    assert operator.expression() == "QUAL<20 || INFO/DP>40 || INFO/MQ<10 || INFO/MQ>50"


@pytest.mark.slow
def test_the_limit_is_bcftools_filter_on_real_reads(tmp_path: Path, certificate) -> None:
    needs("bcftools")
    reads, reference = ex1(tmp_path)
    path = call(tmp_path, reference, reads)
    calls = read_calls(path)
    used = [place for place, name in enumerate(FEATURES) if "[" not in name]  # bcftools finds any number beyond the end
    features, names = calls.features[:, used], tuple(FEATURES[place] for place in used)
    operator = SoftVariantFilter(SoftVariantFilterConfig(features=names, temperature=1e-7))
    operator.initialize(features)
    operator.lower[...] = jnp.full((2, len(names)), -1.51).at[1].add(-0.5)  # indels have thresholds of their own
    operator.upper[...] = jnp.full((2, len(names)), 2.47)
    data = {"variant_features": features, "kind": calls.kind}
    found = np.asarray(operator.apply(data, {}, None)[0]["pass_probability"])
    command = ["bcftools", "filter", "-e", operator.expression(), "-s", "bad", str(path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    expected = np.array([line.split("\t")[6] == "PASS" for line in lines if not line.startswith("#")])
    certificate(
        operator="SoftVariantFilter",
        reference="bcftools 1.16 filter -e",
        data=f"{len(found)} positions of ex1.bam, {int(expected.sum())} of which pass",
        quantity="variants that are judged differently",
        value=int((np.abs(found - expected) > 1e-3).sum()),
        bar="= 0",
    )
    assert np.isnan(features).any()
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_kinds_have_thresholds_of_their_own() -> None:
    operator = SoftVariantFilter(SoftVariantFilterConfig(lower=(20, None), upper=(None, None), temperature=1e-7))
    operator.lower[...] = jnp.array([[20.0, 0.0], [50.0, 0.0]])
    data = {"variant_features": np.full((2, 2), 30, np.float32), "kind": np.array([0, 1], np.int32)}
    assert operator.apply(data, {}, None)[0]["pass_probability"].tolist() == [1.0, 0.0]
    assert operator.expression() == '(TYPE!="indel" && (QUAL<20)) || (TYPE="indel" && (QUAL<50))'


def test_features_are_standardized_by_median_and_deviation() -> None:
    random = np.random.default_rng(0)
    features = random.normal([50, 3], [10, 0.1], size=(5000, 2))
    features[::10] = 1e4
    mask = np.arange(5000) % 10 > 0
    median, deviation, *_ = feature_scales(features, mask)
    np.testing.assert_allclose(median, [50, 3], rtol=0.02)
    np.testing.assert_allclose(deviation, [10, 0.1], rtol=0.05)
    operator = SoftVariantFilter(SoftVariantFilterConfig(lower=(35, None)))
    operator.initialize(jnp.asarray(features, jnp.float32), jnp.asarray(mask))
    assert float(operator.thresholds()[0][0, 0]) == pytest.approx(35, rel=1e-4)
    assert np.isinf(operator.thresholds()[0][0, 1])


@pytest.mark.parametrize(
    "features", [np.zeros((0, 2)), np.full((3, 2), np.nan), np.zeros((3, 2)), np.full((3, 2), 1e30)]
)
def test_features_without_values_or_spread_are_harmless(features: np.ndarray) -> None:
    operator = SoftVariantFilter(SoftVariantFilterConfig())
    features = jnp.asarray(features, jnp.float32)
    operator.initialize(features)
    data = {"variant_features": features, "true_variant": jnp.ones(len(features), bool)}
    graph, state = nnx.split(operator)

    def losses(state: nnx.State, features: jax.Array) -> jax.Array:
        found = nnx.merge(graph, state).apply(data | {"variant_features": features}, {}, None)[0]
        return filter_cross_entropy(found) + soft_f_beta_loss(found)

    value, slopes = jax.value_and_grad(losses, (0, 1))(state, features)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(slope).all() for slope in jax.tree.leaves(slopes))


def test_derivatives_are_those_of_finite_differences() -> None:
    random = np.random.default_rng(0)
    features, true = jnp.asarray(random.normal(size=(20, 2)), jnp.float32), random.random(20) < 0.5

    def losses(features: jax.Array, lower: jax.Array, upper: jax.Array) -> jax.Array:
        operator = SoftVariantFilter(SoftVariantFilterConfig(n_mads=1.0))
        operator.lower[...], operator.upper[...] = lower, upper
        found = operator.apply({"variant_features": features, "true_variant": true}, {}, None)[0]
        return 10 * (filter_cross_entropy(found) + soft_f_beta_loss(found, beta=2.0) + found["filter_reasons"].mean())

    check_grads(losses, (features, -jnp.ones((2, 2)), jnp.ones((2, 2))), 1, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_losses_and_curve_are_those_of_scikit_learn(certificate) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    true = random.random(300) < 0.3
    scores = np.clip(np.round(random.normal(0.4 + 0.2 * true, 0.2), 2), 0.01, 0.99)  # many are equal
    curve = precision_recall(true, scores)
    for found, expected in zip(curve, metrics.precision_recall_curve(true, scores), strict=True):
        np.testing.assert_array_equal(found, expected)
    data = {"pass_probability": jnp.asarray(scores, jnp.float32), "true_variant": jnp.asarray(true)}
    hard = data | {"pass_probability": jnp.asarray(scores > 0.5, jnp.float32)}
    figures = {
        "cross-entropy": (filter_cross_entropy(data), metrics.log_loss(true, scores)),
        "1 - F1": (soft_f_beta_loss(hard), 1 - metrics.f1_score(true, scores > 0.5)),
        "1 - F2": (soft_f_beta_loss(hard, beta=2.0), 1 - metrics.fbeta_score(true, scores > 0.5, beta=2.0)),
    }
    for name, (found, expected) in figures.items():
        assert float(found) == pytest.approx(expected, rel=1e-5), name
    certificate(
        operator="SoftVariantFilter",
        reference="scikit-learn precision_recall_curve, log_loss, fbeta_score",
        data="300 random scores, many of them equal",
        quantity="largest relative difference of curve and losses",
        value=max(abs(float(found) / expected - 1) for found, expected in figures.values()),
        bar="<= 1e-5",
    )


def test_the_curve_of_no_true_variants_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    true, scores = np.zeros(4, bool), np.array([0.1, 0.2, 0.2, 0.3])
    with pytest.warns(UserWarning, match="No positive class"):
        expected = metrics.precision_recall_curve(true, scores)
    for found, own in zip(precision_recall(true, scores), expected, strict=True):
        np.testing.assert_array_equal(found, own)


def test_masked_variants_do_not_count_in_losses() -> None:
    data = {
        "pass_probability": jnp.array([0.9, 0.2, 0.7]),
        "true_variant": jnp.array([True, False, False]),
        "variant_mask": jnp.array([True, True, False]),
    }
    kept = {key: value[:2] for key, value in data.items()}
    for loss in (filter_cross_entropy, soft_f_beta_loss):
        assert float(loss(data)) == pytest.approx(float(loss(kept)))


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        SoftVariantFilterConfig(features=())
    with pytest.raises(ConfigError, match="1 thresholds for 2"):
        SoftVariantFilterConfig(lower=(3.0,))


def trained(operator: SoftVariantFilter, data: dict[str, np.ndarray], n_steps: int = 1000) -> list[float]:
    """Train the thresholds for F1 while the softness falls; return the losses."""
    optimizer = nnx.Optimizer(operator, optax.adam(optax.cosine_decay_schedule(0.1, n_steps)), wrt=nnx.Param)

    @nnx.jit
    def step(operator: SoftVariantFilter, optimizer: nnx.Optimizer) -> jax.Array:
        loss, slopes = nnx.value_and_grad(lambda op: soft_f_beta_loss(op.apply(data, {}, None)[0]))(operator)
        optimizer.update(operator, slopes)
        return loss

    losses = []
    for softness in np.geomspace(1.0, 0.05, n_steps):
        operator.softness.set(float(softness))
        losses.append(float(step(operator, optimizer)))
    return losses


def f1(true: np.ndarray, passes: np.ndarray) -> float:
    return 2 * (true & passes).sum() / max(true.sum() + passes.sum(), 1)


def test_planted_thresholds_are_learned() -> None:
    random = np.random.default_rng(0)
    features = random.uniform(0, 100, size=(1000, 3)).astype(np.float32)
    true = (features[:, 0] > 30) & (features[:, 1] < 60)
    config = SoftVariantFilterConfig(
        features=("QUAL", "INFO/DP", "INFO/MQ"), lower=(10, 10, None), upper=(None, 90, 95), temperature=0.5
    )
    operator = SoftVariantFilter(config)
    operator.initialize(features)
    data = {"variant_features": features, "true_variant": true}
    losses = trained(operator, data, 300)
    assert losses[-1] < 0.05 < losses[0]
    lower, upper = (np.asarray(limits)[0] for limits in operator.thresholds())
    np.testing.assert_allclose([lower[0], upper[1]], [30, 60], atol=3)
    assert lower[1] < 5
    assert upper[2] > 95


def simulated_calls(folder: Path, seed: int) -> tuple[Calls, np.ndarray]:
    """Return calls from few reads of many errors, and which of them are true."""
    folder.mkdir()
    fasta, out = folder / "lambda.fa", folder / "out"
    fasta.write_text(">lambda\n" + "".join("ACGT"[code] for code in genome()) + "\n")
    few = ["-N", "1500", "-1", "100", "-2", "100", "-r", "0.004", "-R", "0.15", "-e", "0.02", "-E", "0.03", "-y", "0"]
    bam = folder / "out.bam"
    reads = [f"{out}.bwa.read{number}.fastq.gz" for number in (1, 2)]
    for command in (
        ["samtools", "faidx", str(fasta)],
        ["bwa", "index", str(fasta)],
        ["dwgsim", *few, "-z", str(seed), str(fasta), str(out)],
        ["bwa", "mem", "-o", f"{out}.sam", str(fasta), *reads],
        ["samtools", "sort", "-o", str(bam), f"{out}.sam"],
        ["samtools", "index", str(bam)],
    ):
        subprocess.run(command, check=True, capture_output=True)
    calls = read_calls(call(folder, fasta, bam, "-v"))
    lines = Path(f"{out}.mutations.vcf").read_text().splitlines()
    fields = [line.split("\t") for line in lines if not line.startswith("#")]
    snps = {(int(pos), ref, alt) for _, pos, _, ref, alt, *_ in fields}
    indels = {int(pos) for _, pos, _, ref, alt, *_ in fields if len(ref) != len(alt)}
    near = [
        kind and any(abs(name[0] - at) <= 10 for at in indels)
        for name, kind in zip(calls.names, calls.kind, strict=True)
    ]
    return calls, np.array([name in snps or close for name, close in zip(calls.names, near, strict=True)], bool)


@pytest.mark.slow
def test_training_beats_the_best_threshold_of_quality_on_other_reads(tmp_path: Path, certificate) -> None:
    needs("bcftools", "samtools", "bwa", "dwgsim")
    pairs = [simulated_calls(tmp_path / str(seed), seed) for seed in (1, 2, 3, 7, 8, 9)]
    for_training, held_out = (
        {
            "variant_features": np.concatenate([calls.features for calls, _ in part]),
            "kind": np.concatenate([calls.kind for calls, _ in part]),
            "true_variant": np.concatenate([true for _, true in part]),
        }
        for part in (pairs[:3], pairs[3:])
    )
    operator = SoftVariantFilter(SoftVariantFilterConfig(features=FEATURES))
    operator.initialize(for_training["variant_features"])
    trained(operator, for_training)
    passing = np.asarray(operator.apply(held_out, {}, None)[0]["pass_probability"]) > 0.5
    learned = f1(held_out["true_variant"], passing)
    quality, true = held_out["variant_features"][:, 0], held_out["true_variant"]
    curve = precision_recall(true, quality)
    best = (2 * curve.precision * curve.recall / np.maximum(curve.precision + curve.recall, 1e-9)).max()
    certificate(
        operator="SoftVariantFilter",
        reference="the threshold of QUAL that is best on the held-out calls themselves",
        data=f"{len(true)} held-out calls of bcftools from dwgsim reads of lambda, 6x, {int(true.sum())} true",
        quantity=f"gain in F1 over {best:.3f}",
        value=learned - best,
        bar=">= 0",
    )
    assert true.sum() > 200
    assert learned >= best
