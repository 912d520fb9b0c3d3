"""Letters as arrays and back: nothing is lost, nothing is invented, and it is fast."""

import time

import numpy as np
import pytest

from diffbio.core.errors import DataError
from diffbio.io.sequence import AMBIGUOUS, DNA, PROTEIN, RNA, decode, encode, encode_indices

hypothesis = pytest.importorskip("hypothesis")
strategies = hypothesis.strategies


def texts(alphabet: str) -> "hypothesis.strategies.SearchStrategy[list[str]]":
    """Return lists of sequences of letters, and of codes that stand for several."""
    codes = [code for code, letters in AMBIGUOUS[alphabet].items() if len(letters) > 1]
    return strategies.lists(strategies.text(alphabet + "".join(codes), min_size=1, max_size=9), min_size=1, max_size=5)


@pytest.mark.parametrize("alphabet", [DNA, RNA, PROTEIN])
def test_what_is_encoded_decodes_to_itself(alphabet: str) -> None:
    @hypothesis.settings(max_examples=60, deadline=None)
    @hypothesis.given(texts(alphabet), strategies.integers(0, 3))
    def round_trip(sequences: list[str], padding: int) -> None:
        size = max(map(len, sequences)) + padding
        letters, lengths = encode([sequence.lower() for sequence in sequences], alphabet, size=size)
        np.testing.assert_allclose(letters.sum(-1), np.arange(size) < lengths[:, None], rtol=1e-6)
        assert decode(letters, lengths, alphabet) == sequences
        certain = ["".join(letter for letter in sequence if letter in alphabet) or alphabet for sequence in sequences]
        codes, lengths = encode_indices(certain, alphabet)
        found = ["".join(alphabet[code] for code in row[:end]) for row, end in zip(codes, lengths, strict=True)]
        assert found == certain
        assert (codes[np.arange(codes.shape[1]) >= lengths[:, None]] == -1).all()

    round_trip()


def test_uncertain_letters_decode_to_the_nearest_code() -> None:
    letters = np.array([[[0.9, 0.04, 0.03, 0.03], [0.45, 0, 0.55, 0], [0.3, 0.2, 0.25, 0.25], [0.34, 0.33, 0.33, 0]]])
    assert decode(letters, None, DNA) == ["ARNV"]
    with pytest.raises(DataError, match=r"shape \(1, 4, 4\), and \(sequences, positions, 20\) is wanted"):
        decode(letters)


def test_a_code_of_several_letters_has_a_number_only_where_one_is_given() -> None:
    with pytest.raises(DataError, match=r"sequence 1 has 'N' at position 2, .*give ambiguous=-1"):
        encode_indices(["ACGT", "AN"], DNA)
    assert encode_indices(["AN", "u"], DNA, ambiguous=4).codes.tolist() == [[0, 4], [3, -1]]
    with pytest.raises(DataError, match="sequence 0 has 'J' at position 1"):
        encode_indices(["J"], DNA, ambiguous=4)
    with pytest.raises(DataError, match="sequence 0 is empty"):
        encode_indices([""], DNA)
    assert encode([], DNA, size=3).letters.shape == (0, 3, 4)


@pytest.mark.slow
def test_a_hundred_thousand_bases_are_encoded_within_ten_milliseconds(certificate) -> None:
    sequence = "".join(np.random.default_rng(0).choice(list(DNA), 100_000))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        encode([sequence], DNA)
        seconds.append(time.perf_counter() - start)
    certificate(
        operator="encode",
        reference="a clock",
        data="100 kb of DNA",
        quantity="milliseconds",
        value=1e3 * min(seconds),
        bar="<= 10",
    )
