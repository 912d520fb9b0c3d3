"""Words of k letters: spectra of distributions over letters, and reverse complements.

Hard: how often each of the n^k words stands in a sequence. Relaxed, for letters p_i that are distributions,

    count(w) = sum_i prod_j p_(i+j)(w_j)

the expected count if positions are independent; for letters that are certain it is the count. It is linear in each p_i.
"""

from __future__ import annotations

import itertools
from functools import cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffbio.core.errors import DataError
from diffbio.io.sequence.alphabets import AMBIGUOUS, DNA, RNA

_COMPLEMENTS = {
    alphabet: dict(zip(alphabet + other, alphabet[::-1] + "A", strict=True))
    for alphabet, other in ((DNA, "U"), (RNA, "T"))
}


def kmer_counts(
    letters: Float[Array, "*sequences positions letters"],
    k: int,
    mask: Bool[Array, "*sequences positions"] | Float[Array, "*sequences positions"] | None = None,
    *,
    canonical: bool = False,
) -> Float[Array, "*sequences kmers"]:
    """Return how often each word of k letters is expected in each sequence.

    Args:
        letters: Distributions over n letters; zeros beyond the end, so that no word reaches there.
        k: Letters of a word, at least 1.
        mask: Weight of each position, a word's is their product; for example `base_weights`.
        canonical: Whether a word and its reverse complement are one; the letters are then those of `DNA` or `RNA`.

    Returns:
        Counts of all n^k words in the order of `kmers`. A product of two matrices, positions x n^(k/2) numbers each:
        the n^k words of a position are never written out.

    Raises:
        DataError: k is below 1, or above the number of positions; or there are not four letters and canonical words.

    Example:
        >>> counts = kmer_counts(jnp.eye(4)[jnp.array([0, 0, 1, 0, 0])], 2)  # AACAA
        >>> {word: int(count) for word, count in zip(kmers(2), counts) if count}
        {'AA': 2, 'AC': 1, 'CA': 1}
    """
    n_positions, n_letters = letters.shape[-2:]
    if not 1 <= k <= n_positions:
        raise DataError(f"words of {k} letters in sequences of {n_positions} positions; give k from 1 to {n_positions}")
    if mask is not None:
        letters = letters * mask[..., None]
    n_words = n_positions - k + 1
    left, right = (_words(letters, first, last, n_words) for first, last in ((0, k // 2), (k // 2, k)))
    counts = jnp.einsum("...ia,...ib->...ab", left, right).reshape(*letters.shape[:-2], n_letters**k)
    return _joined(counts, k, n_letters) if canonical else counts


def kmer_counts_of_codes(
    codes: Int[Array, "*sequences positions"], k: int, n_letters: int = 4, *, canonical: bool = False
) -> Int[Array, "*sequences kmers"]:
    """Return how often each word of k letters stands in each sequence of codes.

    Args:
        codes: Places of the letters in the alphabet, as `encode_indices` gives them; a word with any other number, such
            as the -1 beyond the end, does not count.
        k: Letters of a word, at least 1; n_letters^k must be below 2^31.
        n_letters: Letters of the alphabet.
        canonical: Whether a word and its reverse complement are one; the letters are then those of `DNA` or `RNA`.

    Returns:
        Counts of all words in the order of `kmers`; time as positions x k.

    Raises:
        DataError: k is out of range; or there are not four letters and canonical words.

    Example:
        >>> int(kmer_counts_of_codes(jnp.array([0, 0, 1, 0, 0, -1]), 2)[0])
        2
    """
    n_positions = codes.shape[-1]
    if not 1 <= k <= n_positions or n_letters**k >= 2**31:
        raise DataError(
            f"words of {k} of {n_letters} letters in sequences of {n_positions} positions; "
            f"give k from 1 to {n_positions} with fewer than 2^31 words"
        )
    n_words = n_positions - k + 1
    numbers = jnp.zeros((*codes.shape[:-1], n_words), jnp.int32)
    counted = jnp.ones(numbers.shape, bool)
    for place in range(k):
        here = codes[..., place : place + n_words].astype(jnp.int32)
        numbers = numbers * n_letters + here
        counted &= (here >= 0) & (here < n_letters)
    rows = numbers.reshape(-1, n_words)
    rows = jnp.where(counted.reshape(rows.shape), rows, n_letters**k)  # out of range, so dropped
    counts = jnp.zeros((len(rows), n_letters**k), jnp.int32)
    counts = counts.at[jnp.arange(len(rows))[:, None], rows].add(1, mode="drop")
    counts = counts.reshape(*codes.shape[:-1], n_letters**k)
    return _joined(counts, k, n_letters) if canonical else counts


def kmers(k: int, alphabet: str = DNA, *, canonical: bool = False) -> list[str]:
    """Return all words of k letters, in the order in which they are counted.

    Args:
        k: Letters of a word.
        alphabet: The letters.
        canonical: Whether only the first of each word and its reverse complement is wanted.

    Example:
        >>> kmers(1), len(kmers(4, canonical=True))
        (['A', 'C', 'G', 'T'], 136)
    """
    words = ["".join(word) for word in itertools.product(alphabet, repeat=k)]
    return [words[place] for place in _canonical(k, len(alphabet))[0]] if canonical else words


def reverse_complement(
    letters: Float[Array, "*sequences positions letters"],
    lengths: Int[Array, "*sequences"] | None = None,
    alphabet: str = DNA,
) -> Float[Array, "*sequences positions letters"]:
    """Return the opposite strands; they begin at the first position, as before.

    Args:
        letters: Distributions; zeros beyond the end.
        lengths: How many positions count; by default all.
        alphabet: `DNA` or `RNA`.

    Raises:
        DataError: The letters of that alphabet have no complements.

    Example:
        >>> reverse_complement(jnp.eye(4)[jnp.array([0, 0, 1])][None]).argmax(-1).tolist()  # AAC gives GTT
        [[2, 3, 3]]
    """
    _refuse_without_complement(alphabet)
    n_positions = letters.shape[-2]
    complement = letters[..., ::-1]  # A, C, G, T reversed are their complements
    if lengths is None:
        return complement[..., ::-1, :]
    places = lengths[..., None] - 1 - jnp.arange(n_positions)
    turned = jnp.take_along_axis(complement, jnp.maximum(places, 0)[..., None], axis=-2)
    return jnp.where(places[..., None] >= 0, turned, 0)


def reverse_complement_of(sequence: str, alphabet: str = DNA) -> str:
    """Return the opposite strand of letters, in either case, and of codes that stand for several.

    Args:
        sequence: Letters.
        alphabet: `DNA` or `RNA`.

    Raises:
        DataError: The letters of that alphabet have no complements.

    Example:
        >>> reverse_complement_of("AACRn")
        'nYGTT'
    """
    _refuse_without_complement(alphabet)
    return sequence.translate(_complement_table(alphabet))[::-1]


@cache
def _complement_table(alphabet: str) -> dict[int, str]:
    """Return the complement of each letter and code, for `str.translate`."""
    letters = _COMPLEMENTS[alphabet]
    codes = {frozenset(meaning): code for code, meaning in AMBIGUOUS[alphabet].items() if len(meaning) > 1}
    table = letters | {code: codes[frozenset(letters[letter] for letter in stands)] for stands, code in codes.items()}
    return str.maketrans(table | {letter.lower(): there.lower() for letter, there in table.items()})


def _refuse_without_complement(alphabet: str) -> None:
    if alphabet not in _COMPLEMENTS:
        raise DataError(f"the letters {alphabet!r} have no complements; give those of {DNA!r} or {RNA!r}")


def _words(letters: Array, first: int, last: int, n_words: int) -> Array:
    """Return the weights of all that positions `first` to `last` of each word may be (*sequences, words, parts)."""
    weights = jnp.ones((*letters.shape[:-2], n_words, 1), letters.dtype)
    for place in range(first, last):
        here = letters[..., place : place + n_words, :]
        weights = (weights[..., :, None] * here[..., None, :]).reshape(*weights.shape[:-1], -1)
    return weights


def _joined(counts: Array, k: int, n_letters: int) -> Array:
    """Return the counts of canonical words: of each word and its reverse complement, if that is another one."""
    words, opposites = _canonical(k, n_letters)
    return counts[..., words] + counts[..., opposites] * (words != opposites)


def _canonical(k: int, n_letters: int) -> tuple[Int[np.ndarray, " words"], Int[np.ndarray, " words"]]:
    """Return the numbers of canonical words and of their reverse complements."""
    if n_letters != 4:
        raise DataError(f"words of {n_letters} letters have no reverse complements; give the four of DNA or RNA")
    numbers = np.arange(n_letters**k)
    opposites = np.flip(numbers.reshape((n_letters,) * k)).T.reshape(-1)
    words = np.flatnonzero(numbers <= opposites)
    return words, opposites[words]
