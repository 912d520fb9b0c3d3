"""Recalibrated qualities beside a table written out base by base, and beside the truth of simulated reads."""

from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pysam
import pytest
from alignments import ex1
from flax import nnx
from jax.test_util import check_grads
from laid_reads import laid_reads, one_hot
from scipy.optimize import minimize_scalar
from sequenced import Sequenced, genome, laid_with_everything, sequenced

from diffbio.core.errors import DataError
from diffbio.losses.variant import mismatch_cross_entropy
from diffbio.operators.variant.recalibration import BaseQualityRecalibration, BaseQualityRecalibrationConfig
from diffbio.operators.variant.recalibration_counts import RecalibrationCounts, total_counts
from diffbio.operators.variant.recalibration_fit import (
    RecalibrationTables,
    empirical_qualities,
    fit_tables,
    posterior_quality,
)

Key = tuple[int | str, ...]
COMPLEMENT = dict(zip("ACGTN", "TGCAN", strict=True))


def written_out(data: dict[str, np.ndarray], min_quality: int = 6) -> dict[Key, list[float]]:
    """Return observations and errors of all bins, base by base."""
    text = ["".join("ACGTN"[row.argmax() if row.any() else 4] for row in read) for read in data["reads"]]
    expected = "".join("ACGTN"[row.argmax() if row.any() else 4] for row in data["reference"])
    bins: dict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for number, whole in enumerate(text):
        if not data["read_mask"][number]:
            continue
        read, reverse = whole[: data["read_lengths"][number]], data["reverse_strand"][number]
        for place, letter in enumerate(read):
            quality, column = int(data["qualities"][number, place]), data["base_positions"][number, place]
            if quality < min_quality or column < 0 or "N" in (letter, expected[column]):
                continue
            if data["known_variant"][column] or not data["own_columns"][column]:
                continue
            weight = float(data["base_weights"][number, place])
            own = place + data["read_offsets"][number]
            cycle = data["full_lengths"][number] - own if reverse else own + 1
            if data["second_in_pair"][number]:
                cycle = -cycle
            if reverse:
                before = COMPLEMENT[read[place + 1]] if place + 1 < len(read) else "N"
            else:
                before = read[place - 1] if place else "N"
            context = before + (COMPLEMENT[letter] if reverse else letter)
            group = max(int(data["read_groups"][number]), 0)
            keys = [(group, quality), (group, quality, int(cycle))]
            for key in keys + ([] if "N" in context else [(group, quality, context)]):
                bins[key][0] += weight
                bins[key][1] += weight * (letter != expected[column])
    return bins


def bins_of(counts: RecalibrationCounts) -> dict[Key, list[float]]:
    """Return counts under the same keys."""
    arrays = [np.asarray(array) for array in counts]
    max_cycle, bins = arrays[2].shape[2] // 2, {}
    for seen, wrong in (arrays[:2], arrays[2:4], arrays[4:]):
        for at in np.argwhere(seen > 0):
            group, quality, *rest = (int(place) for place in at)
            if len(rest) == 2:
                rest = ["ACGT"[rest[0]] + "ACGT"[rest[1]]]
            elif rest:
                rest = [rest[0] - max_cycle]
            bins[group, quality, *rest] = [float(seen[tuple(at)]), float(wrong[tuple(at)])]
    return bins


def test_counts_are_those_of_all_bases_one_by_one(certificate) -> None:
    data = laid_with_everything()
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(n_groups=2, max_cycle=30))
    found = bins_of(operator.counts(data))
    expected = {key: values for key, values in written_out(data).items() if values[0]}
    assert len(expected) > 700
    certificate(
        operator="BaseQualityRecalibration",
        reference="the tables written out base by base",
        data="300 random reads of two read groups, with masks, unknown letters and parts of reads",
        quantity=f"bins of {len(expected)} whose counts differ",
        value=len(expected.keys() ^ found.keys()) + sum(found.get(key) != expected[key] for key in expected),
        bar="= 0",
    )
    assert found == expected


def test_counts_of_real_reads_are_those_of_all_bases_one_by_one(tmp_path: Path, certificate) -> None:
    path, fasta = ex1(tmp_path)
    with pysam.FastaFile(str(fasta)) as sequences:
        reference = sequences.fetch("chr1").upper()
    data = laid_reads(path, "chr1", 0, len(reference)) | {"reference": one_hot(reference)}
    n_reads, n_positions = data["qualities"].shape
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=50))
    found = bins_of(operator.counts(data))
    whole = data | {
        "second_in_pair": np.zeros(n_reads, bool),
        "read_groups": np.zeros(n_reads, int),
        "read_offsets": np.zeros(n_reads, int),
        "full_lengths": data["read_lengths"],
        "read_mask": np.ones(n_reads, bool),
        "known_variant": np.zeros(len(reference), bool),
        "own_columns": np.ones(len(reference), bool),
        "base_weights": np.ones((n_reads, n_positions)),
    }
    expected = {key: values for key, values in written_out(whole).items() if values[0]}
    differing = len(expected.keys() ^ found.keys()) + sum(found.get(key) != expected[key] for key in expected)
    certificate(
        operator="BaseQualityRecalibration",
        reference="the tables written out base by base",
        data=f"{n_reads} reads of chr1 of ex1.bam",
        quantity=f"bins of {len(expected)} whose counts differ",
        value=differing,
        bar="= 0",
    )
    assert sum(values[0] for key, values in found.items() if len(key) == 2) > 40_000
    assert differing == 0


def test_counts_of_batches_and_windows_add_up_exactly() -> None:
    data = laid_with_everything()
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(n_groups=2, max_cycle=30))
    of_window = ("reference", "known_variant", "own_columns")
    halves = [
        {key: value if key in of_window else value[part] for key, value in data.items()}
        for part in (slice(0, 150), slice(150, 300))
    ]
    stacked = {key: np.stack([half[key] for half in halves]) for key in data}
    whole, merged = operator.counts(data), total_counts(operator.counts(half) for half in halves)
    for one, other, third in zip(whole, merged, operator.counts(stacked), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)


def test_where_nothing_counts_nothing_is_corrected() -> None:
    data = laid_with_everything()
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(n_groups=2, max_cycle=30))
    nothing = {
        "masked": data | {"read_mask": np.zeros(300, bool)},
        "unknown": data | {"reads": np.zeros_like(data["reads"])},
        "weightless": data | {"base_weights": np.zeros_like(data["base_weights"])},
        "no reads": {key: value[:0] if len(value) == 300 else value for key, value in data.items()},
        "low": data | {"qualities": np.zeros_like(data["qualities"])},
    }
    for name, batch in nothing.items():
        counts = operator.counts(batch)
        assert not any(np.asarray(array).any() for array in counts), name
        operator.initialize_from_counts(counts)
        assert not any(np.asarray(table).any() for table in operator.tables()), name
        found = operator.apply(batch, {}, None)[0]
        assert np.isfinite(found["recalibrated_qualities"]).all()
        assert float(mismatch_cross_entropy(found)) == 0


def test_posterior_quality_is_the_mode(certificate) -> None:
    random = np.random.default_rng(0)
    seen = np.round(10 ** random.uniform(0, 9, size=200))
    wrong = np.minimum(np.round(seen * 10 ** -random.uniform(0, 5, size=200)), seen)
    prior = random.uniform(1, 60, size=200)
    found = posterior_quality(seen, wrong, prior, 0.5)

    def minus_log(quality: float, n: float, k: float, mean: float) -> float:
        nats = np.log(10) / 10 * quality
        return (k + 1) * nats - (n - k + 1) * np.log(-np.expm1(-nats)) + ((quality - mean) / 0.5) ** 2 / 2

    for number, values in enumerate(zip(seen, wrong, prior, strict=True)):
        best = minimize_scalar(minus_log, (1e-3, 93), bounds=(1e-3, 93), args=values, options={"xatol": 1e-7}).x
        assert found[number] == pytest.approx(best, abs=2e-4)
        # GATK takes the best of the whole qualities, with the same counts and the same prior
        whole = min(range(1, 94), key=lambda quality: minus_log(quality, *values))
        assert abs(found[number] - whole) < 1
    assert posterior_quality(np.zeros(1), np.zeros(1), np.array([30.0]), 0.5) == 30


def by_gatk(bins: dict[Key, list[float]], promised: dict[int, float], key: Key, context: Key, cycle: Key) -> float:
    """Return the quality of GATK's hierarchy, with whole qualities at each level."""

    def empirical(seen: float, wrong: float, prior: float) -> float:
        def log_posterior(quality: int) -> float:
            error = 10 ** (-quality / 10)
            likelihood = (wrong + 1) * np.log(error) + (seen - wrong + 1) * np.log1p(-error)
            return likelihood - (quality - prior) ** 2 / (2 * 0.5**2)

        return max(range(1, 94), key=log_posterior)

    group = key[0]
    of_group = np.sum([values for at, values in bins.items() if at[0] == group and len(at) == 2], axis=0)
    shift = empirical(*of_group, promised[group]) - promised[group]
    level = empirical(*bins[key], key[1] + shift)
    return level + sum(empirical(*bins[at], level) - level for at in (context, cycle) if at in bins)


def test_qualities_are_those_of_the_hierarchy(certificate) -> None:
    """Within the rounding of whole qualities, half a Phred of each of three of them."""
    data = laid_with_everything(n_reads=3000)
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(n_groups=2, max_cycle=30, prior_std=0.5))
    operator.initialize_from(data)
    bins = bins_of(operator.counts(data))
    promised = {}
    for group in (0, 1):
        qualities = [(at[1], values[0]) for at, values in bins.items() if at[0] == group and len(at) == 2]
        promised[group] = -10 * np.log10(
            np.average([10 ** (-q / 10) for q, _ in qualities], weights=[n for _, n in qualities])
        )
    probe = data | {"read_lengths": np.full(3000, 12, np.int32), "read_mask": np.ones(3000, bool)}
    found = np.asarray(operator.apply(probe, {}, None)[0]["recalibrated_qualities"])
    gaps = []
    for number in range(0, 3000, 3):
        if (
            data["reverse_strand"][number]
            or data["second_in_pair"][number]
            or not data["reads"][number, 3:5].any(1).all()
        ):
            continue
        letters = "".join("ACGT"[row.argmax()] for row in data["reads"][number])
        quality, group = int(data["qualities"][number, 4]), max(int(data["read_groups"][number]), 0)
        key, cycle = (group, quality), (group, quality, 5 + int(data["read_offsets"][number]))
        if key in bins:
            expected = by_gatk(bins, promised, key, (group, quality, letters[3:5]), cycle)
            gaps.append(abs(found[number, 4] - expected))
    certificate(
        operator="BaseQualityRecalibration",
        reference="the hierarchy of GATK with whole qualities",
        data=f"{len(gaps)} bases of 3000 random reads",
        quantity="largest difference, Phred",
        value=max(gaps),
        bar="<= 1.5",
    )
    assert len(gaps) > 80
    assert max(gaps) <= 1.5


def batches_of(simulated: Sequenced, size: int) -> list[dict[str, np.ndarray]]:
    """Return the reads in batches."""
    n_reads = len(simulated.true_error)
    return [
        {key: value if key == "reference" else value[begin : begin + size] for key, value in simulated.data.items()}
        for begin in range(0, n_reads, size)
    ]


def differences(operator: BaseQualityRecalibration, simulated: Sequenced, batches: list[dict]) -> tuple[float, float]:
    """Return how far qualities are from the truth in bins by quality and cycle or dinucleotide: mean and largest."""
    apply = nnx.jit(lambda operator, batch: operator.apply(batch, {}, None)[0]["recalibrated_qualities"])
    found = np.concatenate([np.asarray(apply(operator, batch)) for batch in batches]).astype(float)
    data, n_cycles = simulated.data, found.shape[1]
    reverse = data["reverse_strand"][:, None]
    letters = data["reads"].argmax(-1)
    letters = np.where(reverse, 3 - letters[:, ::-1], letters)
    before = np.concatenate([np.full((len(letters), 1), 4), letters[:, :-1]], axis=1)
    quality, error, true = (
        np.where(reverse, array[:, ::-1], array)
        for array in (data["qualities"].astype(int), 10 ** (-found / 10), simulated.true_error)
    )
    cycle = np.arange(n_cycles) + n_cycles * data["second_in_pair"][:, None]
    gaps, weights = [], []
    for part in (cycle, before * 4 + letters):
        bins = (quality * 1000 + part).ravel()
        n_bases = np.bincount(bins)
        enough = n_bases >= 10_000
        ours, theirs = (np.bincount(bins, weights=array.ravel())[enough] for array in (error, true))
        gaps.append(np.abs(10 * np.log10(ours / theirs)))
        weights.append(n_bases[enough])
    every, weights = np.concatenate(gaps), np.concatenate(weights)
    return float(np.average(every, weights=weights)), float(every.max())


def recorded(certificate, how: str, data: str, before: tuple, after: tuple) -> None:
    """Record both figures, and that there was something to correct."""
    for name, value in (("weighted mean", after[0]), ("worst bin of at least 10,000 bases", after[1])):
        certificate(
            operator="BaseQualityRecalibration",
            reference="the error probabilities of the simulation",
            data=data,
            quantity=f"{how}, difference of qualities, {name}, Phred",
            value=value,
            bar="<= 1",
        )
    assert before[0] > 1.5
    assert after[0] <= 0.5
    assert after[1] <= 1


def test_planted_errors_are_found_by_counting(certificate) -> None:
    simulated = sequenced(120_000, 20, (12, 18))
    batches = batches_of(simulated, 20_000)
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=20))
    before = differences(operator, simulated, batches)
    operator.initialize_from_counts(total_counts(operator.counts(batch) for batch in batches))
    after = differences(operator, simulated, batches)
    recorded(certificate, "by counting", "2.4 M bases simulated on the lambda genome", before, after)


def trained(operator: BaseQualityRecalibration, batches: list[dict], n_epochs: int) -> None:
    """Train the tables by Adam with a falling rate."""
    n_steps = n_epochs * len(batches)
    optimizer = nnx.Optimizer(operator, optax.adam(optax.cosine_decay_schedule(0.5, n_steps)), wrt=nnx.Param)

    @nnx.jit
    def step(operator: BaseQualityRecalibration, optimizer: nnx.Optimizer, batch: dict) -> jax.Array:
        loss, slopes = nnx.value_and_grad(lambda op: mismatch_cross_entropy(op.apply(batch, {}, None)[0]))(operator)
        optimizer.update(operator, slopes)
        return loss

    losses = [float(step(operator, optimizer, batch)) for _ in range(n_epochs) for batch in batches]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["by counting", "by training"])
def test_planted_errors_of_eight_million_bases_are_found(certificate, how: str) -> None:
    simulated = sequenced(160_000, 50, (12, 17, 22))
    batches = batches_of(simulated, 8_000)
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=50))
    before = differences(operator, simulated, batches)
    if how == "by counting":
        operator.initialize_from_counts(total_counts(operator.counts(batch) for batch in batches))
    else:
        trained(operator, batches, n_epochs=6)
    recorded(
        certificate, how, "8 M bases simulated on the lambda genome", before, differences(operator, simulated, batches)
    )


def test_training_finds_what_counting_finds() -> None:
    simulated = sequenced(6_000, 10, (12, 18))
    batches = batches_of(simulated, 6_000)
    counted, learned = (BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=10)) for _ in range(2))
    counted.initialize_from(batches[0])
    trained(learned, batches, n_epochs=60)
    losses = [mismatch_cross_entropy(op.apply(batches[0], {}, None)[0]) for op in (counted, learned)]
    assert losses[1] <= losses[0]
    mean = [float(op.apply(batches[0], {}, None)[0]["recalibrated_qualities"].mean()) for op in (counted, learned)]
    assert abs(mean[0] - mean[1]) < 0.5


@pytest.mark.parametrize("quality", [0.0, 5.5, 30.25, 93.0])
def test_derivatives_are_finite_and_those_of_finite_differences(quality: float) -> None:
    data = laid_with_everything(n_reads=20)
    random = np.random.default_rng(0)
    config = BaseQualityRecalibrationConfig(n_groups=2, max_cycle=30)
    start = BaseQualityRecalibration(config).tables()
    tables = start._replace(
        **{k: jnp.asarray(random.normal(size=v.shape), v.dtype) for k, v in start._asdict().items()}
    )

    def mean(tables: RecalibrationTables, qualities: jax.Array, reads: jax.Array) -> jax.Array:
        operator = BaseQualityRecalibration(config)
        for name, table in tables._asdict().items():
            getattr(operator, name)[...] = table
        found = operator.apply(data | {"qualities": qualities, "reads": reads}, {}, None)[0]
        return 10 * mismatch_cross_entropy(found)

    qualities = jnp.full(data["qualities"].shape, quality)
    arguments = tables, qualities, jnp.asarray(data["reads"])
    assert jnp.isfinite(mean(*arguments))
    slopes = jax.grad(mean, (0, 1, 2))(*arguments)
    assert all(jnp.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
    if quality == 30.25:
        check_grads(mean, arguments, 1, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_between_whole_qualities_it_is_linear() -> None:
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=4))
    operator.quality_delta[...] = jnp.asarray(np.random.default_rng(0).normal(size=(1, 94)), jnp.float32)
    steps = np.array([[20.0, 20.25, 20.5, 21.0]], np.float32)
    data = {"reads": np.zeros((1, 4, 4), np.float32), "qualities": steps}
    found = np.asarray(operator.apply(data, {}, None)[0]["recalibrated_qualities"])[0]
    np.testing.assert_allclose(found[1:3], found[0] + np.array([0.25, 0.5]) * (found[3] - found[0]), atol=1e-4)


def test_low_qualities_are_kept_and_high_ones_bounded() -> None:
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=4))
    operator.group_shift[...] = jnp.array([50.0])
    data = {"reads": np.zeros((1, 4, 4), np.float32), "qualities": np.array([[0.0, 5.0, 6.0, 60.0]], np.float32)}
    assert operator.apply(data, {}, None)[0]["recalibrated_qualities"].tolist() == [[0.0, 5.0, 56.0, 93.0]]


def test_errors_say_what_to_do() -> None:
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=4))
    other = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=5))
    data = {key: value[:2] if key != "reference" else value for key, value in sequenced(2, 3, (20,)).data.items()}
    with pytest.raises(DataError, match="max_cycle"):
        operator.initialize_from_counts(other.counts(data))
    with pytest.raises(DataError, match="at least one"):
        total_counts([])
    assert len(genome()) == 48502


def test_tables_of_levels_add_up_to_the_empirical_quality() -> None:
    counts = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=30)).counts(laid_with_everything())
    tables, found = fit_tables(counts), empirical_qualities(counts, 2.0)
    seen = np.asarray(counts.observations) > 0
    level = np.arange(94) + np.asarray(tables.group_shift)[:, None] + np.asarray(tables.quality_delta)
    np.testing.assert_allclose(level[seen], found.quality[seen], atol=1e-4)
    assert not np.asarray(tables.cycle_delta)[np.asarray(counts.cycle_observations) == 0].any()
