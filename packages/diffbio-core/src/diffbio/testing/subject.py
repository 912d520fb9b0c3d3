"""An example made ready to be run: split into its arrays, compiled once, shared by all laws."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.core import Operator, Port
from diffbio.testing.functional import (
    Arrays,
    Gradients,
    Point,
    Surroundings,
    compiled_outputs,
    gradients_of,
    is_float,
    outputs_of,
    split,
)
from diffbio.testing.verdict import NotApplicable

if TYPE_CHECKING:
    from diffbio.testing.example import Example

SEED = 0  # of everything random in the laws: a violation must show again when run again


class Subject:
    """An operator in functional form: static structure, parameters, other state, and data.

    Every run is made on a fresh copy of the operator, so that no law sees what another left behind.

    Args:
        example: What the operator's author ships.
    """

    def __init__(self, example: Example) -> None:
        self.name = example.name
        self.masks = example.masks
        self.operator = nnx.clone(example.operator)
        self.contract = self.operator.contract
        self.data: Arrays = {key: jnp.asarray(value) for key, value in example.data.items()}
        self.key = jax.random.key(SEED) if self.contract.takes_key else None
        self.structure, self.params, self.rest = split(self.operator)

    @property
    def random(self) -> np.random.Generator:
        """A new generator, the same at each use."""
        return np.random.default_rng(SEED)

    def fresh(self) -> Operator[Any]:
        """Return a copy of the operator that shares no array that can change."""
        return nnx.clone(self.operator)

    def inputs(self) -> Arrays:
        """Return the arrays that the operator reads, by data key."""
        return {key: self.data[key] for key in self.contract.reads if key in self.data}

    def differentiable(self) -> Arrays:
        """Return the float inputs that are no masks, by data key."""
        inputs = self.inputs().items()
        return {key: x for key, x in inputs if is_float(x) and key not in self.masks}

    def input_axes(self, dim: str) -> dict[str, tuple[int, ...]]:
        """Return, for each input that has the dimension `dim`, which of its axes it is."""
        return _axes_called(dim, self.contract.inputs, self.inputs())

    def output_axes(self, dim: str) -> dict[str, tuple[int, ...]]:
        """Return, for each output that has the dimension `dim`, which of its axes it is."""
        return _axes_called(dim, self.contract.outputs, self.shapes())

    def size_of(self, dim: str) -> int:
        """Return the size of a dimension that an input has."""
        key, axes = next(iter(self.input_axes(dim).items()))
        return self.data[key].shape[axes[0]]

    @functools.cached_property
    def eager(self) -> Arrays:
        """The outputs on the example, computed step by step."""
        result = self.fresh().apply(self.data, {}, None, self.key)[0]
        return {key: result[key] for key in self.contract.writes}

    @functools.cached_property
    def compiled(self) -> Arrays:
        """The outputs on the example, compiled."""
        return self.outputs(self.data)

    def outputs(self, data: Mapping[str, Any], key: jax.Array | None = None) -> Arrays:
        """Return the operator's outputs for `data`, compiled; `key` replaces the usual one."""
        key = self.key if key is None else key
        return compiled_outputs(self.structure, self.params, self.rest, dict(data), key)

    def shapes(self, data: Mapping[str, Any] | None = None) -> Arrays:
        """Return the shapes and dtypes of the outputs, computing nothing."""
        trace = functools.partial(outputs_of, self.structure)
        return jax.eval_shape(trace, self.params, self.rest, dict(data or self.data), self.key)

    @functools.cached_property
    def weights(self) -> Arrays:
        """A random weight for each element of each float output: no symmetry cancels gradients.

        Raises:
            NotApplicable: No output is real-valued.
        """
        random = self.random
        weights = {
            key: random.normal(size=shape.shape).astype(np.float32)
            for key, shape in self.shapes().items()
            if is_float(shape)
        }
        if not weights:
            raise NotApplicable("no output is real-valued")
        return weights

    @functools.cached_property
    def gradients(self) -> Gradients:
        """The gradients on the example."""
        return self.gradients_on(self.data)

    def gradients_on(self, data: Mapping[str, Any], weights: Mapping[str, Any] | None = None) -> Gradients:
        """Return the gradients with respect to each parameter and each float input.

        Raises:
            NotApplicable: No output is real-valued, or there is nothing to differentiate by.
        """
        names = self.differentiable()
        if not names and not self.params:
            raise NotApplicable("it has no parameter and no real-valued input")
        point = Point(self.params, {key: data[key] for key in names})
        others = {key: value for key, value in data.items() if key not in names}
        weights = dict(self.weights if weights is None else weights)
        return gradients_of(self.structure, point, Surroundings(self.rest, others, self.key, weights))


@functools.lru_cache(maxsize=64)
def subject_of(example: Example) -> Subject:
    """Return the subject of an example, the same at each call: all laws share what it compiled."""
    return Subject(example)


def taken(arrays: Mapping[str, Any], axes: Mapping[str, tuple[int, ...]], indices: np.ndarray) -> Arrays:
    """Return the arrays with these indices taken along the axes given for their keys."""
    result = dict(arrays)
    for key in axes.keys() & result.keys():
        for axis in axes[key]:
            result[key] = jnp.take(result[key], indices, axis)
    return result


def _axes_called(dim: str, ports: tuple[Port, ...], arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Match the names in annotations with axes; of several leading axes, the last is `*cells`."""
    found = {}
    for port in ports:
        names: list[str] = []
        for name in (port.dims or ()) if port.key in arrays else ():
            if name.startswith("*"):
                absorbed = arrays[port.key].ndim - len(port.dims or ()) + 1
                names += [name] * (absorbed - 1) + [name[1:]] * (absorbed > 0)
            else:
                names.append(name)
        found[port.key] = tuple(axis for axis, name in enumerate(names) if name == dim)
    return {key: axes for key, axes in found.items() if axes}
