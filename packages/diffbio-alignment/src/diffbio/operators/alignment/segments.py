"""Long scans with a way back, in memory that grows as the square root of their length.

The steps are cut into about as many segments as each is long. The way there keeps only the state at which each segment
begins; the way back computes what it needs of a segment again from there.

References:
    Chen, Xu, Zhang and Guestrin, Training deep nets with sublinear memory cost, 2016.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Int


def scan_there[C](
    step: Callable[[C, Array], tuple[C, Any]], start: C, segments: Int[Array, "segments steps"]
) -> tuple[C, C, Any]:
    """Return the last state, the states at which segments begin (segments, ...), and what the steps give (all, ...).

    Args:
        step: Takes a state and a number; returns the next state, and what it gives or `None`.
        start: The first state.
        segments: The numbers of the steps.
    """

    def segment(state: C, numbers: Array) -> tuple[C, tuple[C, Any]]:
        following, given = lax.scan(step, state, numbers)
        return following, (state, given)

    last, (begun, given) = lax.scan(segment, start, segments)
    return last, begun, _joined(given)


def scan_back[C, W](
    again: Callable[[C, Array], tuple[C, Any]],
    step: Callable[[W, tuple[Array, Any]], tuple[W, Any]],
    start: W,
    segments: Int[Array, "segments steps"],
    begun: C,
) -> tuple[W, Any]:
    """Return the last state of a scan in reverse, and what its steps give (all, ...), in the order of the numbers.

    Args:
        again: The step of the way there, which gives what the way back needs of it.
        step: The step of the way back; takes a state, a number and what `again` gave for it.
        start: The first state of the way back.
        segments: The numbers of the steps.
        begun: The states at which segments begin, by `scan_there`.
    """

    def segment(state: W, at: tuple[Array, C]) -> tuple[W, Any]:
        numbers, first = at
        _, needed = lax.scan(again, first, numbers)
        return lax.scan(step, state, (numbers, needed), reverse=True)

    last, given = lax.scan(segment, start, (segments, begun), reverse=True)
    return last, _joined(given)


def _joined(given: Any) -> Any:
    """Return what all segments give as one row."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), given)
