"""Laws of purity: JAX may transform an operator, and what it returns stays the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from diffbio.testing.functional import QUICK, outputs_of
from diffbio.testing.subject import Subject, subject_of
from diffbio.testing.verdict import LawViolation, deviation, require_close

if TYPE_CHECKING:
    from diffbio.testing.example import Example


def eager_equals_jit(example: Example) -> None:
    """The outputs are the same with and without `jax.jit`.

    Everything that trains or serves an operator compiles it. Replace Python branches on values by
    `jnp.where` or `jax.lax.cond`, and NumPy on arrays by `jax.numpy`; take randomness from `key`.
    """
    subject = subject_of(example)
    mend = "let no Python branch, NumPy call or hidden state stand in compute"
    expected = subject.eager
    try:
        actual = subject.compiled
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        seen = f"fails under jit: {_first_line(error)}"
        raise LawViolation("eager_equals_jit", subject.name, seen, mend) from error
    require_close("eager_equals_jit", subject.name, expected, actual, seen="under jit", mend=mend)


def vmap_equals_loop(example: Example) -> None:
    """`jax.vmap` over records gives what a loop over them gives.

    Batches are vmapped, so a record must not see another one. An operator annotated with leading
    axes (`*cells`) works per cell: applied to one cell at a time, it must give the same rows, which
    rules out any statistic over the leading axes.
    """
    subject = subject_of(example)
    records = [subject.data, _perturbed(subject)]
    stacked = {key: np.stack([record[key] for record in records]) for key in subject.data}
    axes = dict.fromkeys(stacked, 0)
    mapped = _vmapped(subject, stacked, axes)
    for index, record in enumerate(records):
        require_close(
            "vmap_equals_loop",
            subject.name,
            subject.compiled if index == 0 else subject.outputs(record),
            {key: value[index] for key, value in mapped.items()},
            seen=f"under vmap, in record {index}",
            mend="let compute depend on its own record alone, and give callbacks a vmap_method",
        )
    _check_leading_axes(subject)


def same_key_same_output(example: Example) -> None:
    """The outputs depend on the data and the given key, and on no other randomness.

    Who can't choose the randomness can neither repeat a run nor vary it: a constant seed gives every
    batch the same noise. Take a keyword-only `key` in `compute` and split that; parameters and
    fixed random projections are drawn from `rngs` in `__init__`.
    """
    subject = subject_of(example)
    drawn = set(_primitives(subject))
    mend = "draw from the keyword-only argument key of compute, split with jax.random.split"
    if drawn & {"random_seed", "threefry_seed"}:
        seen = "compute makes a random key from a seed of its own"
        raise LawViolation("same_key_same_output", subject.name, seen, mend)
    if subject.key is None and any(name.startswith(("random_", "threefry")) for name in drawn):
        seen = "compute draws random numbers, yet takes no key"
        raise LawViolation("same_key_same_output", subject.name, seen, mend)
    again = subject.fresh().apply(subject.data, {}, None, subject.key)[0]
    require_close("same_key_same_output", subject.name, subject.eager, again, seen="when run again", mend=mend)
    if subject.key is not None:
        other = subject.outputs(subject.data, key=jax.random.fold_in(subject.key, 1))
        if all(deviation(value, other[key]) is None for key, value in subject.compiled.items()):
            mend = "use key, or take it out of the signature of compute"
            seen = "two different keys give the same outputs"
            raise LawViolation("same_key_same_output", subject.name, seen, mend)


def _check_leading_axes(subject: Subject) -> None:
    """Compare one call on all cells with one call per cell, where the annotations promise both."""
    data, contract = subject.data, subject.contract
    leading = {port.key for port in contract.inputs if _is_per_cell(port) and port.key in data}
    rows = [port.key for port in contract.outputs if _is_per_cell(port)]
    if not leading or not rows or subject.key is not None:
        return
    mapped = _vmapped(subject, data, {key: 0 if key in leading else None for key in data})
    require_close(
        "vmap_equals_loop",
        subject.name,
        {key: subject.compiled[key] for key in rows},
        mapped,
        seen="when each cell is given alone",
        mend='reduce over no leading axis, or annotate "cells genes" instead of "*cells genes"',
    )


def _is_per_cell(port: Any) -> bool:
    return bool(port.dims) and port.dims[0].startswith("*")


def _vmapped(subject: Subject, data: dict[str, Any], axes: Mapping[str, int | None]) -> dict[str, Any]:
    """Return the outputs of the operator, vmapped over the given axes of its data."""

    def apply(data: dict[str, Any]) -> dict[str, Any]:
        return outputs_of(subject.structure, subject.params, subject.rest, data, subject.key)

    return jax.jit(jax.vmap(apply, in_axes=(dict(axes),)), compiler_options=QUICK)(data)


def _perturbed(subject: Subject) -> dict[str, Any]:
    """Return other data of the same kind: zeros, signs, masks and integers stay as they are."""
    random, floats = subject.random, subject.differentiable()
    return {
        key: x * random.uniform(0.9, 1.1, x.shape).astype(np.float32) if key in floats else x
        for key, x in subject.data.items()
    }


def _primitives(subject: Subject) -> Iterator[str]:
    """Yield the names of all primitives in the traced program, at any depth."""
    arguments = (subject.params, subject.rest, subject.data, subject.key)
    traced = jax.make_jaxpr(lambda *given: outputs_of(subject.structure, *given))(*arguments)
    open_jaxprs = [traced.jaxpr]
    while open_jaxprs:
        for equation in open_jaxprs.pop().eqns:
            yield equation.primitive.name
            for value in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
                if _is_jaxpr(value):
                    open_jaxprs.append(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
