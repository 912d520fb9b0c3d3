"""Laws of the algorithm: its hard limit and its symmetries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffbio.testing.functional import run
from diffbio.testing.subject import subject_of, taken
from diffbio.testing.verdict import LawViolation, NotApplicable, require_close

if TYPE_CHECKING:
    from diffbio.testing.example import Example


def limit_is_hard_reference(example: Example) -> None:
    """As its softness goes to zero, the operator becomes the classical algorithm.

    That limit is what makes a relaxation of an algorithm more than a network of the same shape. Give
    the example `limit=Limit(sharpen, reference, atol)`, the reference best from the field's own tool;
    an operator that relaxes nothing is exempt, with that as the reason.
    """
    subject = subject_of(example)
    limit = example.limit
    if limit is None:
        raise LawViolation(
            "limit_is_hard_reference",
            subject.name,
            "the example states no limit",
            "give it limit=Limit(...), or exempt it: 'relaxes no hard algorithm'",
        )
    outputs = run(limit.sharpen(subject.fresh()), subject.data, subject.key)
    expected = limit.reference(example.data)
    if not expected:
        mend = "return at least one of the operator's outputs"
        seen = "the reference returns nothing"
        raise LawViolation("limit_is_hard_reference", subject.name, seen, mend)
    require_close(
        "limit_is_hard_reference",
        subject.name,
        expected,
        outputs,
        seen="in the limit, compared with the hard reference",
        mend="correct the relaxation, or sharpen further if it is still soft",
        atol=limit.atol,
        rtol=0.0,
    )


def permutation_symmetry(example: Example) -> None:
    """Permuting a symmetric dimension of the inputs permutes the outputs alike.

    Cells come in no order, so no result may depend on theirs. A violation means arithmetic that
    looks at positions (`cumsum`, a neighbor by index, the first element as a reference), or an output
    whose annotation names another dimension than it has.
    """
    if not example.symmetric:
        raise NotApplicable("no dimension is declared symmetric")
    subject = subject_of(example)
    for dim in example.symmetric:
        axes = subject.input_axes(dim)
        if not axes:
            mend = "name a dimension as the annotations of compute spell it"
            seen = f"no input has the symmetric dimension {dim!r}"
            raise LawViolation("permutation_symmetry", subject.name, seen, mend)
        order = subject.random.permutation(subject.size_of(dim))
        order = order[::-1] if (order == np.sort(order)).all() else order
        require_close(
            "permutation_symmetry",
            subject.name,
            taken(subject.compiled, subject.output_axes(dim), order),
            subject.outputs(taken(subject.data, axes, order)),
            seen=f"when {dim} are permuted",
            mend="remove what depends on positions, or take the dimension out of `symmetric`",
        )
