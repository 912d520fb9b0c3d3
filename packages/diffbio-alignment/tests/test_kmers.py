"""Words of k letters: the counts of a dictionary for certain letters, expectations for uncertain ones."""

from collections import Counter
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core.errors import DataError
from diffbio.io.sequence import (
    DNA,
    PROTEIN,
    RNA,
    encode,
    encode_indices,
    kmer_counts,
    kmer_counts_of_codes,
    kmers,
    reverse_complement,
    reverse_complement_of,
)

Seq = pytest.importorskip("Bio.Seq")
RANDOM = np.random.default_rng(0)
TEXTS = ["".join(RANDOM.choice(list(DNA), size)) for size in (40, 25, 3, 1)]


@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_certain_letters_give_the_counts_of_a_dictionary(k: int, canonical: bool) -> None:
    letters, _ = encode(TEXTS, DNA)
    codes, _ = encode_indices(TEXTS, DNA)
    words = kmers(k, canonical=canonical)
    for row, text in enumerate(TEXTS):
        found = [text[place : place + k] for place in range(len(text) - k + 1)]
        if canonical:
            found = [min(word, Seq.reverse_complement(word)) for word in found]
        expected = [Counter(found)[word] for word in words]
        np.testing.assert_array_equal(kmer_counts(letters, k, canonical=canonical)[row], expected)
        np.testing.assert_array_equal(kmer_counts_of_codes(codes, k, canonical=canonical)[row], expected)


def test_uncertain_letters_give_expectations_and_their_derivatives() -> None:
    letters = RANDOM.dirichlet(np.ones(4), 5).astype(np.float32)
    weights = RANDOM.uniform(size=5).astype(np.float32)
    expected = np.zeros(64)
    for text in product(range(4), repeat=5):  # all sequences, with their probabilities
        chance = np.prod([letters[place, letter] for place, letter in enumerate(text)])
        for place in range(3):
            word = 16 * text[place] + 4 * text[place + 1] + text[place + 2]
            expected[word] += chance * weights[place : place + 3].prod()
    np.testing.assert_allclose(kmer_counts(letters, 3, weights), expected, atol=1e-6)
    check_grads(lambda x: kmer_counts(x, 3, weights), (letters,), order=1, modes=("rev",), atol=1e-2, rtol=1e-2)
    assert np.isfinite(jax.grad(lambda x: kmer_counts(x, 3).sum())(jnp.zeros((5, 4)))).all()


def test_words_of_proteins_are_counted_and_bad_words_refused() -> None:
    counts = kmer_counts(encode(["MKVMK"], PROTEIN).letters, 2)
    assert counts.shape == (1, 400)
    assert int(counts[0, PROTEIN.index("M") * 20 + PROTEIN.index("K")]) == 2
    for k in (0, 6):
        with pytest.raises(DataError, match=f"words of {k} letters in sequences of 5 positions; give k from 1 to 5"):
            kmer_counts(jnp.ones((5, 4)), k)
    with pytest.raises(DataError, match="fewer than 2\\^31 words"):
        kmer_counts_of_codes(jnp.zeros(20, int), 16)
    with pytest.raises(DataError, match="words of 20 letters have no reverse complements"):
        kmer_counts(encode(["MKVMK"], PROTEIN).letters, 2, canonical=True)


def test_reverse_complements_are_those_of_biopython() -> None:
    text = "ACGTRYSWKMBDHVNacgtryswkmbdhvn"
    assert reverse_complement_of(text) == Seq.reverse_complement(text)
    assert reverse_complement_of(text.replace("T", "U"), RNA) == Seq.reverse_complement_rna(text.replace("T", "U"))
    letters, lengths = encode(TEXTS, DNA, size=50)
    opposite, _ = encode([Seq.reverse_complement(text) for text in TEXTS], DNA, size=50)
    np.testing.assert_array_equal(reverse_complement(letters, lengths), opposite)
    np.testing.assert_array_equal(reverse_complement(opposite, lengths), letters)
    with pytest.raises(DataError, match="have no complements"):
        reverse_complement_of("MKV", PROTEIN)
    with pytest.raises(DataError, match="have no complements"):
        reverse_complement(letters, alphabet=PROTEIN)


def test_a_spectrum_is_the_same_on_both_strands() -> None:
    letters, lengths = encode(TEXTS[:2], DNA)
    one, other = (kmer_counts(strand, 4, canonical=True) for strand in (letters, reverse_complement(letters, lengths)))
    np.testing.assert_allclose(one, other, rtol=1e-6)
