"""Alignment of a list of sequences: from letters to rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from diffbio.core.errors import DataError
from diffbio.io.sequence.alignments import aligned_rows
from diffbio.io.sequence.alphabets import PROTEIN
from diffbio.operators.alignment.multiple import ProgressiveMSAConfig, SoftProgressiveMSA
from diffbio.pipelines.alignment.padding import padded, padded_size


def align_sequences(sequences: Sequence[str], *, alphabet: str = PROTEIN, **scoring: Any) -> tuple[list[str], float]:
    """Return sequences as the rows of an alignment, and how many pairs of residues are right in expectation.

    Args:
        sequences: Letters, two sequences at least.
        alphabet: Their letters.
        **scoring: Fields of `ProgressiveMSAConfig`: matrix, gap_open, gap_extend, temperature, consistency_rounds.

    Returns:
        Rows of one length, with `-` in gaps, and the share of right pairs of residues, from 0 to 1. Memory: 4 bytes per
        pair of residues of all sequences, several times.

    Raises:
        DataError: There are fewer than two sequences, one is empty, or has a letter that is not of the alphabet.

    Example:
        >>> align_sequences(["HEAGAWGHEE", "HEAWGHEE", "HEAGWGHE"])[0]
        ['HEAGAWGHEE', 'HEA--WGHEE', 'HEAG-WGH-E']
    """
    if len(sequences) < 2:
        raise DataError(f"an alignment has two sequences at least, and there are {len(sequences)}")
    data = padded(sequences, alphabet)
    n_columns, most = 3 * padded_size(sequences) // 2, int(data["sequence_length"].sum())
    while True:
        config = ProgressiveMSAConfig(n_columns=n_columns, alphabet=alphabet, **scoring)
        found = _applied(nnx.split(SoftProgressiveMSA(config)), data)
        accuracy = float(found["pair_accuracy"])
        if np.isfinite(accuracy) or n_columns >= most:
            return aligned_rows(sequences, np.asarray(found["alignment_columns"])), accuracy
        n_columns = min(2 * n_columns, most)  # it was too small


@jax.jit
def _applied(aligner: tuple[nnx.GraphDef, nnx.State], data: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return nnx.merge(*aligner).apply(data, {}, None)[0]
