"""Apply a trained pipeline to a dataset of any length."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from flax import nnx

from diffbio.core import Pipeline
from diffbio.training.data import Dataset

_ROWS_AT_ONCE = 4096


def transform(
    pipeline: Pipeline,
    data: Dataset,
    *,
    batch_size: int | None = None,
    key: jax.Array | None = None,
    keys: Collection[str] | None = None,
) -> dict[str, np.ndarray]:
    """Return what the pipeline writes for every observation of a dataset.

    A pipeline whose steps all act per observation (`*cells` in their annotations) sees the rows in batches, so that
    memory does not grow with the dataset; any other sees all rows at once.

    Args:
        pipeline: The trained pipeline.
        data: The observations.
        batch_size: Rows at a time; by default, for a pipeline that acts per observation, the dataset's `rows_at_once`,
            or 4,096 if it has no such attribute, else all.
        key: A random key, for a stochastic pipeline.
        keys: What to return of that which the pipeline writes, by default all; the rest is not even computed.

    Returns:
        An array for each key.

    Example:
        `transform(load("run"), read("cells.h5ad"))["embeddings"]`
    """
    per_observation = _acts_per_row(pipeline)
    if batch_size is None:
        rows_at_once: int = getattr(data, "rows_at_once", _ROWS_AT_ONCE)
        batch_size = rows_at_once if per_observation else len(data)
    graphdef, state = nnx.split(pipeline)
    written = tuple(name for name in pipeline.contract.writes if keys is None or name in keys)
    apply = _compiled(graphdef, written)
    parts = []
    for number, start in enumerate(range(0, len(data), batch_size)):
        rows = np.arange(start, min(start + batch_size, len(data)))
        if per_observation and start:  # the last batch is filled up: another length would be another program
            rows = np.pad(rows, (0, batch_size - len(rows)), mode="edge")
        batch_key = None if key is None else jax.random.fold_in(key, number)
        parts.append(jax.device_get(apply(state, data.take(rows), batch_key)))
    if len(parts) == 1:
        return parts[0]
    per_row = {port.key for port in pipeline.contract.outputs if port.dims and port.dims[0].startswith("*")}
    return {
        name: np.concatenate([part[name] for part in parts])[: len(data)] if name in per_row else parts[-1][name]
        for name in written
    }


@functools.lru_cache(maxsize=64)
def _compiled(
    graphdef: nnx.GraphDef[Pipeline], written: tuple[str, ...]
) -> Callable[[nnx.State, dict[str, Any], jax.Array | None], dict[str, jax.Array]]:
    """Return the jitted pipeline of a structure: pipelines that differ in weights only compile once."""

    @jax.jit
    def apply(state: nnx.State, batch: dict[str, Any], key: jax.Array | None) -> dict[str, jax.Array]:
        result, _, _ = nnx.merge(graphdef, state).apply(batch, {}, None, key)
        return {name: result[name] for name in written}

    return apply


def _acts_per_row(pipeline: Pipeline) -> bool:
    """Return whether every step reads its arrays row by row."""
    ports = [port for step in pipeline.steps for port in step.contract.inputs]
    return all(port.dims is not None and port.dims[0].startswith("*") for port in ports)
