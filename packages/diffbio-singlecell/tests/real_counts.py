"""Real counts that several tests compare tools on."""

from pathlib import Path

import numpy as np
import pytest

from diffbio.io.singlecell import pbmc68k_reduced


def pbmc_counts() -> np.ndarray:
    """PBMC 68k, 700 cells x 765 genes: the smallest value of a cell is the count 1, which undoes its scaling."""
    scaled = np.expm1(pbmc68k_reduced().X.toarray().astype(np.float64))
    smallest = np.where(scaled > 0, scaled, np.inf).min(1, keepdims=True)
    return np.round(scaled / smallest).astype(np.float32)


def sample_counts() -> np.ndarray:
    """The raw counts that CellTypist ships: 559 cells, of which the 9,810 genes that any of them expresses."""
    celltypist = pytest.importorskip("celltypist")
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(Path(celltypist.__file__).parent / "data/samples/sample_cell_by_gene.csv", index_col=0)
    counts = np.round(table.to_numpy()).astype(np.float32)
    return counts[:, counts.any(0)]
