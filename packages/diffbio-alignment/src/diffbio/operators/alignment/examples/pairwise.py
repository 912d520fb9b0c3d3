"""The conformance examples of pairwise alignment; the limit is Gotoh's recurrence, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.alignment.pairwise import (
    NeedlemanWunschConfig,
    SmithWatermanConfig,
    SmoothNeedlemanWunsch,
    SmoothSmithWaterman,
)
from diffbio.testing import Example, Limit

_OPEN, _EXTEND = 3.5, 1.25


def smooth_smith_waterman() -> Example:
    """Return three pairs of short sequences of DNA, all letters uncertain."""
    config = SmithWatermanConfig(alphabet="ACGT", matrix="NUC.4.4", gap_open=_OPEN, gap_extend=_EXTEND, learnable=True)
    return _example(SmoothSmithWaterman(config), local=True)


def smooth_needleman_wunsch() -> Example:
    """Return the same pairs, from end to end."""
    config = NeedlemanWunschConfig(
        alphabet="ACGT", matrix="NUC.4.4", gap_open=_OPEN, gap_extend=_EXTEND, learnable=True
    )
    return _example(SmoothNeedlemanWunsch(config), local=False)


def _example(operator: SmoothSmithWaterman | SmoothNeedlemanWunsch, *, local: bool) -> Example:
    random = np.random.default_rng(0)
    query, target = (
        np.asarray(random.dirichlet(np.full(4, 0.3), size=(3, size)), np.float32) for size in (5, 6)
    )  # distributions, most of them near a letter

    def sharpen(
        operator: SmoothSmithWaterman | SmoothNeedlemanWunsch,
    ) -> SmoothSmithWaterman | SmoothNeedlemanWunsch:
        operator.softness.set(1e-3)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        from diffbio.operators.alignment.substitution import substitution_matrix

        matrix = substitution_matrix("NUC.4.4", "ACGT")
        pairs = zip(np.asarray(data["query"]), np.asarray(data["target"]), strict=True)
        return {"alignment_score": np.array([_gotoh(x @ matrix @ y.T, local=local) for x, y in pairs])}

    return Example(operator, {"query": query, "target": target}, limit=Limit(sharpen, reference, atol=2e-2))


def _gotoh(scores: np.ndarray, *, local: bool) -> float:
    """Return the best score."""
    n_rows, n_columns = scores.shape
    best = np.full((3, n_rows + 1, n_columns + 1), -np.inf)
    best[0, 0, 0] = 0
    for row in range(n_rows + 1):
        for column in range(n_columns + 1):
            if row and column:
                before = best[:, row - 1, column - 1].max()
                best[0, row, column] = scores[row - 1, column - 1] + (max(before, 0) if local else before)
            if row:
                best[1, row, column] = max(best[0, row - 1, column] - _OPEN, best[1, row - 1, column] - _EXTEND)
            if column:
                before = best[:2, row, column - 1].max() - _OPEN
                best[2, row, column] = max(before, best[2, row, column - 1] - _EXTEND)
    return max(float(best[0].max()), 0.0) if local else float(best[:, -1, -1].max())
