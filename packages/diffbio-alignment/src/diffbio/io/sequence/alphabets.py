"""Sequences as arrays: alphabets, ambiguity codes, codes of letters and distributions over letters.

References:
    Cornish-Bowden, Nomenclature for incompletely specified bases in nucleic acid sequences: recommendations 1984,
    Nucleic Acids Research 1985 (IUPAC codes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Int8, UInt32

from diffbio.core.errors import DataError, listed

DNA = "ACGT"
RNA = "ACGU"
PROTEIN = "ARNDCQEGHILKMFPSTWYV"

_BASES = {
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip
AMBIGUOUS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        DNA: {**_BASES, "U": "T"},
        RNA: {**{code: letters.replace("T", "U") for code, letters in _BASES.items()}, "T": "U"},
        PROTEIN: {"B": "DN", "Z": "EQ", "J": "IL", "X": PROTEIN, "U": "C", "O": "K"},
    }
)
"""By alphabet, what each IUPAC code stands for; selenocysteine and pyrrolysine stand for their relatives."""

_N_CHARACTERS = 128  # ASCII: whatever lies beyond is no letter of a sequence


class Sequences(NamedTuple):
    """Sequences of different lengths, side by side.

    Attributes:
        letters: A distribution over the alphabet for each position; zeros beyond the end.
        lengths: How many positions of each sequence count.
    """

    letters: Float[np.ndarray, "sequences positions letters"]
    lengths: Int[np.ndarray, " sequences"]


class IndexedSequences(NamedTuple):
    """Sequences of different lengths, side by side, a small number for each letter.

    Attributes:
        codes: Places of the letters in the alphabet; -1 beyond the end.
        lengths: How many positions of each sequence count.
    """

    codes: Int8[np.ndarray, "sequences positions"]
    lengths: Int[np.ndarray, " sequences"]


def encode(sequences: Sequence[str], alphabet: str = PROTEIN, *, size: int | None = None) -> Sequences:
    """Return sequences as distributions over the letters of an alphabet.

    Args:
        sequences: Letters, in either case; codes of `AMBIGUOUS` share their mass among what they stand for.
        alphabet: The letters, in the order of the last axis.
        size: Positions of the arrays; by default as many as the longest sequence has.

    Returns:
        Distributions, float32, and lengths, int32.

    Raises:
        DataError: A sequence is empty, longer than `size`, or has a letter that is not of the alphabet; the message
            says which one and where.

    Example:
        >>> encode(["ac", "N"], DNA).letters.tolist()
        [[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], [[0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]]]
    """
    characters, lengths, within = _side_by_side(sequences, size)
    table = _distributions(alphabet)
    wanted = f"none of {alphabet!r} nor a code for some of them ({listed(list(AMBIGUOUS.get(alphabet, {})))})"
    _refuse(characters, table.any(1), lengths, wanted)
    letters = np.zeros((*within.shape, len(alphabet)), np.float32)
    letters[within] = table[characters]
    return Sequences(letters, lengths)


def encode_indices(
    sequences: Sequence[str], alphabet: str = PROTEIN, *, size: int | None = None, ambiguous: int | None = None
) -> IndexedSequences:
    """Return sequences as places of their letters in an alphabet: a quarter of a float for each position.

    Args:
        sequences: Letters, in either case.
        alphabet: The letters.
        size: Positions of the array; by default as many as the longest sequence has.
        ambiguous: The number that stands for a code of several letters; where it is `None`, such a code is an error.

    Returns:
        Codes, int8, -1 beyond the end, and lengths, int32.

    Raises:
        DataError: A sequence is empty, longer than `size`, or has a letter that is not of the alphabet; the message
            says which one and where.

    Example:
        >>> encode_indices(["acN", "T"], DNA, ambiguous=4).codes.tolist()
        [[0, 1, 4], [3, -1, -1]]
    """
    characters, lengths, within = _side_by_side(sequences, size)
    distributions = _distributions(alphabet)
    known, single = distributions.any(1), distributions.max(1) == 1
    wanted = f"none of {alphabet!r}"
    if ambiguous is None:
        _refuse(characters, single, lengths, f"{wanted}; for a code that stands for several, give ambiguous=-1, say")
    _refuse(characters, known, lengths, f"{wanted} nor a code for some of them")
    table = np.where(single, distributions.argmax(1), 0 if ambiguous is None else ambiguous).astype(np.int8)
    codes = np.full(within.shape, -1, np.int8)
    codes[within] = table[characters]
    return IndexedSequences(codes, lengths)


def decode(letters: ArrayLike, lengths: ArrayLike | None = None, alphabet: str = PROTEIN) -> list[str]:
    """Return the letters of distributions, the inverse of `encode`.

    Args:
        letters: Distributions (sequences, positions, letters).
        lengths: How many positions of each sequence count (sequences,); by default all.
        alphabet: The letters, in the order of the last axis.

    Returns:
        For each position the letter, or the code of `AMBIGUOUS`, whose distribution is nearest: of two equally near the
        one that stands for fewer. Zeros are nearest to the code for all letters. Upper case.

    Raises:
        DataError: The last axis has another number of letters than the alphabet.

    Example:
        >>> decode([[[0.9, 0.1, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]], [3], DNA)
        ['ARN']
    """
    letters = np.asarray(letters, np.float32)
    if letters.ndim != 3 or letters.shape[-1] != len(alphabet):
        raise DataError(
            f"distributions have shape {letters.shape}, and (sequences, positions, {len(alphabet)}) is wanted; "
            f"name the alphabet in whose order they are ({alphabet!r} was taken)"
        )
    codes = sorted(meanings(alphabet).items(), key=lambda code: len(code[1]))  # argmax takes the first of equals
    table = _distributions(alphabet)[[ord(code) for code, _ in codes]]
    nearest = (2 * letters @ table.T - (table**2).sum(1)).argmax(-1)  # the least squared distance
    text = np.array([ord(code) for code, _ in codes], np.uint8)[nearest]
    n_positions = letters.shape[1]
    ends = np.full(len(letters), n_positions) if lengths is None else np.asarray(lengths)
    return [row[:end].tobytes().decode("ascii") for row, end in zip(text, ends, strict=True)]


@cache
def meanings(alphabet: str) -> Mapping[str, str]:
    """Return what each character may mean in a sequence: a letter itself, a code of `AMBIGUOUS` several letters.

    Args:
        alphabet: The letters.

    Example:
        >>> meanings(DNA)["A"], meanings(DNA)["R"]
        ('A', 'AG')
    """
    return MappingProxyType({letter: letter for letter in alphabet} | dict(AMBIGUOUS.get(alphabet, {})))


@cache
def _distributions(alphabet: str) -> Float[np.ndarray, "characters letters"]:
    """Return the distribution of each character of ASCII, zeros for those that mean nothing."""
    table = np.zeros((_N_CHARACTERS, len(alphabet)), np.float32)
    for code, stands_for in meanings(alphabet).items():
        places = [alphabet.index(letter) for letter in stands_for]
        for character in (code, code.lower()):
            table[ord(character), places] = 1 / len(places)
    return table


def _side_by_side(
    sequences: Sequence[str], size: int | None
) -> tuple[UInt32[np.ndarray, " characters"], Int[np.ndarray, " sequences"], np.ndarray]:
    """Return all characters in one row, the lengths, and where in the padded array they go."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    longest = int(lengths.max(initial=0))
    size = longest if size is None else size
    if longest > size:
        which = int(lengths.argmax())
        raise DataError(f"sequence {which} has {longest} letters, and there is room for {size}; give a larger size")
    if not lengths.all():
        raise DataError(f"sequence {int(lengths.argmin())} is empty; leave it out")
    characters = np.frombuffer("".join(sequences).encode("utf-32-le"), np.uint32)
    return characters, lengths, np.arange(size) < lengths[:, None]


def _refuse(
    characters: UInt32[np.ndarray, " characters"],
    allowed: np.ndarray,
    lengths: Int[np.ndarray, " sequences"],
    wanted: str,
) -> None:
    """Raise for the first character that is not allowed."""
    bad = (characters >= _N_CHARACTERS) | ~allowed[np.minimum(characters, _N_CHARACTERS - 1)]
    if bad.any():
        place = int(bad.argmax())
        which = int(np.searchsorted(np.cumsum(lengths), place, side="right"))
        position = place - int(lengths[:which].sum()) + 1
        raise DataError(f"sequence {which} has {chr(characters[place])!r} at position {position}, which is {wanted}")
