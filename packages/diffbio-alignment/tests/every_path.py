"""All paths through a small profile HMM, written out one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class WrittenPath(NamedTuple):
    """One path.

    Attributes:
        weight: The sum of its log-weights.
        states: For each residue its state, and its node, counted from 1, or 0 in a flank.
        entries: How often it enters the profile.
    """

    weight: float
    states: tuple[tuple[str, int], ...]
    entries: int


def every_path(weights, n_residues: int) -> Iterator[WrittenPath]:
    """Yield all paths of `PathWeights` whose arrays NumPy holds, by recursion from each state to those after it."""
    moves, emissions = weights
    steps = moves.transitions
    n_nodes = len(moves.begin)

    def enter(path: WrittenPath) -> Iterator[WrittenPath]:
        for node in range(1, n_nodes + 1):
            begun = path.weight + float(moves.move + moves.begin[node - 1])
            yield from emit(WrittenPath(begun, path.states, path.entries + 1), "M", node)

    def emit(path: WrittenPath, state: str, node: int) -> Iterator[WrittenPath]:
        place = len(path.states)
        if place == n_residues:
            return
        plane = {"M": emissions.match, "I": emissions.insert}.get(state)
        weight = path.weight + (0.0 if plane is None else float(plane[place, node - 1]))
        yield from after(WrittenPath(weight, (*path.states, (state, node)), path.entries), state, node)

    def after(path: WrittenPath, state: str, node: int) -> Iterator[WrittenPath]:
        def plus(weight: np.ndarray) -> WrittenPath:
            return path._replace(weight=path.weight + float(weight))

        if state in "NJ":
            yield from emit(plus(moves.loop), state, 0)
            yield from enter(path)
        elif state == "C":
            yield from emit(plus(moves.loop), "C", 0)
            if len(path.states) == n_residues:
                yield plus(moves.move)
        else:
            if state in "MD":
                yield from after(plus(moves.exit[node - 1] + moves.stop), "C", 0)
                yield from after(plus(moves.exit[node - 1] + moves.again), "J", 0)
            if node < n_nodes:
                k = node - 1
                onward = {"M": steps.mm, "I": steps.im, "D": steps.dm}[state]
                yield from emit(plus(onward[k]), "M", node + 1)
                if state != "I":
                    yield from after(plus({"M": steps.md, "D": steps.dd}[state][k]), "D", node + 1)
                if state != "D":
                    yield from emit(plus({"M": steps.mi, "I": steps.ii}[state][k]), "I", node)

    yield from after(WrittenPath(0.0, (), 0), "N", 0)
