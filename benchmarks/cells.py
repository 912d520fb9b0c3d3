"""Growth over the number of cells of everything that needs no matrix cells x cells, from 1,000 to 100,000.

Part of the benchmark `singlecell`. The graph of neighbours of the imputation is given: searching it exactly is
quadratic by definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.measure import Figure, cpu_seconds, interleaved
from diffbio.operators.normalization import (
    GeneSelection,
    GeneSelectionConfig,
    LibrarySizeNormalization,
    LibrarySizeNormalizationConfig,
    PCAProjection,
    PCAProjectionConfig,
    Scaling,
    ScalingConfig,
)
from diffbio.operators.singlecell.annotation import CellTypeClassifier, CellTypeClassifierConfig
from diffbio.operators.singlecell.clustering import soft_kmeans
from diffbio.operators.singlecell.random_walk import diffuse

_SIZES = (1000, 10_000, 100_000)
_GENES, _FEATURES, _TYPES, _NEIGHBORS = 200, 50, 10, 15
_STEEPEST = 1.25  # linear, and what caches that hold the smaller sizes add to it
_REPEATS = 5


def growth() -> tuple[list[Figure], dict[str, list[dict[str, float]]]]:
    """Return the exponents of CPU time over cells, and the times."""
    details = {name: [{"cells": size, "cpu_seconds": _seconds(call(size))} for size in _SIZES] for name, call in _CALLS}
    figures = []
    for name, rows in details.items():
        first, last = rows[0], rows[-1]
        exponent = math.log(last["cpu_seconds"] / first["cpu_seconds"]) / math.log(last["cells"] / first["cells"])
        what = f"{name}, exponent of time from {first['cells']:,} to {last['cells']:,} cells"
        figures.append(Figure(what, exponent, "", limit=_STEEPEST))
    return figures, details


def _seconds(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of one call, repeated where it is too short to be measured."""

    def block() -> Any:
        return jax.block_until_ready(call())

    block()
    n_calls = max(1, math.ceil(0.05 / max(cpu_seconds(block), 1e-6)))
    return interleaved([lambda: cpu_seconds(lambda: [block() for _ in range(n_calls)]) / n_calls], _REPEATS)[0]


def _expression(n_cells: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).poisson(1.0, (n_cells, _GENES)), jnp.float32)


def _embeddings(n_cells: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(n_cells, _FEATURES)), jnp.float32)


def _applied(operator: Any, key: str, values: jax.Array) -> Callable[[], Any]:
    apply = jax.jit(lambda x: operator.apply({key: x}, {}, None)[0])
    return lambda: apply(values)


def _normalization(n_cells: int) -> Callable[[], Any]:
    operator = LibrarySizeNormalization(LibrarySizeNormalizationConfig())
    return _applied(operator, "counts", _expression(n_cells))


def _scaling(n_cells: int) -> Callable[[], Any]:
    operator = Scaling(ScalingConfig(n_genes=_GENES))
    operator.initialize(_expression(1000))
    return _applied(operator, "normalized", _expression(n_cells))


def _gene_scores(n_cells: int) -> Callable[[], Any]:
    selection = GeneSelection(GeneSelectionConfig(n_genes=_GENES, n_top_genes=50))
    normalized = jnp.log1p(_expression(n_cells))

    def scored() -> jax.Array:
        selection.initialize(normalized)
        return selection.logits[...]

    return scored


def _projection(n_cells: int) -> Callable[[], Any]:
    operator = PCAProjection(PCAProjectionConfig(n_genes=_GENES, n_components=_FEATURES), rngs=nnx.Rngs(0))
    return _applied(operator, "scaled", _expression(n_cells))


def _kmeans(n_cells: int) -> Callable[[], Any]:
    cells = _embeddings(n_cells)
    return lambda: soft_kmeans(cells, cells[:_TYPES], softness=1.0, n_iterations=5)


def _classifier(n_cells: int) -> Callable[[], Any]:
    operator = CellTypeClassifier(CellTypeClassifierConfig(n_features=_FEATURES, n_classes=_TYPES))
    return _applied(operator, "embeddings", _embeddings(n_cells))


def _imputation(n_cells: int) -> Callable[[], Any]:
    random = np.random.default_rng(0)
    near = random.integers(1, 500, (n_cells, _NEIGHBORS))  # in the same part of the data, as neighbours mostly are
    indices = jnp.asarray((np.arange(n_cells)[:, None] + near) % n_cells, jnp.int32)
    affinities, counts = jnp.asarray(random.random((n_cells, _NEIGHBORS)), jnp.float32), _expression(n_cells)
    run = jax.jit(lambda y, a, i: diffuse(y, a, i, n_steps=3))
    return lambda: run(counts, affinities, indices)


_CALLS = (
    ("library-size normalization", _normalization),
    ("scaling", _scaling),
    ("scores of gene selection", _gene_scores),
    ("PCA projection", _projection),
    ("soft k-means, 5 steps", _kmeans),
    ("classifier", _classifier),
    ("diffusion imputation, given the graph", _imputation),
)
