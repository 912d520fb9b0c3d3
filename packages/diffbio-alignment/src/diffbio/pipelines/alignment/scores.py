"""Substitution scores and gap costs that are learned from reference alignments.

The aligner's posterior is trained to be that of the references (`alignment_cross_entropy`), by gradient through all
alignments; it starts from a known matrix, and an anchor pulls it back there, since a few families say little of rare
pairs of letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

import jax
import numpy as np
import optax
from jaxtyping import Array, Int

from diffbio.core import Pipeline
from diffbio.io.sequence.alignments import Alignment
from diffbio.losses.alignment import alignment_cross_entropy
from diffbio.operators.alignment.best_path import GAP_IN_X, GAP_IN_Y, PAIR, best_path
from diffbio.operators.alignment.best_path import Path as BestPath
from diffbio.operators.alignment.ends import GLOBAL
from diffbio.operators.alignment.pairwise import NeedlemanWunschConfig, SmoothNeedlemanWunsch
from diffbio.operators.alignment.recurrence import Pair
from diffbio.operators.alignment.substitution import substitution_scores, symmetric
from diffbio.pipelines.alignment.reference_pairs import ReferencePairs
from diffbio.training import fit

HALF_BITS = 2 / np.log(2)
"""The softness that takes scores in half bits, as BLOSUM62 has them, as log odds."""

_PAIRS_AT_ONCE = 16


def learn_scores(
    families: Mapping[str, Alignment],
    config: NeedlemanWunschConfig,
    *,
    key: jax.Array,
    epochs: int = 6,
    pairs_per_family: int = 160,
    learning_rate: float = 0.05,
    anchor: float = 1e-3,
    progress: bool = True,
) -> SmoothNeedlemanWunsch:
    """Return an aligner with the scores that fit reference alignments best.

    Args:
        families: Reference alignments, by name.
        config: Where to start from.
        key: Random key: which pairs, and in which order.
        epochs: Passes over the pairs.
        pairs_per_family: How many pairs of sequences are drawn of each family.
        learning_rate: Of Adam: about how far a score moves in a step.
        anchor: Strength of the pull to the scores at the start.
        progress: Show a progress bar, where there is a terminal.

    Raises:
        DataError: A family has letters that are not of the alphabet, or one sequence alone.
    """
    draw, order = jax.random.split(key)
    random = np.random.default_rng(np.asarray(jax.random.key_data(draw)))
    pairs = ReferencePairs(families, config.alphabet, pairs_per_family, random)
    fitted = fit(
        Pipeline(SmoothNeedlemanWunsch(config)),
        pairs,
        alignment_cross_entropy,
        optimizer=optax.adam(learning_rate),
        epochs=epochs,
        key=order,
        batch_size=min(_PAIRS_AT_ONCE, len(pairs)),
        anchor=anchor,
        progress=progress,
    )
    (aligner,) = fitted.pipeline.steps
    return cast("SmoothNeedlemanWunsch", aligner)


def pairs_recovered(aligner: SmoothNeedlemanWunsch, pairs: ReferencePairs) -> float:
    """Return the share of aligned residues of reference pairs that the best global alignments have, too."""
    right = total = 0
    for first in range(0, len(pairs), _PAIRS_AT_ONCE):
        data = pairs.take(np.arange(first, min(first + _PAIRS_AT_ONCE, len(pairs))))
        lengths = np.stack([data["query_length"], data["target_length"]], 1)
        matrix = symmetric(aligner.substitution[...])
        paths = _best_paths(data["query"], data["target"], lengths, matrix, aligner.gap_costs)
        for wanted, path in zip(data["reference_alignment"], _rows(paths), strict=True):
            total += int(wanted.sum())
            right += int(wanted[_aligned(path)].sum())
    return right / total


@jax.jit
def _best_paths(queries: Array, targets: Array, lengths: Array, matrix: Array, costs: dict[str, Array]) -> BestPath:
    """Return the best global alignment of each pair."""

    def of_pair(pair: tuple[Array, Array, Array]) -> BestPath:
        return best_path(Pair(substitution_scores(pair[0], pair[1], matrix), **costs, lengths=pair[2]), GLOBAL)

    return jax.lax.map(of_pair, (queries, targets, lengths))


def _rows(paths: BestPath) -> list[BestPath]:
    """Return the paths one by one."""
    arrays = jax.tree.map(np.asarray, paths)
    return [jax.tree.map(partial(np.take, indices=row, axis=0), arrays) for row in range(len(arrays.score))]


def _aligned(path: BestPath) -> tuple[Int[np.ndarray, " aligned"], Int[np.ndarray, " aligned"]]:
    """Return the aligned positions of a global path."""
    steps = np.asarray(path.operations)[::-1]
    steps = steps[steps > 0]
    query = np.cumsum((steps == PAIR) | (steps == GAP_IN_Y)) - 1
    target = np.cumsum((steps == PAIR) | (steps == GAP_IN_X)) - 1
    return query[steps == PAIR], target[steps == PAIR]
