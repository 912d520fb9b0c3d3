"""Alignment of a list of sequences: from letters to rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.core.errors import DataError
from diffbio.io.sequence.alignments import aligned_rows
from diffbio.io.sequence.alphabets import PROTEIN
from diffbio.operators.alignment.multiple import (
    ProgressiveMSAConfig,
    SoftMSA,
    SoftProgressiveMSA,
    multiple_alignment,
)
from diffbio.operators.alignment.sparse_posteriors import Posteriors
from diffbio.pipelines.alignment.padding import padded, padded_size


def align_sequences(sequences: Sequence[str], *, alphabet: str = PROTEIN, **scoring: Any) -> tuple[list[str], float]:
    """Return sequences as the rows of an alignment, and how many pairs of residues are right in expectation.

    Args:
        sequences: Letters, two sequences at least.
        alphabet: Their letters.
        **scoring: Fields of `ProgressiveMSAConfig`: matrix, gap_open, gap_extend, temperature, consistency_rounds,
            refinement_rounds.

    Returns:
        Rows of one length, with `-` in gaps, and the share of right pairs of residues, from 0 to 1. Memory: 128
        bytes per residue and other sequence, a few times, and 4 per cell of 16 pairwise alignments, several times.

    Raises:
        DataError: There are fewer than two sequences, one is empty, or has a letter that is not of the alphabet.

    Example:
        >>> align_sequences(["HEAGAWGHEE", "HEAWGHEE", "HEAGWGHE"])[0]
        ['HEAGAWGHEE', 'HEA--WGHEE', 'HEAG-WGHE-']
    """
    if len(sequences) < 2:
        raise DataError(f"an alignment has two sequences at least, and there are {len(sequences)}")
    data = padded(sequences, alphabet)
    n_columns, most = 2 * padded_size(sequences), int(data["sequence_length"].sum())
    aligner = SoftProgressiveMSA(ProgressiveMSAConfig(n_columns=n_columns, alphabet=alphabet, **scoring))
    posteriors = _posteriors(nnx.split(aligner), data)
    while True:
        found = _arranged(data, posteriors, n_columns, aligner.config.refinement_rounds)
        accuracy = float(found.pair_accuracy)
        if np.isfinite(accuracy) or n_columns >= most:
            return aligned_rows(sequences, np.asarray(found.alignment_columns)), accuracy
        n_columns = min(2 * n_columns, most)  # it was too small


@jax.jit
def _posteriors(aligner: tuple[nnx.GraphDef, nnx.State], data: dict[str, np.ndarray]) -> Posteriors:
    return nnx.merge(*aligner).posteriors(data["sequences"], data["sequence_length"])


@partial(jax.jit, static_argnames=("n_columns", "refinement_rounds"))
def _arranged(data: dict[str, np.ndarray], posteriors: Posteriors, n_columns: int, refinement_rounds: int) -> SoftMSA:
    letters, lengths = jnp.asarray(data["sequences"]), jnp.asarray(data["sequence_length"])
    options = {"consistency_rounds": 0, "refinement_rounds": refinement_rounds}
    return multiple_alignment(letters, lengths, posteriors, n_columns=n_columns, **options)
