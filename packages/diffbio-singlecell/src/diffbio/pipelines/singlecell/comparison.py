"""Frozen against joint: does training the preprocessing help the classifier, on cells that neither has seen?

Frozen: gene selection and projection stay as the data set them, and the classifier alone is trained. Joint: they may
move from there, as strongly anchored as inner splits of the training cells say (`TrainingPlan.select`). Beside both
stands logistic regression of scikit-learn on all genes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffbio.core import Pipeline, Recipe
from diffbio.pipelines.singlecell.annotation import with_components
from diffbio.training import Dataset, FitResult, Split, Subset, learning_stages, prepare, split, transform

FROZEN, JOINT, ALL_GENES = "frozen", "joint", "all genes, logistic regression"


class Score(NamedTuple):
    """How one model did on the held-out cells of one seed.

    Attributes:
        model: `frozen`, `joint`, or logistic regression on all genes.
        n_components: Of the projection; 0 for all genes.
        seed: Which split of the cells, and which random start.
        macro_f1: Mean over cell types of the F1 score.
        balanced_accuracy: Mean over cell types of the recall.
        anchor: The strength that the joint model chose; `None` for frozen.
    """

    model: str
    n_components: int
    seed: int
    macro_f1: float
    balanced_accuracy: float
    anchor: float | None = None


class Trained(NamedTuple):
    """One seed's pipelines, and the cells that they were trained on."""

    cells: Split
    start: Pipeline
    frozen: FitResult
    joint: FitResult
    anchor: float | None


class Interval(NamedTuple):
    """A mean and its 95 % confidence half-width (Student's t)."""

    mean: float
    half_width: float


def train_both(recipe: Recipe, data: Dataset, *, seed: int, held_out: float) -> Trained:
    """Train the frozen and the joint pipeline on the same cells.

    Args:
        recipe: Its `training` table names the `anchored` stages, which the frozen pipeline keeps as they start.
        data: Cells with `labels`.
        seed: Decides the split, stratified by cell type, and everything random after it.
        held_out: The share of the cells to hold out, between 0 and 1.
    """
    cells, run_key = _split(data, seed, held_out)
    training = Subset(data, cells.train)
    start, plan, loss, key = prepare(recipe, training, key=run_key)
    selection = plan.select(start, training, loss, key=key, progress=False)
    alone = next(candidate for candidate in selection.candidates if candidate.strength is None)
    free = tuple(name for name in learning_stages(start) if name not in plan.anchored)
    frozen_plan = dataclasses.replace(
        plan, trainable=free, anchored=(), epochs=alone.epochs, validation=0.0, patience=None
    )
    frozen = frozen_plan.fit(start, training, loss, key=key, progress=False)
    return Trained(cells, start, frozen, selection.fit, selection.strength)


def compare(
    recipe: Recipe,
    data: Dataset,
    *,
    components: Sequence[int] = (5, 10, 50),
    seeds: Sequence[int] = tuple(range(5)),
    held_out: float = 0.2,
) -> Iterator[tuple[Score, Trained | None]]:
    """Train and score every model; yields each score as it is known, with the pipelines behind it.

    Args:
        recipe: The annotation recipe.
        data: Cells with `labels`.
        components: Numbers of components of the projection.
        seeds: One split of the cells each.
        held_out: The share of the cells to hold out.
    """
    labels = data.take(np.arange(len(data)))["labels"]
    for n_components in components:
        for seed in seeds:
            trained = train_both(with_components(recipe, n_components), data, seed=seed, held_out=held_out)
            test = trained.cells.validation
            models = {FROZEN: (trained.frozen, None), JOINT: (trained.joint, trained.anchor)}
            for model, (result, anchor) in models.items():
                predicted = predict(result.pipeline, Subset(data, test))
                yield Score(model, n_components, seed, *_scores(labels[test], predicted), anchor), trained
    for seed in seeds:
        yield _logistic_regression(recipe, data, seed, held_out), None


def predict(pipeline: Pipeline, data: Dataset) -> Int[np.ndarray, " cells"]:
    """Return the most probable cell type of each cell, as its code."""
    return transform(pipeline, data)["cell_type_probabilities"].argmax(axis=1)


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of values with its 95 % confidence half-width.

    Example:
        >>> mean, half_width = interval([1.0, 2.0, 3.0])
        >>> round(mean, 2), round(half_width, 2)
        (2.0, 2.48)
    """
    half_width = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else np.inf
    return Interval(float(np.mean(values)), float(half_width))


def _split(data: Dataset, seed: int, held_out: float) -> tuple[Split, jax.Array]:
    """Return the cells of a seed, the same for every model, and the key for what follows."""
    split_key, run_key = jax.random.split(jax.random.key(seed))
    return split(data, fraction=held_out, key=split_key, stratify="labels"), run_key


def _logistic_regression(recipe: Recipe, data: Dataset, seed: int, held_out: float) -> Score:
    cells, _ = _split(data, seed, held_out)
    arrays = data.take(np.arange(len(data)))
    expression, labels = arrays[recipe.data["key"]], arrays["labels"]
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    model.fit(expression[cells.train], labels[cells.train])
    predicted = model.predict(expression[cells.validation])
    return Score(ALL_GENES, 0, seed, *_scores(labels[cells.validation], predicted))


def _scores(labels: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    return (
        float(f1_score(labels, predicted, average="macro")),
        float(balanced_accuracy_score(labels, predicted)),
    )
