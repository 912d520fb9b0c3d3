"""CPU time and memory of pairwise alignment beside parasail and a recurrence with a tape, and trimming beside cutadapt.

The score is the log of the sum over all local alignments with affine gaps, and its gradient is by all scores of pairs
of positions and both gap costs: the posterior. parasail finds the best alignment, the limit of the same recurrence, in
16-bit integers of which one instruction adds many; it has no derivative. "Rows, tape" is written without closed forms:
`lax.scan` over rows, a cumulative `logsumexp` for gaps along them, and JAX's reverse mode. Nothing that was compiled in
an earlier process is used. Of cutadapt, what ten copies of the reads cost more than one counts, without its start.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import dnaio
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import parasail
from jax import lax
from matplotlib.ticker import ScalarFormatter

from benchmarks.measure import RESULTS, Figure, cpu_seconds, interleaved, publish, run_child
from diffbio.io.sequence.alphabets import PROTEIN
from diffbio.io.sequence.batches import bucketed
from diffbio.io.sequence.files import read_sequences
from diffbio.operators.alignment import chains
from diffbio.operators.alignment.ends import LOCAL
from diffbio.operators.alignment.partition import log_partition
from diffbio.operators.alignment.recurrence import Pair
from diffbio.operators.alignment.semirings import NEVER
from diffbio.operators.alignment.substitution import substitution_matrix
from diffbio.operators.preprocessing.adapters import AdapterTrimming, AdapterTrimmingConfig
from diffbio.operators.preprocessing.kept_bases import kept_interval
from diffbio.operators.preprocessing.quality_trimming import QualityTrimming, QualityTrimmingConfig

SIZES = (128, 256, 512, 1024, 2048)
_BAND = 64
_BATCH, _BATCH_SIZE, _SINGLE_SIZE = 32, 300, 1700  # as many cells in the batch as in the single pair
_GAP_OPEN, _GAP_EXTEND = 11, 1
_HARD = 0.02  # a softness at which the score rounds to that of the best alignment
_REPEATS = 5
_SECONDS_PER_MEASUREMENT = 0.05
_SCORE_ONLY, _GRADIENT, _TAPE = "diffbio, score", "diffbio, score and gradient", "rows, tape"
_PARASAIL: dict[str, Callable[..., Any]] = {
    "parasail sw_striped_16": parasail.sw_striped_16,
    "parasail sw_scan_16": parasail.sw_scan_16,
    "parasail sw_trace_striped_16": parasail.sw_trace_striped_16,
}

READS = Path("/usr/lib/R/site-library/ShortRead/extdata/E-MTAB-1147/ERR127302_1_subset.fastq.gz")
_ADAPTER = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"  # TruSeq


class Program(NamedTuple):
    """A compiled function with its arguments, the CPU seconds that compiling it took, and the memory it asks for."""

    call: Callable[[], Any]
    compile_seconds: float
    temporary_bytes: int


def score(scores: jax.Array, gap_open: jax.Array, gap_extend: jax.Array, band: int | None = None) -> jax.Array:
    """Return the log of the sum over all local alignments."""
    return log_partition(Pair(scores, gap_open, gap_extend, jnp.array(scores.shape)), LOCAL, band)


def score_with_tape(scores: jax.Array, gap_open: jax.Array, gap_extend: jax.Array) -> jax.Array:
    """Return the same by rows, with derivatives by JAX alone."""
    extended = gap_extend * jnp.arange(scores.shape[1], dtype=scores.dtype)

    def after(row: jax.Array, fill: float) -> jax.Array:
        return jnp.concatenate([jnp.full(1, fill), row[:-1]])

    def step(above: tuple[jax.Array, ...], row: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
        match, gap_in_y, gap_in_x = above
        begun = jnp.logaddexp(jnp.logaddexp(0.0, match), jnp.logaddexp(gap_in_y, gap_in_x))
        gap_in_y = jnp.logaddexp(match - gap_open, gap_in_y - gap_extend)
        match = row + after(begun, 0.0)
        opened = lax.cumlogsumexp(jnp.logaddexp(match, gap_in_y) - gap_open + extended)
        return (match, gap_in_y, after(opened - extended, NEVER)), jax.nn.logsumexp(match)

    nothing = jnp.full(scores.shape[1], NEVER)
    _, rows = lax.scan(step, (nothing, nothing, nothing), scores)
    return jnp.logaddexp(0.0, jax.nn.logsumexp(rows))


def main() -> None:
    """Measure pairs at each size, then a band, a batch and reads; publish, and draw."""
    jax.config.update("jax_enable_compilation_cache", False)
    jax.jit(jnp.sin).lower(1.0).compile()  # what a process pays once
    rows = [_at_size(size) for size in SIZES]
    grouped = _grouped()
    reads, trimmed = _reads()
    versions = {name: importlib.metadata.version(name) for name in ("diffbio-alignment", "parasail", "cutadapt")}
    details = {"rows": rows, "band and batch": grouped, "reads": trimmed, "versions": versions}
    publish("alignment", [*_engine_figures(rows, grouped), *reads], details)
    _draw(rows)


def _at_size(size: int) -> dict[str, Any]:
    """Return CPU seconds of all ways to align two sequences of that length, and the memory of those that XLA runs."""
    letters = ["".join(PROTEIN[code] for code in codes) for codes in _codes(size)]
    ways = {_SCORE_ONLY: score, _GRADIENT: _slopes(score), _TAPE: _slopes(score_with_tape)}
    programs = {name: _compiled(way, *_arguments(size)) for name, way in ways.items()}
    calls: dict[str, Callable[[], Any]] = {name: program.call for name, program in programs.items()}
    for name, align in _PARASAIL.items():
        calls[name] = lambda align=align: align(*letters, _GAP_OPEN, _GAP_EXTEND, parasail.blosum62)
    seconds = interleaved([_seconds(call) for call in calls.values()], _REPEATS)
    hard = float(jax.jit(score)(*(argument / _HARD for argument in _arguments(size)))) * _HARD
    (value, slopes), (taped, taped_slopes) = programs[_GRADIENT].call(), programs[_TAPE].call()
    return {
        "length": size,
        "cpu_seconds": dict(zip(calls, seconds, strict=True)),
        "temporary_bytes": {name: program.temporary_bytes for name, program in programs.items()},
        "compile_cpu_seconds": {name: program.compile_seconds for name, program in programs.items()},
        f"score at softness {_HARD} less parasail's": hard - calls["parasail sw_striped_16"]().score,
        "score less the tape's": float(value - taped),
        "largest difference to the tape's posterior": float(jnp.abs(slopes[0] - taped_slopes[0]).max()),
    }


def _grouped() -> dict[str, dict[str, float]]:
    """Return CPU nanoseconds for each cell of the whole matrix: with a band and without, in a batch and alone."""
    one, many = _arguments(_SINGLE_SIZE), _arguments(_BATCH_SIZE, count=_BATCH)
    banded = _slopes(lambda scores, gap_open, gap_extend: score(scores, gap_open, gap_extend, _BAND))
    runs = {
        "full": _compiled(_slopes(score), *_arguments(SIZES[-1])),
        "band": _compiled(banded, *_arguments(SIZES[-1])),
        "pair": _compiled(_slopes(score), *one),
        "batch": _compiled(jax.vmap(_slopes(score), (0, None, None)), *many),
    }
    with mock.patch.object(chains, "LANES_SIDE_BY_SIDE", sys.maxsize):  # a chain for each pair
        runs["batch without chains"] = _compiled(jax.vmap(_slopes(score), (0, None, None)), *many)
    cells = {"full": SIZES[-1] ** 2, "band": SIZES[-1] ** 2, "pair": one[0].size}
    cells |= dict.fromkeys(("batch", "batch without chains"), many[0].size)
    seconds = interleaved([_seconds(run.call) for run in runs.values()], _REPEATS)
    return {
        name: {"ns_per_cell": 1e9 * second / cells[name], "temporary_bytes_per_cell": run.temporary_bytes / cells[name]}
        for (name, run), second in zip(runs.items(), seconds, strict=True)
    }


def _engine_figures(rows: list[dict[str, Any]], grouped: dict[str, dict[str, float]]) -> Iterator[Figure]:
    gradient, alone = _per_cell(rows, _GRADIENT), _per_cell(rows, _SCORE_ONLY)
    span = f"{SIZES[0]} to {SIZES[-1]:,}"
    yield Figure(f"local alignment, score and gradient, the slowest of L = {span}", max(gradient), "ns per cell", 100.0)
    yield Figure("score and gradient, slowest over fastest L", max(gradient) / min(gradient), "x")
    yield Figure(f"local alignment, score, the slowest of L = {span}", max(alone), "ns per cell", 1000 / 30)
    yield Figure("score, slowest over fastest L", max(alone) / min(alone), "x")
    for name in _PARASAIL:
        ratio = rows[-1]["cpu_seconds"][_SCORE_ONLY] / rows[-1]["cpu_seconds"][name]
        yield Figure(f"score at L = {SIZES[-1]:,}, over {name}", ratio, "x")
    for what, key in (("CPU time", "cpu_seconds"), ("temporary memory", "temporary_bytes")):
        ratio = rows[-1][key][_GRADIENT] / rows[-1][key][_TAPE]
        yield Figure(f"score and gradient at L = {SIZES[-1]:,}, {what} over that with a tape", ratio, "x")
    memory = {name: [row["temporary_bytes"][name] for row in rows] for name in (_GRADIENT, _SCORE_ONLY)}
    worst = max(used / size**2 for used, size in zip(memory[_GRADIENT], SIZES, strict=True))
    yield Figure("temporary memory of score and gradient, the most", worst, "bytes per cell", 30.0)
    beyond = [used - 4 * size**2 for used, size in zip(memory[_GRADIENT], SIZES, strict=True)]
    yield Figure("exponent in L of temporary memory beyond one posterior matrix", _exponent(beyond), "", 1.6)
    yield Figure(f"temporary memory beyond one posterior matrix at L = {SIZES[-1]:,}", beyond[-1] / 1e6, "MB")
    yield Figure("exponent in L of temporary memory of the score", _exponent(memory[_SCORE_ONLY]), "", 1.1)
    yield Figure(f"temporary memory of the score at L = {SIZES[-1]:,}", memory[_SCORE_ONLY][-1] / 1e6, "MB")
    ratio = grouped["batch"]["ns_per_cell"] / grouped["pair"]["ns_per_cell"]
    what = f"{_BATCH} pairs of {_BATCH_SIZE}, time per cell over that of one pair of {_SINGLE_SIZE:,}"
    yield Figure(what, ratio, "x", 1.0)
    ratio = grouped["batch"]["ns_per_cell"] / grouped["batch without chains"]["ns_per_cell"]
    yield Figure(f"{_BATCH} pairs of {_BATCH_SIZE}, time over that side by side, without chains", ratio, "x")
    ratio = grouped["band"]["ns_per_cell"] / grouped["full"]["ns_per_cell"]
    yield Figure(f"band of {_BAND} at L = {SIZES[-1]:,}, time over that of the whole matrix", ratio, "x")
    slowest = max(row["compile_cpu_seconds"][_GRADIENT] for row in rows)
    yield Figure("compilation of score and gradient, the slowest L", slowest, "CPU s", 3.0)


def _reads() -> tuple[list[Figure], dict[str, Any]]:
    """Return what trimming reads costs, beside cutadapt less its start, and in how many reads they differ."""
    if not READS.exists():
        print(f"reads are left out: there is no {READS}, which the Debian package r-bioc-shortread brings")
        return [], {}
    adapters = AdapterTrimming(AdapterTrimmingConfig(adapters=(_ADAPTER,), temperature=1e-4))
    qualities = QualityTrimming(QualityTrimmingConfig(tail=20.0, temperature=1e-4))

    def batches() -> list[dict[str, np.ndarray]]:
        return [batch.data for batch in bucketed(read_sequences(READS), batch_size=1000, buckets=(72,))]

    data = batches()
    n_reads = sum(int(batch["read_mask"].sum()) for batch in data)
    found: dict[str, Any] = {"reads": n_reads, "reading_cpu_seconds": interleaved([lambda: cpu_seconds(batches)], 3)[0]}
    figures = []
    for name, trimmer, options in (("adapters", adapters, ("-a", _ADAPTER)), ("qualities", qualities, ("-q", "20"))):
        trim = jax.jit(lambda batch, trimmer=trimmer: kept_interval(trimmer.apply(batch, {}, None)[0]["base_weights"]))

        def ours(trim: Callable[..., Any] = trim) -> list[Any]:
            return [jax.block_until_ready(trim(batch)) for batch in data]

        kept = np.concatenate([np.asarray(end) - np.asarray(begin) for begin, end in ours()])[:n_reads]
        theirs, lengths = _cutadapt(*options)
        seconds = interleaved([lambda ours=ours: cpu_seconds(ours)], 3)[0]
        found[name] = {"cpu_seconds": seconds, "cutadapt_cpu_seconds": theirs}
        found[name]["reads of another length"] = int((kept != lengths).sum())
        what = f"trimming of {name}, {n_reads:,} reads of 72 bases, over cutadapt, which reads and writes them, too"
        figures.append(Figure(what, seconds / theirs, "x"))
    return figures, found


def _cutadapt(*options: str) -> tuple[float, np.ndarray]:
    """Return the CPU seconds that cutadapt takes for the reads, without its start, and the lengths that it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        given, trimmed = Path(folder) / "given.fastq", Path(folder) / "trimmed.fastq"
        text = gzip.decompress(READS.read_bytes())

        def run(copies: int) -> float:
            given.write_bytes(text * copies)
            return run_child("-m", "cutadapt", "--quiet", *options, "-o", str(trimmed), str(given)).cpu_seconds

        ten, one = interleaved([lambda: run(10), lambda: run(1)], 3)
        with dnaio.open(trimmed) as records:
            return (ten - one) / 9, np.array([len(record.sequence) for record in records])


def _arguments(size: int, count: int | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return BLOSUM62's scores of two random proteins, of several pairs if a count is given, and the gap costs."""
    matrix = np.asarray(substitution_matrix("BLOSUM62", PROTEIN))
    query, target = _codes(size) if count is None else _codes(count, size)
    scores = matrix[query[..., :, None], target[..., None, :]]
    return jnp.asarray(scores, jnp.float32), jnp.float32(_GAP_OPEN), jnp.float32(_GAP_EXTEND)


def _codes(*shape: int) -> np.ndarray:
    """Return random queries and targets."""
    return np.random.default_rng(0).integers(len(PROTEIN), size=(2, *shape))


def _slopes(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    return jax.value_and_grad(function, (0, 1, 2))


def _compiled(function: Callable[..., Any], *arguments: jax.Array) -> Program:
    found = []
    seconds = cpu_seconds(lambda: found.append(jax.jit(function).lower(*arguments).compile()))
    (run,) = found
    memory = run.memory_analysis().temp_size_in_bytes
    return Program(lambda: jax.block_until_ready(run(*arguments)), seconds, memory)


def _seconds(call: Callable[[], Any]) -> Callable[[], float]:
    """Return what measures one call: the mean of as many as take a while."""
    call()
    once = cpu_seconds(call)
    times = max(1, min(200, math.ceil(_SECONDS_PER_MEASUREMENT / max(once, 1e-6))))
    return lambda: cpu_seconds(lambda: [call() for _ in range(times)]) / times


def _per_cell(rows: list[dict[str, Any]], name: str) -> list[float]:
    """Return the CPU nanoseconds per cell at each size that there is."""
    return [1e9 * row["cpu_seconds"][name] / row["length"] ** 2 for row in rows]


def _exponent(values: list[float]) -> float:
    return math.log(values[-1] / values[0]) / math.log(SIZES[-1] / SIZES[0])


def _draw(rows: list[dict[str, Any]]) -> None:
    """Draw CPU time and temporary memory per cell over the length, both axes logarithmic."""
    figure, (time, memory) = plt.subplots(1, 2, figsize=(10.0, 4.2), layout="constrained")
    styles = {
        _GRADIENT: ("o-", "#1f77b4"), _SCORE_ONLY: ("o-", "#8fc1e3"), _TAPE: ("^--", "#d62728"),
        **{name: ("s--", color) for name, color in zip(_PARASAIL, ("#555555", "#888888", "#bbbbbb"), strict=True)},
    }  # fmt: skip
    for name, (style, color) in styles.items():
        options = {"color": color, "markersize": 4, "label": name}
        time.loglog(SIZES, _per_cell(rows, name), style, **options)
        if name not in _PARASAIL:
            memory.loglog(SIZES, [row["temporary_bytes"][name] / row["length"] ** 2 for row in rows], style, **options)
    time.axhline(100, color="#1f77b4", linestyle=":", linewidth=1)  # the bars
    memory.axhline(30, color="#1f77b4", linestyle=":", linewidth=1)
    for ax, label in ((time, "CPU nanoseconds per cell, one core"), (memory, "temporary bytes per cell")):
        ax.set_xlabel("length L of both sequences")
        ax.set_ylabel(label)
        ax.set_xticks(SIZES, minor=False)
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "local alignment of two sequences, affine gaps; dotted: the bars of score and gradient", fontsize=10
    )
    figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(RESULTS / "alignment.png", dpi=130)


if __name__ == "__main__":
    main()
