"""The NaN guard: when a step met NaN or infinity, find the stage that it came from.

The step itself only raises a flag and holds everything as it was (`diffbio.training.step`), which
costs training next to nothing. Here the failing batch is run again from that state, one stage at a
time: forward until an output is not finite, then backward until a gradient is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree, Shaped

from diffbio.core import Operator, Pipeline
from diffbio.core.errors import NonFiniteError
from diffbio.training.step import Loss, loss_of

_FORWARD = "look for zeros, negative or huge numbers that reach a logarithm, a root, a division or an exponential there"
_BACKWARD = "look for a root, a norm or a logarithm of zero there, or raise its temperature"
_OPTIMIZER = "lower the learning rate, or limit the gradient with clip_norm"


class Source(NamedTuple):
    """Where a number that is not finite came from.

    Attributes:
        place: The stage, in words: `stage 'projection'`, `the data`, `the loss`, `the optimizer`.
        what: What is not finite there, with its verb.
        advice: What to do.
    """

    place: str
    what: str
    advice: str


def error_at(source: Source, moment: str, key: jax.Array) -> NonFiniteError:
    """Return the error that tells where and when a number was not finite, and what to do."""
    return NonFiniteError(
        f"{moment}: in {source.place} {source.what} not finite; {source.advice}. Nothing of that step was "
        f"applied. The random key given to the pipeline holds {jax.random.key_data(key).tolist()}"
    )


def find_forward(pipeline: Pipeline, batch: Mapping[str, Array], loss: Loss, *, key: jax.Array) -> Source | None:
    """Return the first place, from the data to the loss, where a number is not finite.

    Args:
        pipeline: The pipeline; it is not changed.
        batch: The data dict that it is applied to.
        loss: A function of the data dict after the pipeline.
        key: The random key that `pipeline.apply` was given.
    """
    data = dict(batch)
    if spoiled := _not_finite(data):
        return Source("the data", _are(spoiled), "clean or drop these rows before training")
    for name, stage, stage_key in _stages(pipeline, key):
        if spoiled := _not_finite(nnx.to_pure_dict(nnx.state(stage, nnx.Param))):
            return Source(f"stage {name!r}", f"parameter {_are(spoiled)}", "start from finite parameters")
        data, _, _ = stage.apply(data, {}, None, key=stage_key)
        if spoiled := _not_finite(data):
            return Source(f"stage {name!r}", f"output {_are(spoiled)}", _FORWARD)
    if jnp.isfinite(loss_of(loss, data)):
        return None
    return Source("the loss", "the value is", f"every stage's output is finite, so {_FORWARD}")


def find_backward(pipeline: Pipeline, batch: Mapping[str, Array], loss: Loss, *, key: jax.Array) -> Source:
    """Return the first place, from the loss back to the data, where a gradient is not finite.

    Args:
        pipeline: The pipeline; it is not changed.
        batch: The data dict that it is applied to.
        loss: A function of the data dict after the pipeline.
        key: The random key that `pipeline.apply` was given.
    """
    data, learned, visited = dict(batch), frozenset[str](), []  # learned: keys that depend on a parameter
    for name, stage, stage_key in _stages(pipeline, key):
        visited.append((name, stage, stage_key, data, learned))
        data, _, _ = stage.apply(data, {}, None, key=stage_key)
        if learned or jax.tree.leaves(nnx.state(stage, nnx.Param)):
            learned |= set(stage.contract.writes)
    floats, others = _floats(data)
    cotangent = jax.grad(lambda floats: loss_of(loss, {**others, **floats}))(floats)
    if spoiled := _not_finite(_only(cotangent, learned)):
        return Source("the loss", f"the gradient by {_are(spoiled)}", _BACKWARD)
    for name, stage, stage_key, inputs, learned_before in reversed(visited):
        by_weights, cotangent = _pull_back(stage, inputs, cotangent, stage_key)
        if spoiled := _not_finite({**by_weights, **_only(cotangent, learned_before)}):
            return Source(f"stage {name!r}", f"the gradient by {_are(spoiled)}", _BACKWARD)
    return Source("the optimizer", "the update is", _OPTIMIZER)


def _pull_back(
    stage: Operator[Any], data: dict[str, Array], cotangent: dict[str, Array], key: jax.Array
) -> tuple[PyTree, dict[str, Array]]:
    """Return the gradients by a stage's parameters and by its inputs, for one by its outputs."""
    graphdef, parameters, buffers = nnx.split(stage, nnx.Param, ...)
    floats, others = _floats(data)

    def forward(weights: PyTree, floats: dict[str, Array]) -> dict[str, Array]:
        rebuilt = nnx.merge(graphdef, weights, nnx.to_pure_dict(buffers))
        return _floats(rebuilt.apply({**others, **floats}, {}, None, key=key)[0])[0]

    _, pull = jax.vjp(forward, nnx.to_pure_dict(parameters), floats)
    return pull(cotangent)


def _stages(pipeline: Pipeline, key: jax.Array) -> Iterator[tuple[str, Operator[Any], jax.Array]]:
    """Return name, operator and key of each stage; a pipeline folds a stage's position into its key."""
    for position, (name, stage) in enumerate(zip(pipeline.names, pipeline.steps, strict=True)):
        yield name, stage, jax.random.fold_in(key, position)


def _floats(data: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the arrays that have a gradient, and the others."""
    floats = {name: array for name, array in data.items() if jnp.issubdtype(array.dtype, jnp.floating)}
    return floats, {name: array for name, array in data.items() if name not in floats}


def _only(data: Mapping[str, Array], names: Collection[str]) -> dict[str, Array]:
    """Return the arrays of these names."""
    return {name: array for name, array in data.items() if name in names}


def _not_finite(tree: PyTree[Shaped[Array, "..."]]) -> list[str]:
    """Return the paths of the floating arrays of a tree that hold NaN or infinity."""
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not jnp.all(jnp.isfinite(leaf))
    ]


def _are(names: list[str]) -> str:
    """Return names with their verb: `'embeddings' is`, `'a', 'b' are`."""
    return f"{', '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'}"
