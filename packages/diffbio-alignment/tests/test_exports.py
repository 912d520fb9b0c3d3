"""What training learned is read by parasail, Biopython and pyhmmer, and scores there what it scores here."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from Bio.Align import PairwiseAligner, substitution_matrices

from diffbio.core import Pipeline
from diffbio.core.errors import DataError
from diffbio.core.exports import export
from diffbio.io.sequence.alphabets import DNA, PROTEIN, encode
from diffbio.io.sequence.hmmer_files import read_hmm
from diffbio.operators.alignment.pair_hmm import PairHMM, PairHMMConfig
from diffbio.operators.alignment.pairwise import (
    NeedlemanWunschConfig,
    SmithWatermanConfig,
    SmoothNeedlemanWunsch,
    SmoothSmithWaterman,
)
from diffbio.operators.alignment.profile_hmm import ProfileHMM, ProfileHMMConfig
from diffbio.pipelines.alignment.exports import export_profile

parasail = pytest.importorskip("parasail")
REFERENCE = f"parasail {parasail.__version__}"
READS = {"alphabet": DNA, "identity": 0.9999, "gap_open": 3e-5, "gap_extend": 0.1, "end": 1e-3}
ALIGNERS = [(SmoothNeedlemanWunsch, NeedlemanWunschConfig, "nw"), (SmoothSmithWaterman, SmithWatermanConfig, "sw")]


def exported(operator, folder: Path) -> Path:
    (path,) = export(Pipeline(operator, names=["learned"]), folder / "exports")
    return path


def costs_in(path: Path) -> tuple[int, int]:
    """Return the costs of the first and of each further letter of a gap that the comments tell."""
    words = next(line for line in path.read_text().splitlines() if "a gap of n letters costs" in line).split()
    return int(words[-6]), int(words[-1])


def relatives(alphabet: str, length: int, count: int = 6) -> list[tuple[str, str]]:
    """Return pairs of sequences of which one is the other with changes, and gaps of several letters."""
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        one = random.choice(list(alphabet), length)
        other = np.where(random.random(length) < 0.1, random.choice(list(alphabet), length), one)
        begin = random.integers(5, length - 15)
        pairs.append(("".join(one), "".join(np.delete(other, slice(begin, begin + random.integers(1, 8))))))
    return pairs


@pytest.mark.parametrize(("operator", "configuration", "kind"), ALIGNERS)
def test_scores_are_those_of_other_aligners(operator, configuration, kind, tmp_path: Path, certificate) -> None:
    config, random = configuration(gap_open=10.3, gap_extend=1.2, learnable=True), np.random.default_rng(0)
    learned = operator(config)
    learned.substitution[...] += jnp.asarray(random.normal(0, 0.7, (20, 20)), jnp.float32)
    path = exported(learned, tmp_path)
    first, further = costs_in(path)
    assert (path.name, first, further) == ("learned.mat", 31, 4)
    rounded = operator(replace(config, matrix=str(path), gap_open=float(first), gap_extend=float(further)))
    biopython = PairwiseAligner(
        mode="global" if kind == "nw" else "local",
        substitution_matrix=substitution_matrices.read(path),
        open_gap_score=-first,
        extend_gap_score=-further,
    )
    differing = 0
    for one, other in relatives(PROTEIN, 60):
        ours = rounded.hard_alignment(one, other).score
        theirs = getattr(parasail, kind)(one, other, first, further, parasail.Matrix(str(path))).score
        differing += ours != theirs or ours != biopython.score(one, other)
    certificate(
        operator=operator.__name__,
        reference=f"{REFERENCE} and Biopython with the exported matrix",
        data="6 pairs of proteins, 60 residues, random scores",
        quantity="scores that differ",
        value=differing,
        bar="= 0",
    )
    assert differing == 0


@pytest.mark.parametrize(("settings", "length"), [(READS, 150), ({}, 80)], ids=["reads", "BLOSUM62"])
def test_a_pair_hmm_is_a_matrix_for_any_aligner(settings, length, tmp_path: Path, certificate) -> None:
    """The score of parasail is the log-odds of the most likely alignment."""
    hmm = PairHMM(PairHMMConfig(temperature=1e-3, **settings))
    path = exported(hmm, tmp_path)
    alphabet = hmm.config.alphabet
    (constant,) = [float(line.split()[5]) for line in path.read_text().splitlines() if "beside its score" in line]
    pairs = relatives(alphabet, length)
    data = {}
    for name, sequences in zip(("query", "target"), zip(*pairs, strict=True), strict=True):
        data[name], data[f"{name}_length"] = map(jnp.asarray, encode(list(sequences), alphabet, size=length))
    ours = np.asarray(hmm.apply(data, {}, None)[0]["pair_log_odds"])
    matrix = parasail.Matrix(str(path))
    scores = [parasail.nw(one, other, *costs_in(path), matrix).score for one, other in pairs]
    worst = float(np.abs((np.array(scores) + constant) / 100 - ours).max())
    certificate(
        operator="PairHMM",
        reference=f"{REFERENCE} with the exported matrix",
        data=f"6 pairs of {length} letters, {'reads' if settings else 'BLOSUM62'}",
        quantity="log-odds of the most likely alignment, largest difference, bits",
        value=worst,
        bar="<= 0.5",
    )
    assert worst <= 0.5


@pytest.mark.parametrize("identity", [0.9999, 1 - 1e-6, 0.3])
def test_scores_of_rare_changes_are_whole_and_finite(identity: float, tmp_path: Path) -> None:
    hmm = PairHMM(PairHMMConfig(**READS | {"identity": identity, "gap_open": 1e-6, "end": 1e-9}))
    path = exported(hmm, tmp_path)
    matrix = np.asarray(substitution_matrices.read(path).select(DNA))
    expected = np.where(np.eye(4) == 1, np.log2(4 * identity), np.log2(16 * (1 - identity) / 12))
    np.testing.assert_allclose(matrix / 100, expected, atol=0.1 if identity > 0.9999 else 0.006)  # float32 near 1
    assert costs_in(path) == (round(-100 * np.log2(1e-6 * 0.9)), round(-100 * np.log2(0.1)))
    assert "gap_open 1e-06, gap_extend 0.1, end 1e-09;" in path.read_text()


def test_a_profile_scores_in_hmmer_as_here(tmp_path: Path, certificate) -> None:
    pyhmmer = pytest.importorskip("pyhmmer")
    random, amino = np.random.default_rng(0), pyhmmer.easel.Alphabet.amino()
    member = "".join(random.choice(list(PROTEIN), 40))
    sequences = [member, member[:15] + "GGG" + member[15:], member[:10] + member[14:], "MK" + member + "LL"]
    learned = ProfileHMM(ProfileHMMConfig(n_nodes=40))
    learned.initialize(jnp.asarray(encode([member], PROTEIN).letters))
    learned.from_match_logits[...] += jnp.asarray(random.normal(0, 0.3, (40, 3)), jnp.float32)
    path = exported(learned, tmp_path)
    (profile,) = read_hmm(path)
    assert (path.name, profile.name) == ("learned.hmm", "learned")
    with pyhmmer.plan7.HMMFile(path) as file:
        hmm = file.read()
    hmm.evalue_parameters.m_mu = hmm.evalue_parameters.v_mu = hmm.evalue_parameters.f_tau = -9.0  # for its filters
    hmm.evalue_parameters.m_lambda = hmm.evalue_parameters.v_lambda = hmm.evalue_parameters.f_lambda = 0.7
    texts = [pyhmmer.easel.TextSequence(name=f"{i}".encode(), sequence=one) for i, one in enumerate(sequences)]
    block = pyhmmer.easel.DigitalSequenceBlock(amino, [text.digitize(amino) for text in texts])
    options = {"bias_filter": False, "null2": False, "F1": 1.0, "F2": 1.0, "F3": 1.0, "T": -1e6, "domT": -1e6}
    theirs = {int(hit.name): hit.pre_score for hit in pyhmmer.plan7.Pipeline(amino, **options).search_hmm(hmm, block)}
    letters, lengths = encode(sequences, PROTEIN)
    data = {"sequences": jnp.asarray(letters), "sequence_length": jnp.asarray(lengths)}
    ours = np.asarray(learned.apply(data, {}, None)[0]["profile_score"])
    assert sorted(theirs) == [0, 1, 2, 3]
    worst = max(abs(float(ours[number]) - score) for number, score in theirs.items())
    certificate(
        operator="ProfileHMM",
        reference=f"pyhmmer {pyhmmer.__version__} with the exported profile",
        data="4 relatives of a random protein of 40 residues",
        quantity="Forward score, bits, largest difference",
        value=worst,
        bar="<= 0.01",
    )
    assert worst <= 0.01


def test_a_profile_of_other_letters_is_refused(tmp_path: Path) -> None:
    hmm = ProfileHMM(ProfileHMMConfig(n_nodes=2, alphabet="ab"))
    with pytest.raises(DataError, match="letters of profile learned are 'ab'"):
        export_profile(hmm, tmp_path / "learned.hmm", metadata={})
