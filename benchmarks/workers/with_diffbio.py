"""`python -m benchmarks.workers.with_diffbio FILE memory|disk`: one epoch of a pipeline from counts to cell types."""

from __future__ import annotations

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.core import Recipe
from diffbio.io.singlecell import read
from diffbio.training import Subset, evaluate, prepare

_BATCH_SIZE = 1024
_RECIPE = {
    "format": 1,
    "inputs": ["counts"],
    "steps": [
        {"operator": "LibrarySizeNormalization"},
        {"operator": "Scaling"},
        {"operator": "GeneSelection", "config": {"n_top_genes": 500}},
        {
            "operator": "PCAProjection",
            "config": {"n_components": 50, "learnable": True},
            "reads": {"scaled": "gated"},
        },
        {"operator": "CellTypeClassifier"},
    ],
    "training": {
        "loss": "cell_type_cross_entropy",
        "optimizer": "adam",
        "learning_rate": 3e-3,
        "epochs": 1,
        "batch_size": _BATCH_SIZE,
        "validation": 0.0,
    },
}


def main(path: str, source: str) -> None:
    """Initialize, train, judge, and print what each took."""
    cells = read(path, labels="cell_type", backed=source == "disk")
    held_out = cells.adata.obs["held_out"].to_numpy()
    train, test = (Subset(cells, np.flatnonzero(rows)) for rows in (~held_out, held_out))
    began = _now()
    pipeline, plan, loss, key = prepare(Recipe.from_dict(_RECIPE), train, key=jax.random.key(0))
    jax.block_until_ready(nnx.state(pipeline))
    initialized = _now()
    one_batch = Subset(train, np.arange(_BATCH_SIZE))
    plan.fit(pipeline, one_batch, loss, key=key, progress=False)  # compiles the step that the epoch takes
    compiled = _now()
    result = plan.fit(pipeline, train, loss, key=key, progress=False)
    trained = _now()
    figures = evaluate(result.pipeline, test, {"accuracy": _accuracy}, key=key, batch_size=_BATCH_SIZE)
    report = {
        "initialize": _between(began, initialized),
        "compile": _between(initialized, compiled),
        "epoch": _between(compiled, trained),
        "cells": len(train),
        "compilations_in_epoch": result.compilations,
        "accuracy": figures["accuracy"],
    }
    print(json.dumps(report))


def _accuracy(data: dict[str, jax.Array]) -> jax.Array:
    return jnp.mean(jnp.argmax(data["cell_type_logits"], axis=-1) == data["labels"])


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _between(first: tuple[float, float], last: tuple[float, float]) -> dict[str, float]:
    return {"cpu_seconds": last[0] - first[0], "wall_seconds": last[1] - first[1]}


if __name__ == "__main__":
    main(*sys.argv[1:])
