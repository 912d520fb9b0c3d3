"""`fit`: train a pipeline end to end on a dataset, with validation, annealing, anchors and checkpoints."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, PyTree

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, DataError
from diffbio.training.checkpoint import Checkpoints, FitState
from diffbio.training.data import Dataset, Feed, Split, split, split_at
from diffbio.training.epoch import Judge, Trainer
from diffbio.training.evaluation import Metric, consecutive
from diffbio.training.history import History
from diffbio.training.options import dials_of, program_of
from diffbio.training.progress import ProgressBar
from diffbio.training.step import (
    Carry,
    Loss,
    Program,
    Schedule,
    Weights,
    compilations,
    compiled_step,
    put_together,
    take_apart,
)


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a fit gives back.

    Attributes:
        pipeline: A trained copy of the pipeline, with the weights and temperatures of the best epoch
            (of the last one where there is no validation), or of the start if no epoch is better on the held-out rows.
        history: One record per epoch.
        best_epoch: The epoch of those weights, from 1; 0 for the start.
        stopped: Why it ended: all `"epochs"` were done, or `"patience"` ran out.
        compilations: How often the training step was compiled; 0 where an earlier fit with the same
            structure, loss, optimizer, schedules and shapes had compiled it.
    """

    pipeline: Pipeline
    history: History
    best_epoch: int
    stopped: Literal["epochs", "patience"]
    compilations: int


def fit(
    pipeline: Pipeline,
    data: Dataset,
    loss: Loss,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    key: jax.Array,
    batch_size: int | None = None,
    validation: float | Int[np.ndarray, " validation"] | None = None,
    validation_batch_size: int | None = None,
    metric: Metric | None = None,
    maximize: bool = False,
    patience: int | None = None,
    trainable: Collection[str] | None = None,
    anchor: float | Mapping[str, float] | None = None,
    anneal: Schedule | Mapping[str, Schedule] | None = None,
    clip_norm: float | None = None,
    checkpoint: str | pathlib.Path | None = None,
    checkpoint_every: int = 1,
    resume: bool = False,
    mesh: Mesh | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a copy of a pipeline end to end; the pipeline that is given stays as it is.

    The step is compiled once for the whole run, and once for all runs that have the same structure,
    the same `loss`, `optimizer` and schedule objects and the same shapes: make those objects once.
    What `trainable`, `anchor` and `clip_norm` say compiles nothing again. The run is a function of its
    arguments: the same key gives the same weights.

    Args:
        pipeline: What to train. Initialize it first (`pipeline.initialize`).
        data: The observations; training and validation rows.
        loss: A pure function of the data dict after the pipeline, giving a scalar; best one object
            made once (see above).
        optimizer: An optax transformation.
        epochs: The number of passes over the training rows, at least 1.
        key: Random key: order of the batches, random validation rows, stochastic stages.
        batch_size: Rows of one step; rows that do not fill a batch at an epoch's end wait for another
            epoch. `None` for all rows in each step.
        validation: The rows to hold out, or the share of rows to draw at random. For whole batches of
            cells, give `split(data, by=...).validation`.
        validation_batch_size: Rows evaluated at a time; figures are then weighted means over
            batches. `None` for all at once, which a metric such as macro-F1 needs to be exact.
        metric: A pure function of the data dict that chooses the best epoch, and the loss where it ties; `None` for
            the loss alone.
        maximize: Whether a larger metric is better.
        patience: Stop after so many epochs without one that is better than all before and than the start; `None` for
            never.
        trainable: The names of the stages that learn; the others keep their weights bit for bit.
            `None` for all.
        anchor: Strength of the pull to the starting weights, for all stages or by name; see
            `diffbio.training.anchor_penalty`.
        anneal: A schedule (step to temperature) for every fixed `Softness`, or schedules by stage.
        clip_norm: The largest norm of the whole gradient; longer ones are scaled down to it.
        checkpoint: A directory to store the run in.
        checkpoint_every: Store after each so many epochs, and at the end.
        resume: Go on from the checkpoint; from the start where there is none yet.
        mesh: Devices to share each batch among, along the mesh's first axis.
        progress: Show a progress bar, where there is a terminal.

    Returns:
        The trained pipeline and how training went.

    Raises:
        NonFiniteError: NaN or infinity came up; the message names the stage and what to do.
        ConfigError: An option is out of its range, or names a stage that is not there.
        MissingKeyError: A stage or the loss reads a key that nobody gives.
        DataError: Training or validation would have no rows, or rows do not divide among the devices.
        StorageError: `checkpoint` holds another run.

    Example:
        >>> from typing import NamedTuple
        >>> from flax import nnx
        >>> from jaxtyping import Array, Float
        >>> from diffbio.core import Operator, OperatorConfig
        >>> from diffbio.training import ArrayDataset
        >>> class Scaled(NamedTuple):
        ...     scaled: Float[Array, "cells genes"]
        >>> class Scale(Operator[OperatorConfig]):
        ...     def __init__(self):
        ...         super().__init__(OperatorConfig())
        ...         self.factor = nnx.Param(jnp.ones(()))
        ...     def compute(self, counts: Float[Array, "cells genes"]) -> Scaled:
        ...         return Scaled(self.factor[...] * counts)
        >>> data = ArrayDataset({"counts": np.ones((8, 2), np.float32)})
        >>> def loss(data):
        ...     return jnp.mean((data["scaled"] - 3.0) ** 2)
        >>> result = fit(Pipeline(Scale()), data, loss, optimizer=optax.sgd(0.25), epochs=20, key=jax.random.key(0))
        >>> round(float(result.pipeline["scale"].factor[...]), 3), result.compilations
        (3.0, 1)
    """
    _require_counts(
        epochs=epochs,
        batch_size=batch_size,
        validation_batch_size=validation_batch_size,
        patience=patience,
        checkpoint_every=checkpoint_every,
    )
    if validation is None and (metric is not None or patience is not None):
        raise ConfigError("metric and patience need held-out rows: give validation a share or rows")
    split_key, order_key, step_key, judge_key = jax.random.split(key, 4)
    program = program_of(pipeline, loss, optimizer, anneal)
    _, weights, buffers = take_apart(pipeline)
    rows = _split(data, validation, split_key)
    share, replicate = _placement(mesh, min(batch_size or len(rows.train), len(rows.train)))
    trainer = Trainer(
        program=program,
        step=compiled_step(program),
        dials=replicate(dials_of(pipeline, weights, trainable=trainable, anchor=anchor, clip_norm=clip_norm)),
        start=replicate(weights),
        feed=Feed(data, share),
        rows=rows.train,
        batch_size=batch_size,
        order_key=order_key,
        step_key=step_key,
    )
    judge = None
    if validation is not None:
        batches = consecutive(rows.validation, validation_batch_size)
        judge = Judge(
            program=program,
            metric=metric,
            maximize=maximize,
            feed=Feed(data, replicate),
            batches=batches,
            key=judge_key,
        )
    state = _first_state(program, weights, buffers, replicate, validated=judge is not None)
    compiled_before = compilations(trainer.step)
    with contextlib.ExitStack() as stack:
        store = None
        if checkpoint is not None:
            settings = _settings(rows, batch_size, key)
            store = Checkpoints(checkpoint, every=checkpoint_every, resume=resume, settings=settings)
            state = stack.enter_context(store).restore(state)
        if judge is not None and not len(state.history):
            state.best_score = judge.start(state.carry)
        bar = stack.enter_context(ProgressBar(epochs, done=len(state.history), shown=progress))
        while not _done(state, epochs, patience):
            _run_epoch(state, trainer, judge)
            bar.show(state.history[-1])
            if store is not None:
                store.save(state, last=_done(state, epochs, patience))
    best = state.best or (state.carry.weights, state.carry.buffers)
    return FitResult(
        pipeline=put_together(program.graphdef, program.stages, *best),
        history=History(state.history.records, state.best_epoch),
        best_epoch=state.best_epoch,
        stopped="patience" if len(state.history) < epochs else "epochs",
        compilations=compilations(trainer.step) - compiled_before,
    )


def _run_epoch(state: FitState, trainer: Trainer, judge: Judge | None) -> None:
    """Train one epoch, judge it, and note both in the state."""
    began, epoch = time.perf_counter(), len(state.history) + 1
    state.carry, trained = trainer(state.carry, epoch - 1)
    judged = judge(state.carry) if judge else {}
    record = {"epoch": epoch, "step": int(state.carry.step), "train_loss": trained.pop("train_loss"), **judged}
    state.history.records.append(record | trained | {"seconds": time.perf_counter() - began})
    if judge is None:
        state.best_epoch = epoch
    elif judge.score(judged) < state.best_score:
        state.best_epoch, state.best_score = epoch, judge.score(judged)
        state.best = jax.tree.map(jnp.copy, (state.carry.weights, state.carry.buffers))


def _done(state: FitState, epochs: int, patience: int | None) -> bool:
    """Return whether all epochs are done, or the last `patience` of them brought nothing better."""
    done = len(state.history)
    return done >= epochs or (patience is not None and done - state.best_epoch >= patience)


def _first_state(
    program: Program, weights: Weights, buffers: PyTree, replicate: Callable[[Any], Any], *, validated: bool
) -> FitState:
    """Return the state before the first step; copies, because the step reuses the memory of its carry."""
    moments = program.optimizer.init(weights)
    carry = Carry(weights, buffers, moments, step=jnp.int32(0), failed=jnp.int32(-1))
    carry = jax.tree.map(jnp.copy, replicate(carry))
    best = jax.tree.map(jnp.copy, (carry.weights, carry.buffers)) if validated else ()
    return FitState(carry, best)


def _split(data: Dataset, validation: float | np.ndarray | None, key: jax.Array) -> Split:
    """Return the training and the validation rows."""
    if not len(data):
        raise DataError("the dataset has no rows to train on")
    if validation is None:
        return Split(np.arange(len(data)), np.arange(0))
    if isinstance(validation, float):
        return split(data, fraction=validation, key=key)
    return split_at(len(data), np.asarray(validation))


def _placement(mesh: Mesh | None, batch_size: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return what shares a batch among the devices, and what gives all of them a copy."""
    if mesh is None:
        return jax.device_put, jax.device_put
    devices = mesh.shape[mesh.axis_names[0]]
    if batch_size % devices:
        raise DataError(f"a batch of {batch_size} rows can't be shared by {devices} devices; make it a multiple")
    # Operators name no shardings, so the compiler is to find those of intermediate arrays.
    mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    shared = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return (lambda batch: jax.device_put(batch, shared)), (lambda tree: jax.device_put(tree, everywhere))


def _settings(rows: Split, batch_size: int | None, key: jax.Array) -> dict[str, Any]:
    """Return what a run that goes on from a checkpoint must share with the one that stored it."""
    return {
        "training rows": len(rows.train),
        "validation rows": len(rows.validation),
        "batch_size": batch_size,
        "key": jax.random.key_data(key).tolist(),
    }


def _require_counts(**counts: int | None) -> None:
    """Raise unless each count is `None` or at least 1."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ConfigError(f"{name} is {count!r}; it must be at least 1")
