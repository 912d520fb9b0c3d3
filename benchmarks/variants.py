"""Variant calling on simulated reads of a real genome: one pipeline trained from qualities to genotypes, beside others.

The genome is that of phage lambda, the reads are dwgsim's, mapped by bwa, at depths of 5 to 40 and base error rates of
0.5, 1 and 2 %, haploid and diploid; all variants are known. For each depth and ploidy the pipeline of `diffbio fit
reads-to-variants` is trained on the first 32,000 positions: with all stages before the genotypes frozen, and from there
on jointly, in smaller steps. Called are the other positions, in samples of other seeds, beside `bcftools call` and
freebayes. Variants are compared in their normal form, multiple letters taken apart; one is found if its alleles are.

Beside it, 26 real PacBio reads without qualities, with many gaps, and what whatshap's authors take for their variants:
by the stages from pairing to genotypes alone, untrained, with the gaps of such reads.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.measure import RESULTS, Figure, publish
from benchmarks.simulated_reads import GENOME, Sample, Together, shell, simulate, write_genome
from diffbio.core import Pipeline
from diffbio.core.recipe import Recipe
from diffbio.io.reads import Reference, Variant, VariantFile, parse_region
from diffbio.pipelines.variant.recipes import reads_to_variants
from diffbio.pipelines.variant.sites import read_sites
from diffbio.training import prepare, transform

PACBIO = Path(__file__).parents[1] / "packages" / "diffbio-variant" / "tests" / "data" / "whatshap_pacbio"
_PACBIO_QUALITY, _PACBIO_HMM = 12, {"identity": 0.97, "gap_open": 0.06, "gap_extend": 0.3}
TOOLS = ("dwgsim", "bwa", "samtools", "bcftools", "freebayes")
DEPTHS, ERRORS, PLOIDIES = (5, 10, 20, 40), (0.005, 0.01, 0.02), (1, 2)
_LOW_DEPTH = 10  # up to which the bar is bcftools
TRAINED_ON, CALLED_IN = "lambda:1-32000", "lambda:32001-48502"
_TRAIN_SEEDS, _CALL_SEEDS = (1, 2), (11, 12)
_FREE_IF_FROZEN = ("genotypes", "classifier")
_EPOCHS, _LEARNING_RATE = 12, 1e-2
_JOINT_EPOCHS, _JOINT_LEARNING_RATE = 6, 1e-3
_LEAST_QUALITY = 20  # of freebayes, which writes all that it considers
_OURS, _FROZEN, _UNTRAINED = "diffbio joint", "diffbio frozen", "diffbio untrained"
_STYLES = {
    _OURS: ("o-", "#1f77b4"),
    _FROZEN: ("o--", "#8fc1e3"),
    "bcftools": ("s-", "#555555"),
    "freebayes": ("^-", "#d62728"),
}

Key = tuple[int, str, str]


class Calls(NamedTuple):
    """Called variants with the copies that a sample has of them; and, of ours, how sure each genotype is."""

    copies: dict[Key, int]
    qualities: list[tuple[float, bool]]


def main() -> None:
    """Simulate, train, call; publish, and draw."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or not GENOME.exists():
        print(f"left out: there is no {', '.join(missing) or GENOME}; Debian has packages of these names")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        genome = write_genome(folder)
        rows, qualities = [], []
        for ploidy in PLOIDIES:
            for depth in DEPTHS:
                found, losses, sure = _at(folder, genome, ploidy, depth)
                rows.append({"ploidy": ploidy, "depth": depth, "callers": found, "cross-entropy": losses})
                qualities += sure
                listing = ", ".join(f"{caller} {_f1(counts):.3f}" for caller, counts in found.items())
                nats = ", ".join(f"{caller} {loss:.3f}" for caller, loss in losses.items())
                print(f"ploidy {ploidy}, depth {depth}: F1 {listing}; cross-entropy {nats}", flush=True)
        pacbio = _pacbio(folder)
    calibration = _calibration(qualities)
    details = {"rows": rows, "calibration of GQ": calibration, "PacBio": pacbio}
    publish("variants", [*_figures(rows, calibration), *_of_pacbio(pacbio)], details)
    _draw(rows, calibration)


def _at(
    folder: Path, genome: Path, ploidy: int, depth: int
) -> tuple[dict[str, dict], dict[str, float], list[tuple[float, bool]]]:
    """Return what each caller finds at a depth, over all error rates, our losses, and how sure the joint one is."""
    options = {"reference": genome, "flank": 16, "max_reads": 64}

    def samples(seeds: Iterable[int]) -> list[Sample]:
        sizes = {"ploidy": ploidy, "depth": depth}
        # a seed each: samples that share variants would let a network know those that it is judged by
        numbered = [(10 * seed + number, error) for seed in seeds for number, error in enumerate(ERRORS)]
        return [simulate(folder, genome, seed, **sizes, error=error) for seed, error in numbered]

    known = [read_sites(one.reads, truth=one.truth, regions=[TRAINED_ON], **options) for one in samples(_TRAIN_SEEDS)]
    data = Together(known)
    recipe = _recipe(ploidy)
    called = samples(_CALL_SEEDS)
    sites = Together([read_sites(one.reads, truth=one.truth, regions=[CALLED_IN], **options) for one in called])
    untrained, plan, loss, key = prepare(recipe, data, key=jax.random.key(0))
    last = dataclasses.replace(plan, trainable=_FREE_IF_FROZEN)
    frozen = last.fit(untrained, data, loss, key=key, progress=False).pipeline
    all_of_it = dataclasses.replace(plan, epochs=_JOINT_EPOCHS, learning_rate=_JOINT_LEARNING_RATE)
    joint = all_of_it.fit(frozen, data, loss, key=key, progress=False).pipeline
    calls, losses = {}, {}
    for name, pipeline in ((_OURS, joint), (_FROZEN, frozen), (_UNTRAINED, untrained)):
        calls[name], losses[name] = _ours(pipeline, sites)
    commands = {
        "bcftools": f"bcftools mpileup -f {genome} {{reads}} | bcftools call -mv --ploidy {ploidy}",
        "freebayes": f"freebayes -f {genome} -p {ploidy} {{reads}} | bcftools view -i 'QUAL>={_LEAST_QUALITY}'",
    }
    for name, command in commands.items():
        calls[name] = [_theirs(command, one, genome) for one in called]
    truths = [_read(one.truth, genome) for one in called]
    found = {
        name: sum((_compared(one.copies, truth) for one, truth in zip(of_caller, truths, strict=True)), Counter())
        for name, of_caller in calls.items()
    }
    sure = [pair for one in calls[_OURS] for pair in one.qualities]
    return {name: dict(counts) for name, counts in found.items()}, losses, sure


def _pacbio(folder: Path) -> dict[str, dict[str, int]]:
    """Return what each caller finds in real reads."""
    reads, genome = folder / "pacbio.bam", folder / "pacbio.fa"
    shutil.copy(PACBIO / "pacbio.bam", reads)
    shutil.copy(PACBIO / "reference.fasta", genome)
    shell(f"samtools index {reads} && samtools faidx {genome}")
    sample = Sample(reads, PACBIO / "variants.vcf")
    sites = read_sites(
        reads,
        reference=genome,
        truth=sample.truth,
        missing_quality=_PACBIO_QUALITY,
        min_share=0.2,
        flank=16,
        max_reads=64,
    )
    recipe = reads_to_variants()
    wanted = {"pairing": {}, "realignment": _PACBIO_HMM, "genotypes": {}}
    steps = [
        dataclasses.replace(step, config={**step.config, **wanted[str(step.name)]})
        for step in recipe.steps
        if step.name in wanted
    ]
    pipeline = Pipeline.from_recipe(dataclasses.replace(recipe, steps=tuple(steps)), data=sites.take(np.arange(2)))
    copies = transform(pipeline, sites, keys=("call_posteriors",))["call_posteriors"].argmax(-1)
    truth = _read(sample.truth, genome, None)
    calls = {_UNTRAINED: {_key(sites.variants[row]): int(copies[row]) for row in np.flatnonzero(copies)}}
    commands = {
        "bcftools": f"bcftools mpileup -X pacbio-ccs -f {genome} {{reads}} | bcftools call -mv",
        "freebayes": f"freebayes -f {genome} {{reads}}",  # with a cut of its qualities it finds nothing
    }
    calls |= {name: _theirs(command, sample, genome, None).copies for name, command in commands.items()}
    return {name: dict(_compared(called, truth)) for name, called in calls.items()}


def _of_pacbio(found: dict[str, dict[str, int]]) -> list[Figure]:
    figures = []
    for kind in ("SNV", "indel"):
        others = ", ".join(f"{name} {_f1(counts, kind):.3f}" for name, counts in found.items() if name != _UNTRAINED)
        figures.append(
            Figure(f"F1 of {kind}s in PacBio reads, before training ({others})", _f1(found[_UNTRAINED], kind), "")
        )
    return figures


def _recipe(ploidy: int) -> Recipe:
    """Return the shipped recipe for a ploidy, with its own length of training."""
    recipe = reads_to_variants()
    of_ploidy = {"genotypes": {"ploidy": ploidy}, "classifier": {"n_genotypes": ploidy + 1}}
    steps = tuple(
        dataclasses.replace(step, config={**step.config, **of_ploidy.get(str(step.name), {})}) for step in recipe.steps
    )
    return dataclasses.replace(
        recipe, steps=steps, training={**recipe.training, "epochs": _EPOCHS, "learning_rate": _LEARNING_RATE}
    )


def _ours(pipeline: Pipeline, sites: Together) -> tuple[list[Calls], float]:
    """Call the sites of each sample, and return the mean cross-entropy of all true genotypes, in nats."""
    results = transform(pipeline, sites, keys=("classifier_posteriors", "classifier_qualities"))
    posteriors, qualities = results["classifier_posteriors"], results["classifier_qualities"]
    copies, true = posteriors.argmax(-1), sites.take(np.arange(len(sites)))["genotype"]
    loss = float(-np.log(np.maximum(posteriors[np.arange(len(true)), true], 1e-30)).mean())
    found, begin = [], 0
    for part in sites.parts:
        rows = [row for row in range(begin, begin + len(part)) if copies[row]]
        called = {_key(part.variants[row - begin]): int(copies[row]) for row in rows}
        found.append(Calls(called, [(float(qualities[row]), bool(copies[row] == true[row])) for row in rows]))
        begin += len(part)
    return found, loss


def _theirs(command: str, sample: Sample, genome: Path, region: str | None = CALLED_IN) -> Calls:
    """Call by a command of the shell."""
    path = sample.reads.with_suffix(".called.vcf.gz")
    normal = f"bcftools norm -a -m -any -f {genome} -Oz -o {path}"
    shell(f"{command.format(reads=sample.reads)} | {normal} && bcftools index -tf {path}")
    return Calls(_read(path, genome, region), [])


def _read(path: Path, genome: Path, region: str | None = CALLED_IN) -> dict[Key, int]:
    """Return the variants of a region, or all, in their normal form, with the copies that the sample has."""
    with Reference(genome) as reference:
        inside = None if region is None else parse_region(region, reference.contigs)
        return {
            _key(one): sum(allele == 1 for allele in one.genotypes[0].alleles)
            for one in VariantFile(path, reference=reference, split=True, symbolic="skip").variants()
            if inside is None or inside.begin <= one.position < inside.end
        }


def _key(variant: Variant) -> Key:
    return variant.position, variant.reference, variant.alternatives[0]


def _compared(called: dict[Key, int], truth: dict[Key, int]) -> Counter:
    """Return how many are found, false and missed, by kind, and how many of the found have the right genotype."""
    counts: Counter = Counter()
    for key in called | truth:
        kind = "SNV" if len(key[1]) == len(key[2]) else "indel"
        outcome = "found" if key in called and key in truth else "false" if key in called else "missed"
        counts[f"{kind} {outcome}"] += 1
        counts["right genotype"] += outcome == "found" and called[key] == truth[key]
    return counts


def _f1(counts: dict[str, int], kind: str = "") -> float:
    found, false, missed = (
        sum(counts.get(f"{one} {outcome}", 0) for one in ([kind] if kind else ["SNV", "indel"]))
        for outcome in ("found", "false", "missed")
    )
    return 2 * found / max(2 * found + false + missed, 1)


def _calibration(qualities: list[tuple[float, bool]]) -> list[dict[str, float]]:
    """Return, for groups of calls of like GQ, the mean GQ promised and the share of wrong genotypes."""
    groups = []
    for low, high in ((0, 5), (5, 10), (10, 15), (15, 20), (20, 30), (30, 1000)):
        inside = [(quality, right) for quality, right in qualities if low <= quality < high]
        if inside:
            promised = float(np.mean([10 ** (-quality / 10) for quality, _ in inside]))
            wrong = sum(not right for _, right in inside)
            groups.append({"from": low, "calls": len(inside), "wrong promised": promised, "wrong": wrong / len(inside)})
    return groups


def _figures(rows: list[dict], calibration: list[dict[str, float]]) -> list[Figure]:
    """Return what is missed or false, as ratios, and the scores themselves."""
    figures = []
    for row in rows:
        where = f"{'haploid' if row['ploidy'] == 1 else 'diploid'}, depth {row['depth']}"
        others = ", ".join(f"{name} {_f1(counts):.3f}" for name, counts in row["callers"].items() if name != _OURS)
        figures.append(Figure(f"F1 of the joint pipeline, {where} ({others})", _f1(row["callers"][_OURS]), ""))
        nats = row["cross-entropy"]
        others = ", ".join(f"{name} {nats[name]:.3f}" for name in (_FROZEN, _UNTRAINED))
        figures.append(Figure(f"cross-entropy of genotypes, joint, {where} ({others})", nats[_OURS], "nats"))
        for other in (_FROZEN, "bcftools") if row["depth"] <= _LOW_DEPTH else (_FROZEN,):
            ours, theirs = (1 - _f1(row["callers"][name]) for name in (_OURS, other))
            figures.append(Figure(f"1 - F1, {where}, over {other}", ours / max(theirs, 1e-6), "x", 1.0))
    total = sum(group["calls"] for group in calibration)
    error = sum(group["calls"] * abs(group["wrong"] - group["wrong promised"]) for group in calibration) / total
    figures.append(Figure(f"wrong genotypes beside what GQ promises, mean difference over {total:,} calls", error, ""))
    return figures


def _draw(rows: list[dict], calibration: list[dict[str, float]]) -> None:
    """Draw F1 over the depth, and wrong genotypes over those that GQ promises."""
    figure, axes = plt.subplots(1, 3, figsize=(12.0, 4.0), layout="constrained")
    for ploidy, ax in zip(PLOIDIES, axes, strict=False):
        chosen = [row for row in rows if row["ploidy"] == ploidy]
        for caller, (style, color) in _STYLES.items():
            scores = [_f1(row["callers"][caller]) for row in chosen]
            ax.plot([row["depth"] for row in chosen], scores, style, color=color, markersize=4, label=caller)
        ax.set_xscale("log", base=2)
        ax.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
        ax.set_title("haploid" if ploidy == 1 else "diploid", fontsize=10)
        ax.set_xlabel("depth")
    axes[0].set_ylabel("F1, all error rates")
    axes[0].legend(frameon=False, fontsize=8)
    promised, seen = ([group[key] for group in calibration] for key in ("wrong promised", "wrong"))
    axes[2].loglog(promised, np.maximum(seen, 1e-4), "o", color="#1f77b4")
    axes[2].plot([1e-4, 1], [1e-4, 1], ":", color="#555555", linewidth=1)
    axes[2].set(xlabel="share of wrong genotypes that GQ promises", ylabel="share that is wrong")
    axes[2].set_title("calibration of the joint pipeline", fontsize=10)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "variants.png", dpi=130)


if __name__ == "__main__":
    main()
