"""Pairs of sequences that reference alignments align: to learn scores from, and to judge alignments by."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from diffbio.core.errors import DataError
from diffbio.io.sequence.alignments import Alignment
from diffbio.io.sequence.alphabets import encode
from diffbio.pipelines.alignment.padding import padded_size


class ReferencePairs:
    """Pairs of sequences of each family, as many of one as of another, and what their alignment says of them.

    A dataset of `query`, `target`, `query_length`, `target_length` and `reference_alignment`; rows are made when they
    are taken.

    Args:
        families: Reference alignments, by name.
        alphabet: The letters.
        most: Pairs of each family, at most; drawn where there are more.
        random: Draws the pairs.

    Raises:
        DataError: An alignment has one sequence alone.
    """

    def __init__(
        self, families: Mapping[str, Alignment], alphabet: str, most: int, random: np.random.Generator
    ) -> None:
        self.alphabet = alphabet
        self.pairs: list[tuple[str, int, int]] = []
        for name, family in families.items():
            if len(family.rows) < 2:
                raise DataError(f"{name} aligns a single sequence; two at least are wanted")
            of_family = list(combinations(range(len(family.rows)), 2))
            chosen = random.permutation(len(of_family))[:most]
            self.pairs += [(name, *of_family[number]) for number in sorted(chosen)]
        self.sequences = {name: family.sequences for name, family in families.items()}
        self.size = max(map(padded_size, self.sequences.values()))
        self.columns = {name: family.columns(self.size) for name, family in families.items()}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    @property
    def metadata(self) -> dict[str, Any]:
        """The families, and how many pairs each has."""
        names = [name for name, _, _ in self.pairs]
        return {"families": {name: names.count(name) for name in dict.fromkeys(names)}}

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of those pairs, in that order."""
        chosen = [self.pairs[number] for number in indices]
        sides = [
            encode([self.sequences[pair[0]][pair[side]] for pair in chosen], self.alphabet, size=self.size)
            for side in (1, 2)
        ]
        columns = [np.stack([self.columns[pair[0]][pair[side]] for pair in chosen]) for side in (1, 2)]
        return {
            "query": sides[0].letters,
            "target": sides[1].letters,
            "query_length": sides[0].lengths,
            "target_length": sides[1].lengths,
            "reference_alignment": aligned_positions(*columns).astype(np.float32),
        }


def aligned_positions(
    query_columns: Int[np.ndarray, "*pairs query"], target_columns: Int[np.ndarray, "*pairs target"]
) -> Bool[np.ndarray, "*pairs query target"]:
    """Return which positions share a column; -1 is none.

    Example:
        >>> aligned_positions(np.array([0, 1]), np.array([1, -1])).tolist()
        [[False, False], [True, False]]
    """
    same = query_columns[..., :, None] == target_columns[..., None, :]
    return same & (query_columns >= 0)[..., :, None]


def sum_of_pairs_score(reference: Alignment, rows: list[str]) -> float:
    """Return the share of pairs of residues aligned in a reference that another alignment has, too.

    Args:
        reference: The alignment to be found.
        rows: That of the same sequences, in the same order.

    Returns:
        A number from 0 to 1.

    References:
        Thompson, Plewniak and Poch, Nucleic Acids Research 1999.

    Example:
        >>> sum_of_pairs_score(Alignment(["a", "b"], ["AC-", "ACG"]), ["A-C", "ACG"])
        0.5
    """
    size = max(map(len, reference.sequences))
    known, found = reference.columns(size), Alignment(reference.names, rows).columns(size)
    right = total = 0
    for first, second in combinations(range(len(rows)), 2):
        wanted = aligned_positions(known[first], known[second])
        total += int(wanted.sum())
        right += int((wanted & aligned_positions(found[first], found[second])).sum())
    return right / total
