"""The cells of a comparison: drawn from a file, and what every family starts from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from diffbio.core.errors import DataError, MissingKeyError, listed, nearest
from diffbio.io.singlecell import read
from diffbio.operators.normalization import normalize_library_size, principal_components, seurat_dispersion

LEAST_CELLS = 10
"""A type or batch of fewer cells is left out: it can be neither split nor tested."""

_MOST_GENES, _MOST_COMPONENTS, _LARGEST_SCORE = 2000, 50, 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """Cells in random order, each with a count or a value, and each gene with one.

    Args:
        normalized: log(1 + normalized counts) (cells, genes), float32.
        counts: Raw counts (cells, genes), float32; `None` where the file gave none.
        labels: Cell types as codes from 0 (cells,), or `None`.
        batches: Batches as codes from 0 (cells,), or `None`.
        times: When each cell was taken, in any unit (cells,), or `None`.
        seed: Of everything random.
    """

    normalized: Float[np.ndarray, "cells genes"]
    counts: Float[np.ndarray, "cells genes"] | None = None
    labels: Int[np.ndarray, " cells"] | None = None
    batches: Int[np.ndarray, " cells"] | None = None
    times: Float[np.ndarray, " cells"] | None = None
    seed: int

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.normalized)

    @property
    def key(self) -> Array:
        """The random key of the seed."""
        return jax.random.key(self.seed)

    @cached_property
    def variable_genes(self) -> Int[np.ndarray, " some"]:
        """Columns of the most variable genes, at most 2,000."""
        scores = np.asarray(seurat_dispersion(jnp.asarray(self.normalized)))
        return np.sort(np.argsort(-scores, kind="stable")[:_MOST_GENES])

    @cached_property
    def scaled(self) -> Float[np.ndarray, "cells some"]:
        """The most variable genes in units of their standard deviation, at most 10 from their mean."""
        x = self.normalized[:, self.variable_genes].astype(np.float64)
        spread = x.std(0, ddof=1)
        scores = (x - x.mean(0)) / np.where(spread > 0, spread, 1)
        return np.clip(scores, -_LARGEST_SCORE, _LARGEST_SCORE).astype(np.float32)

    @property
    def n_components(self) -> int:
        """Of the embeddings: 50, or as many as there can be."""
        return min(_MOST_COMPONENTS, self.scaled.shape[0] - 1, self.scaled.shape[1])

    @cached_property
    def embeddings(self) -> Float[np.ndarray, "cells components"]:
        """Principal components of `scaled`."""
        x = jnp.asarray(self.scaled)
        mean, components, _ = principal_components(x, self.n_components)
        return np.asarray((x - mean) @ components)

    def take(self, rows: Int[np.ndarray, " some"]) -> Atlas:
        """Return some of the cells.

        Args:
            rows: Which, in their order.
        """
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "seed"}
        return replace(self, **{name: array[rows] for name, array in arrays.items() if array is not None})


def one_hot(codes: Int[np.ndarray, " cells"]) -> Float[Array, "cells groups"]:
    """Return memberships of one 1 per row.

    Args:
        codes: The group of each cell, from 0.
    """
    return jax.nn.one_hot(codes, int(codes.max()) + 1)


def read_cells(
    path: Path,
    *,
    labels: str | None = None,
    batch: str | None = None,
    time: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    n_cells: int = 5000,
    seed: int = 0,
) -> Atlas:
    """Draw cells from a file.

    Whole numbers are raw counts, and are log-normalized; other values are taken to be log-normalized already. Cells
    without a label, batch or time that was asked for, types and batches of fewer than 10 cells, cells without a count
    and genes in fewer than 3 of the cells are left out.

    Args:
        path: Any file that `diffbio.io.singlecell.read` reads; of `.h5ad` and `.zarr` only the cells drawn.
        labels: Column of `obs` with cell types.
        batch: Column of `obs` with batches.
        time: Column of `obs` with times: numbers, or categories in their order.
        layer: The layer to read; `None` for `X`.
        use_raw: Read `.raw.X`.
        n_cells: The most cells to draw.
        seed: Which cells, and in which order.

    Raises:
        MissingKeyError: A column or layer that is not there; the message lists those that are.
        DataError: Values below zero, or no cell left.
    """
    backed = path.suffix in (".h5ad", ".zarr")
    data = read(path, key="expression", layer=layer, use_raw=use_raw, labels=labels, batch=batch, backed=backed)
    columns = {"labels": labels, "batches": batch, "times": time}
    wanted = [column for column in columns.values() if column is not None]
    obs: Any = data.adata.obs
    _require_columns(wanted, list(obs))
    candidates = np.flatnonzero(obs[wanted].notna().all(axis=1))
    rows = np.random.default_rng(seed).permutation(candidates)[:n_cells]
    arrays = data.take(rows)
    values = arrays["expression"]
    if values.size and values.min() < 0:
        raise DataError(
            f"{int((values < 0).sum())} of the values are negative, as if they were scaled; "
            "name the raw counts, or log-normalized ones, with --layer NAME or --use-raw"
        )
    kept = values.any(axis=1)
    for codes in (arrays[name] for name in ("labels", "batch_labels") if name in arrays):
        kept &= np.isin(codes, np.flatnonzero(np.bincount(codes[kept], minlength=1) >= LEAST_CELLS))
    if not kept.any():
        raise DataError(
            f"none of {len(values)} cells is left: a cell needs a count, a value in {listed(wanted)}, and "
            f"{LEAST_CELLS} cells of its type and batch; draw more with --cells, or name other columns"
        )
    values, rows = values[kept], rows[kept]
    values = values[:, (values > 0).sum(0) >= min(3, len(values))]
    whole = np.array_equal(values, np.rint(values))
    return Atlas(
        normalized=np.asarray(normalize_library_size(jnp.asarray(values)).normalized) if whole else values,
        counts=values if whole else None,
        labels=None if labels is None else _coded(arrays["labels"][kept]),
        batches=None if batch is None else _coded(arrays["batch_labels"][kept]),
        times=None if time is None else _times(obs[time])[rows],
        seed=seed,
    )


def _require_columns(wanted: list[str], there: list[str]) -> None:
    for column in wanted:
        if column not in there:
            raise MissingKeyError(f"no column {column!r} in obs; its columns: {listed(there)}{nearest(column, there)}")


def _coded(codes: np.ndarray) -> Int[np.ndarray, " cells"]:
    """Return codes without gaps."""
    return np.unique(codes, return_inverse=True)[1].astype(np.int32)


def _times(column: pd.Series) -> Float[np.ndarray, " cells"]:
    """Return numbers as they are, and the order of categories, or of names, else."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64)
    return column.astype("category").cat.codes.to_numpy(np.float64)
