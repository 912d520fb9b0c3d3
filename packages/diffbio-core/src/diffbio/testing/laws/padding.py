"""The law of padding: what a mask hides has no effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np

from diffbio.core.errors import ContractError
from diffbio.testing.functional import Arrays, is_float
from diffbio.testing.subject import Subject, subject_of, taken
from diffbio.testing.verdict import LawViolation, NotApplicable, require_close

if TYPE_CHECKING:
    from diffbio.testing.example import Example

PADDING = 2  # elements that are appended
LAW = "masked_padding_is_inert"
MEND = "mask before every reduction, and guard what is computed on padding"

Filling = Literal["garbage", "zeros", "as it was"]


def masked_padding_is_inert(example: Example) -> None:
    """What the mask hides changes no other element's result or gradient, whatever stands there.

    Batches of variable length are padded, and the padding differs from batch to batch. Mask before
    each reduction (`jnp.where(mask, x, 0)`, `-inf` before a softmax), and guard what is computed on
    padding: a NaN there reaches the gradient through `jnp.where`.
    """
    if not example.masks:
        raise NotApplicable("no input is a mask")
    subject = subject_of(example)
    for mask, dim in example.masks.items():
        if mask not in subject.input_axes(dim):
            seen = f"is declared to mask {dim!r}, but is no input that has this dimension"
            mend = "name a mask that the operator reads, and one of its annotated dimensions"
            raise LawViolation(LAW, subject.name, seen, mend, mask)
        size = subject.size_of(dim)
        padding = _Padding(subject, mask, dim, kept=size, added=PADDING)
        reference = subject.data
        if not _fits(subject, padding.filled("zeros")):
            padding = _Padding(subject, mask, dim, kept=size - 1, added=1)
            reference = padding.filled("as it was")
        for filling in ("garbage", "zeros"):
            _require_inert(padding, reference, padding.filled(filling), seen=f"with {filling} as padding")


@dataclass(frozen=True)
class _Padding:
    """Hidden elements: behind the others or, where an operator fixes the size, in place of the last.

    Attributes:
        subject: Whose data are padded.
        mask: The key of the mask that hides them.
        dim: The dimension that has them.
        kept: How many elements stay as they are.
        added: How many hidden ones follow.
    """

    subject: Subject
    mask: str
    dim: str
    kept: int
    added: int

    def filled(self, filling: Filling) -> Arrays:
        """Return the data with these elements hidden, and with `filling` where they are."""
        padded = dict(self.subject.data)
        for key, axes in self.subject.input_axes(self.dim).items():
            for axis in axes:
                head = jnp.take(padded[key], np.arange(self.kept), axis)
                tail = jnp.take(padded[key], np.arange(-self.added, 0), axis, mode="wrap")
                tail = jnp.zeros_like(tail) if key == self.mask else _filled(tail, filling)
                padded[key] = jnp.concatenate([head, tail], axis)
        return padded


def _filled(values: jax.Array, filling: Filling) -> jax.Array:
    """Return what stands in the padding; integers stay, for they may be indices."""
    if filling == "as it was" or not is_float(values):
        return values
    return 7 * values + 3 if filling == "garbage" else jnp.zeros_like(values)


def _fits(subject: Subject, data: Arrays) -> bool:
    """Whether the operator takes another size of the dimension."""
    try:
        subject.shapes(data)
    except ContractError:
        return False
    return True


def _require_inert(padding: _Padding, reference: Arrays, data: Arrays, *, seen: str) -> None:
    """Compare results and gradients of the elements kept; hidden ones must have a zero gradient."""
    subject, first = padding.subject, np.arange(padding.kept)
    input_axes, output_axes = subject.input_axes(padding.dim), subject.output_axes(padding.dim)
    wanted, given = subject.outputs(reference), subject.outputs(data)
    expected, actual = taken(wanted, output_axes, first), taken(given, output_axes, first)
    require_close(LAW, subject.name, expected, actual, seen=seen, mend=MEND)
    try:
        weights = taken(subject.weights, output_axes, first)
        before = subject.gradients_on(reference, _widened(weights, wanted))
        after = subject.gradients_on(data, _widened(weights, given))
    except NotApplicable:  # nothing here has a gradient
        return
    seen = f"in the gradient by it, {seen}"
    require_close(LAW, subject.name, before.params, after.params, seen=seen, mend=MEND)
    inert = _widened(taken(before.inputs, input_axes, first), after.inputs)
    require_close(LAW, subject.name, inert, after.inputs, seen=seen, mend=MEND)


def _widened(arrays: Arrays, like: Arrays) -> Arrays:
    """Return the arrays filled up with zeros to the shapes that `like` has."""
    result = {}
    for key, array in arrays.items():
        missing = np.subtract(like[key].shape, array.shape)
        result[key] = jnp.pad(array, [(0, int(count)) for count in missing]) if array.ndim else array
    return result
