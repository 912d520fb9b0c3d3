"""The best alignment beside parasail's, on real and random sequences, and as a CIGAR."""

import re
from collections.abc import Iterator
from functools import partial
from itertools import combinations, groupby
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from Bio import SeqIO

from diffbio.io.sequence import DNA, PROTEIN, encode
from diffbio.operators.alignment import (
    GLOBAL,
    LOCAL,
    SEMI_GLOBAL,
    Ends,
    HardAlignment,
    Pair,
    best_path,
    log_partition,
    substitution_matrix,
    substitution_scores,
    written_out,
)

parasail = pytest.importorskip("parasail")

GLOBINS = Path("/usr/share/doc/hmmer/examples/tutorial/globins45.fa")
"""Of Debian's package hmmer-examples."""

# hemoglobin alpha and beta and myoglobin of man, the beginning of cytochrome c of horse (UniProt P69905, P68871,
# P02144, P00004)
SEQUENCES = [
    "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALSALSDLHAHKLRVDPVNFKLLSHCLL"
    "VTLAAHLPAEFTPAVHASLDKFLASVSTVLTSKYR",
    "MVHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLDNLKGTFATLSELHCDKLHVDPENFRLL"
    "GNVLVCVLAHHFGKEFTPPVQAAYQKVVAGVANALAHKYH",
    "MGLSDGEWQLVLNVWGKVEADIPGHGQEVLIRLFKGHPETLEKFDKFKHLKSEDEMKASEDLKKHGATVLTALGGILKKKGHHEAEIKPLAQSHATKHKIPVKYLEF"
    "ISECIIQVLQSKHPGDFGADAQGAMNKALELFRKDMASNYKELGFQG",
    "MGDVEKGKKIFVQKCAQCHTVEKGGKHKTGPNLHGLFGRKTGQAPGFTYTDANKNKGITWKEETLMEYLENPKKYIPGTKMIFAGIKKKEREDLIAYLKKATNE",
]
MODES = {
    "sw": LOCAL,
    "nw": GLOBAL,
    "sg": SEMI_GLOBAL,
    "sg_qx": Ends(x_begin=True, x_end=True),
    "sg_dx": Ends(y_begin=True, y_end=True),
    "sg_qb_de": Ends(x_begin=True, y_end=True),
}
AFFINE, LINEAR = (11, 1), (5, 5)
MATRICES = {PROTEIN: ("BLOSUM62", parasail.blosum62), DNA: ("NUC.4.4", parasail.nuc44)}

Sides = list[tuple[str, str]]


def small_pairs() -> Sides:
    """Return pairs of real proteins, of their parts, and of random sequences."""
    random = np.random.default_rng(0)
    invented = ["".join(random.choice(list(PROTEIN), size)) for size in (1, 7, 40, 150)]
    parts = [SEQUENCES[0][30:90], SEQUENCES[2][:50]]
    everything = [*SEQUENCES, *invented, *parts]
    return [(a, b) for a in everything for b in everything]


def random_pairs(n_pairs: int, alphabet: str, longest: int) -> Sides:
    """Return pairs of 10 letters to the longest, half of them relatives: the second a changed copy of the first."""
    random = np.random.default_rng(1)
    letters = list(alphabet)
    pairs = []
    for number in range(n_pairs):
        first = random.choice(letters, int(np.exp(random.uniform(np.log(10), np.log(longest)))))
        if number % 2:
            kept = first[random.random(len(first)) > 0.05]
            second = np.where(random.random(len(kept)) < 0.3, random.choice(letters, len(kept)), kept)
        else:
            second = random.choice(letters, int(np.exp(random.uniform(np.log(10), np.log(longest)))))
        pairs.append(("".join(first), "".join(second) or alphabet[0]))
    return pairs


def real_proteins(n_pairs: int) -> Sides:
    """Return pairs of a bacterium's proteins, of 10 to 2,000 residues."""
    pyhmmer = pytest.importorskip("pyhmmer")
    file = Path(pyhmmer.__file__).parent / "tests" / "data" / "seqs" / "938293.PRJEB85.HG003687.faa"
    found = [str(record.seq).rstrip("*").upper() for record in SeqIO.parse(file, "fasta")]
    usable = [sequence for sequence in found if 10 <= len(sequence) <= 2000 and set(sequence) <= set(PROTEIN)]
    chosen = np.random.default_rng(2).choice(len(usable), (n_pairs, 2))
    return [(usable[first], usable[second]) for first, second in chosen]


@partial(jax.jit, static_argnames=("size", "alphabet", "ends", "result"))
def of_pairs(letters, lengths, costs, size, alphabet, ends, result):
    matrix = jnp.asarray(substitution_matrix(MATRICES[alphabet][0], alphabet))

    def of_one(pair):
        scores = substitution_scores(pair[0][0], pair[0][1], matrix)
        return result(Pair(scores, costs[0], costs[1], pair[1]), ends)

    return jax.lax.map(of_one, (letters, lengths))


def found_for(pairs: Sides, costs: tuple[float, float], ends: Ends, *, alphabet: str = PROTEIN, result=best_path):
    """Yield what a function finds for each pair, in the order of their lengths, padded to the next power of two."""
    bucket = [max(32, 1 << (max(map(len, pair)) - 1).bit_length()) for pair in pairs]
    for size in sorted(set(bucket)):
        chosen = [pair for pair, room in zip(pairs, bucket, strict=True) if room == size]
        for first in range(0, len(chosen), 100):
            some = chosen[first : first + 100]
            sides = [encode([pair[side] for pair in some], alphabet, size=size) for side in range(2)]
            letters = np.stack([side.letters for side in sides], 1)
            lengths = np.stack([side.lengths for side in sides], 1)
            found = of_pairs(letters, lengths, tuple(map(jnp.float32, costs)), size, alphabet, ends, result)
            found = jax.tree.map(np.asarray, found)
            for number, pair in enumerate(some):
                yield pair, jax.tree.map(lambda values, number=number: values[number], found)


def rescored(alignment: HardAlignment, costs: tuple[float, float], alphabet: str) -> float:
    """Return the score of what is written, counted letter by letter."""
    matrix = substitution_matrix(MATRICES[alphabet][0], alphabet)
    score = 0.0
    steps = zip(alignment.query, alignment.target, strict=True)
    for symbol, run in groupby(steps, key=lambda pair: pair.index("-") if "-" in pair else 2):
        letters = list(run)
        if symbol == 2:
            score += sum(matrix[alphabet.index(a), alphabet.index(b)] for a, b in letters)
        else:
            score -= costs[0] + (len(letters) - 1) * costs[1]
    return score


def compared(pairs: Sides, mode: str, costs: tuple[int, int], alphabet: str = PROTEIN) -> Iterator[tuple[float, float]]:
    """Yield parasail's score and ours, having held the alignment to it."""
    # the striped kernels of 1.3.4 miss the best score by 1 or so where both gap costs are equal; these do not
    align = getattr(parasail, f"{mode}_scan_32")
    for (query, target), path in found_for(pairs, costs, MODES[mode], alphabet=alphabet):
        alignment = written_out(path, query, target)
        assert rescored(alignment, costs, alphabet) == alignment.score
        lengths = {
            symbols: sum(int(n) for n, symbol in re.findall(r"(\d+)(.)", alignment.cigar) if symbol in symbols)
            for symbols in ("=XI", "=XD")
        }
        assert lengths["=XI"] == alignment.query_end - alignment.query_begin
        assert lengths["=XD"] == alignment.target_end - alignment.target_begin
        assert alignment.query.replace("-", "") == query[alignment.query_begin : alignment.query_end]
        if mode == "nw":
            assert (alignment.query_begin, alignment.target_begin) == (0, 0)
            assert (alignment.query_end, alignment.target_end) == (len(query), len(target))
        expected = align(query, target, *costs, MATRICES[alphabet][1]).score
        yield max(expected, 0) if mode == "sw" else expected, float(path.score)


@pytest.mark.parametrize(
    "costs", [pytest.param(AFFINE, id="affine"), pytest.param(LINEAR, id="linear", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("mode", MODES)
def test_scores_are_parasails_and_the_alignment_has_them(mode: str, costs: tuple[int, int]) -> None:
    scores = list(compared(small_pairs(), mode, costs))
    assert len(scores) == 100
    assert [ours for _, ours in scores] == [parasails for parasails, _ in scores]


def test_the_smooth_score_becomes_parasails(certificate) -> None:
    softness = 0.02
    scaled = tuple(cost / softness for cost in AFFINE)

    for name, operator, ends in (("sw", "SmoothSmithWaterman", LOCAL), ("nw", "SmoothNeedlemanWunsch", GLOBAL)):

        def smooth(pair: Pair, ends: Ends) -> jax.Array:
            return softness * log_partition(pair._replace(scores=pair.scores / softness), ends)

        align = getattr(parasail, f"{name}_scan_32")
        found = found_for(small_pairs(), scaled, ends, result=smooth)
        errors = [
            abs(round(float(ours)) - max(align(*pair, *AFFINE, parasail.blosum62).score, 0 if name == "sw" else -1e9))
            for pair, ours in found
        ]
        certificate(
            operator=operator,
            reference="parasail 1.3.4",
            data="100 pairs of globins, cytochrome c, their parts and random proteins, BLOSUM62, 11/1",
            quantity="pairs whose score at softness 0.02 rounds to another one",
            value=float(np.count_nonzero(errors)),
            bar="0",
        )
        assert not any(errors)


@pytest.mark.slow
@pytest.mark.skipif(not GLOBINS.exists(), reason="needs Debian's hmmer-examples")
def test_all_pairs_of_globins(certificate) -> None:
    globins = [str(record.seq).upper() for record in SeqIO.parse(GLOBINS, "fasta")]
    pairs = [pair for pair in combinations(globins, 2) if set("".join(pair)) <= set(PROTEIN)]
    scores = list(compared(pairs, "sw", AFFINE))
    different = sum(ours != parasails for parasails, ours in scores)
    certificate(
        operator="SmoothSmithWaterman",
        reference="parasail 1.3.4",
        data=f"{len(pairs)} pairs of the 45 globins, BLOSUM62, 11/1",
        quantity="best paths with another score",
        value=float(different),
        bar="0",
    )
    assert different == 0


@pytest.mark.slow
@pytest.mark.parametrize("costs", [AFFINE, LINEAR], ids=["affine", "linear"])
@pytest.mark.parametrize("mode", ["sw", "nw", "sg"])
@pytest.mark.parametrize("kind", ["real proteins", "random proteins", "random DNA"])
def test_thousand_pairs(certificate, kind: str, mode: str, costs: tuple[int, int]) -> None:
    alphabet = DNA if kind == "random DNA" else PROTEIN
    pairs = real_proteins(1000) if kind == "real proteins" else random_pairs(1000, alphabet, 2000)
    different = sum(ours != parasails for parasails, ours in compared(pairs, mode, costs, alphabet))
    certificate(
        operator="SmoothSmithWaterman" if mode == "sw" else "SmoothNeedlemanWunsch",
        reference="parasail 1.3.4",
        data=f"1,000 pairs of {kind} of 10 to 2,000 letters, {MATRICES[alphabet][0]}, {costs[0]}/{costs[1]}",
        quantity={"sw": "local", "nw": "global", "sg": "semi-global"}[mode] + " best paths with another score",
        value=float(different),
        bar="0",
    )
    assert different == 0


def test_nothing_alike_is_an_empty_local_alignment() -> None:
    ((pair, path),) = found_for([("W", "P")], AFFINE, LOCAL)
    assert float(path.score) == 0
    assert written_out(path, *pair).cigar == ""
