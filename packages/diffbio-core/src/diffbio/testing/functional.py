"""An operator as pure functions of its arrays, compiled once for all laws."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from diffbio.core import Operator

Arrays = dict[str, Any]
QUICK = {"xla_backend_optimization_level": 0}  # for programs that run a few times only: half the time to compile


class Structure(NamedTuple):
    """What compilation depends on beside shapes: hashable, so a static argument of `jit`.

    Attributes:
        graphdef: The operator without its arrays.
        paths: Where its parameters belong.
        writes: The data keys of its outputs.
    """

    graphdef: nnx.GraphDef[Any]
    paths: tuple[tuple[Any, ...], ...]
    writes: tuple[str, ...]


class Point(NamedTuple):
    """Where outputs are differentiated.

    Attributes:
        params: The parameters by path.
        inputs: The float inputs by data key.
    """

    params: Arrays
    inputs: Arrays


class Gradients(NamedTuple):
    """The derivative of a weighted sum of the float outputs.

    Attributes:
        value: The sum itself.
        params: For each parameter's path, the gradient in its shape.
        inputs: For each float input's key, the gradient in its shape.
    """

    value: jax.Array
    params: Arrays
    inputs: Arrays


class Surroundings(NamedTuple):
    """What stays fixed while outputs are differentiated.

    Attributes:
        rest: The operator's state that is no parameter.
        data: The inputs that have no gradient.
        key: The random key of a stochastic operator.
        weights: The weight of each element of each float output.
    """

    rest: Any
    data: Arrays
    key: jax.Array | None
    weights: Arrays


def split(operator: Operator[Any]) -> tuple[Structure, Arrays, Any]:
    """Return an operator's structure, its parameters by path, and its other state."""
    graphdef, params, rest = nnx.split(operator, nnx.Param, ...)
    flat = dict(nnx.to_flat_state(params))
    named = {_spelled(path): param[...] for path, param in flat.items()}
    return Structure(graphdef, tuple(flat), operator.contract.writes), named, rest


def outputs_of(structure: Structure, params: Arrays, rest: Any, data: Arrays, key: jax.Array | None) -> Arrays:
    """Apply the operator with these arrays; not compiled, to be transformed."""
    state = nnx.from_flat_state([(path, params[_spelled(path)]) for path in structure.paths])
    operator = nnx.merge(structure.graphdef, state, rest)
    result = operator.apply(data, {}, None, key)[0]
    return {name: result[name] for name in structure.writes}


compiled_outputs = jax.jit(outputs_of, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def gradients_of(structure: Structure, point: Point, surroundings: Surroundings) -> Gradients:
    """Differentiate the weighted sum of outputs by the parameters and the float inputs."""
    rest, data, key, weights = surroundings

    def weighted_sum(point: Point) -> jax.Array:
        outputs = outputs_of(structure, point.params, rest, {**data, **point.inputs}, key)
        return jnp.stack([jnp.sum(weight * outputs[name]) for name, weight in weights.items()]).sum()

    value, slopes = jax.value_and_grad(weighted_sum)(point)
    return Gradients(value, slopes.params, slopes.inputs)


def run(operator: Operator[Any], data: Mapping[str, Any], key: jax.Array | None) -> Arrays:
    """Return the outputs of an operator, compiled."""
    structure, params, rest = split(operator)
    return compiled_outputs(structure, params, rest, dict(data), key)


def is_float(array: Any) -> bool:
    """Whether an array, or the shape of one, is real-valued."""
    return jnp.issubdtype(array.dtype, jnp.floating)


def _spelled(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
