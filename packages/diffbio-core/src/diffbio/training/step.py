"""The training step: one pure function from a carry and a batch to the next carry, compiled once.

What decides the compiled program (structure, loss, optimizer, schedules) is a `Program`; what a step
changes is a `Carry`; what a caller may turn without compiling again (frozen stages, anchor
strengths, the clipping norm) is a `Dials`. Two fits with equal programs share one compiled step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from diffbio.core import Pipeline, Softness
from diffbio.core.errors import ConfigError, MissingKeyError, listed
from diffbio.training.anchor import anchor_penalty

Data = Mapping[str, Shaped[Array, "cells ..."]]
Loss = Callable[[dict[str, Array]], Float[Array, ""]]
Schedule = Callable[[Any], Any]
Weights = dict[str, PyTree]  # the nnx.Params of each stage, by the stage's name


class Program(NamedTuple):
    """What the compiled step depends on; equal programs share one compilation.

    Attributes:
        graphdef: The structure of the pipeline, without its arrays.
        stages: The names of the stages, in order.
        loss: The loss, a function of the data dict.
        optimizer: The optax transformation.
        anneal: Pairs of a stage's position and the schedule of its softness.
    """

    graphdef: nnx.GraphDef[Pipeline]
    stages: tuple[str, ...]
    loss: Loss
    optimizer: optax.GradientTransformation
    anneal: tuple[tuple[int, Schedule], ...]


class Carry(NamedTuple):
    """What a step changes.

    Attributes:
        weights: The parameters of each stage.
        buffers: All other state of the pipeline: fixed temperatures, running statistics.
        moments: The state of the optimizer.
        step: The number of steps taken.
        failed: The step that met NaN or infinity; -1 while healthy. Once set, nothing changes.
    """

    weights: Weights
    buffers: PyTree
    moments: optax.OptState
    step: Int[Array, ""]
    failed: Int[Array, ""]


class Dials(NamedTuple):
    """What may change between fits that share a compiled step.

    Attributes:
        trainable: Whether each stage learns.
        anchor: The strength that pulls each stage to its start.
        clip_norm: The largest norm of the whole gradient; infinity for no limit.
    """

    trainable: dict[str, Bool[Array, ""]]
    anchor: dict[str, Float[Array, ""]]
    clip_norm: Float[Array, ""]


Step = Callable[[Carry, Dials, Weights, Data, jax.Array], tuple[Carry, dict[str, Array]]]


def take_apart(pipeline: Pipeline) -> tuple[nnx.GraphDef[Pipeline], Weights, PyTree]:
    """Return the structure of a pipeline, the parameters of each stage, and its other arrays.

    Raises:
        ConfigError: It is no pipeline.
    """
    if not isinstance(pipeline, Pipeline):
        raise ConfigError(f"training takes a Pipeline, got a {type(pipeline).__name__}: wrap it, Pipeline(operator)")
    graphdef, parameters, buffers = nnx.split(pipeline, nnx.Param, ...)
    steps = nnx.to_pure_dict(parameters).get("steps", {})
    weights = {name: steps[i] for i, name in enumerate(pipeline.names) if i in steps}
    return graphdef, weights, nnx.to_pure_dict(buffers)


def learning_stages(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the names of the stages that have parameters, in order.

    Args:
        pipeline: Any pipeline.
    """
    return tuple(take_apart(pipeline)[1])


def put_together(
    graphdef: nnx.GraphDef[Pipeline], stages: tuple[str, ...], weights: Weights, buffers: PyTree
) -> Pipeline:
    """Return the pipeline that `take_apart` took apart, with these arrays."""
    steps = {i: weights[name] for i, name in enumerate(stages) if name in weights}
    return nnx.merge(graphdef, {"steps": steps}, buffers)


def softnesses(stage: nnx.Module) -> Iterator[Softness]:
    """Return every softness that a stage holds."""
    return (node for _, node in nnx.iter_graph(stage) if isinstance(node, Softness))


def loss_of(loss: Loss, data: dict[str, Array]) -> Float[Array, ""]:
    """Return the loss of a data dict, checked to be a scalar.

    Raises:
        MissingKeyError: The loss reads a key that neither the dataset nor a stage gives.
        ConfigError: The loss returns no scalar.
    """
    try:
        value = loss(data)
    except MissingKeyError:
        raise
    except KeyError as error:
        if not error.args or error.args[0] in data:
            raise
        raise MissingKeyError(
            f"the loss reads {error.args[0]!r}, which neither the dataset nor a stage gives; it can read {listed(data)}"
        ) from error
    if jnp.shape(value) != ():
        raise ConfigError(
            f"the loss returned an array of shape {jnp.shape(value)}; it must be a scalar, such as the mean over cells"
        )
    return value


def at_step(program: Program, carry: Carry, step: Int[Array, ""]) -> Pipeline:
    """Return the pipeline of a carry with its temperatures set for `step`."""
    pipeline = put_together(program.graphdef, program.stages, carry.weights, carry.buffers)
    for position, schedule in program.anneal:
        for softness in softnesses(pipeline.steps[position]):
            softness.set(schedule(step))
    return pipeline


@functools.lru_cache(maxsize=64)
def compiled_step(program: Program) -> Step:
    """Return the jitted step of a program; its carry is donated.

    The step maps `(carry, dials, start, batch, key)` to the next carry and the figures of the step:
    `train_loss` and `anchor`, `temperature/<stage>`, and `grad_norm/<stage>` before clipping (0 for a
    frozen stage).
    """
    optimizer = optax.with_extra_args_support(program.optimizer)

    def step(carry: Carry, dials: Dials, start: Weights, batch: Data, key: jax.Array) -> tuple[Carry, dict[str, Array]]:
        def objective(weights: Weights) -> tuple[Float[Array, ""], tuple[dict[str, Array], PyTree]]:
            pipeline = at_step(program, carry._replace(weights=weights), carry.step)
            figures = temperatures(program, pipeline)
            step_key = jax.random.fold_in(key, carry.step)
            data, _, _ = pipeline.apply(batch, {}, None, key=step_key)
            figures["train_loss"] = loss_of(program.loss, data)
            figures["anchor"] = anchor_penalty(weights, start, dials.anchor)
            return figures["train_loss"] + figures["anchor"], (figures, take_apart(pipeline)[2])

        derivative = jax.value_and_grad(objective, has_aux=True)
        (total, (figures, buffers)), gradients = derivative(carry.weights)
        gradients = _only(dials.trainable, gradients, jax.tree.map(jnp.zeros_like, carry.weights))
        for stage, gradient in gradients.items():
            figures[f"grad_norm/{stage}"] = optax.tree.norm(gradient)
        updates, moments = optimizer.update(
            _clipped(gradients, dials.clip_norm), carry.moments, carry.weights, value=total
        )
        moved = cast("Weights", optax.apply_updates(carry.weights, updates))
        # Weight decay moves weights without a gradient, so freezing has to hold here too.
        weights = _only(dials.trainable, moved, carry.weights)
        healthy = _all_finite((total, gradients, weights))
        failed = jnp.where((carry.failed < 0) & ~healthy, carry.step, carry.failed)
        following = Carry(weights, buffers, moments, carry.step + 1, failed)
        held = carry._replace(failed=failed)
        return jax.tree.map(lambda new, old: jnp.where(failed < 0, new, old), following, held), figures

    return jax.jit(step, donate_argnums=0)


def compilations(step: Step) -> int:
    """Return how often a compiled step was compiled: once for each set of shapes that it met."""
    return cast("Any", step)._cache_size()  # noqa: SLF001 - jax counts its compilations nowhere else


def temperatures(program: Program, pipeline: Pipeline) -> dict[str, Float[Array, ""]]:
    """Return the temperature of each annealed stage, under `temperature/<stage>`."""
    return {
        f"temperature/{program.stages[position]}": next(softnesses(pipeline.steps[position]))()
        for position, _ in program.anneal
    }


def _only(stages: Mapping[str, Bool[Array, ""]], chosen: Weights, others: Weights) -> Weights:
    """Return the chosen trees for the stages that are true, the others elsewhere."""
    return {
        name: jax.tree.map(functools.partial(jnp.where, stages[name]), chosen[name], others[name]) for name in chosen
    }


def _clipped(gradients: Weights, limit: Float[Array, ""]) -> Weights:
    """Scale the gradient down to the norm `limit` where it is longer."""
    norm = optax.tree.norm(gradients)
    scale = jnp.where(norm > limit, limit / jnp.where(norm > 0, norm, 1.0), 1.0)
    return jax.tree.map(lambda gradient: gradient * scale, gradients)


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Return whether every number of a tree is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
