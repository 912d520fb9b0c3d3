"""Normalization, choice of genes, principal components and markers beside scanpy and scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Array, Bool, Float, Int
from scipy import sparse
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from diffbio.operators.normalization import (
    GeneSelection,
    GeneSelectionConfig,
    LibrarySizeNormalization,
    LibrarySizeNormalizationConfig,
    PearsonResiduals,
    PearsonResidualsConfig,
    PrincipalComponentAnalysis,
    PrincipalComponentAnalysisConfig,
)
from diffbio.operators.singlecell import MarkerRanking, MarkerRankingConfig, adjusted_log_p_values
from diffbio.pipelines.singlecell.atlas.cells import Atlas, one_hot
from diffbio.pipelines.singlecell.atlas.rows import Bar, Comparison, NotRun, largest, versus

_HARD = 1e-8  # larger, values that differ by the last digit of float32 only count as partly tied
_MOST_TOP_GENES, _TOP_SHARE = 2000, 8
_OVER_BATCHES = 0.97  # of two batches many genes share their rank, and scanpy sorts those as it happens
_COORDINATES = 20
_NO_FOLD = 20  # |log2 fold| from which it shows nothing but the floor that scanpy adds to the means


def normalization(cells: Atlas) -> Iterator[Comparison]:
    """Compare log-normalization and Pearson residuals with scanpy's."""
    scanpy: Any = import_module("scanpy")

    assert cells.counts is not None
    counts = cells.counts
    normalizer = LibrarySizeNormalization(LibrarySizeNormalizationConfig())

    def normalized_by_scanpy() -> np.ndarray:
        table = AnnData(counts.copy())
        scanpy.pp.normalize_total(table, target_sum=1e4)
        scanpy.pp.log1p(table)
        return np.asarray(table.X)

    ours, theirs, timing = versus(lambda: normalizer.compute(jnp.asarray(counts)).normalized, normalized_by_scanpy)
    quantity = "normalize_total and log1p, largest difference"
    yield Comparison(quantity, largest(ours - theirs), Bar("<=", 1e-5), timing=timing)

    some = counts[:, cells.variable_genes]
    some = some[some.any(axis=1)]

    def residuals() -> Array:
        operator = PearsonResiduals(PearsonResidualsConfig(n_genes=some.shape[1]))
        operator.initialize(jnp.asarray(some))
        return operator.compute(jnp.asarray(some)).pearson_residuals

    def residuals_by_scanpy() -> np.ndarray:
        table = AnnData(some.astype(np.float64))
        return scanpy.experimental.pp.normalize_pearson_residuals(table, inplace=False)["X"]

    ours, theirs, timing = versus(residuals, residuals_by_scanpy)
    quantity = f"Pearson residuals of {some.shape[1]} genes, largest difference"
    yield Comparison(quantity, largest(ours - theirs), Bar("<=", 1e-4), timing=timing)


def gene_selection(cells: Atlas) -> Iterator[Comparison | NotRun]:
    """Compare the most variable genes with scanpy's, of all cells and over batches."""
    n_genes = cells.normalized.shape[1]
    n_top = min(_MOST_TOP_GENES, max(n_genes // _TOP_SHARE, 1))
    for flavor in ("seurat", "cell_ranger", "seurat_v3", "pearson_residuals"):
        of_counts = flavor in ("seurat_v3", "pearson_residuals")
        if of_counts and cells.counts is None:
            yield NotRun(flavor, "it scores raw counts: name them with --layer NAME or --use-raw")
        elif flavor == "seurat_v3" and find_spec("skmisc") is None:
            yield NotRun(flavor, "pip install scikit-misc")
        else:
            yield _overlap(
                f"{flavor}: Jaccard index of {n_top} genes", replace(cells, batches=None), flavor, n_top, 1.0
            )
            if cells.batches is not None:
                # scanpy clips the residuals of every batch by the size of the first, so they are cut to one size
                some = _evenly(cells, cells.batches) if flavor == "pearson_residuals" else cells
                yield _overlap(f"{flavor}, over batches", some, flavor, n_top, _OVER_BATCHES)


def _overlap(quantity: str, cells: Atlas, flavor: str, n_top: int, least: float) -> Comparison:
    ours, theirs, timing = versus(
        lambda: _kept(cells, flavor, n_top, cells.batches), lambda: _kept_by_scanpy(cells, flavor, n_top, cells.batches)
    )
    shared = float((ours & theirs).sum() / (ours | theirs).sum())
    return Comparison(quantity, shared, Bar(">=", least), timing=timing)


def _evenly(cells: Atlas, batches: Int[np.ndarray, " cells"]) -> Atlas:
    """Return as many cells of each batch as the smallest has."""
    n_cells = np.bincount(batches).min()
    return cells.take(np.concatenate([np.flatnonzero(batches == batch)[:n_cells] for batch in np.unique(batches)]))


def _kept(cells: Atlas, flavor: Any, n_top: int, batches: np.ndarray | None) -> Bool[np.ndarray, " genes"]:
    n_genes = cells.normalized.shape[1]
    config = GeneSelectionConfig(n_genes=n_genes, n_top_genes=n_top, flavor=flavor, temperature=_HARD)
    selection = GeneSelection(config)
    selection.initialize(
        jnp.asarray(cells.normalized),
        None if cells.counts is None else jnp.asarray(cells.counts),
        None if batches is None else jnp.asarray(batches),
    )
    return np.asarray(selection.compute(jnp.ones(n_genes)).gene_gate) > 0.5


def _kept_by_scanpy(cells: Atlas, flavor: str, n_top: int, batches: np.ndarray | None) -> Bool[np.ndarray, " genes"]:
    scanpy: Any = import_module("scanpy")

    values = cells.counts if flavor in ("seurat_v3", "pearson_residuals") else cells.normalized
    table = AnnData(sparse.csr_matrix(values, dtype=np.float64))
    if batches is not None:
        table.obs["batch"] = pd.Categorical([f"batch {batch}" for batch in batches])
    find = (scanpy.experimental if flavor == "pearson_residuals" else scanpy).pp.highly_variable_genes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch_key = None if batches is None else "batch"
        found = find(table, flavor=flavor, n_top_genes=n_top, batch_key=batch_key, inplace=False)
    return found["highly_variable"].to_numpy()


def principal_components(cells: Atlas) -> Iterator[Comparison]:
    """Compare the components of the scaled expression with scikit-learn's."""
    n_components = cells.n_components
    operator = PrincipalComponentAnalysis(PrincipalComponentAnalysisConfig(n_components=n_components))

    def by_scikit_learn() -> Any:
        return PCA(n_components, svd_solver="full").fit(cells.scaled.astype(np.float64))

    ours, theirs, timing = versus(lambda: operator.compute(jnp.asarray(cells.scaled)), by_scikit_learn)
    angle = subspace_angles(np.asarray(ours.loadings, np.float64), theirs.components_.T).max()
    yield Comparison(f"largest angle of {n_components} components", float(angle), Bar("<=", 1e-3), timing=timing)
    expected = theirs.transform(cells.scaled)
    few = min(_COORDINATES, n_components)
    error = largest(np.asarray(ours.embeddings)[:, :few] - expected[:, :few]) / expected.std()
    quantity = f"largest error of {few} coordinates, over their spread"
    yield Comparison(quantity, float(error), Bar("<=", 2e-3), timing=timing)


def markers(cells: Atlas) -> Iterator[Comparison]:
    """Compare the Wilcoxon scores of the most variable genes with scanpy's, type by type."""
    scanpy: Any = import_module("scanpy")

    assert cells.labels is not None
    labels = cells.labels
    expression = cells.normalized[:, cells.variable_genes]
    operator = MarkerRanking(MarkerRankingConfig(temperature=_HARD))
    names = [f"type {code}" for code in range(labels.max() + 1)]
    types = pd.Categorical.from_codes(labels, names)

    def ranked_by_scanpy() -> AnnData:
        table = AnnData(expression.astype(np.float64), obs=pd.DataFrame({"type": types}, index=_names(len(labels))))
        scanpy.tl.rank_genes_groups(table, "type", method="wilcoxon", tie_correct=True)
        return table

    memberships = one_hot(labels)
    ours, table, timing = versus(lambda: operator.compute(jnp.asarray(expression), memberships), ranked_by_scanpy)
    statistics = ("scores", "logfoldchanges", "pvals", "pvals_adj")
    theirs = {name: _in_order(table, names, name) for name in statistics}
    with np.errstate(divide="ignore"):
        log_p, log_adjusted = np.log(theirs["pvals"]), np.log(theirs["pvals_adj"])
    told = np.isfinite(log_p) & (np.abs(theirs["logfoldchanges"]) < _NO_FOLD)

    def relative(found: Array, expected: np.ndarray) -> Float[np.ndarray, " told"]:
        return (np.asarray(found)[told] - expected[told]) / (1 - expected[told])

    folds = np.asarray(ours.marker_log2_fold_changes - theirs["logfoldchanges"])[told]
    for quantity, differences in (
        ("z score, largest difference", ours.marker_z_scores - theirs["scores"]),
        ("log2 fold change, largest difference", folds),
        ("log p-value, largest relative difference", relative(ours.marker_log_p_values, log_p)),
        ("adjusted log p-value, likewise", relative(adjusted_log_p_values(ours.marker_log_p_values), log_adjusted)),
    ):
        yield Comparison(quantity, largest(differences), Bar("<=", 1e-3), timing=timing)


def _names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _in_order(table: AnnData, names: list[str], statistic: str) -> Float[np.ndarray, "types genes"]:
    """Return a statistic of scanpy's, which sorts the genes of each type, by gene."""
    found, order = table.uns["rank_genes_groups"][statistic], table.uns["rank_genes_groups"]["names"]
    values = np.empty((len(names), table.n_vars))
    for row, name in enumerate(names):
        values[row, table.var_names.get_indexer(order[name])] = found[name]
    return values
