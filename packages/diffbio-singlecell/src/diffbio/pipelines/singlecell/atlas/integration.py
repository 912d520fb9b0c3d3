"""Harmony beside harmonypy, and what measures integration beside scib-metrics."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Array, Float, Int
from sklearn.neighbors import NearestNeighbors

from diffbio.losses.singlecell.mixing import lisi
from diffbio.losses.singlecell.silhouette import silhouette_batch, silhouette_score
from diffbio.operators.singlecell import Harmony, HarmonyConfig
from diffbio.pipelines.singlecell.atlas.cells import Atlas, one_hot
from diffbio.pipelines.singlecell.atlas.rows import Bar, Comparison, distance, largest, versus

_STARTS = 4
_COMPONENTS, _CELLS_PER_CLUSTER, _MOST_CLUSTERS = 30, 30, 100
_PERPLEXITY = 30


def harmony(cells: Atlas) -> Iterator[Comparison]:
    """Compare how far batches mix, and how far types stay, with harmonypy."""
    harmonypy: Any = import_module("harmonypy")
    assert cells.batches is not None
    z, batches = cells.embeddings[:, :_COMPONENTS], cells.batches
    n_clusters = max(min(round(len(z) / _CELLS_PER_CLUSTER), _MOST_CLUSTERS), 1)
    config = HarmonyConfig(n_features=z.shape[1], n_clusters=n_clusters, n_batches=int(batches.max()) + 1)
    table = pd.DataFrame({"batch": batches.astype(str)})

    def corrected(number: int) -> Float[Array, "cells features"]:
        operator = Harmony(config, rngs=nnx.Rngs(cells.seed + number))
        operator.initialize(jnp.asarray(z), key=jax.random.key(cells.seed + number))
        return operator.compute(jnp.asarray(z), jnp.asarray(batches)).corrected_embeddings

    def by_harmonypy(number: int) -> Float[Array, "cells features"]:
        seed = cells.seed + number
        found = harmonypy.run_harmony(z, table, ["batch"], nclust=n_clusters, random_state=seed, verbose=False)
        return jnp.asarray(found.Z_corr, jnp.float32)

    ours, theirs, timing = versus(lambda: corrected(0), lambda: by_harmonypy(0))
    ours = [ours, *(corrected(number) for number in range(1, _STARTS))]
    theirs = [theirs, *(by_harmonypy(number) for number in range(1, _STARTS))]
    for what, codes in (("batches", batches), ("labels", cells.labels)):
        if codes is not None:
            groups = one_hot(codes)
            for name, measure in (("mean LISI", lisi), ("silhouette", silhouette_score)):
                found, expected = ([np.mean(measure(x, groups)) for x in each] for each in (ours, theirs))
                quantity = f"{name} of {what}, mean of {_STARTS} starts"
                yield distance(quantity, found, expected, Bar("<=", 0.02), timing)


def metrics(cells: Atlas) -> Iterator[Comparison]:
    """Compare LISI and silhouettes with those of scib-metrics."""
    scib: Any = import_module("scib_metrics")
    lists: Any = import_module("scib_metrics.nearest_neighbors")
    assert cells.labels is not None
    x, embeddings = cells.embeddings, jnp.asarray(cells.embeddings)
    others = min(3 * _PERPLEXITY, len(x)) - 1
    counted = others + 1  # by scib-metrics: the cell itself, too

    def by_scib_metrics(codes: Int[np.ndarray, " cells"]) -> np.ndarray:
        distances, indices = NearestNeighbors(n_neighbors=counted).fit(x.astype(np.float64)).kneighbors(x)
        graph = lists.NeighborsResults(indices=indices, distances=distances)
        return np.asarray(scib.lisi_knn(graph, codes, perplexity=_PERPLEXITY))

    for what, codes in (("labels", cells.labels), ("batches", cells.batches)):
        if codes is not None:
            ours, theirs, timing = versus(
                lambda codes=codes: lisi(embeddings, one_hot(codes), n_neighbors=others, perplexity=_PERPLEXITY),
                lambda codes=codes: by_scib_metrics(codes),
            )
            quantity = f"LISI of {what}, largest difference"
            yield Comparison(quantity, largest(ours - theirs), Bar("<=", 1e-3), timing=timing)
    types = one_hot(cells.labels)
    ours, theirs, timing = versus(
        lambda: (silhouette_score(embeddings, types) + 1) / 2, lambda: scib.silhouette_label(x, cells.labels)
    )
    yield distance("silhouette of labels, 0 to 1", ours, theirs, Bar("<=", 1e-5), timing)
    if cells.batches is not None:
        batches = cells.batches
        ours, theirs, timing = versus(
            lambda: silhouette_batch(embeddings, types, one_hot(batches)),
            lambda: scib.silhouette_batch(x, cells.labels, batches),
        )
        yield distance("silhouette of batches within labels", ours, theirs, Bar("<=", 1e-5), timing)
