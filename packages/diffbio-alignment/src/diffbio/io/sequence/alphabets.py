"""Sequences as arrays: alphabets, ambiguity codes, codes of letters and distributions over letters.

References:
    Cornish-Bowden, Nomenclature for incompletely specified bases in nucleic acid sequences: recommendations 1984, Nucleic
    Acids Research 1985 (IUPAC codes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

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
"""By alphabet, the letters that each IUPAC code stands for; selenocysteine and pyrrolysine stand for their relatives."""


class Sequences(NamedTuple):
    """Sequences of different lengths, side by side.

    Attributes:
        letters: A distribution over the alphabet for each position; zeros beyond the end.
        lengths: How many positions of each sequence count.
    """

    letters: Float[np.ndarray, "sequences positions letters"]
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
        DataError: A sequence is empty, longer than `size`, or has a letter that is not of the alphabet; the message says
            which one and where.

    Example:
        >>> encode(["ac", "N"], DNA).letters.tolist()
        [[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], [[0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]]]
    """
    table = _distributions(alphabet)
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    longest = int(lengths.max(initial=0))
    size = longest if size is None else size
    if longest > size:
        which = int(lengths.argmax())
        raise DataError(f"sequence {which} has {longest} letters, and there is room for {size}; give a larger size")
    letters = np.zeros((len(sequences), size, len(alphabet)), np.float32)
    for number, sequence in enumerate(sequences):
        if not sequence:
            raise DataError(f"sequence {number} is empty; leave it out")
        codes = np.frombuffer(sequence.encode("utf-32-le"), np.uint32)
        known = np.where(codes < len(table), table[np.minimum(codes, len(table) - 1)].any(1), False)
        if not known.all():
            place = int(np.flatnonzero(~known)[0])
            raise DataError(
                f"sequence {number} has {sequence[place]!r} at position {place + 1}, which is none of {alphabet!r} nor a "
                f"code for some of them ({listed(list(AMBIGUOUS.get(alphabet, {})))})"
            )
        letters[number, : len(sequence)] = table[codes]
    return Sequences(letters, lengths)


def _distributions(alphabet: str) -> Float[np.ndarray, "codes letters"]:
    """Return the distribution of each character of ASCII, zeros for those that mean nothing."""
    table = np.zeros((128, len(alphabet)), np.float32)
    meanings = {letter: letter for letter in alphabet} | dict(AMBIGUOUS.get(alphabet, {}))
    for code, stands_for in meanings.items():
        places = [alphabet.index(letter) for letter in stands_for]
        for character in (code, code.lower()):
            table[ord(character), places] = 1 / len(places)
    return table
