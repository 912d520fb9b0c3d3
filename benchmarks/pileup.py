"""Aligned reads: CPU time of reading them beside pysam alone, and of the pileup beside all reads x the reference.

The file holds 100,000 simulated reads of 100 bases. pysam iterates over it and takes the fields that arrays are made
of, and no more. The dense way compares the position of each base with each column and multiplies matrices, as is usual
where gradients are wanted; here each base is added to its row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pysam

from benchmarks.measure import Figure, cpu_seconds, interleaved, publish
from diffbio.io.reads import AlignmentFile, Reference, read_windows
from diffbio.operators.variant.pileup import pileup_counts
from diffbio.pipelines.variant.simulation import SimulatedFiles, simulate_reads

_N_READS, _LENGTH = 100_000, 100
_SIZE = 300_000  # of the reference of the file
_WINDOW, _DENSE_READS = 10_000, 3000  # depth 30
_REPEATS = 3


def main() -> None:
    """Read files and count bases; publish."""
    with tempfile.TemporaryDirectory() as folder:
        files = simulate_reads(
            Path(folder), seed=0, size=_SIZE, depth=_N_READS * _LENGTH / _SIZE, read_length=_LENGTH, variant_rate=1e-4
        )
        figures = [*_reading(files), *_counting()]
    publish("pileup", figures, {})


def _reading(files: SimulatedFiles) -> list[Figure]:
    """Return what arrays of reads cost, beside iterating over the file."""

    def by_pysam() -> None:
        with pysam.AlignmentFile(str(files.reads)) as file:
            for read in file:
                _ = read.query_sequence, read.query_qualities, read.cigartuples, read.flag, read.mapping_quality

    def whole() -> None:
        for _ in AlignmentFile(files.reads).reads():
            pass

    def windows() -> None:
        with Reference(files.reference) as reference:
            for _ in read_windows(AlignmentFile(files.reads), reference, window=512, margin=64, batch_size=8):
                pass

    theirs, *ours = interleaved([lambda call=call: cpu_seconds(call) for call in (by_pysam, whole, windows)], _REPEATS)
    figures = []
    for what, seconds in zip(("whole reads as arrays", "windows of 512, margins of 64"), ours, strict=True):
        figures.append(Figure(f"{what}, over pysam's own iteration", seconds / theirs, "x"))
        figures.append(Figure(f"{what}, CPU time of 1,000 reads", 1e6 * seconds / _N_READS, "ms"))
    return figures


def _counting() -> list[Figure]:
    """Return what counts and their gradient cost, over the dense way with so few reads that it can be waited for."""
    few, many = (_bases(count) for count in (_DENSE_READS, _N_READS))

    def counts(reads: jax.Array, weights: jax.Array, columns: jax.Array) -> jax.Array:
        return pileup_counts(reads, weights, columns, window=_WINDOW).base_counts.sum(1)

    def dense(reads: jax.Array, weights: jax.Array, columns: jax.Array) -> jax.Array:
        return jnp.einsum("rpw,rp,rpl->wl", columns[..., None] == jnp.arange(_WINDOW), weights, reads)

    direction = jnp.asarray(np.random.default_rng(1).normal(size=(_WINDOW, 4)), jnp.float32)

    def gradient(way: Callable[..., jax.Array]) -> Callable[..., Any]:
        return jax.jit(jax.grad(lambda *bases: (direction * way(*bases)).sum(), (0, 1)))

    difference = float(jnp.abs(counts(*few) - jax.jit(dense)(*few)).max())
    ways = {
        "ours": (jax.jit(counts), few),
        "dense": (jax.jit(dense), few),
        "ours, gradient": (gradient(counts), few),
        "dense, gradient": (gradient(dense), few),
        "many": (jax.jit(counts), many),
        "many, gradient": (gradient(counts), many),
    }
    calls = [lambda way=way, bases=bases: jax.block_until_ready(way(*bases)) for way, bases in ways.values()]
    for call in calls:
        call()
    seconds = dict(
        zip(ways, interleaved([lambda call=call: cpu_seconds(call) for call in calls], _REPEATS), strict=True)
    )
    what = f"pileup of {_DENSE_READS:,} reads at {_WINDOW:,} positions"
    return [
        Figure(f"{what}, over the dense way", seconds["ours"] / seconds["dense"], "x", 0.02),
        Figure(f"{what}, gradient, over the dense way", seconds["ours, gradient"] / seconds["dense, gradient"], "x"),
        Figure(f"{what}, largest difference of both", difference, "", 1e-3),
        Figure(f"pileup of {_N_READS:,} reads, CPU time of a base", 1e9 * seconds["many"] / many[1].size, "ns"),
        Figure(
            f"pileup of {_N_READS:,} reads, gradient over counts",
            seconds["many, gradient"] / seconds["many"],
            "x",
            10.0,
        ),
    ]


def _bases(n_reads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return random reads, weights and columns."""
    random = np.random.default_rng(0)
    letters = np.eye(4, dtype=np.float32)[random.integers(4, size=(n_reads, _LENGTH))]
    columns = random.integers(0, _WINDOW - _LENGTH, size=(n_reads, 1)) + np.arange(_LENGTH)
    weights = random.random((n_reads, _LENGTH))
    return jnp.asarray(letters), jnp.asarray(weights, jnp.float32), jnp.asarray(columns, jnp.int32)


if __name__ == "__main__":
    main()
