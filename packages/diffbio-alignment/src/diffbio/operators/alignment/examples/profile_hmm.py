"""The conformance example of the profile HMM; the limit is Viterbi's algorithm, state by state."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.alignment.profile_hmm import ProfileHMM, ProfileHMMConfig
from diffbio.testing import Example, Limit


def profile_hmm() -> Example:
    """Return three short sequences of DNA, all letters uncertain, and a profile of four nodes that insert T."""
    random = np.random.default_rng(0)
    sequences = np.asarray(random.dirichlet(np.full(4, 0.3), size=(3, 6)), np.float32)
    operator = ProfileHMM(ProfileHMMConfig(n_nodes=4, alphabet="ACGT", inserts="own", gap_open=0.1))
    assert operator.insert_logits is not None
    for logits, size in ((operator.match_logits, (4, 4)), (operator.insert_logits, (3, 4))):
        logits[...] = np.asarray(random.normal(size=size), np.float32)

    def sharpen(operator: ProfileHMM) -> ProfileHMM:
        operator.softness.set(1e-3)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        return {"profile_score": np.array([_viterbi(operator, x) for x in np.asarray(data["sequences"])])}

    return Example(operator, {"sequences": sequences}, limit=Limit(sharpen, reference, atol=2e-2))


def _viterbi(operator: ProfileHMM, letters: np.ndarray) -> float:
    """Return the log-odds of the best path, local and multihit, in bits."""
    core = jax.tree.map(np.asarray, operator.core())
    n, size = len(core.match), len(letters)
    odds = [np.log(letters @ (np.exp(part) / 0.25).T) for part in (core.match, core.insert)]
    occupancy = [1 - np.exp(core.from_match[0, 2])]
    for (_, _, deleted), (returned, _) in zip(core.from_match[1:], core.from_delete, strict=True):
        occupancy.append(occupancy[-1] * (1 - np.exp(deleted)) + (1 - occupancy[-1]) * np.exp(returned))
    begin = np.log(occupancy) - np.log(sum(part * (n - k) for k, part in enumerate(occupancy)))
    loop, move = np.log(size / (size + 3)), np.log(3 / (size + 3))

    match, insert, delete = (np.full((size + 1, n), -np.inf) for _ in range(3))
    n_flank, j_flank, c_flank = 0.0, -np.inf, -np.inf
    for i in range(1, size + 1):
        for k in range(n):
            sources = [max(n_flank, j_flank) + move + begin[k]]
            if k:
                sources.append(match[i - 1, k - 1] + core.from_match[k, 0])
                sources.append(insert[i - 1, k - 1] + core.from_insert[k - 1, 0])
                sources.append(delete[i - 1, k - 1] + core.from_delete[k - 1, 0])
                delete[i, k] = max(
                    match[i, k - 1] + core.from_match[k, 2], delete[i, k - 1] + core.from_delete[k - 1, 1]
                )
            match[i, k] = odds[0][i - 1, k] + max(sources)
            if k < n - 1:
                opened, extended = (
                    match[i - 1, k] + core.from_match[k + 1, 1],
                    insert[i - 1, k] + core.from_insert[k, 1],
                )
                insert[i, k] = odds[1][i - 1, k] + max(opened, extended)
        end = max(match[i].max(), delete[i].max()) + np.log(0.5)
        n_flank, j_flank, c_flank = n_flank + loop, max(j_flank + loop, end), max(c_flank + loop, end)
    null = size * np.log(size / (size + 1)) - np.log(size + 1)
    return float(c_flank + move - null) / np.log(2)
