"""Overlaps of the reads of a pair, against fastp and against pairs of which the insert is known."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from real_reads import ERR127302, READ_THROUGH, Record, arrays, fastp, load, reverse_complement, save, some_reads

from diffbio.operators.preprocessing.kept_bases import kept_interval
from diffbio.operators.preprocessing.pairs import PairedAdapterTrimming, PairedAdapterTrimmingConfig, insert_lengths

ADAPTERS = ("AGATCGGAAGAGCACACGTCTGAACTCCAGTCA", "AGATCGGAAGAGCGTCGTGTAGGGAAAGAGTGT")


def paired(first: list[Record], second: list[Record]) -> dict[str, np.ndarray]:
    """Return pairs as the operators take them."""
    mates = arrays(second)
    mates = {"mate_reads": mates["reads"], "mate_qualities": mates["qualities"], "mate_lengths": mates["read_lengths"]}
    return {**arrays(first), **mates}


def in_parts(operator, data: dict[str, np.ndarray], size: int = 1000) -> dict[str, np.ndarray]:
    """Return what an operator writes, computed for some reads at a time."""
    apply = jax.jit(lambda data: operator.apply(data, {}, None)[0])
    parts = [
        apply({key: value[first : first + size] for key, value in data.items()})
        for first in range(0, len(data["reads"]), size)
    ]
    return {key: np.concatenate([np.asarray(part[key]) for part in parts]) for key in operator.contract.writes}


def short_inserts(length: int) -> tuple[list[Record], list[Record]]:
    """Return pairs that were read from real sequences of this length, and on into the adapters."""
    known = [record for record in some_reads() if "N" not in record.sequence]
    both: tuple[list[Record], list[Record]] = ([], [])
    for record in known:
        insert = record.sequence[:length]
        for reads, strand, adapter in zip(both, (insert, reverse_complement(insert)), ADAPTERS, strict=True):
            sequence = (strand + adapter + "A" * 40)[:72]
            reads.append(Record(record.name, sequence, "I" * 72))
    return both


@pytest.mark.parametrize("length", [35, 50, 71])
def test_reads_end_where_the_insert_does(length: int) -> None:
    first, second = short_inserts(length)
    trimmer = PairedAdapterTrimming(PairedAdapterTrimmingConfig(temperature=1e-3))
    found = trimmer.apply(paired(first, second), {}, None)[0]
    for key in ("base_weights", "mate_base_weights"):
        assert (np.asarray(kept_interval(found[key]).end) == length).all()
    assert (np.asarray(found["insert_lengths"]).argmax(1) == length).all()


@pytest.mark.slow
@pytest.mark.parametrize("source", ["read-through", "ERR127302"])
def test_all_real_pairs_are_trimmed_where_fastp_does(source: str, tmp_path: Path, certificate) -> None:
    names = {
        "read-through": [READ_THROUGH / f"reads_{end}.fq.gz" for end in (1, 2)],
        "ERR127302": [ERR127302 / f"ERR127302_{end}_subset.fastq.gz" for end in (1, 2)],
    }
    reads = [load(path) for path in names[source]]
    files = [save(tmp_path / f"reads_{end}.fastq", records) for end, records in enumerate(reads)]
    expected = fastp(files[0], "-Q", "-L", mate=files[1])
    trimmer = PairedAdapterTrimming(PairedAdapterTrimmingConfig(temperature=1e-4))
    found = in_parts(trimmer, paired(*reads))
    wrong = 0
    for key, records, trimmed in zip(("base_weights", "mate_base_weights"), reads, expected, strict=True):
        ends = np.asarray(kept_interval(jnp.asarray(found[key])).end)
        wrong += sum(len(trimmed[r.name].sequence) != end for r, end in zip(records, ends, strict=True))
    certificate(
        operator="PairedAdapterTrimming",
        reference="fastp 0.23.2",
        data=f"{source}, {len(reads[0])} pairs",
        quantity="share of reads trimmed elsewhere",
        value=wrong / (2 * len(reads[0])),
        bar="<= 0.005",
    )
    assert wrong <= 0.005 * 2 * len(reads[0])


def test_gradients() -> None:
    random = np.random.default_rng(0)
    reads = [random.dirichlet(np.full(4, 0.2), 7) for _ in range(2)]
    weights = [random.uniform(0.4, 0.95, 7) for _ in range(2)]

    def lengths(read, weights, mate, mate_weights):
        options = {"min_overlap": 2, "max_differences": 2.0, "softness": 1.0}
        return insert_lengths(read, weights, mate, mate_weights, **options)

    with jax.enable_x64(True):
        check_grads(lengths, (reads[0], weights[0], reads[1], weights[1]), order=1, modes=["rev"], rtol=1e-3)
    slope = jax.grad(lambda x: lengths(x, np.zeros(7), x, np.zeros(7)).sum())(np.zeros((7, 4), np.float32))
    assert np.isfinite(slope).all()
