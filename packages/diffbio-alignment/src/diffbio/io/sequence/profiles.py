"""Profile HMMs as the field keeps them: probabilities of HMMER's Plan 7, with their annotation.

References:
    Eddy, Profile hidden Markov models, Bioinformatics 1998.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """A profile HMM with all that HMMER's file says of it; compare its fields, for arrays have no single truth.

    Args:
        name: Of the model, without blanks.
        alphabet: The letters, in the order of the last axes.
        match: Probabilities of the letters of the match states.
        insert: Those of the insert states; row 0 is of the one before node 1.
        transitions: From a node's match state to the next match state, to its insert state, to the next delete state;
            from its insert state to the next match state, to itself; from its delete state to the next match state, to
            the next delete state. Row 0 is from the model's begin; from the last node the next state is the end.
        composition: Mean probabilities of the letters.
        accession: In the data base that it is from.
        description: One line.
        consensus: A letter for each node.
        reference: A mark for each node, of the alignment that it was built from.
        mask: Which nodes were masked, `m`.
        structure: A symbol for each node.
        columns: The column of the alignment that each node was built from.
        max_length: Of hits, in residues; of nucleotides.
        date: When it was built.
        commands: That built it.
        n_sequences: In the alignment.
        effective_sequences: Their number as it was weighted.
        checksum: Of the alignment.
        cutoffs: By `GA`, `TC` and `NC`, the score of a sequence and of a domain, in bits; of nucleotides one score.
        statistics: By `MSV`, `VITERBI` and `FORWARD`, location and slope of the scores of random sequences.
    """

    name: str
    alphabet: str
    match: Float[np.ndarray, "nodes letters"]
    insert: Float[np.ndarray, "states letters"]
    transitions: Float[np.ndarray, "states 7"]
    composition: Float[np.ndarray, " letters"] | None = None
    accession: str | None = None
    description: str | None = None
    consensus: str | None = None
    reference: str | None = None
    mask: str | None = None
    structure: str | None = None
    columns: tuple[int, ...] | None = None
    max_length: int | None = None
    date: str | None = None
    commands: tuple[str, ...] = ()
    n_sequences: int | None = None
    effective_sequences: float | None = None
    checksum: int | None = None
    cutoffs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    statistics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
