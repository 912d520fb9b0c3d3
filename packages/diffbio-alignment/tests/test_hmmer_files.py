"""Files of profile HMMs: back to the byte, read by HMMER, and what is wrong with a broken one."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from diffbio.core.errors import DataError
from diffbio.io.sequence.hmmer_files import read_hmm, write_hmm
from diffbio.io.sequence.profiles import Profile

pyhmmer = pytest.importorskip("pyhmmer")
DATA = Path(pyhmmer.__file__).parent / "tests" / "data"
FILES = sorted((DATA / "hmms" / "txt").glob("*.hmm"))
DEBIAN = [
    *sorted(Path("/usr/share/doc/hmmer/examples/tutorial").glob("*.hmm")),
    *sorted(Path("/usr/share/doc/hmmer/examples/testsuite").glob("*.hmm*")),
]


def assert_equal(x: Profile, y: Profile) -> None:
    for field in dataclasses.fields(Profile):
        np.testing.assert_equal(getattr(x, field.name), getattr(y, field.name), err_msg=field.name)


@pytest.fixture
def tiny() -> Profile:
    """A profile of two nodes with all annotation."""
    return Profile(
        name="tiny",
        alphabet="ACGT",
        match=np.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.5, 0.0]], np.float32),
        insert=np.full((3, 4), 0.25, np.float32),
        transitions=np.array([[0.9, 0.05, 0.05, 0.6, 0.4, 1, 0]] * 2 + [[0.9, 0.1, 0, 0.6, 0.4, 1, 0]], np.float32),
        composition=np.full(4, 0.25, np.float32),
        accession="T1.1",
        description="two nodes, of which the second has no T",
        consensus="aG",
        reference="x.",
        mask="-m",
        structure="<>",
        columns=(3, 7),
        max_length=20,
        date="Thu Jan  1 00:00:00 1970",
        commands=("[1] hmmbuild tiny.hmm tiny.sto", "[2] hmmpress tiny.hmm"),
        n_sequences=3,
        effective_sequences=1.5,
        checksum=7,
        cutoffs={"GA": (20.0,)},
        statistics={"MSV": (-8.5, 0.71), "VITERBI": (-9.5, 0.71), "FORWARD": (-3.5, 0.71)},
    )


def check_round_trip(path: Path, folder: Path) -> None:
    original = path.read_bytes()
    original = gzip.decompress(original) if original[:2] == b"\x1f\x8b" else original
    written = folder / "written.hmm"
    profiles = read_hmm(path)
    write_hmm(written, profiles)
    for first, second in zip(profiles, read_hmm(written), strict=True):
        assert_equal(first, second)
    lines = [line for line in original.decode().splitlines() if not line.startswith("HMMER3/f")]
    if original.startswith(b"HMMER3/f"):  # 3/e lacks a column
        again = [line for line in written.read_text().splitlines() if not line.startswith("HMMER3/f")]
        assert [line.rstrip() for line in again] == [line.rstrip() for line in lines]
    with pyhmmer.plan7.HMMFile(path) as theirs, pyhmmer.plan7.HMMFile(written) as ours:
        for hmm, other in zip(theirs, ours, strict=True):
            np.testing.assert_allclose(other.match_emissions, hmm.match_emissions, rtol=1e-5)
            np.testing.assert_allclose(other.transition_probabilities, hmm.transition_probabilities, rtol=1e-5)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_come_back_to_the_byte_and_hmmer_reads_them(path: Path, tmp_path: Path) -> None:
    check_round_trip(path, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN, reason="needs the files of Debian's package hmmer")
@pytest.mark.parametrize("path", DEBIAN, ids=lambda path: path.name)
def test_more_files_come_back(path: Path, tmp_path: Path) -> None:
    check_round_trip(path, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("hmmsearch") is None, reason="needs hmmsearch, of Debian's package hmmer")
def test_hmmsearch_gives_a_written_file_the_same_scores(tmp_path: Path) -> None:
    path = DATA / "hmms" / "txt" / "PF02826.hmm"
    write_hmm(tmp_path / "written.hmm", read_hmm(path))
    tables = []
    for given in (path, tmp_path / "written.hmm"):
        command = [
            "hmmsearch",
            "--tblout",
            str(tmp_path / "table"),
            str(given),
            str(DATA / "seqs" / "938293.PRJEB85.HG003687.faa"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        tables.append([line for line in (tmp_path / "table").read_text().splitlines() if not line.startswith("#")])
    assert tables[0] == tables[1]
    assert len(tables[0]) > 3


def test_all_annotation_and_compression_survive(tiny: Profile, tmp_path: Path) -> None:
    write_hmm(tmp_path / "two.hmm.gz", [tiny, dataclasses.replace(tiny, name="other", structure=None, columns=None)])
    first, second = read_hmm(tmp_path / "two.hmm.gz")
    np.testing.assert_allclose(first.match, tiny.match, rtol=1e-5)
    assert_equal(
        first, dataclasses.replace(tiny, match=first.match, insert=first.insert, transitions=first.transitions,
                                   composition=first.composition)
    )  # fmt: skip
    assert (second.name, second.structure, second.columns) == ("other", None, None)
    with pyhmmer.plan7.HMMFile(tmp_path / "two.hmm.gz") as file:
        hmm = file.read()
    assert (hmm.M, hmm.consensus, hmm.reference, hmm.consensus_structure) == (2, "aG", "x.", "<>")
    assert (hmm.cutoffs.gathering1, hmm.nseq, hmm.checksum) == (20.0, 3, 7)


def test_letters_in_another_order_are_written_in_hmmers(tiny: Profile, tmp_path: Path) -> None:
    turned = dataclasses.replace(tiny, alphabet="TGCA", match=tiny.match[:, ::-1])
    write_hmm(tmp_path / "turned.hmm", [turned])
    np.testing.assert_allclose(read_hmm(tmp_path / "turned.hmm")[0].match, tiny.match, rtol=1e-5)
    with pytest.raises(DataError, match="letters of profile tiny are 'ACGX'"):
        write_hmm(tmp_path / "wrong.hmm", [dataclasses.replace(tiny, alphabet="ACGX")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], r"broken\.hmm, line \d+, model tiny: "),
        (lambda text: text.replace("//\n", ""), "model tiny: the file ends within the model"),
        (lambda text: text.replace("LENG  2", "LENG  3"), "model tiny: expected node 3 of 3, found '//'"),
        (lambda text: text.replace("LENG  2", "LENG  1"), "model tiny: expected // after the 1 nodes"),
        (lambda text: text.replace("LENG  2", "LENG  two"), "model tiny: 'two' is no whole number"),
        (lambda text: text.replace("LENG  2\n", ""), "model tiny: the header has no line LENG"),
        (
            lambda text: text.replace("HMMER3/f", "HMMER2.0"),
            "line 1: found 'HMMER2.0', and can read 'HMMER3/f', 'HMMER3/e'",
        ),
        (lambda text: text.replace("ALPH  DNA", "ALPH  dice"), "the alphabet is 'dice'"),
        (lambda text: text.replace("0.35667", "0.3x667"), r"line \d+, model tiny: '0.3x667' is no number"),
        (lambda text: text.replace(" 0.35667", "-0.35667"), "-0.35667 is the negative logarithm of no probability"),
        (lambda text: text.replace("  0.35667", ""), "model tiny: "),
        (lambda text: "", "has no model"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_model(change, message: str, tiny: Profile, tmp_path: Path) -> None:
    path = tmp_path / "broken.hmm"
    write_hmm(path, [tiny])
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        read_hmm(path)


def test_a_binary_file_is_refused() -> None:
    with pytest.raises(DataError, match="hmmconvert -a"):
        read_hmm(DATA / "hmms" / "bin" / "PF02826.h3m")
