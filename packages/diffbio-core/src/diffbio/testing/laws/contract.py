"""Laws of the contract: what an operator reads, writes and leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.core.errors import ContractError, listed
from diffbio.core.registry import registry
from diffbio.testing.functional import is_float, outputs_of
from diffbio.testing.subject import subject_of
from diffbio.testing.verdict import LawViolation, NotApplicable, deviation, require_close

if TYPE_CHECKING:
    from diffbio.testing.example import Example


def keeps_input_keys(example: Example) -> None:
    """Whatever the operator does not write passes through unchanged.

    A pipeline hands all data to each step, so a key that one step loses is lost to all later ones.
    `Operator.apply` is final and keeps them; a step that goes round it must return
    `({**data, **outputs}, state, metadata)`.
    """
    subject = subject_of(example)
    given = {**subject.data, "some_other_key": jnp.arange(3.0)}
    state, metadata = {"epoch": jnp.zeros(())}, {"source": "example"}
    result, state_after, metadata_after = subject.fresh().apply(given, state, metadata, subject.key)
    mend = "write compute and leave apply to Operator, which returns {**data, **outputs}"
    for key in (key for key in given if key not in subject.contract.writes):
        if key not in result:
            raise LawViolation("keeps_input_keys", subject.name, "is lost", mend, key)
    kept = {key: value for key, value in given.items() if key not in subject.contract.writes}
    require_close("keeps_input_keys", subject.name, kept, result, seen="after apply", mend=mend, rtol=0.0)
    if state_after != state or metadata_after != metadata:
        raise LawViolation("keeps_input_keys", subject.name, "changes state or metadata", mend)


def mutates_nothing(example: Example) -> None:
    """Applying the operator changes neither its inputs nor the operator.

    A change made while tracing is lost or, worse, leaks a tracer; and an operator that remembers
    gives other results for the same data. Return what changes as an output; what is learned from
    data before training belongs in `initialize`.
    """
    subject = subject_of(example)
    operator = subject.fresh()
    given = {key: np.array(value) for key, value in subject.data.items()}
    before = {key: value.copy() for key, value in given.items()}
    graphdef, state = nnx.split(operator)
    remembered = _snapshot(state)
    operator.apply(given, {}, None, subject.key)
    graphdef_after, state_after = nnx.split(operator)
    for key, array in before.items():
        difference = "is gone" if key not in given else deviation(array, given[key], rtol=0.0)
        if difference:
            mend = "work on a copy: x.at[...].set(...) returns one"
            raise LawViolation("mutates_nothing", subject.name, f"input {difference}", mend, key)
    mend = "return it as an output, or set it in initialize"
    after = _snapshot(state_after)
    for path in remembered.keys() | after.keys():
        if path not in remembered or path not in after:
            raise LawViolation("mutates_nothing", subject.name, "appears or vanishes", mend, path)
        difference = deviation(remembered[path], after[path], rtol=0.0)
        if difference:
            raise LawViolation("mutates_nothing", subject.name, f"state {difference}", mend, path)
    if graphdef != graphdef_after:
        raise LawViolation("mutates_nothing", subject.name, "an attribute is set by apply", mend)


def eval_shape_agrees(example: Example) -> None:
    """The shapes that tracing foretells are the shapes that come, and those that are annotated.

    `pipeline.check` and `Pipeline.describe` trust both. Annotate each output with the dtype and the
    dimensions that it has for every input, and let no shape depend on the values of the data.
    """
    subject = subject_of(example)
    try:
        foretold = subject.shapes()
        outputs = subject.eager
    except ContractError as error:
        mend = "make compute return what its annotations say, or correct the annotations"
        raise LawViolation("eval_shape_agrees", subject.name, str(error), mend) from error
    for key, array in outputs.items():
        seen = f"is {array.dtype}{array.shape}, foretold {foretold[key].dtype}{foretold[key].shape}"
        if (array.shape, array.dtype) != (foretold[key].shape, foretold[key].dtype):
            mend = "make no shape or dtype depend on whether the arrays are traced"
            raise LawViolation("eval_shape_agrees", subject.name, seen, mend, key)
    for port in subject.contract.outputs:
        if port.dims is None:
            mend = 'annotate it with dtype and shape, such as Float[Array, "cells genes"]'
            raise LawViolation("eval_shape_agrees", subject.name, "has no shape", mend, port.key)


def keeps_float32(example: Example) -> None:
    """float32 goes in, float32 comes out, even where JAX is allowed float64.

    A float64 leak doubles memory and stops on accelerators; it stays hidden until someone enables
    x64. The usual cause is a NumPy scalar in arithmetic (`np.sqrt(n)`, `np.float64`) or an array
    made without a dtype (`jnp.linspace`, `jax.random.normal`): use Python numbers (`math.sqrt`) and
    `dtype=x.dtype`.
    """
    subject = subject_of(example)
    mend = "use Python numbers instead of NumPy scalars, and give new arrays dtype=x.dtype"
    for key, array in subject.data.items():
        if is_float(array) and array.dtype != jnp.float32:
            mend = "give the example float32 data"
            raise LawViolation("keeps_float32", subject.name, f"is {array.dtype}", mend, key)
    arguments = (subject.params, subject.rest, subject.data, subject.key)
    with jax.enable_x64(True):
        try:
            shapes = jax.eval_shape(lambda *given: outputs_of(subject.structure, *given), *arguments)
        except TypeError as error:  # as of a loop whose state changes its dtype
            seen = f"fails where float64 is allowed: {error}"
            raise LawViolation("keeps_float32", subject.name, seen, mend) from error
    for key, shape in {**shapes, **subject.shapes()}.items():
        leaked = shapes[key] if is_float(shapes[key]) else shape
        if is_float(leaked) and leaked.dtype != jnp.float32:
            seen = f"becomes {leaked.dtype} where float64 is allowed"
            raise LawViolation("keeps_float32", subject.name, seen, mend, key)


def declaration_agrees(example: Example) -> None:
    """The plugin declares the keys that the class reads and writes.

    Listings and error messages trust the declaration, for they import no class. Correct `reads` and
    `writes` in the plugin's `OperatorDeclaration`; an optional input may be named or left out.
    """
    subject = subject_of(example)
    registered = registry().operators.get(subject.name)
    if registered is None or registered.declaration.load() is not type(example.operator):
        raise NotApplicable("the operator is not registered")
    declaration, signature = registered.declaration, example.operator.signature
    required = {port.key for port in signature.inputs if not port.optional}
    for verb, declared, must, may in (
        ("reads", set(declaration.reads), required, set(signature.reads)),
        ("writes", set(declaration.writes), set(signature.writes), set(signature.writes)),
    ):
        if not must <= declared <= may:
            seen = f"declares that it {verb} {listed(sorted(declared))}"
            mend = f"declare {verb}={tuple(sorted(may))!r} in the plugin of {registered.distribution}"
            raise LawViolation("declaration_agrees", subject.name, seen, mend, verb)


def _snapshot(state: nnx.State) -> dict[str, np.ndarray]:
    """Copy all arrays of a module's state, random keys as their bits."""
    flat = {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}
    return {
        path: np.array(jax.random.key_data(value) if _is_key(value) else value)
        for path, value in flat.items()
        if value is not None
    }


def _is_key(value: jax.Array) -> bool:
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
