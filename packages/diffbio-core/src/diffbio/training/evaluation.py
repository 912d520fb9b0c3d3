"""Evaluation: figures of a pipeline's output on rows of a dataset, averaged over batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from diffbio.core import Pipeline
from diffbio.training.data import Dataset, Feed
from diffbio.training.step import Data, Loss, Weights, loss_of, put_together, take_apart

Metric = Callable[[dict[str, Array]], Float[Array, ""]]
Evaluation = Callable[[Weights, PyTree, Data, jax.Array], dict[str, Array]]


def evaluate(
    pipeline: Pipeline,
    data: Dataset,
    metrics: Mapping[str, Metric],
    *,
    key: jax.Array,
    rows: Int[np.ndarray, " rows"] | None = None,
    batch_size: int | None = None,
) -> dict[str, float]:
    """Return figures of the pipeline's output; nothing is trained or changed.

    Args:
        pipeline: The pipeline to evaluate.
        data: The dataset.
        metrics: Functions of the data dict after the pipeline, each giving a scalar, by name.
        key: Random key for stochastic stages.
        rows: The rows to evaluate on; `None` for all.
        batch_size: Rows evaluated at a time; figures are then means over batches, weighted by
            their sizes, which is exact only for means over cells. `None` for all rows at once.

    Returns:
        The figure of each metric.

    Raises:
        MissingKeyError: A metric reads a key that neither the dataset nor a stage gives.
        ConfigError: A metric returns no scalar.
    """
    graphdef, weights, buffers = take_apart(pipeline)
    evaluation = compiled_evaluation(graphdef, tuple(pipeline.names), tuple(metrics.items()))
    rows = np.arange(len(data)) if rows is None else np.asarray(rows)
    batches = consecutive(rows, batch_size)
    return averaged(evaluation, (weights, buffers), Feed(data), batches, key)


@functools.lru_cache(maxsize=64)
def compiled_evaluation(
    graphdef: nnx.GraphDef[Pipeline], stages: tuple[str, ...], metrics: tuple[tuple[str, Loss], ...]
) -> Evaluation:
    """Return the jitted function from weights, buffers, a batch and a key to the metrics."""

    def evaluation(weights: Weights, buffers: PyTree, batch: Data, key: jax.Array) -> dict[str, Array]:
        pipeline = put_together(graphdef, stages, weights, buffers)
        data, _, _ = pipeline.apply(batch, {}, None, key=key)
        return {name: loss_of(metric, data) for name, metric in metrics}

    return jax.jit(evaluation)


def consecutive(rows: np.ndarray, batch_size: int | None) -> list[np.ndarray]:
    """Return the rows cut into batches; the last one may be smaller."""
    size = batch_size or len(rows)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def averaged(
    evaluation: Evaluation,
    arrays: tuple[Weights, PyTree],
    feed: Feed,
    batches: list[np.ndarray],
    key: jax.Array,
) -> dict[str, float]:
    """Return the means of the metrics over batches, weighted by their sizes, for these weights and buffers."""
    figures = [
        evaluation(*arrays, feed(batch), jax.random.fold_in(key, number)) for number, batch in enumerate(batches)
    ]
    sizes = [len(batch) for batch in batches]
    return {name: float(np.average([float(figure[name]) for figure in figures], weights=sizes)) for name in figures[0]}
