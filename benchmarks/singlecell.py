"""CPU time of the single-cell algorithms beside the tools of the field, over sizes.

Compilation is not counted: both sides run once before they are measured. `difference` in the result is the largest
between what the two compute, over the largest value, so that no ratio compares different things.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import anndata
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scanpy as sc
from flax import nnx
from matplotlib.ticker import ScalarFormatter
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors

from benchmarks.measure import RESULTS, Figure, cpu_seconds, interleaved, publish
from diffbio.operators.normalization import PCAProjection, PCAProjectionConfig
from diffbio.operators.singlecell.clustering import soft_kmeans
from diffbio.operators.singlecell.imputation import diffusion_imputation
from diffbio.operators.singlecell.neighbors import nearest_neighbors
from diffbio.operators.singlecell.pseudotime import diffusion_pseudotime

_REPEATS = 3
_FEATURES, _GENES, _CLUSTERS = 50, 2000, 10
_ITERATIONS = 10  # of k-means
_NEIGHBORS = 15
_BANDWIDTH_NEIGHBOR, _STEPS = 5, 3  # of imputation


class Pair(NamedTuple):
    """Two ways to compute one thing, as calls without arguments."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]


class Task(NamedTuple):
    """What is compared, beside which tool, at how many cells; `pair` prepares both sides."""

    name: str
    tool: str
    sizes: tuple[int, ...]
    pair: Callable[[int], Pair]


def kmeans(n_cells: int) -> Pair:
    """Return k-means from one start, with as many iterations."""
    cells = _blobs(n_cells, _FEATURES)
    start = cells[:_CLUSTERS]
    reference = KMeans(_CLUSTERS, init=start, n_init=1, max_iter=_ITERATIONS, tol=0.0)
    n_iterations = reference.fit(cells).n_iter_  # fewer where no cell changes its cluster any more
    on_device, centroids = jnp.asarray(cells), jnp.asarray(start)
    return Pair(
        lambda: soft_kmeans(on_device, centroids, softness=1e-2, n_iterations=n_iterations).cluster_centroids,
        lambda: reference.fit(cells).cluster_centers_,
    )


def neighbors(n_cells: int) -> Pair:
    """Return the search for the nearest neighbours of each cell."""
    cells = _blobs(n_cells, _FEATURES)
    on_device = jnp.asarray(cells)
    return Pair(
        lambda: nearest_neighbors(on_device, _NEIGHBORS).distances,
        lambda: NearestNeighbors(n_neighbors=_NEIGHBORS).fit(cells).kneighbors()[0],
    )


def pca(n_cells: int) -> Pair:
    """Return the principal components, beside the exact solver that scanpy asks scikit-learn for.

    scikit-learn's own choice for so many genes is a randomized one, which is faster and misses the later components.
    """
    genes = _blobs(n_cells, _GENES)
    on_device = jnp.asarray(genes)
    projection = PCAProjection(PCAProjectionConfig(n_genes=_GENES, n_components=_FEATURES), rngs=nnx.Rngs(0))

    def ours() -> jax.Array:
        projection.initialize(on_device)
        return projection.explained_variance[...]

    return Pair(ours, lambda: PCA(_FEATURES, svd_solver="arpack").fit(genes).explained_variance_)


def imputation(n_cells: int) -> Pair:
    """Return diffusion over a graph of neighbours, beside MAGIC's steps with scikit-learn and SciPy."""
    cells, counts = _blobs(n_cells, _FEATURES), np.random.default_rng(1).poisson(1.0, (n_cells, 500)).astype(np.float32)
    embeddings, on_device = jnp.asarray(cells), jnp.asarray(counts)

    def theirs() -> np.ndarray:
        graph = NearestNeighbors(n_neighbors=_NEIGHBORS).fit(cells).kneighbors_graph(mode="distance")
        distances = graph.data.reshape(n_cells, _NEIGHBORS)
        bandwidths = np.sort(distances, axis=1)[:, _BANDWIDTH_NEIGHBOR - 1 : _BANDWIDTH_NEIGHBOR]
        graph.data = np.exp(-distances / bandwidths).ravel()
        kernel = graph + sparse.identity(n_cells, format="csr")
        kernel = (kernel + kernel.T) / 2
        walk = sparse.diags_array(1 / np.asarray(kernel.sum(axis=1)).ravel()) @ kernel
        values = counts
        for _ in range(_STEPS):
            values = walk @ values
        return values

    return Pair(
        lambda: (
            diffusion_imputation(
                on_device, embeddings, n_neighbors=_BANDWIDTH_NEIGHBOR, max_neighbors=_NEIGHBORS, n_steps=_STEPS
            ).imputed_counts
        ),
        theirs,
    )


def pseudotime(n_cells: int) -> Pair:
    """Return diffusion pseudotime along a bent line."""
    random = np.random.default_rng(0)
    progress = np.sort(random.uniform(0, 4, n_cells))
    cells = np.zeros((n_cells, _FEATURES), np.float32)
    cells[:, :3] = np.stack([np.cos(progress), np.sin(progress), progress], axis=1)
    cells += random.normal(scale=0.05, size=cells.shape).astype(np.float32)
    on_device = jnp.asarray(cells)

    def theirs() -> np.ndarray:
        adata = anndata.AnnData(cells)
        adata.uns["iroot"] = 0
        sc.pp.neighbors(adata, n_neighbors=_NEIGHBORS, use_rep="X", method="gauss")
        sc.tl.diffmap(adata)
        sc.tl.dpt(adata)
        return adata.obs["dpt_pseudotime"].to_numpy()

    return Pair(lambda: diffusion_pseudotime(on_device, 0, n_neighbors=_NEIGHBORS).pseudotime, theirs)


TASKS = (
    Task("soft k-means", "scikit-learn KMeans", (1000, 5000, 20_000), kmeans),
    Task("nearest neighbours", "scikit-learn NearestNeighbors", (1000, 5000, 20_000), neighbors),
    Task("PCA initialization", "scikit-learn PCA (arpack)", (1000, 5000, 20_000), pca),
    Task("diffusion imputation", "scikit-learn and SciPy", (1000, 5000, 20_000), imputation),
    Task("diffusion pseudotime", "scanpy", (500, 1000, 2000, 4000), pseudotime),
)


def main() -> None:
    """Measure each task at each size, publish, and draw."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # k-means is stopped on purpose
    details = {task.name: [_compared(task.pair(size)) | {"cells": size} for size in task.sizes] for task in TASKS}
    figures = [
        Figure(f"{task.name} of {rows[-1]['cells']:,} cells, over {task.tool}", rows[-1]["ratio"], "x")
        for task, rows in zip(TASKS, details.values(), strict=True)
    ]
    publish("singlecell", figures, details)
    _draw(details)


def _compared(pair: Pair) -> dict[str, float]:
    """Return the CPU seconds of both sides, their ratio, and the difference of their results."""
    result, expected = (np.asarray(side(), np.float64) for side in pair)
    calls = [lambda side=side: cpu_seconds(lambda: jax.block_until_ready(side())) for side in pair]
    ours, theirs = interleaved(calls, _REPEATS)
    return {
        "diffbio_cpu_seconds": ours,
        "reference_cpu_seconds": theirs,
        "ratio": ours / theirs,
        "difference": float(np.max(np.abs(result - expected)) / np.max(np.abs(expected))),
    }


def _blobs(n_cells: int, n_features: int) -> np.ndarray:
    """Return overlapping groups of cells whose variance falls from feature to feature."""
    random = np.random.default_rng(0)
    scale = 3.0 / np.sqrt(np.arange(1, n_features + 1))
    centres = random.normal(scale=scale, size=(_CLUSTERS, n_features))
    cells = centres[random.integers(_CLUSTERS, size=n_cells)] + random.normal(scale=scale, size=(n_cells, n_features))
    return cells.astype(np.float32)


def _draw(details: dict[str, list[dict[str, float]]]) -> None:
    """Draw CPU time over cells, one panel per task, both axes logarithmic."""
    figure, panels = plt.subplots(1, len(TASKS), figsize=(3.0 * len(TASKS), 3.1), layout="constrained")
    for ax, task in zip(panels, TASKS, strict=True):
        rows = details[task.name]
        cells = [row["cells"] for row in rows]
        ax.loglog(cells, [row["diffbio_cpu_seconds"] for row in rows], "o-", color="#1f77b4", label="diffbio")
        ax.loglog(cells, [row["reference_cpu_seconds"] for row in rows], "s--", color="#777777", label=task.tool)
        ax.set_title(task.name, fontsize=10)
        ax.set_xlabel("cells")
        ax.set_xticks(cells, minor=False)
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=7, frameon=False)
    panels[0].set_ylabel("CPU seconds, one core")
    figure.savefig(RESULTS / "singlecell.png", dpi=130)


if __name__ == "__main__":
    main()
