"""`python -m benchmarks.workers.counts FILE CELLS GENES`: write an .h5ad of simulated counts, never dense in full.

Counts are gamma-Poisson (negative binomial) around a log-normal mean of each gene, with marker genes for each of ten
uneven cell types and cells of unlike depth. About one count in twelve is above zero.
"""

from __future__ import annotations

import sys

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

_CELLS_AT_ONCE = 5000
_CELL_TYPES = 10
_MARKERS = 60  # genes that a cell type expresses more than the others do
_LOG_FOLD_CHANGE = 0.8  # of a marker, on average
_MEDIAN_DEPTH = 250.0  # counts of a cell
_DISPERSION = 2.0  # of the gamma: variance = mean + mean^2 / 2
_HELD_OUT = 0.1


def main(path: str, n_cells: int, n_genes: int) -> None:
    """Simulate and write."""
    random = np.random.default_rng(0)
    abundance = random.lognormal(sigma=1.5, size=n_genes)
    profiles = np.tile(abundance, (_CELL_TYPES, 1))
    for profile in profiles:
        markers = random.choice(n_genes, _MARKERS, replace=False)
        profile[markers] *= np.exp(random.gamma(2.0, _LOG_FOLD_CHANGE / 2, _MARKERS))
    profiles /= profiles.sum(axis=1, keepdims=True)
    types = random.choice(_CELL_TYPES, n_cells, p=np.arange(1, _CELL_TYPES + 1) / 55)

    blocks = []
    for start in range(0, n_cells, _CELLS_AT_ONCE):
        means = profiles[types[start : start + _CELLS_AT_ONCE]]
        means = means * random.lognormal(np.log(_MEDIAN_DEPTH), 0.4, (len(means), 1))
        rates = means * random.gamma(_DISPERSION, 1 / _DISPERSION, means.shape)
        blocks.append(sparse.csr_matrix(random.poisson(rates).astype(np.float32)))
    counts = sparse.vstack(blocks, format="csr")

    names = pd.Index([f"cell{i}" for i in range(n_cells)])
    obs = {"cell_type": pd.Categorical.from_codes(types, [f"type{i}" for i in range(_CELL_TYPES)])}
    obs["held_out"] = random.random(n_cells) < _HELD_OUT
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    anndata.AnnData(counts, obs=pd.DataFrame(obs, index=names), var=var).write_h5ad(path)
    print(counts.nnz / (n_cells * n_genes))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
