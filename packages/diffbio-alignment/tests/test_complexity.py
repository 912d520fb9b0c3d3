"""The complexity filter: fastp's rule and DUST's, on certain letters exactly, trained, and against fastp itself."""

import shutil
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads

from diffbio.io.sequence import DNA, Record, bucketed, encode, read_sequences, write_fastq
from diffbio.operators.preprocessing.complexity import (
    ComplexityFilter,
    ComplexityFilterConfig,
    dust_score,
    share_of_changes,
)

FASTQ = Path("/usr/lib/R/site-library/ShortRead/extdata/E-MTAB-1147/ERR127302_1_subset.fastq.gz")
SEQUENCES = pytest.importorskip("pyhmmer").__file__.replace("__init__.py", "tests/data/seqs/CP040672.1.genes_100.fna")


def simple_and_real(n_reads: int, seed: int) -> list[str]:
    """Return pieces of real genes, and as many stretches of repeats with errors, some of them N."""
    random = np.random.default_rng(seed)
    genome = "".join(record.sequence for record in read_sequences(SEQUENCES))
    texts = []
    for _ in range(n_reads):
        size = int(random.integers(5, 60))
        begin = int(random.integers(len(genome) - size))
        texts.append(genome[begin : begin + size])
        unit = "".join(random.choice(list(DNA), int(random.integers(1, 4))))
        letters = np.array(list((unit * size)[:size]))
        letters = np.repeat(letters, int(random.integers(1, 4)))[:size]
        wrong = random.uniform(size=size) < 0.2
        texts.append("".join(np.where(wrong, random.choice(list("ACGTN"), size), letters)))
    return texts


def test_the_share_of_changes_is_fastps(certificate) -> None:
    if not Path(SEQUENCES).is_file():
        pytest.skip("this pyhmmer comes without its test data")
    texts = simple_and_real(300, seed=0)
    letters, lengths = encode(texts, DNA)
    changes = [sum(a != b for a, b in pairwise(text)) for text in texts]
    found = share_of_changes(letters, (np.arange(letters.shape[1]) < lengths[:, None]).astype(np.float32))
    np.testing.assert_allclose(found, np.array(changes) / (lengths - 1), atol=1e-5)
    operator = ComplexityFilter(ComplexityFilterConfig(temperature=1e-6))
    data = {"reads": letters, "read_lengths": lengths}
    passes = np.asarray(operator.apply(data, {}, None)[0]["complexity_pass"])
    expected = np.array([100 * n >= 30 * (size - 1) for n, size in zip(changes, lengths, strict=True)])
    assert 0.1 < expected.mean() < 0.9
    different = int((np.abs(passes - expected) > 0.01).sum())
    certificate(
        operator="ComplexityFilter",
        reference="fastp's rule (NumPy)",
        data="600 pieces of bacterial genes and of repeats",
        quantity="reads that differ",
        value=different,
        bar="= 0",
    )
    assert different == 0


def test_the_dust_score_is_that_of_its_definition() -> None:
    texts = [text.replace("N", "A") for text in simple_and_real(50, seed=1)] + ["ACG", "AC", "A" * 30]
    letters, lengths = encode(texts, DNA)
    found = dust_score(letters, (np.arange(letters.shape[1]) < lengths[:, None]).astype(np.float32))
    for text, score in zip(texts, found, strict=True):
        counts = Counter(text[place : place + 3] for place in range(len(text) - 2))
        expected = sum(count * (count - 1) / 2 for count in counts.values()) / max(counts.total() - 1, 1)
        assert float(score) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    config = ComplexityFilterConfig(measure="dust", temperature=1e-4)
    data = {"reads": letters, "read_lengths": lengths}
    passes = ComplexityFilter(config).apply(data, {}, None)[0]["complexity_pass"]
    np.testing.assert_allclose(passes, np.asarray(found) <= 2, atol=1e-3)


def test_dropped_bases_don_t_count_and_masked_reads_stay_dropped() -> None:
    letters, _ = encode(["ACGTACGT" + "A" * 24] * 3, DNA)
    weights = np.ones((3, 32), np.float32)
    weights[1:, 8:] = 0
    data = {"reads": letters, "base_weights": weights, "read_mask": np.array([True, True, False])}
    config = ComplexityFilterConfig(temperature=1e-4)
    found = ComplexityFilter(config).apply(data, {}, None)[0]
    np.testing.assert_allclose(found["complexity_pass"], [0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(found["read_weights"], [0, 1, 0], atol=1e-6)


@pytest.mark.parametrize("measure", [share_of_changes, dust_score])
def test_derivatives_are_right_and_finite(measure) -> None:
    random = np.random.default_rng(0)
    reads = random.dirichlet(np.ones(4), (2, 6)).astype(np.float32)
    weights = random.uniform(0.8, 1, (2, 6)).astype(np.float32)
    check_grads(measure, (reads, weights), order=1, modes=("rev",), atol=1e-2, rtol=1e-2, eps=1e-3)
    slopes = jax.grad(lambda *x: measure(*x).sum(), argnums=(0, 1))
    for nothing in (jnp.zeros((2, 6)), jnp.ones((2, 6))):
        assert all(np.isfinite(slope).all() for slope in slopes(0 * reads, nothing))
        assert all(np.isfinite(slope).all() for slope in slopes(encode(["AAAAAA"] * 2, DNA).letters, nothing))


def test_training_finds_the_threshold_that_was_used() -> None:
    letters, lengths = encode([text.replace("N", "A") for text in simple_and_real(100, seed=2)], DNA)
    data = {"reads": letters, "read_lengths": lengths}
    wanted = ComplexityFilter(ComplexityFilterConfig(threshold=0.55, temperature=1e-4)).apply(data, {}, None)[0]
    operator = ComplexityFilter(ComplexityFilterConfig(temperature=0.1, learnable=True))
    optimizer = nnx.Optimizer(operator, optax.adam(0.02), wrt=nnx.Param)

    @nnx.jit
    def step(operator: ComplexityFilter, optimizer: nnx.Optimizer) -> jax.Array:
        def loss(operator: ComplexityFilter) -> jax.Array:
            passes = operator.apply(data, {}, None)[0]["complexity_pass"]
            return jnp.square(passes - wanted["complexity_pass"]).mean()

        value, slopes = nnx.value_and_grad(loss)(operator)
        optimizer.update(operator, slopes)
        return value

    losses = [float(step(operator, optimizer)) for _ in range(60)]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, threshold 0.3 -> {float(operator.threshold[...]):.3f}, used 0.55")
    assert losses[-1] < 0.5 * losses[0]
    assert float(operator.threshold[...]) == pytest.approx(0.55, abs=0.05)


@pytest.mark.slow
def test_the_reads_that_pass_are_those_that_pass_fastp(tmp_path: Path, certificate) -> None:
    if not FASTQ.is_file() or shutil.which("fastp") is None:
        pytest.skip("needs Debian's fastp and r-bioc-shortread")
    random = np.random.default_rng(0)
    reads = list(read_sequences(FASTQ))
    for read in reads[::2]:  # half of them with a stretch of one letter, as long as it comes
        size = int(random.integers(30, 66))
        reads.append(read._replace(name=f"{read.name}.s", sequence="ACGT"[size % 4] * size + read.sequence[size:]))
    write_fastq(tmp_path / "in.fastq", reads)
    options = ["-A", "-Q", "-L", "-G", "-y", "-w", "1", "-j", "/dev/null", "-h", "/dev/null"]
    subprocess.run(
        ["fastp", "-i", tmp_path / "in.fastq", "-o", tmp_path / "out.fastq", *options], check=True, capture_output=True
    )
    theirs = {record.name for record in read_sequences(tmp_path / "out.fastq")}
    operator = ComplexityFilter(ComplexityFilterConfig(temperature=1e-6))
    ours = {
        name
        for batch in bucketed(reads, batch_size=2048)
        for name, passed in zip(batch.names, operator.apply(batch.data, {}, None)[0]["complexity_pass"], strict=False)
        if passed > 0.5
    }
    assert 0 < len(reads) - len(theirs) < len(reads)
    certificate(
        operator="ComplexityFilter",
        reference="fastp 0.23.2 -y",
        data=f"{len(reads)} reads of ERR127302, a third with planted stretches ({len(reads) - len(theirs)} dropped)",
        quantity="share of reads judged differently",
        value=len(ours ^ theirs) / len(reads),
        bar="<= 0.005",
    )
    assert len(ours ^ theirs) <= 0.005 * len(reads)


def test_empty_reads_have_no_complexity() -> None:
    (batch,) = bucketed([Record("r", "", "A")], batch_size=2, buckets=(4,))
    config = ComplexityFilterConfig(temperature=1e-4)
    found = ComplexityFilter(config).apply(batch.data, {}, None)[0]
    np.testing.assert_allclose(found["read_weights"], [0, 0], atol=1e-6)
