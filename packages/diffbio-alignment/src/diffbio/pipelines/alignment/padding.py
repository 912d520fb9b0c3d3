"""Sequences as arrays of few sizes, so that similar inputs share a compiled program."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffbio.io.sequence.alphabets import encode

_LENGTH_STEP = 32


def padded_size(sequences: Sequence[str]) -> int:
    """Return room for the longest sequence: a multiple of 32.

    Example:
        >>> padded_size(["ACGT", "A" * 33])
        64
    """
    return -(-max(map(len, sequences)) // _LENGTH_STEP) * _LENGTH_STEP


def padded(sequences: Sequence[str], alphabet: str) -> dict[str, np.ndarray]:
    """Return `sequences` and `sequence_length`, as operators on families read them.

    Raises:
        DataError: A sequence is empty, or has a letter that is not of the alphabet.
    """
    encoded = encode(sequences, alphabet, size=padded_size(sequences))
    return {"sequences": encoded.letters, "sequence_length": encoded.lengths}
