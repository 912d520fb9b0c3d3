"""The conformance example of multiple alignment; the limit is an alignment that all pairs agree on."""

from __future__ import annotations

import numpy as np

from diffbio.operators.alignment.multiple import ProgressiveMSAConfig, SoftProgressiveMSA
from diffbio.testing import Example, Limit

_ROWS = ("AACCGGTTAC", "AACC--TTAC", "AACCGGTT--", "--CCGGTTAC")
_N_COLUMNS = 12


def soft_progressive_msa() -> Example:
    """Return four relatives of DNA with gaps in three places, all letters somewhat uncertain."""
    sequences = [row.replace("-", "") for row in _ROWS]
    letters = np.zeros((len(_ROWS), 10, 4), np.float32)
    for number, sequence in enumerate(sequences):
        letters[number, np.arange(len(sequence)), ["ACGT".index(letter) for letter in sequence]] = 1
    random = np.random.default_rng(0)
    uncertain = np.where(letters.any(-1, keepdims=True), random.dirichlet(np.full(4, 0.3), letters.shape[:2]), 0)
    config = ProgressiveMSAConfig(
        n_columns=_N_COLUMNS, alphabet="ACGT", matrix="NUC.4.4", gap_open=6.0, temperature=2.0, learnable=True
    )

    def sharpen(operator: SoftProgressiveMSA) -> SoftProgressiveMSA:
        operator.softness.set(1e-2)
        return operator

    return Example(
        SoftProgressiveMSA(config),
        {
            "sequences": np.asarray(0.8 * letters + 0.2 * uncertain, np.float32),
            "sequence_length": np.array([len(sequence) for sequence in sequences], np.int32),
        },
        limit=Limit(sharpen, lambda _: {"column_weights": _columns()}, atol=1e-3),
    )


def _columns() -> np.ndarray:
    """Return 1 where a residue stands in a column."""
    weights = np.zeros((len(_ROWS), 10, _N_COLUMNS), np.float32)
    for number, row in enumerate(_ROWS):
        columns = [column for column, letter in enumerate(row) if letter != "-"]
        weights[number, np.arange(len(columns)), columns] = 1
    return weights
