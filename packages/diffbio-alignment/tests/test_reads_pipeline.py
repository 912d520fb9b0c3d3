"""From a FASTQ file through a pipeline to a FASTQ file, beside cutadapt with the same steps."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from real_reads import cutadapt, save, some_reads, with_adapters

from diffbio.core import Pipeline
from diffbio.io.sequence import bucketed, kept_records, read_sequences, write_fastq
from diffbio.operators.preprocessing import (
    AdapterTrimming,
    AdapterTrimmingConfig,
    DuplicateWeighting,
    DuplicateWeightingConfig,
    QualityFilter,
    QualityFilterConfig,
    QualityTrimming,
    QualityTrimmingConfig,
    preprocessing_report,
)

pytest.importorskip("cutadapt")

TRUSEQ = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"


def steps(temperature: float, *, adapter: str = TRUSEQ, learnable: bool = False) -> Pipeline:
    filtering = QualityFilterConfig(
        max_unqualified=None, max_unknown=None, min_length=30.0, temperature=temperature, learnable=learnable
    )
    return Pipeline(
        QualityTrimming(QualityTrimmingConfig(tail=20.0, temperature=temperature, learnable=learnable)),
        AdapterTrimming(AdapterTrimmingConfig(adapters=(adapter,), temperature=temperature)),
        QualityFilter(filtering),
    )


def test_files_go_in_and_come_out_as_cutadapts(tmp_path: Path) -> None:
    copies = [record._replace(name=f"{record.name}.{number}") for number in range(8) for record in some_reads()]
    records = with_adapters(copies, TRUSEQ, seed=5, mismatches=0)
    given, written = save(tmp_path / "reads.fastq", records), tmp_path / "trimmed.fastq.gz"
    expected = cutadapt(given, "-q", "20", "-a", TRUSEQ, "-m", "30")

    pipeline = steps(1e-4)
    apply = jax.jit(lambda data: pipeline.apply(data, {}, None)[0])
    kept = []
    for batch in bucketed(read_sequences(given), buckets=(80,), batch_size=50):
        data = apply(batch.data)
        kept += kept_records(data, batch.names)
        report = preprocessing_report(batch.data, {"all steps": data})
        (step,) = report.steps
        lost = step.bases_trimmed + step.bases_dropped
        assert report.bases_in - lost == pytest.approx(report.bases_out)
    write_fastq(written, kept)

    found = {record.name: record for record in read_sequences(written)}
    assert found.keys() == {name for name, record in expected.items() if record.sequence}
    assert {name: record.sequence for name, record in found.items()} == {
        name: expected[name].sequence for name in found
    }
    for name, record in found.items():
        assert record.qualities is not None
        assert "".join(chr(33 + quality) for quality in record.qualities) == expected[name].qualities


def test_a_loss_behind_all_steps_reaches_the_first_cutoff(tmp_path: Path) -> None:
    records = with_adapters(some_reads(), TRUSEQ, seed=5, mismatches=0)
    batch, *_ = bucketed(read_sequences(save(tmp_path / "r.fastq", records)), buckets=(80,), batch_size=4)
    pipeline = Pipeline(
        *steps(2.0, adapter=TRUSEQ[:13], learnable=True).steps,
        DuplicateWeighting(DuplicateWeightingConfig(temperature=1.0)),
    )
    graph, parameters, rest = nnx.split(pipeline, nnx.Param, ...)

    def bases_kept(parameters: nnx.State) -> jax.Array:
        data = nnx.merge(graph, parameters, rest).apply(batch.data, {}, None)[0]
        return (data["base_weights"].sum(1) * data["read_weights"]).sum()

    slopes = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(bases_kept))(parameters))]
    assert slopes
    assert all(np.isfinite(slope).all() and np.abs(slope).max() > 0 for slope in slopes)
