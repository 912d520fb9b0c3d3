"""Tails of one letter: fastp's rule base by base, after other trimmers, and against fastp itself."""

import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core.errors import ConfigError
from diffbio.io.sequence import DNA, Record, bucketed, encode, read_sequences, write_fastq
from diffbio.operators.preprocessing.examples.complexity import tail_begin
from diffbio.operators.preprocessing.poly_x import PolyXTrimming, PolyXTrimmingConfig, tail_of

FASTQ = Path("/usr/lib/R/site-library/ShortRead/extdata/E-MTAB-1147/ERR127302_1_subset.fastq.gz")


def with_tails(texts: list[str], letters: str, seed: int) -> list[str]:
    """Return the texts, their ends replaced by tails of 4 to 40 bases, of which some are wrong."""
    random = np.random.default_rng(seed)
    found = []
    for text in texts:
        size = int(random.integers(4, 41))
        tail = np.full(size, random.choice(list(letters)))
        wrong = random.uniform(size=size) < random.choice([0, 0.05, 0.15])
        tail = np.where(wrong, random.choice(list("ACGTN"), size), tail)
        found.append(text[: max(len(text) - size, 0)] + "".join(tail))
    return found


def kept_lengths(data: dict, **options) -> np.ndarray:
    operator = PolyXTrimming(PolyXTrimmingConfig(temperature=1e-2, **options))
    weights = np.asarray(operator.apply(data, {}, None)[0]["base_weights"])
    assert ((weights < 0.01) | (weights > 0.99)).all()
    lengths = (weights > 0.5).sum(1)
    np.testing.assert_array_equal(weights > 0.5, np.arange(weights.shape[1]) < lengths[:, None])
    return lengths


@pytest.mark.parametrize("letters", ["G", "ACGT"])
def test_tails_are_those_of_the_rule(letters: str, certificate) -> None:
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list(DNA), random.integers(5, 70))) for _ in range(600)]
    texts = with_tails(texts, letters, seed=1)
    reads, lengths = encode(texts, DNA)
    found = kept_lengths({"reads": reads, "read_lengths": lengths}, letters=letters)
    expected = [min(tail_begin(np.array(list(text)) == letter) for letter in letters) for text in texts]
    assert 0.3 < np.mean(np.array(expected) < lengths) < 0.95
    different = int((found != expected).sum())
    certificate(
        operator="PolyXTrimming",
        reference="fastp's rule (NumPy)",
        data=f"600 reads with tails, errors and N; tails of {letters}",
        quantity="reads that differ",
        value=different,
        bar="= 0",
    )
    assert different == 0


def test_the_search_begins_where_an_earlier_trimmer_ended() -> None:
    reads, _ = encode(["ACGTACGT" + "G" * 12 + "ACTACT"], DNA)
    weights = np.ones((1, 26), np.float32)
    assert kept_lengths({"reads": reads, "base_weights": weights}) == [26]
    weights[:, 20:] = 0
    assert kept_lengths({"reads": reads, "base_weights": weights}) == [6]  # one T in a tail of 14


def test_n_may_count_as_the_letter() -> None:
    reads, _ = encode(["ACGTACGTNNNGGGGGGGNNN"], DNA)
    assert kept_lengths({"reads": reads}) == [21]
    assert kept_lengths({"reads": reads}, unknown_fits=True) == [6]  # the T is its one mismatch


def test_short_and_empty_reads_stay_as_they_are() -> None:
    (batch,) = bucketed([Record("r", "", "GGGGGGGGG"), Record("s", "", "GGGGGGGGGG")], batch_size=3, buckets=(16,))
    assert kept_lengths(batch.data).tolist() == [9, 0, 0]


def test_derivatives_are_right_and_finite() -> None:
    random = np.random.default_rng(0)
    matches, weights = random.uniform(0.5, 1, (2, 2, 14)).astype(np.float32)

    @jax.jit
    def tails(matches, weights):
        return tail_of(matches, weights, softness=1.0, min_length=5, bases_per_mismatch=3, max_mismatches=3)

    check_grads(tails, (matches, weights), order=1, modes=("rev",), atol=1e-2, rtol=1e-2, eps=1e-3)
    slopes = jax.jit(jax.grad(lambda *x: tails(*x).sum(), argnums=(0, 1)))
    for match in (jnp.zeros((2, 14)), jnp.ones((2, 14))):
        for weight in (jnp.zeros((2, 14)), jnp.ones((2, 14)), 1e6 * jnp.ones((2, 14))):
            assert all(np.isfinite(slope).all() for slope in slopes(match, weight))


def test_other_letters_are_refused() -> None:
    for letters in ("", "GN"):
        with pytest.raises(ConfigError, match="give some of 'ACGT'"):
            PolyXTrimmingConfig(letters=letters)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "options"),
    [({"letters": "G"}, ["-g"]), ({"letters": "ACGT", "min_length": 9, "unknown_fits": True}, ["-G", "-x"])],
)
def test_cuts_are_those_of_fastp(settings: dict, options: list[str], tmp_path: Path, certificate) -> None:
    if not FASTQ.is_file() or shutil.which("fastp") is None:
        pytest.skip("needs Debian's fastp and r-bioc-shortread")
    reads = list(read_sequences(FASTQ))
    tails = with_tails([read.sequence for read in reads[::2]], settings["letters"], seed=0)
    reads += [read._replace(name=f"{read.name}.t", sequence=text) for read, text in zip(reads[::2], tails, strict=True)]
    write_fastq(tmp_path / "in.fastq", reads)
    common = ["-A", "-Q", "-L", "-w", "1", "-j", "/dev/null", "-h", "/dev/null", *options]
    subprocess.run(
        ["fastp", "-i", tmp_path / "in.fastq", "-o", tmp_path / "out.fastq", *common], check=True, capture_output=True
    )
    theirs = {}
    for line in (tmp_path / "out.fastq").read_text().split("@ERR")[1:]:  # reads without any base are written too
        name, sequence = line.split("\n")[:2]
        theirs["ERR" + name.split()[0]] = len(sequence)
    ours = {}
    for batch in bucketed(reads, batch_size=2048):
        ours |= dict(zip(batch.names, kept_lengths(batch.data, **settings).tolist(), strict=False))
    different = [name for name in ours if ours[name] != theirs.get(name, 0)]
    trimmed = sum(theirs.get(read.name, 0) < len(read.sequence) for read in reads)
    certificate(
        operator=f"PolyXTrimming({settings['letters']})",
        reference=f"fastp 0.23.2 {' '.join(options)}",
        data=f"{len(reads)} reads of ERR127302, a third with planted tails ({trimmed} trimmed)",
        quantity="share of reads cut differently",
        value=len(different) / len(reads),
        bar="<= 0.005",
    )
    assert len(different) <= 0.005 * len(reads)  # -x ends a tail only where no other letter would have one either
