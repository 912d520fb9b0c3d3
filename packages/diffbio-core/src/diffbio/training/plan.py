"""The `training` table of a recipe: how a pipeline is trained, checked like any configuration."""

import functools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import optax
from annotated_types import Ge, Gt, Lt

from diffbio.core import OperatorConfig, Pipeline
from diffbio.core.errors import ConfigError
from diffbio.training.data import Dataset
from diffbio.training.loop import FitResult, fit
from diffbio.training.schedules import temperature_schedule
from diffbio.training.selection import AnchorSelection, select_anchor
from diffbio.training.step import Loss, Schedule


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(OperatorConfig):
    """How to train a pipeline.

    Attributes:
        loss: The registered name of the loss, or `package.module:function`.
        optimizer: Which of optax's optimizers.
        learning_rate: Its step size.
        weight_decay: For adamw.
        epochs: The most passes over the training rows.
        batch_size: Rows of one step, or all.
        validation: The share of rows held out for early stopping; 0 for none.
        patience: Epochs without a better validation loss before training stops.
        clip_norm: The largest gradient norm, or no limit.
        trainable: The stages that learn, or all.
        anneal_initial: Temperature of the first step; given, all fixed temperatures are annealed.
        anneal_final: Temperature that annealing ends at.
        anneal_steps: Steps from the first temperature to the last.
        initialize_rows: The most rows on which statistics, bases and centroids are set before training.
        anchored: Stages that are held to their start as strongly as inner splits of the training rows
            say, or not moved at all (`select_anchor`); then `validation` is the share of an inner split.
        anchored_learning_rate: The step size of the anchored stages.
        anchor_strengths: The strengths to try beside keeping the stages frozen.
        anchor_splits: The number of inner splits.
        anchor_standard_errors: How many standard errors of their difference count as noise.
        stratify: The data key whose classes each inner split holds in equal shares.
    """

    loss: str
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 0.0
    epochs: Annotated[int, Ge(1)] = 100
    batch_size: Annotated[int, Ge(1)] | None = None
    validation: Annotated[float, Ge(0), Lt(1)] = 0.2
    patience: Annotated[int, Ge(1)] | None = None
    clip_norm: Annotated[float, Gt(0)] | None = None
    trainable: tuple[str, ...] | None = None
    anneal_initial: Annotated[float, Gt(0)] | None = None
    anneal_final: Annotated[float, Gt(0)] = 0.1
    anneal_steps: Annotated[int, Ge(1)] = 10_000
    initialize_rows: Annotated[int, Ge(1)] = 20_000
    anchored: tuple[str, ...] = ()
    anchored_learning_rate: Annotated[float, Gt(0)] = 1e-3
    anchor_strengths: tuple[Annotated[float, Ge(0)], ...] = (10.0, 1.0, 0.1)
    anchor_splits: Annotated[int, Ge(1)] = 3
    anchor_standard_errors: Annotated[float, Ge(0)] = 1.0
    stratify: str | None = None

    def __post_init__(self) -> None:
        """Check each field, then that they do not contradict each other.

        Raises:
            ConfigError: Both `trainable` and `anchored` are given.
        """
        super().__post_init__()
        if self.anchored and self.trainable is not None:
            raise ConfigError(
                "TrainingPlan has both trainable and anchored; with anchored, the stages that are not named learn "
                "freely: leave trainable out"
            )

    def fit(self, pipeline: Pipeline, data: Dataset, loss: Loss, *, key: jax.Array, progress: bool = True) -> FitResult:
        """Train a pipeline that has been initialized.

        Args:
            pipeline: What to train.
            data: The training rows.
            loss: The function that `loss` names; one object for all fits that shall share a compilation.
            key: Random key.
            progress: Show a progress bar, where there is a terminal.

        Raises:
            ConfigError: The plan names a stage that is not there.
        """
        return fit(
            pipeline,
            data,
            loss,
            optimizer=_optimizer(self, pipeline.names),
            epochs=self.epochs,
            key=key,
            batch_size=self.batch_size,
            validation=self.validation or None,
            patience=self.patience,
            trainable=self.trainable,
            anneal=_schedule(self),
            clip_norm=self.clip_norm,
            progress=progress,
        )

    def select(
        self, pipeline: Pipeline, data: Dataset, loss: Loss, *, key: jax.Array, progress: bool = True
    ) -> AnchorSelection:
        """Train a pipeline whose `anchored` stages move from their start only where held-out rows say it pays.

        Args:
            pipeline: What to train, initialized.
            data: The training rows.
            loss: As in `fit`.
            key: Random key.
            progress: As in `fit`.

        Raises:
            ConfigError: As in `fit`.
        """
        return select_anchor(
            pipeline,
            data,
            loss,
            stages=self.anchored,
            optimizer=_optimizer(self, pipeline.names),
            epochs=self.epochs,
            key=key,
            strengths=(None, *self.anchor_strengths),
            fraction=self.validation,
            splits=self.anchor_splits,
            standard_errors=self.anchor_standard_errors,
            stratify=self.stratify,
            batch_size=self.batch_size,
            patience=self.patience,
            anneal=_schedule(self),
            clip_norm=self.clip_norm,
            progress=progress,
        )


@functools.cache
def _optimizer(plan: TrainingPlan, stages: tuple[str, ...]) -> optax.GradientTransformation:
    """Return the optimizer of a plan: one object per plan, so that its fits share a compilation."""
    make = {"adam": optax.adam, "adamw": functools.partial(optax.adamw, weight_decay=plan.weight_decay)}
    rule = make.get(plan.optimizer, optax.sgd)
    if not plan.anchored:
        return rule(plan.learning_rate)
    rules: dict[Hashable, optax.GradientTransformation] = {
        "free": rule(plan.learning_rate),
        "anchored": optax.adam(plan.anchored_learning_rate),
    }
    kinds = {name: "anchored" if name in plan.anchored else "free" for name in stages}
    return optax.partition(rules, lambda weights: {name: kinds[name] for name in weights})


@functools.cache
def _schedule(plan: TrainingPlan) -> Schedule | None:
    if plan.anneal_initial is None:
        return None
    return functools.partial(
        temperature_schedule,
        initial=plan.anneal_initial,
        final=plan.anneal_final,
        decay_steps=plan.anneal_steps,
    )
