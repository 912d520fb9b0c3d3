"""Soft segmentation beside all segmentations, ruptures and DNAcopy; its masks, derivatives and training."""

from functools import partial
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from coriell import coriell, r_output, starts
from flax import nnx
from jax.test_util import check_grads

from diffbio.operators.variant.change_points import SegmentationConfig, SoftSegmentation, soft_segmentation
from diffbio.operators.variant.circular_segmentation import most_different_arc
from diffbio.operators.variant.segment_sums import _sums_before

ruptures = pytest.importorskip("ruptures")
RUPTURES = "ruptures 1.1.10, KernelCPD(linear): optimal partitioning, l2"


def simulated(n_bins: int, n_changes: int, std: float, seed: int) -> np.ndarray:
    """Return log2 ratios of a genome with changes at random bins, of which some change nothing."""
    random = np.random.default_rng(seed)
    places = np.sort(random.choice(np.arange(5, n_bins - 5), n_changes, replace=False))
    means = random.choice([-1, -0.5, 0, 0.58, 1], n_changes + 1)
    levels = np.repeat(means, np.diff([0, *places, n_bins]))
    return (levels + std * random.normal(size=n_bins)).astype(np.float32)


def found_by_ruptures(log2_ratio: np.ndarray, penalty: float) -> list[int]:
    """Return the breakpoints of the segmentation of least cost."""
    search = ruptures.KernelCPD(kernel="linear", min_size=1, jump=1)
    return [int(place) for place in search.fit_predict(log2_ratio.astype(float)[:, None], pen=penalty)[:-1]]


def likely(probability: jax.Array) -> list[int]:
    return np.flatnonzero(np.asarray(probability) > 0.5).tolist()


def every_segmentation(values: np.ndarray, penalty: float, softness: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return what `soft_segmentation` does, from a list of all segmentations."""
    n_bins, found = len(values), []
    for size in range(n_bins):
        for places in combinations(range(1, n_bins), size):
            parts = np.split(values, places)
            means = np.concatenate([np.full(len(part), part.mean()) for part in parts])
            cost = ((values - means) ** 2).sum() + penalty * size
            found.append((cost, np.isin(np.arange(n_bins), places), means))
    weights = np.array([-cost / softness for cost, _, _ in found])
    log_sum = np.logaddexp.reduce(weights)
    shares = np.exp(weights - log_sum)
    begins, means = (sum(share * each[k] for share, each in zip(shares, found, strict=True)) for k in (1, 2))
    return begins, means, -softness * log_sum


def test_sums_are_those_of_all_segmentations(certificate) -> None:
    values, errors = np.random.default_rng(0).normal(size=9).astype(np.float32), []
    for softness in (0.05, 0.5, 5.0):
        found = soft_segmentation(values, penalty=0.7, softness=softness)
        wanted = every_segmentation(values.astype(float), 0.7, softness)
        errors += [np.abs(np.asarray(mine) - known).max() for mine, known in zip(found, wanted, strict=True)]
    certificate(
        operator="SoftSegmentation",
        reference="all segmentations, enumerated",
        data="9 bins, softness 0.05, 0.5 and 5",
        quantity="largest difference of probabilities, means and costs",
        value=float(max(errors)),
        bar="<= 1e-05",
    )
    assert max(errors) <= 1e-5


@pytest.mark.parametrize("n_bins", [500, pytest.param(3000, marks=pytest.mark.slow)])
def test_the_limit_has_the_breakpoints_of_ruptures(certificate, n_bins: int) -> None:
    segment = jax.jit(partial(soft_segmentation))
    differ, costs, total = 0, [], 0
    for std in (0.1, 0.2, 0.4):
        for seed in range(4):
            log2_ratio, nat = simulated(n_bins, n_bins // 60, std, seed), 2 * std**2
            wanted = found_by_ruptures(log2_ratio, 12 * nat)
            found = segment(log2_ratio, penalty=12 * nat, softness=1e-3 * nat)
            differ += len(set(likely(found.breakpoint_probability)) ^ set(wanted))
            total += len(wanted)
            parts = np.split(log2_ratio.astype(float), wanted)
            cost = sum(((part - part.mean()) ** 2).sum() for part in parts) + 12 * nat * len(wanted)
            costs.append(abs(float(found.segmentation_cost) / cost - 1))
    rows = {f"breakpoints that differ, of {total}": (differ, 0), "relative difference of costs": (max(costs), 1e-4)}
    for quantity, (value, bar) in rows.items():
        certificate(
            operator="SoftSegmentation",
            reference=RUPTURES,
            data=f"12 simulated genomes of {n_bins} bins, noise 0.1, 0.2 and 0.4, softness 0.001 nats",
            quantity=quantity,
            value=float(value),
            bar=f"<= {bar:g}",
        )
        assert value <= bar


@pytest.mark.slow
def test_candidates_find_the_breakpoints_of_a_hundred_thousand_bins(certificate) -> None:
    log2_ratio, nat = simulated(100_000, 200, 0.2, 0), 0.08
    wanted = found_by_ruptures(log2_ratio, 20 * nat)
    found = soft_segmentation(log2_ratio, penalty=20 * nat, softness=1e-2 * nat, n_candidates=2000)
    differ = len(set(likely(found.breakpoint_probability)) ^ set(wanted))
    certificate(
        operator="SoftSegmentation",
        reference=RUPTURES,
        data="simulated genome of 100,000 bins, noise 0.2, 2000 candidates",
        quantity=f"breakpoints that differ, of {len(wanted)}",
        value=float(differ),
        bar="<= 0",
    )
    assert differ == 0


@pytest.mark.slow
def test_candidates_and_a_wide_window_change_nothing() -> None:
    log2_ratio = simulated(300, 6, 0.2, 1)
    full = soft_segmentation(log2_ratio, penalty=1.0, softness=0.08)
    same = soft_segmentation(log2_ratio, penalty=1.0, softness=0.08, max_segment=299)
    np.testing.assert_allclose(same.segment_mean, full.segment_mean, atol=1e-4)
    fewer = soft_segmentation(log2_ratio, penalty=1.0, softness=0.08, max_segment=30, n_candidates=100)
    np.testing.assert_allclose(fewer.breakpoint_probability, full.breakpoint_probability, atol=0.02)
    np.testing.assert_allclose(fewer.segment_mean, full.segment_mean, atol=0.02)
    short = soft_segmentation(jnp.zeros(40), penalty=1.0, softness=0.01, max_segment=10)
    assert float(short.breakpoint_probability.sum()) == pytest.approx(3, abs=1e-3)


def splits_by_dnacopy(log2_ratio: np.ndarray, chromosome: np.ndarray, position: np.ndarray, folder: Path) -> set[int]:
    """Return the bins with which DNAcopy begins segments, but for the first of chromosomes; NaN is missing."""
    file = folder / "bins.csv"
    names = np.array(["NA" if np.isnan(ratio) else repr(float(ratio)) for ratio in log2_ratio])
    rows = zip(chromosome, position, names, strict=True)
    file.write_text("chromosome,position,ratio\n" + "\n".join(",".join(map(str, row)) for row in rows))
    script = (
        f'bins <- read.csv("{file}"); set.seed(1); '
        'cna <- CNA(bins$ratio, bins$chromosome, bins$position, data.type="logratio"); '
        "out <- segment(cna, verbose=0)$output; write.table(out[, 2:3], row.names=FALSE, col.names=FALSE)"
    )
    found = [tuple(int(float(part)) for part in line.split()) for line in r_output(script).splitlines()]
    seen = np.flatnonzero(~np.isnan(log2_ratio))
    begins = {seen[(chromosome[seen] == c) & (position[seen] == p)][0] for c, p in found}
    return begins - {seen[chromosome[seen] == c][0] for c in np.unique(chromosome[seen])}


def farthest(places: set[int], others: set[int], counted: np.ndarray) -> int:
    """Return by how many bins that count the places are from the nearest of the others, at most, both ways."""
    rank = np.cumsum(counted)
    one, two = (rank[sorted(chosen)] for chosen in (places, others))
    apart = np.abs(one[:, None] - two)
    return int(max(apart.min(1).max(), apart.min(0).max()))


@pytest.mark.slow
def test_planted_breakpoints_are_those_of_dnacopy(certificate, tmp_path: Path) -> None:
    apart = []
    for std in (0.1, 0.2):
        for seed in range(4):
            log2_ratio = np.repeat([0, 0.58, 0, -1, 0, 1, 0], [150, 60, 120, 20, 200, 8, 142]).astype(np.float32)
            log2_ratio += std * np.random.default_rng(seed).normal(size=700).astype(np.float32)
            segmentation = SoftSegmentation(SegmentationConfig(temperature=1e-3))
            segmentation.initialize(jnp.asarray(log2_ratio))
            found = set(likely(segmentation.apply({"log2_ratio": log2_ratio}, {}, None)[0]["breakpoint_probability"]))
            wanted = splits_by_dnacopy(log2_ratio, np.ones(700, int), np.arange(700), tmp_path)
            print(std, seed, sorted(found), sorted(wanted))
            apart.append(farthest(found, wanted, np.ones(700, bool)))
    certificate(
        operator="SoftSegmentation",
        reference="DNAcopy 1.72.3, segment",
        data="8 simulated genomes of 700 bins with 6 changes, noise 0.1 and 0.2",
        quantity="bins by which breakpoints are apart, at most",
        value=float(max(apart)),
        bar="<= 1",
    )
    assert max(apart) <= 1


@pytest.mark.slow
def test_known_changes_of_a_cell_line_are_found_as_by_dnacopy(certificate, tmp_path: Path) -> None:
    clones = coriell("GM05296")
    counted, chromosome, position = (clones[name] for name in ("bin_mask", "chromosome", "position"))
    data = {"log2_ratio": clones["log2_ratio"], "bin_mask": counted, "segment_start": starts(chromosome)}
    segmentation = SoftSegmentation(SegmentationConfig(temperature=1e-3))
    segmentation.initialize(jnp.asarray(clones["log2_ratio"]), jnp.asarray(counted))
    found = set(likely(segmentation.apply(data, {}, None)[0]["breakpoint_probability"]))
    segmentation.softness.set(1.0)
    posterior = np.asarray(segmentation.apply(data, {}, None)[0]["breakpoint_probability"])
    ratio = np.where(counted, clones["log2_ratio"], np.nan)
    wanted = splits_by_dnacopy(ratio, chromosome, position, tmp_path)
    print("breakpoints", len(found), "DNAcopy", len(wanted), "expected", posterior.sum())
    apart = []
    for number, first, last in ((10, 65_000, 110_000), (11, 35_416, 39_623)):
        mine, theirs = ({place for place in places if chromosome[place] == number} for places in (found, wanted))
        print(number, [(position[place], round(float(posterior[place]), 3)) for place in sorted(mine)])
        inside = np.flatnonzero((chromosome == number) & counted & (position >= first) & (position <= last))
        known = {int(inside[0]), int(inside[-1]) + int(np.argmax(counted[inside[-1] + 1 :])) + 1}
        assert mine
        # DNAcopy cuts the gain once more, after its first four clones
        apart += [min(farthest({place}, {other}, counted) for other in theirs) for place in mine]
        apart.append(farthest(known, mine, counted))
    certificate(
        operator="SoftSegmentation",
        reference="DNAcopy 1.72.3, segment, and the known gain of 10q and loss of 11p",
        data=f"Coriell GM05296, {counted.sum()} clones of chromosomes 1-22",
        quantity="clones by which breakpoints of chromosomes 10 and 11 are apart, at most",
        value=float(max(apart)),
        bar="<= 1",
    )
    assert max(apart) <= 1


@pytest.mark.slow
def test_the_most_different_arc_is_the_first_split_of_dnacopy(certificate, tmp_path: Path) -> None:
    differ = 0
    for seed in range(4):
        log2_ratio = (0.2 * np.random.default_rng(seed).normal(size=200)).astype(np.float32)
        log2_ratio[60 + 10 * seed : 100] += 0.8
        arc = most_different_arc(jnp.asarray(log2_ratio))
        wanted = splits_by_dnacopy(log2_ratio, np.ones(200, int), np.arange(200), tmp_path)
        differ += len({int(arc.begin), int(arc.end)} ^ wanted)
    certificate(
        operator="most_different_arc",
        reference="DNAcopy 1.72.3, segment",
        data="4 simulated genomes of 200 bins with one gain, noise 0.2",
        quantity="ends of the arc that differ",
        value=float(differ),
        bar="<= 0",
    )
    assert differ == 0


@pytest.mark.parametrize("n_bins", [11, 12])
def test_the_arc_is_the_best_of_all_by_its_definition(n_bins: int) -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).normal(size=n_bins)
        best, all_shares = (0.0, 0, 0), []
        for begin, end in combinations(range(n_bins + 1), 2):
            if begin > 0:  # an arc and the rest are alike
                arc, rest = values[begin:end], np.delete(values, np.s_[begin:end])
                left = ((arc - arc.mean()) ** 2).sum() + ((rest - rest.mean()) ** 2).sum()
                noise = np.sqrt(left / (n_bins - 2) * (1 / len(arc) + 1 / len(rest)))
                best = max(best, (abs(arc.mean() - rest.mean()) / noise, begin, end))
                all_shares.append((n_bins - 1) * (1 - left / ((values - values.mean()) ** 2).sum()))
        found = most_different_arc(jnp.asarray(values, jnp.float32), softness=0.01)
        assert (int(found.begin), int(found.end)) == best[1:]
        assert float(found.t) == pytest.approx(best[0], rel=1e-4)
        assert float(found.statistic) == pytest.approx(max(all_shares), abs=0.02)
    slopes = jax.grad(lambda x: most_different_arc(x).statistic + most_different_arc(x).t)
    assert np.isfinite(slopes(jnp.ones(n_bins))).all()
    check_grads(lambda x: most_different_arc(x)[:2], (jnp.asarray(values, jnp.float32),), 1, ["rev"], 3e-2, 3e-2, 1e-3)


def test_chromosomes_are_on_their_own_and_masked_bins_as_if_they_were_not_there() -> None:
    log2_ratio = simulated(60, 5, 0.2, 2)
    hidden = np.isin(np.arange(60), [0, 1, 20, 33, 50, 59])  # both ends, and the begin of a chromosome
    first = np.isin(np.arange(60), [0, 20, 40])
    data = {"log2_ratio": np.where(hidden, np.nan, log2_ratio), "bin_mask": ~hidden, "segment_start": first}
    segmentation = SoftSegmentation(SegmentationConfig(penalty=4.0))
    found = segmentation.apply(data, {}, None)[0]
    parts = []
    for begin in (0, 20, 40):
        kept = np.arange(begin, begin + 20)[~hidden[begin : begin + 20]]
        parts.append(segmentation.apply({"log2_ratio": log2_ratio[kept]}, {}, None)[0])
    for name in ("breakpoint_probability", "segment_mean"):
        np.testing.assert_allclose(found[name][~hidden], np.concatenate([part[name] for part in parts]), atol=2e-5)
    total = sum(float(part["segmentation_cost"]) for part in parts)
    assert float(found["segmentation_cost"]) == pytest.approx(total, rel=1e-5)
    assert (np.asarray(found["breakpoint_probability"])[hidden | first] == 0).all()
    np.testing.assert_allclose(found["segment_mean"][33], found["segment_mean"][32])
    np.testing.assert_allclose(found["segment_mean"][0], found["segment_mean"][2])


@pytest.mark.parametrize("options", [{}, {"max_segment": 4, "n_candidates": 9}], ids=["all", "candidates"])
def test_derivatives_are_those_of_differences(options: dict[str, int]) -> None:
    hidden, first = np.isin(np.arange(12), [0, 5]), np.isin(np.arange(12), [0, 7])

    def outputs(log2_ratio: jax.Array, penalty: jax.Array, softness: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(
            soft_segmentation(
                log2_ratio,
                penalty=penalty,
                softness=softness,
                bin_mask=~hidden,
                segment_start=first,
                **options,
            )
        )

    point = (jnp.asarray(simulated(12, 1, 0.5, 0)), jnp.float32(0.4), jnp.float32(0.5))
    check_grads(jax.jit(outputs), point, order=1, modes=["rev"], eps=1e-2, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3])
def test_derivatives_are_finite_at_any_scale_and_without_bins(scale: float) -> None:
    log2_ratio = jnp.asarray(scale * simulated(30, 3, 0.2, 0))

    @jax.jit
    def slopes(softness: jax.Array, mask: jax.Array) -> tuple[jax.Array, ...]:
        def total(log2_ratio: jax.Array, penalty: jax.Array) -> jax.Array:
            found = soft_segmentation(log2_ratio, penalty=penalty, softness=softness, bin_mask=mask)
            return (found.segment_mean**2 + found.breakpoint_probability**2).sum() + found.segmentation_cost

        return jax.grad(total, argnums=(0, 1))(log2_ratio, jnp.float32(0.5))

    for softness in (1e-4, 0.08, 100.0):
        for mask in (jnp.ones(30, bool), jnp.zeros(30, bool)):
            found = slopes(jnp.float32(softness), mask)
            assert all(np.isfinite(slope).all() for slope in found)
            assert mask.any() or (found[0] == 0).all()


def test_sums_keep_digits_that_float32_loses() -> None:
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32) + 100
    total, error = jax.jit(_sums_before)(jnp.asarray(values))
    exact = np.concatenate([[0], np.cumsum(values.astype(float))])
    differences = np.abs(np.asarray(total, float) + np.asarray(error, float) - exact)
    assert differences.max() < 1e-3  # the sum is 2e6, of which float32 keeps 0.1


def test_the_penalty_is_learned() -> None:
    """From a genome whose segments are known: the penalty with which the means are nearest to them."""
    truth = np.repeat([0, 0.58, 0, -1, 0], [40, 12, 60, 8, 30]).astype(np.float32)
    data = {"log2_ratio": truth + 0.25 * np.random.default_rng(0).normal(size=150).astype(np.float32)}
    for penalty in (0.5, 35.0):
        segmentation = SoftSegmentation(SegmentationConfig(penalty=penalty, noise_std=0.25))
        graph, params, rest = nnx.split(segmentation, nnx.Param, ...)
        optimizer = optax.adam(0.2)

        def loss(params: nnx.State, graph: nnx.GraphDef = graph, rest: nnx.State = rest) -> jax.Array:
            found = nnx.merge(graph, params, rest).apply(data, {}, None)[0]
            return jnp.mean((found["segment_mean"] - truth) ** 2)

        slopes_of = jax.jit(jax.value_and_grad(loss))
        state, losses = optimizer.init(params), []
        for _ in range(40):
            value, slopes = slopes_of(params)
            changes, state = optimizer.update(slopes, state)
            params = optax.apply_updates(params, changes)
            losses.append(float(value))
        learned = float(jnp.exp(jax.tree.leaves(params)[0]))
        print(f"penalty {penalty} -> {learned:.1f}, loss {losses[0]:.5f} -> {losses[-1]:.5f}")
        assert losses[-1] < 0.5 * losses[0]
        assert 2 < learned < 45


def test_softness_does_not_recompile() -> None:
    traced = []

    @jax.jit
    def cost(softness: jax.Array) -> jax.Array:
        traced.append(softness)
        return soft_segmentation(jnp.arange(6.0), penalty=1.0, softness=softness).segmentation_cost

    costs = [float(cost(softness)) for softness in (0.01, 0.1, 1.0)]
    assert len(traced) == 1
    assert costs == sorted(costs, reverse=True)
