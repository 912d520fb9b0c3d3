"""Differentiating muscle cells: seven stages trained jointly, and what training each of them buys.

The cells are those of `hsmm_myoblasts`, in which time was measured and plates were not: `with_plates` plants a plate
effect of known size, so that integration has a truth. All stages see all cells; of three cells in ten the time point is
hidden from the loss, and on these the pipeline is scored: its annotation by macro-F1, its pseudotime by the rank
correlation with time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from anndata import AnnData
from jaxtyping import Array, Float
from scipy import sparse, stats
from sklearn.metrics import f1_score

from diffbio.core import Recipe
from diffbio.losses.singlecell import cell_type_cross_entropy, cluster_compactness, pseudotime_disorder
from diffbio.training import ArrayDataset, Dataset, learning_stages, prepare, split, transform

HEAD = "annotate"
"""The stage that is always trained: before, it knows no time points."""

NOTHING_ELSE, EVERYTHING = "annotate alone", "all stages"
_WITHOUT_LABEL = -1


class Score(NamedTuple):
    """How the pipeline did on the cells whose time point was hidden.

    Attributes:
        trained: The stage that was trained beside the classifier, or `NOTHING_ELSE` or `EVERYTHING`.
        seed: Which cells were hidden, and which random start.
        macro_f1: Of the annotation, mean over time points.
        rank_correlation: Spearman's, of pseudotime with time.
    """

    trained: str
    seed: int
    macro_f1: float
    rank_correlation: float


def differentiation_recipe() -> Recipe:
    """Return the recipe of the seven stages.

    Example:
        >>> [step.name for step in differentiation_recipe().steps]
        ['depth', 'denoise', 'projection', 'integrate', 'cluster', 'annotate', 'order']
    """
    with as_file(files("diffbio.pipelines.singlecell") / "differentiation.toml") as path:
        return Recipe.read(path)


def differentiation_loss(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the joint loss: of annotation, of order, and of clusters relative to the spread of the embedding.

    Args:
        data: Holds what `cell_type_cross_entropy`, `pseudotime_disorder` and `cluster_compactness` read.

    Returns:
        A scalar, at least 0: nats, 1 - correlation and a share of the variance, each with weight 1.
    """
    embeddings = data["embeddings"]
    spread = jnp.square(embeddings - embeddings.mean(0)).sum(-1).mean()
    return (
        cell_type_cross_entropy(data, balanced=True)
        + pseudotime_disorder(data)
        + cluster_compactness(data) / jnp.maximum(spread, 1e-12)
    )


def with_plates(adata: AnnData, *, strength: float = 0.5, key: jax.Array) -> AnnData:
    """Return the cells as if half of them came from a second plate, with an effect of its own on every gene.

    Args:
        adata: Cells with abundances in `X`.
        strength: Standard deviation of the logarithm of the plate's effect on a gene.
        key: Random key: which cells, which effects.

    Returns:
        A copy with `obs["plate"]` and changed `X`.
    """
    of_cells, of_genes = jax.random.split(key)
    second = np.asarray(jax.random.permutation(of_cells, adata.n_obs) % 2, bool)
    effects = np.exp(strength * np.asarray(jax.random.normal(of_genes, (adata.n_vars,))))
    plated = adata.copy()
    factors = np.where(second[:, None], effects, 1.0).astype(np.float32)
    plated.X = sparse.csr_matrix(adata.X).multiply(factors).tocsr()
    plated.obs["plate"] = np.where(second, "second", "first")
    return plated


def unfreezing(recipe: Recipe, data: Dataset, *, seeds: Sequence[int], hidden: float = 0.3) -> Iterator[Score]:
    """Train the classifier alone, with each other stage, and with all; yield each score as it is known.

    Args:
        recipe: Its stages that have parameters are those that are unfrozen.
        data: Cells with `labels`, all of them.
        seeds: One choice of hidden cells each.
        hidden: The share of cells whose time point the loss does not see.
    """
    arrays = data.take(np.arange(len(data)))
    for seed in seeds:
        split_key, run_key = jax.random.split(jax.random.key(seed))
        test = split(data, fraction=hidden, key=split_key, stratify="labels").validation
        labels = arrays["labels"].copy()
        labels[test] = _WITHOUT_LABEL
        known = ArrayDataset({**arrays, "labels": labels}, data.metadata)
        start, plan, loss, key = prepare(recipe, known, key=run_key)
        learning = learning_stages(start)
        choices = {NOTHING_ELSE: (HEAD,), **{name: (HEAD, name) for name in learning if name != HEAD}}
        for trained, stages in {**choices, EVERYTHING: learning}.items():
            chosen = dataclasses.replace(plan, trainable=stages)
            result = chosen.fit(start, known, loss, key=key, progress=False)
            yield Score(trained, seed, *_scores(transform(result.pipeline, known), arrays["labels"], test))


def _scores(results: Mapping[str, np.ndarray], labels: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    predicted = results["cell_type_probabilities"].argmax(1)
    reached = test[np.isfinite(results["pseudotime"][test])]
    correlation: Any = stats.spearmanr(results["pseudotime"][reached], labels[reached])
    return float(f1_score(labels[test], predicted[test], average="macro")), float(correlation.statistic)
