"""Neighbours, maps, diffusion and order beside scikit-learn, umap-learn and scanpy."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import jax.numpy as jnp
import numpy as np
from anndata import AnnData
from flax import nnx
from jaxtyping import Array, Float
from scipy.stats import spearmanr
from sklearn import manifold
from sklearn.neighbors import NearestNeighbors as ExactNeighbors

from diffbio.losses.singlecell.map import tsne_divergence
from diffbio.operators.normalization import TSNE, UMAP, DiffusionMap, DiffusionMapConfig, TSNEConfig, UMAPConfig
from diffbio.operators.singlecell import (
    DiffusionPseudotime,
    DiffusionPseudotimeConfig,
    NearestNeighbors,
    NearestNeighborsConfig,
)
from diffbio.pipelines.singlecell.atlas.cells import Atlas
from diffbio.pipelines.singlecell.atlas.rows import Bar, Comparison, NotRun, largest, quality, versus

_NEIGHBORS = 15
_JUDGED = 5000  # cells whose trustworthiness is taken: it needs all pairs of them
_COMPONENTS, _APART = 10, 1e-3  # of the diffusion map; eigenvalues nearer than this leave the vectors undetermined
_ORDERED = 1000  # cells that are put in order: scanpy needs as many eigenvectors to give the whole sum


def neighbors(cells: Atlas) -> Iterator[Comparison]:
    """Compare the nearest neighbours with those of an exact search by scikit-learn."""
    operator = NearestNeighbors(NearestNeighborsConfig(n_neighbors=_NEIGHBORS))
    exact = cells.embeddings.astype(np.float64)
    ours, (distances, indices), timing = versus(
        lambda: operator.compute(jnp.asarray(cells.embeddings)),
        lambda: ExactNeighbors(n_neighbors=_NEIGHBORS, algorithm="brute").fit(exact).kneighbors(),
    )
    found, expected = np.asarray(ours.neighbor_indices), np.asarray(indices)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(expected, found, strict=True)])
    yield Comparison(f"recall of {_NEIGHBORS} neighbours", float(recall), Bar(">=", 0.9999), timing=timing)
    apart = distances > 0
    error = largest(np.asarray(ours.neighbor_distances)[apart] / distances[apart] - 1)
    yield Comparison("distances, largest relative error", error, Bar("<=", 1e-5), timing=timing)


def umap(cells: Atlas) -> Iterator[Comparison]:
    """Compare the trustworthiness of the map with that of umap-learn's."""
    umap_learn: Any = import_module("umap")

    def mapped() -> Array:
        operator = UMAP(UMAPConfig(n_cells=len(cells)), rngs=nnx.Rngs(cells.seed))
        operator.initialize(jnp.asarray(cells.embeddings), key=cells.key)
        return operator.coordinates[...]

    ours, theirs, timing = versus(
        mapped, lambda: umap_learn.UMAP(random_state=cells.seed, n_jobs=1).fit_transform(cells.embeddings)
    )
    yield quality("trustworthiness", _trust(cells, ours), _trust(cells, theirs), Bar(">=", -0.01), timing)


def tsne(cells: Atlas) -> Iterator[Comparison]:
    """Compare the trustworthiness and the divergence of the map with those of scikit-learn's."""

    def mapped() -> Any:
        operator = TSNE(TSNEConfig(n_cells=len(cells)), rngs=nnx.Rngs(cells.seed))
        operator.initialize(jnp.asarray(cells.embeddings))
        return operator.compute(jnp.asarray(cells.embeddings))

    ours, theirs, timing = versus(
        mapped, lambda: manifold.TSNE(random_state=cells.seed).fit_transform(cells.embeddings), warm_up=False
    )
    yield quality("trustworthiness", _trust(cells, ours.tsne), _trust(cells, theirs), Bar(">=", -0.01), timing)
    data = ours._asdict()
    found, expected = float(tsne_divergence(data)), float(tsne_divergence({**data, "tsne": jnp.asarray(theirs)}))
    quantity = "divergence, as a ratio; less is better"
    yield Comparison(quantity, found / expected, Bar("<=", 1.05), found, expected, timing)


def _trust(cells: Atlas, layout: Any) -> float:
    some = slice(_JUDGED)
    return float(manifold.trustworthiness(cells.embeddings[some], np.asarray(layout)[some], n_neighbors=_NEIGHBORS))


def diffusion(cells: Atlas) -> Iterator[Comparison | NotRun]:
    """Compare the diffusion map with scanpy's."""
    scanpy: Any = import_module("scanpy")

    n_components = _COMPONENTS + 1  # one more, to know how far apart the last one is
    operator = DiffusionMap(DiffusionMapConfig(n_components=n_components))

    def by_scanpy() -> AnnData:
        table = _table(cells)
        scanpy.pp.neighbors(table, n_neighbors=_NEIGHBORS, use_rep="X_pca", transformer="sklearn")
        scanpy.tl.diffmap(table, n_comps=n_components)
        return table

    ours, table, timing = versus(lambda: operator.compute(jnp.asarray(cells.embeddings)), by_scanpy)
    values = np.asarray(table.uns["diffmap_evals"], np.float64)
    error = largest(np.asarray(ours.diffusion_eigenvalues) - values)
    yield Comparison("eigenvalues, largest difference", error, Bar("<=", 1e-4), timing=timing)
    gaps = np.concatenate([[np.inf], -np.diff(values)])
    apart = np.flatnonzero(np.minimum(gaps[:-1], gaps[1:]) > _APART)
    if not len(apart):
        yield NotRun("components", f"no eigenvalue is {_APART:g} apart from the next, so none is determined")
        return
    vectors, expected = np.asarray(ours.diffusion_map)[:, apart], table.obsm["X_diffmap"][:, apart]
    error = largest(vectors - np.sign(np.sum(vectors * expected, axis=0)) * expected)
    quantity = f"{len(apart)} components that are {_APART:g} apart, largest difference"
    yield Comparison(quantity, error, Bar("<=", 1e-3), timing=timing)


def pseudotime(cells: Atlas) -> Iterator[Comparison | NotRun]:
    """Compare diffusion pseudotime from one root with scanpy's, and both with the times of the cells."""
    cells = cells.take(np.arange(min(len(cells), _ORDERED)))
    root = _earliest(cells)
    operator = DiffusionPseudotime(DiffusionPseudotimeConfig(root_cell=root))
    ours, theirs, timing = versus(
        lambda: operator.compute(jnp.asarray(cells.embeddings)).pseudotime, lambda: _order_by_scanpy(cells, root)
    )
    found = np.asarray(ours)
    reached = np.isfinite(found) & np.isfinite(theirs)
    difference = largest(found[reached] - theirs[reached]) if np.array_equal(np.isfinite(theirs), reached) else np.inf
    yield Comparison(f"largest difference, {len(cells)} cells", difference, Bar("<=", 5e-4), timing=timing)
    agreement = _rank_correlation(found[reached], theirs[reached])
    yield Comparison("Spearman correlation", agreement, Bar(">=", 0.999), timing=timing)
    if cells.times is None:
        yield NotRun("Spearman correlation with time", "give --time COLUMN")
        return
    mine, other = (_rank_correlation(order[reached], cells.times[reached]) for order in (found, theirs))
    yield quality("Spearman correlation with time", mine, other, Bar(">=", -0.01), timing)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    found: Any = spearmanr(x, y)
    return float(found.statistic)


def _earliest(cells: Atlas) -> int:
    """Return the first cell, or of those taken first the one in their middle."""
    if cells.times is None:
        return 0
    first = np.flatnonzero(cells.times == cells.times.min())
    middle = cells.embeddings[first].mean(0)
    return int(first[np.square(cells.embeddings[first] - middle).sum(1).argmin()])


def _order_by_scanpy(cells: Atlas, root: int) -> Float[np.ndarray, " cells"]:
    """Return scanpy's pseudotime from all diffusion components, of which diffbio takes the sum in closed form."""
    scanpy: Any = import_module("scanpy")

    table = _table(cells)
    scanpy.pp.neighbors(table, n_neighbors=_NEIGHBORS, method="gauss", use_rep="X_pca")
    scanpy.tl.diffmap(table, n_comps=table.n_obs - 1)
    table.uns["iroot"] = root
    scanpy.tl.dpt(table, n_dcs=table.n_obs - 1)
    return table.obs["dpt_pseudotime"].to_numpy()


def _table(cells: Atlas) -> AnnData:
    table = AnnData(shape=(len(cells), 0))
    table.obsm["X_pca"] = cells.embeddings
    return table
