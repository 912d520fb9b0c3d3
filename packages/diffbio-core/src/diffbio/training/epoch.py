"""One epoch: the steps over its batches with the guard against NaN, and the validation after it."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from diffbio.core.errors import NonFiniteError
from diffbio.training.data import Feed, epoch_batches
from diffbio.training.diagnosis import Source, error_at, find_backward, find_forward
from diffbio.training.evaluation import Metric, averaged, compiled_evaluation
from diffbio.training.step import Carry, Dials, Program, Step, Weights, at_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """Takes the steps of an epoch.

    Attributes:
        program: What the step was compiled for.
        step: The compiled step.
        dials: Its traced settings.
        start: The weights that the fit started from.
        feed: Gives the training batches.
        rows: The training rows.
        batch_size: Rows of a batch; `None` for all.
        order_key: Random key of the batches' order.
        step_key: Random key of the stochastic stages.
    """

    program: Program
    step: Step
    dials: Dials
    start: Weights
    feed: Feed
    rows: np.ndarray
    batch_size: int | None
    order_key: jax.Array
    step_key: jax.Array

    def __call__(self, carry: Carry, epoch: int) -> tuple[Carry, dict[str, float]]:
        """Return the carry after an epoch (numbered from 0), and the epoch's figures.

        Figures stay on the device until the epoch ends, so that no step waits for the host; only the first
        step of all is looked at at once, because most mistakes show there.

        Raises:
            NonFiniteError: NaN or infinity came up.
        """
        batches = epoch_batches(self.rows, self.batch_size, self.order_key, epoch)
        figures = []
        for rows in batches:
            carry, figure = self.step(carry, self.dials, self.start, self.feed(rows), self.step_key)
            figures.append(figure)
            if epoch == 0 and len(figures) == 1:
                self._require_health(carry, epoch, batches)
        self._require_health(carry, epoch, batches)
        figures = jax.device_get(figures)
        means = {name: float(np.mean([figure[name] for figure in figures])) for name in figures[0]}
        stages = self.program.stages
        by_stage = [f"{kind}/{stage}" for kind in ("temperature", "grad_norm") for stage in stages]
        anchored = ["anchor"] if any(map(float, self.dials.anchor.values())) else []
        return carry, {name: means[name] for name in ("train_loss", *anchored, *by_stage) if name in means}

    def _require_health(self, carry: Carry, epoch: int, batches: list[np.ndarray]) -> None:
        """Raise if a step of this epoch met NaN or infinity."""
        failed = int(carry.failed)
        if failed < 0:
            return
        pipeline = at_step(self.program, carry, carry.failed)
        batch = self.feed(batches[failed - epoch * len(batches)])
        key = jax.random.fold_in(self.step_key, failed)
        loss = self.program.loss
        source = find_forward(pipeline, batch, loss, key=key) or find_backward(pipeline, batch, loss, key=key)
        raise error_at(source, f"training stopped at step {failed} of epoch {epoch + 1}", key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """Evaluates the held-out rows after an epoch.

    Attributes:
        program: What the training step was compiled for.
        metric: What chooses the best epoch; `None` for the loss.
        maximize: Whether a larger metric is better.
        feed: Gives the validation batches.
        batches: The rows of each of them.
        key: Random key of the stochastic stages; the same after each epoch.
    """

    program: Program
    metric: Metric | None
    maximize: bool
    feed: Feed
    batches: list[np.ndarray]
    key: jax.Array

    def __call__(self, carry: Carry) -> dict[str, float]:
        """Return the validation loss, and the metric where there is one.

        Raises:
            NonFiniteError: The loss is NaN or infinite.
        """
        figures = self._figures(carry)
        if not np.isfinite(figures["validation_loss"]):
            raise self._error(carry)
        return figures

    def start(self, carry: Carry) -> tuple[float, ...]:
        """Return the score before the first step; infinite where the loss is not finite, which the step will tell."""
        figures = self._figures(carry)
        return self.score(figures) if np.isfinite(figures["validation_loss"]) else (np.inf,)

    def score(self, figures: dict[str, float]) -> tuple[float, ...]:
        """Return what chooses the best epoch, lower is better; where the metric ties, the loss decides.

        A metric that counts, such as accuracy, ties often among few cells, and mostly at epochs that have not
        finished learning.
        """
        if self.metric is None:
            return (figures["validation_loss"],)
        metric = figures["validation_metric"]
        return (-metric if self.maximize else metric, figures["validation_loss"])

    def _figures(self, carry: Carry) -> dict[str, float]:
        metrics = [("validation_loss", self.program.loss)]
        if self.metric is not None:
            metrics.append(("validation_metric", self.metric))
        evaluation = compiled_evaluation(self.program.graphdef, self.program.stages, tuple(metrics))
        return averaged(evaluation, (carry.weights, carry.buffers), self.feed, self.batches, self.key)

    def _error(self, carry: Carry) -> NonFiniteError:
        """Return the error for a validation loss that is not finite."""
        pipeline = at_step(self.program._replace(anneal=()), carry, carry.step)
        sources: list[Source] = []
        for number, rows in enumerate(self.batches):
            key = jax.random.fold_in(self.key, number)
            found = find_forward(pipeline, self.feed(rows), self.program.loss, key=key)
            sources += [found] if found else []
        return error_at(sources[0], f"validation failed after step {int(carry.step)}", self.key)
