"""The training loop: how often it compiles, what a step costs, and whether an interrupted run ends the same."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from benchmarks.measure import Compilations, Figure, cpu_seconds, interleaved, publish
from diffbio.core import Pipeline
from diffbio.io.singlecell import AnnDataDataset, pbmc68k_reduced
from diffbio.pipelines.singlecell import annotation_recipe
from diffbio.training import ArrayDataset, FitResult, fit, prepare

_EPOCHS = 20
_BATCH_SIZE = 100  # 7 steps an epoch on the 700 cells
_REPEATS = 7
_ANCHORED = ("genes", "projection")


def main() -> None:
    """Train the annotation recipe on the cells that come with diffbio, and publish."""
    cells = AnnDataDataset(pbmc68k_reduced(), key="normalized", labels="bulk_labels")
    data = ArrayDataset(cells.take(np.arange(len(cells))), cells.metadata)
    pipeline, plan, loss, key = prepare(annotation_recipe(), data, key=jax.random.key(0))
    optimizer = optax.adamw(plan.learning_rate, weight_decay=plan.weight_decay)

    def train(epochs: int = _EPOCHS, strength: float = 1.0, **options: Any) -> FitResult:
        return fit(
            pipeline,
            data,
            loss,
            optimizer=optimizer,
            epochs=epochs,
            key=key,
            batch_size=_BATCH_SIZE,
            anchor=dict.fromkeys(_ANCHORED, strength),
            progress=False,
            **options,
        )

    with Compilations() as first:
        whole = train()
    with Compilations() as second:
        other = train(strength=0.1)
    with tempfile.TemporaryDirectory() as folder:
        train(epochs=_EPOCHS // 2, checkpoint=folder)
        resumed = train(checkpoint=folder, resume=True)
    difference = abs(whole.history[-1]["train_loss"] - resumed.history[-1]["train_loss"])

    steps = _EPOCHS * (len(data) // _BATCH_SIZE)
    loop = _hand_written(pipeline, data, loss, optimizer)
    ours, theirs = interleaved([lambda: cpu_seconds(train), lambda: cpu_seconds(loop)], _REPEATS)
    per_step = [1e3 * seconds / steps for seconds in (ours, theirs)]
    assert other.history[-1]["anchor"] != whole.history[-1]["anchor"]
    figures = [
        Figure("compilations of the step in a fit of 20 epochs", first.count("jit(step)"), "", limit=1),
        Figure("compilations in a fit with another anchor strength", second.count(), "", limit=0),
        Figure("difference of the final loss, resumed half way or not", difference, "nats", limit=1e-6),
        Figure("one step of `fit` on 100 cells x 765 genes", per_step[0], "CPU ms"),
        Figure("one step of `fit`, over a hand-written optax loop", per_step[0] / per_step[1], "x"),
    ]
    details = {
        "steps": steps,
        "milliseconds_per_step": {"fit": per_step[0], "hand-written loop": per_step[1]},
        "compilations_that_fit_reports": [whole.compilations, other.compilations],
        "final_loss": {"uninterrupted": whole.history[-1]["train_loss"], "resumed": resumed.history[-1]["train_loss"]},
    }
    publish("fit", figures, details)


def _hand_written(
    pipeline: Pipeline, data: ArrayDataset, loss: Any, optimizer: optax.GradientTransformation
) -> Callable[[], None]:
    """Return the loop that one writes without `fit`: no anchor, no guard against NaN, no records but the loss."""
    graphdef, start, rest = nnx.split(pipeline, nnx.Param, ...)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(weights: Any, moments: Any, batch: dict[str, jax.Array]) -> tuple[Any, Any, jax.Array]:
        def objective(weights: Any) -> jax.Array:
            return loss(nnx.merge(graphdef, weights, rest).apply(batch, {}, None)[0])

        value, gradient = jax.value_and_grad(objective)(weights)
        updates, moments = optimizer.update(gradient, moments, weights)
        return optax.apply_updates(weights, updates), moments, value

    def loop() -> None:
        random = np.random.default_rng(0)
        weights, moments = jax.tree.map(lambda array: array.copy(), start), optimizer.init(start)
        for _ in range(_EPOCHS):
            losses = []
            order = random.permutation(len(data))
            for rows in order[: len(data) // _BATCH_SIZE * _BATCH_SIZE].reshape(-1, _BATCH_SIZE):
                weights, moments, value = step(weights, moments, jax.device_put(data.take(rows)))
                losses.append(value)
            jax.device_get(losses)

    loop()  # compiles
    return loop


if __name__ == "__main__":
    main()
