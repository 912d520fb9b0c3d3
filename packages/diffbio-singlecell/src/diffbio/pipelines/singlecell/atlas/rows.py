"""What a comparison is: a quantity measured on the same cells by two programs, and the bar that it is held to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike


class Bar(NamedTuple):
    """The bound that a measured value is held to.

    Attributes:
        relation: Whether the value may be at most, or must be at least ...
        limit: ... this.

    Example:
        >>> str(Bar("<=", 1e-5)), Bar("<=", 1e-5).admits(2e-6), Bar(">=", 0.99).admits(float("nan"))
        ('<= 1e-05', True, False)
    """

    relation: Literal["<=", ">="]
    limit: float

    def admits(self, value: float) -> bool:
        """Return whether the value is within; NaN never is."""
        return value <= self.limit if self.relation == "<=" else value >= self.limit

    def __str__(self) -> str:
        """Return the bound as it is written."""
        return f"{self.relation} {self.limit:g}"


class Timing(NamedTuple):
    """CPU seconds, those of all threads together.

    Attributes:
        ours: Of diffbio, by its second call; of what runs once, by that, compilation included.
        theirs: Of the tool, likewise.
        first: Of diffbio's first call, compilation included.
    """

    ours: float
    theirs: float
    first: float


class Comparison(NamedTuple):
    """One quantity, measured.

    Attributes:
        quantity: What was measured.
        measured: The agreement of the two results; where each has a quality of its own, ours less theirs.
        bar: What `measured` is held to; `None` where it is only reported.
        ours: The quality of diffbio's result, where it has one.
        theirs: That of the tool's.
        timing: CPU seconds of both.
    """

    quantity: str
    measured: float
    bar: Bar | None = None
    ours: float | None = None
    theirs: float | None = None
    timing: Timing | None = None

    @property
    def met(self) -> bool | None:
        """Whether the value is within the bar; `None` without a bar."""
        return None if self.bar is None else self.bar.admits(self.measured)


class NotRun(NamedTuple):
    """A comparison that was not made.

    Attributes:
        quantity: Which; empty for a whole family.
        reason: Why, and what to do about it.
        failed: Whether it was begun, and ended with an error.
    """

    quantity: str
    reason: str
    failed: bool = False


def versus[A, B](ours: Callable[[], A], theirs: Callable[[], B], *, warm_up: bool = True) -> tuple[A, B, Timing]:
    """Run both programs and return their results and CPU seconds.

    Args:
        ours: Runs diffbio.
        theirs: Runs the tool.
        warm_up: Run each a first time that is not counted, for both may compile; `False` for trainings.
    """
    mine, first = _timed(ours)
    ours_seconds = first
    if warm_up:
        mine, ours_seconds = _timed(ours)
        theirs()
    other, their_seconds = _timed(theirs)
    return mine, other, Timing(ours_seconds, their_seconds, first)


def quality(
    quantity: str, ours: ArrayLike, theirs: ArrayLike, bar: Bar | None, timing: Timing | None = None
) -> Comparison:
    """Return a comparison by a quality that each result has: by how much ours is better.

    Args:
        quantity: The quality, of which more is better.
        ours: Values of diffbio's results; the mean counts.
        theirs: Of the tool's.
        bar: For the difference.
        timing: CPU seconds, where they are taken.
    """
    mine, other = float(np.asarray(ours).mean()), float(np.asarray(theirs).mean())
    return Comparison(quantity, mine - other, bar, mine, other, timing)


def distance(quantity: str, ours: ArrayLike, theirs: ArrayLike, bar: Bar | None, timing: Timing) -> Comparison:
    """Return a comparison by a quantity in which the results should be alike: how far ours is from theirs.

    Args:
        quantity: What each result has.
        ours: Values of diffbio's results; the mean counts.
        theirs: Of the tool's.
        bar: For the absolute difference.
        timing: CPU seconds.
    """
    signed = quality(quantity, ours, theirs, bar, timing)
    return signed._replace(measured=abs(signed.measured))


def largest(differences: ArrayLike) -> float:
    """Return the largest absolute value."""
    return float(np.abs(np.asarray(differences)).max())


def _timed[T](run: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    result = jax.block_until_ready(run())
    return result, time.process_time() - start
