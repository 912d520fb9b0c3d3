"""A run: a recipe, a dataset and a seed become a trained pipeline."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from diffbio.core import Pipeline, Recipe
from diffbio.core.hookspecs import load_target
from diffbio.core.registry import registry
from diffbio.training.data import Dataset
from diffbio.training.plan import TrainingPlan
from diffbio.training.step import Loss


class Run(NamedTuple):
    """What is needed to train: an initialized pipeline, the plan and the loss.

    Attributes:
        pipeline: Built from the recipe, initialized on the dataset.
        plan: The recipe's `training` table.
        loss: The loss that it names.
        key: The random key for training.
    """

    pipeline: Pipeline
    plan: TrainingPlan
    loss: Loss
    key: jax.Array


def prepare(recipe: Recipe, data: Dataset, *, key: jax.Array) -> Run:
    """Build the pipeline of a recipe for a dataset and initialize it.

    Sizes that the recipe leaves open come from the arrays, or from the names that the dataset's metadata lists
    (`classes` gives `n_classes`). At most `initialize_rows` rows, drawn at random, set statistics and bases.

    Args:
        recipe: Steps and the `training` table.
        data: The training rows.
        key: Random key.

    Returns:
        What `plan.fit` or `plan.select` take.

    Raises:
        ConfigError: The recipe or its plan is wrong.
        RegistryError: An operator or the loss is not registered.
    """
    plan, loss = plan_of(recipe)
    draw_key, rows_key, start_key, fit_key = jax.random.split(key, 4)
    first = data.take(_some_rows(len(data), plan.initialize_rows, rows_key))
    sizes = {name: len(names) for name, names in data.metadata.items() if isinstance(names, list | tuple)}
    pipeline = Pipeline.from_recipe(recipe, rngs=nnx.Rngs(draw_key), data=first, sizes=sizes)
    pipeline.initialize(key=start_key, **first)
    return Run(pipeline, plan, loss, fit_key)


def plan_of(recipe: Recipe) -> tuple[TrainingPlan, Loss]:
    """Return the plan of a recipe and the loss that it names, with its `loss_options`.

    Raises:
        ConfigError: An entry of the `training` table is unknown or out of range.
        RegistryError: The loss is not registered.
    """
    table = {name: value for name, value in recipe.training.items() if name not in ("data", "loss_options")}
    plan = TrainingPlan.from_dict(table)
    return plan, _loss(plan.loss, tuple(sorted(dict(recipe.training.get("loss_options", {})).items())))


def data_options(recipe: Recipe) -> Mapping[str, Any]:
    """Return the reader's options for training: the `data` table and what only training needs, such as labels."""
    return {**recipe.data, **recipe.training.get("data", {})}


@functools.cache
def _loss(name: str, options: tuple[tuple[str, Any], ...]) -> Loss:
    """Return a loss: one object per name and options, so that its fits share a compilation."""
    function = load_target(name) if ":" in name else registry().load("losses", name)
    return functools.partial(function, **dict(options)) if options else function


def _some_rows(count: int, most: int, key: jax.Array) -> np.ndarray:
    if count <= most:
        return np.arange(count)
    return np.sort(np.asarray(jax.random.choice(key, count, (most,), replace=False)))
