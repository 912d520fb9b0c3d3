"""Clusters, communities and doublets beside scikit-learn, leidenalg and Scrublet."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from diffbio.operators.singlecell import (
    DoubletScorer,
    DoubletScorerConfig,
    ModularityClustering,
    ModularityClusteringConfig,
    SoftClusteringConfig,
    SoftKMeansClustering,
    adaptive_shares,
    kmeans_plus_plus,
    modularity,
    nearest_neighbors,
    soft_kmeans,
)
from diffbio.pipelines.singlecell.atlas.cells import Atlas
from diffbio.pipelines.singlecell.atlas.rows import Bar, Comparison, NotRun, largest, quality, versus

_HARD = 1e-6  # of the variance: softness at which nothing is shared
_CLUSTERS = 10  # where no labels say how many
_STARTS, _DRAWS = 5, 3
_PLANTINGS = 6
_KMEANS_STARTS = 20  # the ARI of one start varies by 0.1 and more, that of the best of many little
_NO_LABELS = "give --labels COLUMN"
_DOUBLETS = 0.1  # of the droplets
_VARIABLE = 0.15  # of the genes: what Scrublet keeps


def clustering(cells: Atlas) -> Iterator[Comparison | NotRun]:
    """Compare the limit of soft k-means with Lloyd's algorithm, and its clusters with those of scikit-learn."""
    x = jnp.asarray(cells.embeddings)
    exact = cells.embeddings.astype(np.float64)
    n_clusters = _CLUSTERS if cells.labels is None else int(cells.labels.max()) + 1
    start = np.asarray(kmeans_plus_plus(x, n_clusters, key=cells.key))
    options: dict[str, Any] = {"init": start, "n_init": 1, "algorithm": "lloyd", "tol": 0}
    lloyd = KMeans(n_clusters, **options)
    softness = _HARD * float(exact.var(0).mean())
    n_steps = lloyd.fit(exact).n_iter_ + 5
    ours, theirs, timing = versus(
        lambda: soft_kmeans(x, start, softness=softness, n_iterations=n_steps), lambda: lloyd.fit(exact)
    )
    moved = largest(np.asarray(ours.cluster_centroids) - theirs.cluster_centers_)
    quantity = f"{n_clusters} centroids from one start, largest difference"
    yield Comparison(quantity, moved, Bar("<=", 1e-4), timing=timing)
    if cells.labels is None:
        yield NotRun("ARI with the labels", _NO_LABELS)
        return

    def clustered() -> Int[np.ndarray, " cells"]:
        config = SoftClusteringConfig(n_clusters=n_clusters, n_features=x.shape[1])
        found = []
        for number in range(_KMEANS_STARTS):
            clusterer = SoftKMeansClustering(config, rngs=nnx.Rngs(cells.seed + number))
            clusterer.initialize(x, key=jax.random.key(cells.seed + number))
            assignments, centroids = clusterer.compute(x)
            labels = np.asarray(assignments).argmax(1)
            found.append((np.square(exact - np.asarray(centroids)[labels]).sum(), labels))
        return min(found, key=lambda each: each[0])[1]

    def by_scikit_learn() -> Int[np.ndarray, " cells"]:
        several: dict[str, Any] = {"n_init": _KMEANS_STARTS, "random_state": cells.seed}
        return KMeans(n_clusters, **several).fit_predict(exact)

    ours, theirs, timing = versus(clustered, by_scikit_learn)
    found, expected = (adjusted_rand_score(cells.labels, labels) for labels in (ours, theirs))
    yield quality(f"ARI with the labels, best of {_KMEANS_STARTS} starts", found, expected, Bar(">=", -0.05), timing)


def communities(cells: Atlas) -> Iterator[Comparison | NotRun]:
    """Compare modularity and communities with leidenalg's on the same graph."""
    leidenalg: Any = import_module("leidenalg")
    x = jnp.asarray(cells.embeddings)
    found = nearest_neighbors(x, ModularityClusteringConfig(n_cells=len(cells)).n_neighbors)
    shares, indices = adaptive_shares(found.distances, found.indices), found.indices
    network, total = _network(np.asarray(shares, np.float64), np.asarray(indices))

    def by_leidenalg(number: int) -> Any:
        return leidenalg.find_partition(
            network,
            leidenalg.RBConfigurationVertexPartition,
            weights="weight",
            n_iterations=-1,
            seed=cells.seed + number,
        )

    def value(labels: Int[np.ndarray, " cells"]) -> float:
        return float(modularity(jax.nn.one_hot(labels, labels.max() + 1), shares, indices))

    theirs = [by_leidenalg(number) for number in range(_STARTS)]
    labels = np.array(theirs[0].membership)
    config = ModularityClusteringConfig(n_cells=len(cells), n_clusters=max(20, 2 * int(labels.max() + 1)))

    def clustered(number: int) -> Int[np.ndarray, " cells"]:
        clusterer = ModularityClustering(config, rngs=nnx.Rngs(cells.seed + number))
        clusterer.initialize(x, key=jax.random.key(cells.seed + number))
        return np.asarray(clusterer.compute(x).cluster_assignments).argmax(1)

    first, _, timing = versus(lambda: clustered(0), lambda: by_leidenalg(0))
    ours = [first, *(clustered(number) for number in range(1, _DRAWS))]
    apart = abs(value(labels) - theirs[0].quality() / total)
    yield Comparison("modularity of leidenalg's communities, difference", apart, Bar("<=", 1e-5))
    reached, best = np.mean([value(labels) for labels in ours]), max(each.quality() for each in theirs) / total
    quantity = f"modularity reached, mean of {_DRAWS}; leidenalg's best of {_STARTS}"
    yield quality(quantity, reached, best, Bar(">=", -1e-3), timing)
    if cells.labels is None:
        yield NotRun("ARI with the labels", _NO_LABELS)
        return
    found, expected = (
        [adjusted_rand_score(cells.labels, labels) for labels in each]
        for each in (ours, [partition.membership for partition in theirs])
    )
    yield quality("ARI with the labels, means of the same", found, expected, Bar(">=", -0.01), timing)


def _network(shares: Float[np.ndarray, "cells k"], indices: Int[np.ndarray, "cells k"]) -> tuple[Any, float]:
    """Return the graph C + C^T of the shares C as one of igraph, and the sum of its degrees."""
    igraph: Any = import_module("igraph")
    n_cells = len(shares)
    rows = np.repeat(np.arange(n_cells), shares.shape[1])
    half = sparse.coo_array((shares.ravel(), (rows, indices.ravel())), shape=(n_cells, n_cells)).tocsr()
    edges = sparse.triu(half + half.T, k=1).tocoo()
    pairs = np.stack(edges.coords, axis=1).tolist()
    return igraph.Graph(n=n_cells, edges=pairs, edge_attrs={"weight": edges.data}), float(2 * edges.data.sum())


def doublets(cells: Atlas) -> Iterator[Comparison]:
    """Compare how well planted doublets are found with Scrublet, in the largest batch."""
    scrublet: Any = import_module("scrublet")
    assert cells.counts is not None
    counts = cells.counts
    if cells.batches is not None:
        counts = counts[cells.batches == np.bincount(cells.batches).argmax()]
    n_top = max(int(_VARIABLE * counts.shape[1]), 1)
    n_components = min(30, n_top, len(counts) // 2)
    as_scrublet = {"n_top_genes": n_top, "n_components": n_components, "log_transform": False}
    default = {"n_components": min(DoubletScorerConfig(n_genes=counts.shape[1]).n_components, n_components)}

    def scored(droplets: np.ndarray, number: int, options: dict[str, Any]) -> Float[np.ndarray, " cells"]:
        config = DoubletScorerConfig(n_genes=droplets.shape[1], expected_doublet_rate=_DOUBLETS, **options)
        scorer = DoubletScorer(config, rngs=nnx.Rngs(cells.seed + number))
        genes, own = jax.random.split(jax.random.key(cells.seed + number))
        scorer.initialize(jnp.asarray(droplets), key=genes)
        return np.asarray(scorer.compute(jnp.asarray(droplets), key=own).doublet_scores)

    def by_scrublet(droplets: np.ndarray, number: int) -> Float[np.ndarray, " cells"]:
        reference = scrublet.Scrublet(
            sparse.csc_matrix(droplets), random_state=cells.seed + number, expected_doublet_rate=_DOUBLETS
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints whatever its threshold is
            return reference.scrub_doublets(use_approx_neighbors=False, verbose=False, n_prin_comps=n_components)[0]

    sets = [_summed(counts, cells.seed + number) for number in range(_PLANTINGS)]
    *_, timing = versus(lambda: scored(sets[0][0], 0, as_scrublet), lambda: by_scrublet(sets[0][0], 0))
    same, own, theirs, agreement = [], [], [], []
    for number, (droplets, planted) in enumerate(sets):
        found, expected = scored(droplets, number, as_scrublet), by_scrublet(droplets, number)
        same.append(roc_auc_score(planted, found))
        own.append(roc_auc_score(planted, scored(droplets, number, default)))
        theirs.append(roc_auc_score(planted, expected))
        agreement.append(spearmanr(found, expected)[0])
    quantity = f"AUROC of planted doublets, Scrublet's settings, mean of {_PLANTINGS}"
    yield quality(quantity, same, theirs, Bar(">=", -0.01), timing)
    yield quality("AUROC of planted doublets, our defaults", own, theirs, Bar(">=", 0.0))
    yield Comparison("Spearman correlation of scores, Scrublet's settings", float(np.mean(agreement)))


def _summed(counts: Float[np.ndarray, "cells genes"], seed: int) -> tuple[np.ndarray, Bool[np.ndarray, " droplets"]]:
    """Return the cells with random pairs of them added up, and which rows those are."""
    n_doublets = int(len(counts) * _DOUBLETS / (1 + _DOUBLETS))
    order = np.random.default_rng(seed).permutation(len(counts))
    first, second, rest = np.split(order, [n_doublets, 2 * n_doublets])
    droplets = np.concatenate([counts[rest], counts[first] + counts[second]])
    return droplets, np.arange(len(droplets)) >= len(rest)
