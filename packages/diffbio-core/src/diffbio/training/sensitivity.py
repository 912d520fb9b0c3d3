"""How much a loss depends on each stage of a pipeline: on its parameters, and on what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffbio.core import Pipeline
from diffbio.training.step import Loss, loss_of, put_together, take_apart


class StageGradient(NamedTuple):
    """The gradient of a loss at one stage.

    Attributes:
        parameters: Its norm in the stage's parameters; None for a stage that has none.
        outputs: Its norm in the arrays that the stage writes: 0 where the loss does not depend on them.
    """

    parameters: float | None
    outputs: float


def stage_gradients(
    pipeline: Pipeline, data: Mapping[str, Any], loss: Loss, *, key: jax.Array | None = None
) -> dict[str, StageGradient]:
    """Return the norm of the gradient of a loss at each stage, those without parameters included.

    Args:
        pipeline: Its stages in order.
        data: Named arrays, what the pipeline and the loss read.
        loss: A pure function of the data dict after the pipeline.
        key: A random key, for a stochastic pipeline.

    Returns:
        By stage, in order.

    Raises:
        ConfigError: The loss gives no scalar.
        MissingKeyError: A stage or the loss reads a key that is not there.

    Example:
        `stage_gradients(pipeline, data, cluster_compactness)["imputer"].outputs > 0`
    """
    graphdef, weights, buffers = take_apart(pipeline)

    def run(weights: Any, shifts: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[jax.Array, Any]:
        stages = put_together(graphdef, pipeline.names, weights, buffers)
        seen, written = dict(data), {}
        for index, (name, step) in enumerate(zip(stages.names, stages.steps, strict=True)):
            seen, _, _ = step.apply(seen, {}, None, stages.step_key(index, key))
            real = [k for k in step.contract.writes if jnp.issubdtype(seen[k].dtype, jnp.floating)]
            written[name] = {k: seen[k] for k in real}
            seen |= {k: seen[k] + shifts[name][k] for k in real if shifts}
        return loss_of(loss, seen), written

    written = jax.eval_shape(lambda data: run(weights, {}, data)[1], dict(data))
    nowhere = jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), written)
    gradient = jax.jit(jax.grad(lambda *arguments: run(*arguments)[0], argnums=(0, 1)))
    by_weights, by_outputs = gradient(weights, nowhere, dict(data))
    return {
        name: StageGradient(
            float(optax.tree.norm(by_weights[name])) if name in by_weights else None,
            float(optax.tree.norm(by_outputs[name])),
        )
        for name in pipeline.names
    }
