"""Adapters, against cutadapt."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from real_reads import ERR127302, Record, arrays, cutadapt, load, save, some_reads, with_adapters

from diffbio.core.errors import ConfigError
from diffbio.operators.preprocessing.adapters import (
    AdapterTrimming,
    AdapterTrimmingConfig,
    adapter_arrays,
    adapters_kept,
)
from diffbio.operators.preprocessing.kept_bases import kept_interval
from diffbio.operators.preprocessing.quality_trimming import QualityTrimming, QualityTrimmingConfig

pytest.importorskip("cutadapt")

TRUSEQ = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"
NEXTERA = "CTGTCTCTTATACACATCT"
MODES = {
    "defaults": ({"adapters": (TRUSEQ,)}, ["-a", TRUSEQ]),
    "no indels": ({"adapters": (TRUSEQ,), "indels": False}, ["-a", TRUSEQ, "--no-indels"]),
    "two": ({"adapters": (NEXTERA, TRUSEQ)}, ["-a", NEXTERA, "-a", TRUSEQ]),
    "IUPAC codes": ({"adapters": ("AGATCGGRNNAGCACW",)}, ["-a", "AGATCGGRNNAGCACW"]),
    "5'": ({"adapters": (TRUSEQ,), "end": "five_prime"}, ["-g", TRUSEQ]),
}


def differing(records: list[Record], folder: Path, settings: dict, options: list[str]) -> list[tuple[str, int, int]]:
    """Return the reads that cutadapt trims in another way, with both lengths."""
    expected = cutadapt(save(folder / "reads.fastq", records), *options)
    operator = AdapterTrimming(AdapterTrimmingConfig(**settings, temperature=1e-4))
    trim = jax.jit(lambda data: kept_interval(operator.apply(data, {}, None)[0]["base_weights"]))
    data, found = arrays(records), []
    for first in range(0, len(records), 2500):
        part = {key: value[first : first + 2500] for key, value in data.items()}
        found += list(zip(*(np.asarray(place).tolist() for place in trim(part)), strict=True))
    kept = [record.sequence[begin:end] for record, (begin, end) in zip(records, found, strict=True)]
    wanted = [expected[record.name].sequence for record in records]
    pairs = zip(records, wanted, kept, strict=True)
    return [(record.sequence, len(x), len(y)) for record, x, y in pairs if x != y]


def turned_round(records: list[Record]) -> list[Record]:
    return [Record(name, sequence[::-1], qualities) for name, sequence, qualities in records]


@pytest.mark.parametrize("mode", MODES)
def test_some_reads_are_trimmed_where_cutadapt_does(mode: str, tmp_path: Path) -> None:
    settings, options = MODES[mode]
    copies = [record._replace(name=f"{record.name}.{i}") for i in range(10) for record in some_reads()]
    records = with_adapters(copies, TRUSEQ if mode != "5'" else TRUSEQ[::-1], mismatches=0.01)
    assert differing(turned_round(records) if mode == "5'" else records, tmp_path, settings, options) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_all_real_reads(mode: str, tmp_path: Path, certificate) -> None:
    """Where edits have equal counts but unequal scores, cutadapt keeps the first of its table, and diffbio the
    better."""
    settings, options = MODES[mode]
    records = load(ERR127302 / "ERR127302_1_subset.fastq.gz")
    planted = with_adapters(records, TRUSEQ if mode != "5'" else TRUSEQ[::-1])
    found = differing(turned_round(planted) if mode == "5'" else planted, tmp_path, settings, options)
    for sequence, theirs, ours in found[:10]:
        print(f"{sequence} cutadapt keeps {theirs}, diffbio {ours}")
    certificate(
        operator="AdapterTrimming",
        reference="cutadapt 5.2",
        data=f"ERR127302_1, {len(records)} reads, adapters planted with 2.5 % errors, {mode}",
        quantity="share of reads trimmed elsewhere",
        value=len(found) / len(records),
        bar="<= 0.005",
    )
    assert len(found) <= 0.005 * len(records)


def test_the_default_softness_is_near_the_limit() -> None:
    """At the default, reads are cut within a base of the hard cut, and reads without adapter stay whole."""
    records = with_adapters(some_reads() * 10, TRUSEQ, mismatches=0.01)
    data = arrays(records)
    trimmer = AdapterTrimming(AdapterTrimmingConfig(adapters=(TRUSEQ,)))
    soft = np.asarray(trimmer.apply(data, {}, None)[0]["base_weights"].sum(1))
    trimmer.softness.set(1e-4)
    hard = np.asarray(trimmer.apply(data, {}, None)[0]["base_weights"].sum(1))
    off = np.abs(soft - hard)
    print(f"median {np.median(off):.3f} bases off, at the 95th percentile {np.quantile(off, 0.95):.3f}")
    assert np.median(off) < 0.05
    assert np.quantile(off, 0.9) < 1


def test_quality_trimming_comes_first_as_in_cutadapt(tmp_path: Path) -> None:
    copies = [record._replace(name=f"{record.name}.{i}") for i in range(5) for record in some_reads()]
    records = with_adapters(copies, TRUSEQ, seed=3, mismatches=0)
    expected = cutadapt(save(tmp_path / "reads.fastq", records), "-q", "20", "-a", TRUSEQ)
    data = arrays(records)
    data = QualityTrimming(QualityTrimmingConfig(temperature=1e-4)).apply(data, {}, None)[0]
    data = AdapterTrimming(AdapterTrimmingConfig(adapters=(TRUSEQ,), temperature=1e-4)).apply(data, {}, None)[0]
    ends = np.asarray(kept_interval(data["base_weights"]).end)
    assert [
        record for record, end in zip(records, ends, strict=True) if len(expected[record.name].sequence) != end
    ] == []


def test_gradients() -> None:
    random = np.random.default_rng(0)
    read = random.dirichlet(np.full(4, 0.2), 10)
    weights = random.uniform(0.5, 0.95, 10)

    def kept(read: jax.Array, weights: jax.Array) -> jax.Array:
        options = {"error_rate": 0.2, "min_overlap": 2, "softness": 0.7}
        found = adapters_kept(read, weights, adapter_arrays(("ACGT", "GGA")), **options)
        return jnp.append(found.base_weights, found.adapter_found)

    with jax.enable_x64(True):
        check_grads(kept, (read, weights), order=1, modes=["rev"], rtol=1e-3)
    slopes_of = jax.jit(jax.grad(lambda *x: kept(*x).sum(), argnums=(0, 1)))
    for values in (np.zeros((10, 4)), np.full((10, 4), 0.25)):
        for scale in (0.0, 1e-6, 1.0):
            slopes = slopes_of(jnp.asarray(values, jnp.float32), scale * jnp.ones(10))
            assert all(np.isfinite(slope).all() for slope in slopes)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="adapters is empty"):
        AdapterTrimmingConfig(adapters=())
    with pytest.raises(ConfigError, match="'J'"):
        AdapterTrimmingConfig(adapters=("ACGJ",))
