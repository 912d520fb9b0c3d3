"""The conformance example of duplicate weights; the limit is the directional network, UMI by UMI, and the best read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.preprocessing.duplicates import DuplicateWeighting, DuplicateWeightingConfig
from diffbio.testing import Example, Limit


def duplicate_weighting() -> Example:
    """Return eight reads of two places with UMIs, all letters uncertain; one UMI is another one with an error."""
    random = np.random.default_rng(0)
    umis = ["ACG", "ACG", "ACG", "ATG", "CCT", "ACG", "GGT", "GGT"]
    positions = np.array([7, 7, 7, 7, 7, 90, 90, 90], np.int32)
    certain = np.eye(4)[[["ACGT".index(letter) for letter in umi] for umi in umis]]
    uncertain = 0.95 * certain + 0.05 * random.dirichlet(np.ones(4), certain.shape[:2])
    data = {
        "reads": random.dirichlet(np.full(4, 0.3), (8, 5)).astype(np.float32),
        "read_lengths": np.array([5, 5, 4, 5, 3, 5, 5, 5], np.int32),
        "read_mask": np.ones(8, bool),
        "umis": uncertain.astype(np.float32),
        "positions": positions,
        "qualities": random.uniform(5, 40, (8, 5)).astype(np.float32),
    }
    config = DuplicateWeightingConfig(
        temperature=0.3,
        count_temperature=0.5,
        quality_temperature=20.0,
        max_group_size=6,
        prefix_length=2,
        n_mismatches=1,
    )

    def sharpen(operator: DuplicateWeighting) -> DuplicateWeighting:
        operator.softness.set(1e-3)
        operator.count_softness.set(1e-3)
        if operator.quality_softness is not None:
            operator.quality_softness.set(1e-3)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        letters = np.array(list("ACGT"))[np.asarray(data["umis"]).argmax(-1)]
        places = np.asarray(data["positions"])
        within = np.arange(5) < np.asarray(data["read_lengths"])[:, None]
        scores = (np.asarray(data["qualities"]) * within).sum(1)
        kept = np.zeros(len(letters), np.float32)
        for group in molecules(["".join(row) for row in letters], places):
            kept[max(group, key=lambda read: scores[read])] = 1
        return {"duplicate_weights": kept, "read_weights": kept}

    return Example(
        DuplicateWeighting(config),
        data,
        limit=Limit(sharpen, reference, atol=1e-3),
        symmetric=("reads",),
        masks={"read_mask": "reads"},
    )


def molecules(umis: Sequence[str], places: Iterable[int]) -> list[list[int]]:
    """Return the reads of each molecule, by the directional method of UMI-tools.

    Args:
        umis: The UMI of each read.
        places: The number of the place of each read.
    """
    groups = []
    places = np.asarray(list(places))
    for place in np.unique(places):
        here = np.flatnonzero(places == place)
        counts: dict[str, int] = {}
        for read in here.tolist():
            counts[umis[read]] = counts.get(umis[read], 0) + 1
        taken: set[str] = set()
        for start in sorted(counts, key=lambda umi: -counts[umi]):
            if start in taken:
                continue
            cluster, waiting = {start}, [start]
            while waiting:
                umi = waiting.pop()
                reached = {
                    other
                    for other in counts
                    if sum(a != b for a, b in zip(umi, other, strict=True)) == 1
                    and counts[umi] >= 2 * counts[other] - 1
                    and other not in cluster
                }
                cluster |= reached
                waiting += reached
            cluster -= taken
            taken |= cluster
            groups.append([read for read in here.tolist() if umis[read] in cluster])
    return groups
