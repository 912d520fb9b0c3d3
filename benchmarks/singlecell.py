"""CPU time of the single-cell algorithms beside the tools of the field, over sizes, and how it grows with cells.

Compilation is not counted: both sides run once before they are measured. `difference` in the result is the largest
between what the two compute, over the largest value, so that no ratio compares different things. Where a task has two
lengths, the time is that between a long run and a short one, so of steps alone.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import anndata
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from flax import nnx
from matplotlib.ticker import ScalarFormatter
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors

from benchmarks.cells import growth
from benchmarks.measure import RESULTS, Figure, cpu_seconds, interleaved, publish
from diffbio.operators.normalization import PCAProjection, PCAProjectionConfig
from diffbio.operators.singlecell.clustering import soft_kmeans
from diffbio.operators.singlecell.harmony import Harmony, HarmonyConfig
from diffbio.operators.singlecell.imputation import diffusion_graph, diffusion_imputation
from diffbio.operators.singlecell.neighbors import nearest_neighbors
from diffbio.operators.singlecell.pseudotime import diffusion_pseudotime
from diffbio.operators.singlecell.random_walk import diffuse

_REPEATS = 3
_FEATURES, _GENES, _CLUSTERS = 50, 2000, 10
_ITERATIONS = (5, 25)  # of k-means: the time is that of the steps between
_NEIGHBORS = 15
_HARMONY_CLUSTERS = 100  # harmonypy's number for 50,000 cells
_BANDWIDTH_NEIGHBOR, _STEPS = 5, 3  # of imputation


class Pair(NamedTuple):
    """Two ways to compute one thing, as calls without arguments."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]


class Task(NamedTuple):
    """What is compared, beside which tool, at how many cells, within which bar; `pairs` prepares both sides.

    Of two pairs, a shorter and a longer run, the difference counts.
    """

    name: str
    tool: str
    sizes: tuple[int, ...]
    pairs: Callable[[int], tuple[Pair, ...]]
    limit: float | None = None


def kmeans(n_cells: int) -> tuple[Pair, Pair]:
    """Return k-means from one start, with few and many steps, and as many as the reference takes."""
    cells = _blobs(n_cells, _FEATURES)
    start = cells[:_CLUSTERS]
    on_device, centroids = jnp.asarray(cells), jnp.asarray(start)

    def pair(most: int) -> Pair:
        reference = KMeans(_CLUSTERS, init=start, n_init=1, max_iter=most, tol=0.0, algorithm="lloyd")
        n_iterations = reference.fit(cells).n_iter_  # fewer where no cell changes its cluster any more
        return Pair(
            lambda: soft_kmeans(on_device, centroids, softness=1e-2, n_iterations=n_iterations).cluster_centroids,
            lambda: reference.fit(cells).cluster_centers_,
        )

    return pair(_ITERATIONS[0]), pair(_ITERATIONS[1])


def neighbors(n_cells: int) -> tuple[Pair]:
    """Return the search for the nearest neighbours of each cell."""
    cells = _blobs(n_cells, _FEATURES)
    on_device = jnp.asarray(cells)
    return (
        Pair(
            lambda: nearest_neighbors(on_device, _NEIGHBORS).distances,
            lambda: NearestNeighbors(n_neighbors=_NEIGHBORS, algorithm="brute").fit(cells).kneighbors()[0],
        ),
    )


def harmonized(n_cells: int) -> tuple[Pair]:
    """Return cells of two shifted batches, corrected until both sides rest: they differ in where that is."""
    harmonypy: Any = importlib.import_module("harmonypy")
    cells, random = _blobs(n_cells, _FEATURES), np.random.default_rng(1)
    batches = random.integers(2, size=n_cells)
    cells += np.outer(batches, random.normal(size=_FEATURES)).astype(np.float32)
    names = pd.DataFrame({"batch": batches.astype(str)})
    on_device, labels = jnp.asarray(cells), jnp.asarray(batches)

    def ours() -> jax.Array:
        operator = Harmony(
            HarmonyConfig(n_clusters=_HARMONY_CLUSTERS, n_features=_FEATURES, n_batches=2), rngs=nnx.Rngs(0)
        )
        operator.initialize(on_device, key=jax.random.key(0))
        return operator.compute(on_device, labels).corrected_embeddings

    def theirs() -> np.ndarray:
        options = {"nclust": _HARMONY_CLUSTERS, "random_state": 0, "verbose": False}
        return harmonypy.run_harmony(cells, names, ["batch"], **options).Z_corr

    return (Pair(ours, theirs),)


def pca(n_cells: int) -> tuple[Pair]:
    """Return the principal components, beside the exact solver that scanpy asks scikit-learn for.

    scikit-learn's own choice for so many genes is a randomized one, which is faster and misses the later components.
    """
    genes = _blobs(n_cells, _GENES)
    on_device = jnp.asarray(genes)
    projection = PCAProjection(PCAProjectionConfig(n_genes=_GENES, n_components=_FEATURES), rngs=nnx.Rngs(0))

    def ours() -> jax.Array:
        projection.initialize(on_device)
        return projection.explained_variance[...]

    return (Pair(ours, lambda: PCA(_FEATURES, svd_solver="arpack").fit(genes).explained_variance_),)


def imputation(n_cells: int) -> tuple[Pair]:
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

    return (
        Pair(
            lambda: (
                diffusion_imputation(
                    on_device, embeddings, n_neighbors=_BANDWIDTH_NEIGHBOR, max_neighbors=_NEIGHBORS, n_steps=_STEPS
                ).imputed_counts
            ),
            theirs,
        ),
    )


def walk(n_cells: int) -> tuple[Pair]:
    """Return diffusion over a given graph, beside a product of the same matrix in SciPy for each step."""
    counts, graph, matrix = _diffusion(n_cells)
    run = jax.jit(lambda y: diffuse(y, *graph, n_steps=_STEPS))
    on_device = jnp.asarray(counts)

    def theirs() -> np.ndarray:
        values = counts
        for _ in range(_STEPS):
            values = matrix @ values
        return values

    return (Pair(lambda: run(on_device), theirs),)


def walk_gradient(n_cells: int) -> tuple[Pair]:
    """Return the gradient in counts and affinities, beside that in counts and entries by hand in SciPy and NumPy."""
    counts, graph, matrix = _diffusion(n_cells)
    rows = np.repeat(np.arange(n_cells), np.diff(matrix.indptr))
    blocks = [slice(start, start + 4096) for start in range(0, matrix.nnz, 4096)]
    gradient = jax.jit(jax.grad(lambda y, a: (diffuse(y, a, graph[1], n_steps=_STEPS) ** 2).sum(), (0, 1)))
    on_device = jnp.asarray(counts)

    def theirs() -> np.ndarray:
        states = [counts]
        for _ in range(_STEPS):
            states.append(matrix @ states[-1])
        cotangent, entries = 2 * states.pop(), np.zeros(matrix.nnz, np.float32)
        for state in reversed(states):
            for block in blocks:
                entries[block] += np.einsum("eg,eg->e", cotangent[rows[block]], state[matrix.indices[block]])
            cotangent = matrix.T @ cotangent
        return cotangent

    return (Pair(lambda: gradient(on_device, graph[0])[0], theirs),)


def pseudotime(n_cells: int) -> tuple[Pair]:
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

    return (Pair(lambda: diffusion_pseudotime(on_device, 0, n_neighbors=_NEIGHBORS).pseudotime, theirs),)


TASKS = (
    Task("steps of soft k-means", "scikit-learn KMeans", (1000, 10_000, 100_000), kmeans, limit=1.5),
    Task("nearest neighbours", "scikit-learn, brute force", (1000, 5000, 20_000), neighbors, limit=1.5),
    Task("PCA initialization", "scikit-learn PCA (arpack)", (1000, 5000, 20_000), pca),
    Task("diffusion imputation", "scikit-learn and SciPy", (1000, 5000, 20_000), imputation),
    Task("diffusion, 2,000 genes", "SciPy", (1000, 2000, 5000), walk, limit=1.5),
    Task("gradient of diffusion", "SciPy and NumPy", (1000, 2000, 5000), walk_gradient, limit=1.5),
    Task("diffusion pseudotime", "scanpy", (500, 1000, 2000, 4000), pseudotime),
)
if importlib.util.find_spec("harmonypy"):  # in the environment `reference` alone
    TASKS += (Task("Harmony", "harmonypy", (5000, 50_000), harmonized, limit=1.0),)
_ARRAYS = 5  # of cells x genes: "a few"


def main() -> None:
    """Measure each task at each size, publish, and draw."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # k-means is stopped on purpose
    details = {task.name: [_compared(task.pairs(size)) | {"cells": size} for size in task.sizes] for task in TASKS}
    figures = [
        Figure(f"{task.name} of {rows[-1]['cells']:,} cells, over {task.tool}", rows[-1]["ratio"], "x", task.limit)
        for task, rows in zip(TASKS, details.values(), strict=True)
    ]
    grown, times = growth()
    publish("singlecell", [*figures, *_memory(), *grown], {**details, "growth": times})
    _draw(details)


def _memory() -> list[Figure]:
    """Return the temporary memory of the diffusion, as XLA reports it."""
    shapes = [((5000, _GENES), jnp.float32), ((5000, _NEIGHBORS), jnp.float32), ((5000, _NEIGHBORS), jnp.int32)]
    arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]

    def diffused(counts: jax.Array, affinities: jax.Array, indices: jax.Array) -> jax.Array:
        return diffuse(counts, affinities, indices, n_steps=_STEPS)

    gradient = jax.grad(lambda *graph: (diffused(*graph) ** 2).sum(), (0, 1))
    figures = []
    for name, function in (("diffusion", diffused), ("gradient of diffusion", gradient)):
        scratch = jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
        what = f"{name} of 5,000 cells x 2,000 genes, temporary memory over that of the counts"
        figures.append(Figure(what, scratch / (4 * 5000 * _GENES), "x", limit=_ARRAYS))
    return figures


def _compared(pairs: tuple[Pair, ...]) -> dict[str, float]:
    """Return the CPU seconds of both sides, their ratio, and the difference of their results."""
    sides = [side for pair in pairs for side in pair]
    result, expected = [np.asarray(side(), np.float64) for side in sides][-2:]  # runs each once
    calls = [lambda side=side: cpu_seconds(lambda: jax.block_until_ready(side())) for side in sides]
    seconds = interleaved(calls, _REPEATS)
    ours, theirs = seconds[-2:]
    if len(pairs) > 1:
        ours, theirs = ours - seconds[0], theirs - seconds[1]
    return {
        "diffbio_cpu_seconds": ours,
        "reference_cpu_seconds": theirs,
        "ratio": ours / theirs,
        "difference": float(np.max(np.abs(result - expected)) / np.max(np.abs(expected))),
    }


def _diffusion(n_cells: int) -> tuple[np.ndarray, tuple[jax.Array, jax.Array], sparse.csr_array]:
    """Return counts, the affinities of a graph of neighbours with their columns, and the walk on it in SciPy."""
    counts = np.random.default_rng(1).poisson(1.0, (n_cells, _GENES)).astype(np.float32)
    affinities, indices = diffusion_graph(
        _blobs(n_cells, _FEATURES), n_neighbors=_BANDWIDTH_NEIGHBOR, max_neighbors=_NEIGHBORS
    )
    starts = np.arange(0, indices.size + 1, _NEIGHBORS)
    entries = (np.asarray(affinities).ravel(), np.asarray(indices).ravel(), starts)
    kernel = sparse.csr_array(entries, shape=(n_cells, n_cells)) + sparse.eye_array(n_cells)
    kernel = kernel + kernel.T
    walk = sparse.csr_array(sparse.diags_array(1 / kernel.sum(axis=1)) @ kernel).astype(np.float32)
    return counts, (affinities, indices), walk


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
