"""The best alignment beside parasail's, on real and random proteins, and as a CIGAR."""

import re
from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.io.sequence import PROTEIN, encode
from diffbio.operators.alignment import (
    GLOBAL,
    LOCAL,
    SEMI_GLOBAL,
    Ends,
    Pair,
    best_path,
    substitution_matrix,
    substitution_scores,
    written_out,
)

# hemoglobin alpha and beta and myoglobin of man, the beginning of cytochrome c of horse (UniProt P69905, P68871,
# P02144, P00004)
SEQUENCES = [
    "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALSALSDLHAHKLRVDPVNFKLLSHCLLVTLAAHLPAEFTPAVHASLDKFLASVSTVLTSKYR",
    "MVHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLDNLKGTFATLSELHCDKLHVDPENFRLLGNVLVCVLAHHFGKEFTPPVQAAYQKVVAGVANALAHKYH",
    "MGLSDGEWQLVLNVWGKVEADIPGHGQEVLIRLFKGHPETLEKFDKFKHLKSEDEMKASEDLKKHGATVLTALGGILKKKGHHEAEIKPLAQSHATKHKIPVKYLEFISECIIQVLQSKHPGDFGADAQGAMNKALELFRKDMASNYKELGFQG",
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


def all_pairs() -> list[tuple[str, str]]:
    """Return pairs of real proteins, of their parts, and of random sequences."""
    random = np.random.default_rng(0)
    invented = ["".join(random.choice(list(PROTEIN), size)) for size in (1, 7, 40, 150)]
    parts = [SEQUENCES[0][30:90], SEQUENCES[2][:50]]
    everything = [*SEQUENCES, *invented, *parts]
    return [(a, b) for a in everything for b in everything]


def paths_of(pairs: list[tuple[str, str]], gap_open: float, gap_extend: float, ends: Ends):
    queries, targets = (encode([pair[side] for pair in pairs], size=160) for side in range(2))
    matrix = jnp.asarray(substitution_matrix("BLOSUM62", PROTEIN))

    @jax.vmap
    def best(x, y, lengths):
        scores = substitution_scores(x, y, matrix)
        return best_path(Pair(scores, jnp.float32(gap_open), jnp.float32(gap_extend), lengths), ends)

    lengths = np.stack([queries.lengths, targets.lengths], axis=1)
    paths = jax.tree.map(np.asarray, best(queries.letters, targets.letters, lengths))
    return [jax.tree.map(lambda values, n=n: values[n], paths) for n in range(len(pairs))]


def rescored(alignment, gap_open: float, gap_extend: float) -> float:
    """Return the score of what is written, counted letter by letter."""
    matrix = substitution_matrix("BLOSUM62", PROTEIN)
    score = 0.0
    for symbol, run in groupby(zip(alignment.query, alignment.target, strict=True), key=lambda pair: pair.index("-") if "-" in pair else 2):
        letters = list(run)
        if symbol == 2:
            score += sum(matrix[PROTEIN.index(a), PROTEIN.index(b)] for a, b in letters)
        else:
            score -= gap_open + (len(letters) - 1) * gap_extend
    return score


@pytest.mark.parametrize("costs", [(11, 1), (5, 5)], ids=["affine", "linear"])
@pytest.mark.parametrize("mode", MODES)
def test_scores_are_parasails_and_the_alignment_has_them(mode: str, costs: tuple[int, int]) -> None:
    parasail = pytest.importorskip("parasail")
    pairs = all_pairs()
    align = getattr(parasail, f"{mode}_scan_32")
    expected = [align(*pair, *costs, parasail.blosum62).score for pair in pairs]
    paths = paths_of(pairs, *costs, MODES[mode])
    scores = [float(path.score) for path in paths]
    assert scores == [max(score, 0) if mode == "sw" else score for score in expected]
    for (query, target), path in zip(pairs, paths, strict=True):
        alignment = written_out(path, query, target)
        assert rescored(alignment, *costs) == alignment.score
        consumed = {symbol: sum(int(n) for n, s in re.findall(r"(\d+)(.)", alignment.cigar) if s in symbol) for symbol in ("=XI", "=XD")}
        assert consumed["=XI"] == alignment.query_end - alignment.query_begin
        assert consumed["=XD"] == alignment.target_end - alignment.target_begin
        assert alignment.query.replace("-", "") == query[alignment.query_begin : alignment.query_end]
        if mode == "nw":
            assert (alignment.query_begin, alignment.target_begin) == (0, 0)
            assert (alignment.query_end, alignment.target_end) == (len(query), len(target))


def test_nothing_alike_is_an_empty_local_alignment() -> None:
    (path,) = paths_of([("W", "P")], 11, 1, LOCAL)
    assert float(path.score) == 0
    assert written_out(path, "W", "P").cigar == ""
