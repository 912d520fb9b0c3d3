"""Scores that are learned from reference alignments, their file, and the commands."""

from pathlib import Path

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from diffbio.cli import make_app
from diffbio.core.errors import DataError
from diffbio.io.sequence import PROTEIN, Alignment, read_alignment, write_alignment
from diffbio.operators.alignment import NeedlemanWunschConfig, SmoothNeedlemanWunsch, substitution_matrix
from diffbio.pipelines.alignment.exports import write_scores
from diffbio.pipelines.alignment.reference_pairs import ReferencePairs
from diffbio.pipelines.alignment.scores import HALF_BITS, learn_scores, pairs_recovered

FAMILIES = Path("/usr/share/doc/hmmer/examples")
"""Of Debian's package hmmer-examples: curated seeds of Pfam."""

CONFIG = NeedlemanWunschConfig(temperature=float(HALF_BITS), learnable=True)


def invented_family(seed: int, n_sequences: int = 8, length: int = 40) -> Alignment:
    """Return relatives in which W always became C, which BLOSUM62 takes for a rare change, and gaps are short."""
    random = np.random.default_rng(seed)
    ancestor = random.choice(list(PROTEIN), length)
    rows = []
    for number in range(n_sequences):
        row = np.where(random.random(length) < 0.5, random.choice(list(PROTEIN), length), ancestor)
        row = np.where((ancestor == "W") & (number % 2 == 0), "C", row)
        row[random.random(length) < 0.08] = "-"
        rows.append("".join(row))
    return Alignment([f"s{number}" for number in range(n_sequences)], rows)


@pytest.mark.slow
def test_learning_raises_what_is_recovered_of_other_families(tmp_path: Path) -> None:
    families = {f"family {seed}": invented_family(seed) for seed in range(6)}
    learned = learn_scores(families, CONFIG, key=jax.random.key(0), epochs=3, progress=False)
    others = {f"family {seed}": invented_family(seed) for seed in range(10, 13)}
    pairs = ReferencePairs(others, PROTEIN, 28, np.random.default_rng(0))
    before, after = (pairs_recovered(aligner, pairs) for aligner in (SmoothNeedlemanWunsch(CONFIG), learned))
    print(f"aligned residues recovered: BLOSUM62 11/1 {before:.3f}, learned {after:.3f}")
    assert after > before


def test_the_file_is_read_by_parasail_and_by_us(tmp_path: Path) -> None:
    parasail = pytest.importorskip("parasail")
    path = tmp_path / "scores.mat"
    gap_open, gap_extend = write_scores(path, SmoothNeedlemanWunsch(CONFIG), "BLOSUM62 itself")
    assert (gap_open, gap_extend) == (33, 3)
    np.testing.assert_array_equal(substitution_matrix(str(path), PROTEIN), 3 * substitution_matrix("BLOSUM62", PROTEIN))
    found = parasail.sw("HEAGAWGHEE", "PAWHEAE", gap_open, gap_extend, parasail.Matrix(str(path)))
    assert found.score == 3 * parasail.sw("HEAGAWGHEE", "PAWHEAE", 11, 1, parasail.blosum62).score
    assert "a gap of n letters costs 33 + (n - 1) 3" in path.read_text()


def test_the_commands_align_and_learn(tmp_path: Path) -> None:
    app, run = make_app(), CliRunner()
    sequences, aligned = tmp_path / "some.fasta", tmp_path / "some.sto"
    sequences.write_text(">a\nHEAGAWGHEE\n>b\nHEAWGHEE\n>c\nHEAGWGHEE\n")
    outcome = run.invoke(app, ["align", str(sequences), "--out", str(aligned)])
    assert outcome.exit_code == 0, outcome.output
    found = read_alignment(aligned)
    assert found.names == ["a", "b", "c"]
    assert found.sequences == ["HEAGAWGHEE", "HEAWGHEE", "HEAGWGHEE"]
    learned = tmp_path / "learned.mat"
    options = ["--held-out", str(aligned), "--out", str(learned), "--epochs", "1"]
    outcome = run.invoke(app, ["learn-scores", str(aligned), *options])
    assert outcome.exit_code == 0, outcome.output
    assert "some.sto" in outcome.output
    assert learned.exists()


@pytest.mark.parametrize("suffix", [".sto", ".fasta", ".aln"])
def test_alignments_come_back_from_files(tmp_path: Path, suffix: str) -> None:
    family = Alignment(["one", "two"], ["AC-DE", "A-CDE"])
    write_alignment(tmp_path / f"family{suffix}", family)
    assert read_alignment(tmp_path / f"family{suffix}") == family


def test_bad_alignments_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*absent\.sto"):
        read_alignment(tmp_path / "absent.sto")
    (tmp_path / "empty.sto").write_text("")
    with pytest.raises(DataError, match=r"empty\.sto holds no alignment"):
        read_alignment(tmp_path / "empty.sto")
    (tmp_path / "ragged.fasta").write_text(">a\nAC\n>b\nACD\n")
    with pytest.raises(DataError, match=r"ragged\.fasta can't be read as an alignment"):
        read_alignment(tmp_path / "ragged.fasta")
    (tmp_path / "family.xyz").write_text("")
    with pytest.raises(DataError, match=r"the suffix '\.xyz'"):
        read_alignment(tmp_path / "family.xyz")
    with pytest.raises(DataError, match="rows of an alignment have one length"):
        write_alignment(tmp_path / "out.sto", Alignment(["a", "b"], ["A", "AC"]))
    with pytest.raises(DataError, match="aligns a single sequence"):
        ReferencePairs({"lonely": Alignment(["a"], ["AC"])}, PROTEIN, 1, np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.skipif(not FAMILIES.exists(), reason="needs Debian's hmmer-examples")
def test_learned_scores_beat_blosum62_on_families_held_out(certificate) -> None:
    known = ["tutorial/fn3.sto", "tutorial/Pkinase.sto", "tutorial/globins4.sto", "testsuite/RRM_1.sto.gz"]
    families = {name: read_alignment(FAMILIES / name) for name in known}
    learned = learn_scores(families, CONFIG, key=jax.random.key(0), epochs=4, pairs_per_family=64, progress=False)
    shares = []
    for name in ("LuxC", "Patched", "Caudal_act"):
        family = {name: read_alignment(FAMILIES / "testsuite" / f"{name}.sto.gz")}
        pairs = ReferencePairs(family, PROTEIN, 64, np.random.default_rng(0))
        shares.append([pairs_recovered(aligner, pairs) for aligner in (SmoothNeedlemanWunsch(CONFIG), learned)])
        print(f"{name}: BLOSUM62 11/1 {shares[-1][0]:.3f}, learned {shares[-1][1]:.3f}")
    before, after = np.mean(shares, 0)
    certificate(
        operator="SmoothNeedlemanWunsch",
        reference="BLOSUM62, 11/1",
        data="LuxC, Patched and Caudal_act of Pfam; learned from fn3, Pkinase, globins4 and RRM_1",
        quantity="mean share of aligned residues recovered by learned scores, less that of the reference",
        value=after - before,
        bar="> 0",
    )
    assert after > before
