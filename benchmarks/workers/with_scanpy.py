"""`python -m benchmarks.workers.with_scanpy FILE`: the usual way from counts to cell types, step by step."""

from __future__ import annotations

import json
import sys

import scanpy as sc
from sklearn.linear_model import LogisticRegression


def main(path: str) -> None:
    """Preprocess all cells, fit on those that are not held out, and print the accuracy on the others."""
    cells = sc.read_h5ad(path)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=500)
    cells = cells[:, cells.var["highly_variable"]].copy()
    sc.pp.scale(cells, zero_center=True, max_value=10)
    sc.pp.pca(cells, n_comps=50)
    held_out = cells.obs["held_out"].to_numpy()
    embeddings, labels = cells.obsm["X_pca"], cells.obs["cell_type"].to_numpy()
    classifier = LogisticRegression(max_iter=300).fit(embeddings[~held_out], labels[~held_out])
    print(json.dumps({"accuracy": classifier.score(embeddings[held_out], labels[held_out])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
