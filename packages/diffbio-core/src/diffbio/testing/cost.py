"""What applying an operator costs, and how that grows: CPU time at three sizes of one dimension of its example."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from diffbio.testing.example import Example
from diffbio.testing.functional import Arrays, outputs_of
from diffbio.testing.subject import Subject, subject_of, taken
from diffbio.testing.verdict import NotApplicable

SIZES = (64, 256, 1024)
_LEAST_SECONDS, _REPEATS = 0.02, 3  # of one measurement, of which the fastest counts

_optimized_outputs = jax.jit(outputs_of, static_argnums=0)  # the laws compile quickly; users compile well


class Cost(NamedTuple):
    """CPU time of an operator, compiled, by the size of a dimension.

    Attributes:
        dim: The dimension; all others are as in the example.
        sizes: Its sizes.
        seconds: CPU seconds of one application at each size.
    """

    dim: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """The power of the size with which the time grows between the last two: 1 if linear, 2 if quadratic."""
        return math.log(self.seconds[-1] / self.seconds[-2]) / math.log(self.sizes[-1] / self.sizes[-2])


def cost_of(example: Example, sizes: tuple[int, ...] = SIZES) -> Cost:
    """Measure an operator on its example, whose elements along one dimension are repeated.

    The dimension is the first of its inputs that may have any size.

    Args:
        example: The operator and its data.
        sizes: At least two sizes, growing.

    Raises:
        NotApplicable: The configuration or the other inputs fix the size of each dimension.

    Example:
        >>> cost = cost_of(example)  # doctest: +SKIP
        >>> cost.dim, round(cost.exponent, 1)  # doctest: +SKIP
        ('cells', 1.0)
    """
    subject = subject_of(example)
    for dim in dict.fromkeys(_dimensions(subject)):
        inputs = [_repeated(subject, dim, size) for size in sizes]
        if all(_fits(subject, data) for data in inputs):
            return Cost(dim, sizes, tuple(_seconds(subject, data) for data in inputs))
    raise NotApplicable("no dimension of its inputs may have any size")


def _dimensions(subject: Subject) -> Iterator[str]:
    """Yield the names of the dimensions that the inputs of the example have; numbers are none."""
    for port in subject.contract.inputs:
        names = (name.removeprefix("*") for name in port.dims or () if not name.isdigit())
        yield from (name for name in names if subject.input_axes(name))


def _repeated(subject: Subject, dim: str, size: int) -> Arrays:
    """Return the data with the elements of a dimension again and again, up to a size."""
    return taken(subject.data, subject.input_axes(dim), np.arange(size) % subject.size_of(dim))


def _fits(subject: Subject, data: Arrays) -> bool:
    """Whether the operator takes these sizes."""
    try:
        subject.shapes(data)
    except Exception:  # noqa: BLE001 - an operator may refuse a size in any way
        return False
    return True


def _seconds(subject: Subject, data: Arrays) -> float:
    """Return the CPU seconds of one application: the least of some measurements."""

    def apply() -> None:
        arrays = subject.structure, subject.params, subject.rest, data, subject.key
        jax.block_until_ready(_optimized_outputs(*arrays))

    apply()  # compiles
    calls, measured = 1, []
    while len(measured) < _REPEATS:
        start = time.process_time()
        for _ in range(calls):
            apply()
        spent = time.process_time() - start
        if spent < _LEAST_SECONDS and not measured:
            calls *= 4
        else:
            measured.append(spent / calls)
    return min(measured)
