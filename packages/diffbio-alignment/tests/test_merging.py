"""Merging of pairs, against fastp and the formulas of Edgar and Flyvbjerg."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from real_reads import ERR127302, READ_THROUGH, Record, load, parsed, reverse_complement, save, some_reads
from test_pairs import in_parts, paired

from diffbio.operators.preprocessing.merging import CalledRead, MergedReads, ReadMerging, ReadMergingConfig, merged


def spelled(letters: np.ndarray) -> str:
    return "".join("ACGT"[code] for code in letters.argmax(-1))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["read-through", "ERR127302"])
def test_all_real_pairs_are_merged_as_by_fastp(source: str, tmp_path: Path, certificate) -> None:
    """Where the reads disagree, fastp takes that of the first one, and diffbio the likelier base; all else is equal."""
    program = shutil.which("fastp")
    if program is None:
        pytest.skip("fastp is not installed (apt install fastp)")
    names = {
        "read-through": [READ_THROUGH / f"reads_{end}.fq.gz" for end in (1, 2)],
        "ERR127302": [ERR127302 / f"ERR127302_{end}_subset.fastq.gz" for end in (1, 2)],
    }
    first, second = (load(path) for path in names[source])
    files = [save(tmp_path / f"reads_{end}.fastq", records) for end, records in enumerate((first, second))]
    out = [str(tmp_path / f"{name}.fastq") for name in ("merged", "out_1", "out_2")]
    command = [program, "-m", "-j", "/dev/null", "-h", "/dev/null", "-w", "1", "-G", "-Q", "-L"]
    for option, file in zip(("-i", "-I", "--merged_out", "-o", "-O"), (*files, *out), strict=True):
        command += [option, str(file)]
    subprocess.run(command, check=True, capture_output=True)
    expected = parsed(Path(out[0]).read_text())

    data = paired(first, second)
    found = in_parts(ReadMerging(ReadMergingConfig(temperature=1e-4)), data, size=500)
    counts: Counter[str] = Counter()
    for number, (read, mate) in enumerate(zip(first, second, strict=True)):
        length = int((found["merged_base_weights"][number] > 0.5).sum())
        wanted = expected[read.name].sequence if read.name in expected else ""
        counts["pairs decided or cut otherwise"] += len(wanted) != length
        ours = spelled(found["merged_reads"][number, :length])
        for place in (place for place, letters in enumerate(zip(wanted, ours, strict=False)) if len(set(letters)) > 1):
            other = length - 1 - place
            called = [r.sequence[i : i + 1] for r, i in ((read, place), (mate, other))]
            better = "" in called or data["mate_qualities"][number, other] >= data["qualities"][number, place]
            counts["unexplained" if not better and "N" not in called else "mate is as good, or N"] += 1
        counts["bases"] += length
    print(dict(counts))
    certificate(
        operator="ReadMerging",
        reference="fastp 0.23.2 --merge",
        data=f"{source}, {len(expected)} merged pairs of {len(first)}",
        quantity="share of pairs of another length",
        value=counts["pairs decided or cut otherwise"] / len(first),
        bar="<= 0.005",
    )
    certificate(
        operator="ReadMerging",
        reference="fastp 0.23.2 --merge",
        data=f"{source}, {counts['bases']} merged bases",
        quantity="share of bases that differ although the read's is the better one",
        value=counts["unexplained"] / counts["bases"],
        bar="0",
    )
    assert counts["pairs decided or cut otherwise"] <= 0.005 * len(first)
    assert counts["unexplained"] == 0


def test_qualities_are_the_posteriors_of_edgar_and_flyvbjerg() -> None:
    """Their formulas for an agreement, and for a disagreement in which x is the better base."""
    x, y = 10 ** (-3.0), 10 ** (-1.2)
    agree = x * y / 3 / (1 - x - y + 4 * x * y / 3)
    differ = x * (1 - y / 3) / (x + y - 4 * x * y / 3)
    letters = jnp.eye(4)[jnp.array([0, 1])]
    mate = jnp.eye(4)[jnp.array([0, 3])]  # turned round: A agrees with A, T disagrees with C
    read = CalledRead(letters, jnp.full(2, 30.0), jnp.ones(2))
    found = merged(read, CalledRead(mate, jnp.full(2, 12.0), jnp.ones(2)), jnp.eye(5)[2])
    np.testing.assert_allclose(found.merged_qualities[:2], -10 * np.log10([agree, differ]), rtol=1e-4)
    assert spelled(np.asarray(found.merged_reads[:2])) == "AC"


def test_merged_real_reads_are_the_inserts() -> None:
    known = [record for record in some_reads() if "N" not in record.sequence]
    first = [Record(record.name, record.sequence[:50], "I" * 50) for record in known]
    second = [Record(record.name, reverse_complement(record.sequence)[:55], "5" * 55) for record in known]
    data = paired(first, second)
    found = ReadMerging(ReadMergingConfig(temperature=1e-3)).apply(data, {}, None)[0]
    lengths = (np.asarray(found["merged_base_weights"]) > 0.5).sum(1)
    rows = zip(np.asarray(found["merged_reads"]), lengths, strict=True)
    assert [spelled(row[:length]) for row, length in rows] == [record.sequence for record in known]


def test_gradients() -> None:
    random = np.random.default_rng(0)
    reads = [random.dirichlet(np.full(4, 0.5), 4) for _ in range(2)]
    qualities = [random.uniform(4, 30, 4) for _ in range(2)]
    weights = [random.uniform(0.3, 0.9, 4) for _ in range(2)]
    lengths = random.dirichlet(np.ones(9))

    def outputs(*arrays: jax.Array) -> MergedReads:
        return merged(CalledRead(*arrays[:3]), CalledRead(*arrays[3:6]), arrays[6])

    read, mate = zip(reads, qualities, weights, strict=True)
    with jax.enable_x64(True):
        check_grads(outputs, (*read, *mate, lengths), order=1, modes=["rev"], rtol=1e-3)
    nothing = (jnp.zeros((4, 4)), jnp.zeros(4), jnp.zeros(4))
    slopes = jax.grad(lambda *x: outputs(*x).merged_qualities.sum(), argnums=range(7))(*nothing, *nothing, jnp.zeros(9))
    assert all(np.isfinite(slope).all() for slope in slopes)
