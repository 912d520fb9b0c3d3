"""The conformance example of the pair HMM; the limit is Viterbi's algorithm, by its table of transitions."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.alignment.pair_hmm import PairHMM, PairHMMConfig
from diffbio.testing import Example, Limit


def pair_hmm() -> Example:
    """Return three pairs of short sequences of DNA, all letters uncertain, and a model whose letters are not alike."""
    random = np.random.default_rng(0)
    query, target = (np.asarray(random.dirichlet(np.full(4, 0.3), size=(3, size)), np.float32) for size in (5, 6))
    operator = PairHMM(PairHMMConfig(alphabet="ACGT", matrix="NUC.4.4", gap_open=0.1, gap_extend=0.4, end=0.1, band=4))
    operator.pair_logits[...] += np.asarray(random.normal(scale=0.3, size=(4, 4)), np.float32)

    def sharpen(operator: PairHMM) -> PairHMM:
        operator.softness.set(1e-3)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        pairs = zip(np.asarray(data["query"]), np.asarray(data["target"]), strict=True)
        found = np.array([_viterbi(operator, x, y) for x, y in pairs])
        return {"pair_log_odds": (found[:, 0] - found[:, 1]) / np.log(2), "pair_log_likelihood": found[:, 0]}

    return Example(operator, {"query": query, "target": target}, limit=Limit(sharpen, reference, atol=2e-2))


def _viterbi(operator: PairHMM, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the log-likelihoods of the most likely alignment, and of the sequences if unrelated."""
    pairs, delta, epsilon, eta = (np.asarray(part, np.float64) for part in jax.tree.leaves(operator.model()))
    background = pairs.sum(1)
    steps = np.array(  # from M, X, Y to X, Y, and out of gaps
        [
            [delta, (1 - delta) * delta, (1 - delta) ** 2],
            [epsilon, (1 - epsilon) * delta, (1 - epsilon) * (1 - delta)],
            [0, epsilon, 1 - epsilon],
        ]
    )
    best = np.zeros((3, len(x) + 1, len(y) + 1))
    best[0, 0, 0] = 1
    for i in range(len(x) + 1):
        for j in range(len(y) + 1):
            if i and j:
                before = (best[:, i - 1, j - 1] * steps[:, 2]).max()
                best[0, i, j] = before * (1 - eta) * (x[i - 1] @ pairs @ y[j - 1])
            if i:
                best[1, i, j] = (best[:, i - 1, j] * steps[:, 0]).max() * (x[i - 1] @ background)
            if j:
                best[2, i, j] = (best[:, i, j - 1] * steps[:, 1]).max() * (y[j - 1] @ background)
    related = np.log((best[:, -1, -1] * steps[:, 2]).max() * eta)
    letters = np.log(x @ background).sum() + np.log(y @ background).sum()
    return float(related), float(letters + (len(x) + len(y)) * np.log(1 - eta) + 2 * np.log(eta))
