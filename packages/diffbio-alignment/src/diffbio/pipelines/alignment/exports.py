"""What training learned of scores and profiles, as files that other aligners read.

A substitution matrix holds whole numbers, so that a file has a unit of its own, which its comments say, with the costs
of gaps. In all of them a gap of n letters costs as much as its first letter and n - 1 further ones: parasail, Biopython
and EMBOSS count so; BLAST adds the cost of a further letter to the first one, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log, log2
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffbio.io.sequence.hmmer_files import write_hmm
from diffbio.operators.alignment.pair_hmm import PairHMM
from diffbio.operators.alignment.pair_model import pair_weights
from diffbio.operators.alignment.profile_hmm import ProfileHMM
from diffbio.operators.alignment.scoring import ScoredAlignment
from diffbio.operators.alignment.substitution import symmetric, write_substitution_matrix

UNITS_PER_SCORE = 3
"""Of an aligner: a third of the unit of its scores, a sixth of a bit where they are in half bits as BLOSUM62 is."""

UNITS_PER_BIT = 100
"""Of a pair HMM: rounding moves the log-odds of 1,000 letters by 5 bits at most, where a mismatch in reads costs 13."""


def write_scores(path: str | Path, aligner: ScoredAlignment[Any], source: str) -> tuple[int, int]:
    """Write the scores of an aligner in the format that BLAST, EMBOSS and parasail read.

    Args:
        path: The file.
        aligner: Whose scores.
        source: What they were learned from, for the first line.

    Returns:
        The costs of the first and of each further letter of a gap, in the unit of the file, at least 1; its comments
        say them, too.

    Example:
        >>> write_scores("learned.mat", aligner, "learned from fn3.sto")  # doctest: +SKIP
        (33, 3)
    """
    scores = np.asarray(symmetric(aligner.substitution[...]), np.float64)
    first, further = (float(cost) for cost in aligner.gap_costs.values())
    unit = f"in units of 1/{UNITS_PER_SCORE} of the score that the aligner has for them"
    return _write(
        path,
        scores,
        (first, further),
        units=UNITS_PER_SCORE,
        alphabet=aligner.config.alphabet,
        comments=[source, unit],
    )


def write_pair_scores(path: str | Path, hmm: PairHMM, source: str) -> tuple[int, int]:
    """Write a pair HMM as scores and costs of gaps, with which any aligner finds its most likely alignment.

    The score of a pair is that of `pair_model`: its log-odds, and what it costs to go on to one. With the constant that
    the comments tell, the score of a global alignment is its log-odds; the softness plays no part.

    Args:
        path: The file, of the format that BLAST, EMBOSS and parasail read.
        hmm: Whose probabilities.
        source: What they were learned from, for the first line.

    Returns:
        The costs of the first and of each further letter of a gap, in hundredths of a bit, at least 1.

    Example:
        >>> write_pair_scores("realignment.mat", hmm, "learned from reads.bam")  # doctest: +SKIP
        (1487, 332)
    """
    model, letters = hmm.model(), jnp.eye(len(hmm.config.alphabet))
    pair, once, _ = pair_weights(model, letters, letters, jnp.array([len(letters)] * 2))
    opened, extended, ended = (float(chance) for chance in model[1:])
    going_on = 2 * log2(1 - opened) - log2(1 - ended)
    units = UNITS_PER_BIT / log(2)  # per nat
    comments = [
        source,
        f"in units of 1/{UNITS_PER_BIT} of a bit: log2(p(ab) / (q(a) q(b))) {going_on:+.4g} bits of a pair HMM with",
        f"the probabilities gap_open {opened:.4g}, gap_extend {extended:.4g}, end {ended:.4g};",
        f"a global alignment has {units * float(once):+.0f} beside its score",
    ]
    scores, costs = np.asarray(pair.scores, np.float64), (float(pair.gap_open), float(pair.gap_extend))
    return _write(path, scores, costs, units=units, alphabet=hmm.config.alphabet, comments=comments)


def export_scores(operator: ScoredAlignment[Any], path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write the matrix of an aligner; see `write_scores`.

    Args:
        operator: The aligner.
        path: The file.
        metadata: Of the data that it learned from; not used.
    """
    write_scores(path, operator, f"learned by diffbio, step {path.stem}")


def export_pair_hmm(operator: PairHMM, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write the matrix of a pair HMM; see `write_pair_scores`.

    Args:
        operator: The pair HMM.
        path: The file.
        metadata: Of the data that it learned from; not used.
    """
    write_pair_scores(path, operator, f"learned by diffbio, step {path.stem}")


def export_profile(operator: ProfileHMM, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write a profile in HMMER's format, by the name of its step.

    hmmalign takes it as it is. hmmsearch would find nothing, for the statistics of random scores are not known here, as
    the model's description says.

    Args:
        operator: The profile HMM.
        path: The file.
        metadata: Of the data that it learned from; not used.

    Raises:
        DataError: Its letters are not those of amino acids, DNA or RNA.
    """
    profile = operator.to_profile("_".join(path.stem.split()))
    write_hmm(
        path, [replace(profile, description="learned by diffbio: for hmmalign; without statistics for hmmsearch")]
    )


def _write(
    path: str | Path,
    scores: np.ndarray,
    costs: tuple[float, float],
    *,
    units: float,
    alphabet: str,
    comments: list[str],
) -> tuple[int, int]:
    """Write scores and costs of gaps as whole numbers of a unit, of which there are `units` in theirs."""
    first, further = (max(1, round(units * cost)) for cost in costs)
    comments = [*comments, f"a gap of n letters costs {first} + (n - 1) {further}"]
    write_substitution_matrix(path, np.rint(units * scores).astype(int), alphabet, comments)
    return first, further
