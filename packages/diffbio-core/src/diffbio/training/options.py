"""The options of a fit that go by stage, checked and brought to one form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import jax.numpy as jnp
import optax
from flax import nnx

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, listed, nearest
from diffbio.training.step import Dials, Loss, Program, Schedule, Weights, softnesses, take_apart


def program_of(
    pipeline: Pipeline,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    anneal: Schedule | Mapping[str, Schedule] | None,
) -> Program:
    """Return what the compiled step of a fit depends on.

    Raises:
        ConfigError: The pipeline has no parameters, or `anneal` names a stage that can't be annealed.
    """
    graphdef, weights, _ = take_apart(pipeline)
    if not weights:
        raise ConfigError(f"no stage of this pipeline has parameters to train; its stages are {listed(pipeline.names)}")
    return Program(graphdef, tuple(pipeline.names), loss, optimizer, _schedules(pipeline, anneal))


def dials_of(
    pipeline: Pipeline,
    weights: Weights,
    *,
    trainable: Collection[str] | None,
    anchor: float | Mapping[str, float] | None,
    clip_norm: float | None,
) -> Dials:
    """Return the traced settings of a fit.

    Raises:
        ConfigError: A stage is unknown or has no parameters, a strength is negative, or `clip_norm` is
            not above zero.
    """
    learning = weights if trainable is None else trainable
    strengths = anchor if isinstance(anchor, Mapping) else dict.fromkeys(weights, anchor or 0.0)
    require_parameters(pipeline, weights, learning, "trainable")
    require_parameters(pipeline, weights, strengths, "anchor")
    for stage, strength in strengths.items():
        if not strength >= 0:
            raise ConfigError(f"the anchor of stage {stage!r} is {strength!r}; a strength is 0 or more")
    if clip_norm is not None and not clip_norm > 0:
        raise ConfigError(f"clip_norm is {clip_norm!r}; give a norm above 0, or None for no limit")
    return Dials(
        trainable={stage: jnp.bool_(stage in learning) for stage in weights},
        anchor={stage: jnp.float32(strengths.get(stage, 0.0)) for stage in weights},
        clip_norm=jnp.float32(jnp.inf if clip_norm is None else clip_norm),
    )


def require_parameters(pipeline: Pipeline, weights: Weights, stages: Iterable[str], option: str) -> None:
    """Raise unless each of the stages that an option names is there and has parameters.

    Raises:
        ConfigError: A stage is unknown or has no parameters.
    """
    if isinstance(stages, str):
        raise ConfigError(f"{option}={stages!r} is one string; give names of stages: ({stages!r},)")
    for stage in stages:
        _position(pipeline, stage, option)
        if stage not in weights:
            raise ConfigError(f"{option} names {stage!r}, which has no parameters; stages that have: {listed(weights)}")


def _schedules(
    pipeline: Pipeline, anneal: Schedule | Mapping[str, Schedule] | None
) -> tuple[tuple[int, Schedule], ...]:
    """Return the schedule of each annealed stage, by the stage's position."""
    if anneal is None:
        return ()
    if isinstance(anneal, Mapping):
        positions = {_position(pipeline, stage, "anneal"): anneal[stage] for stage in anneal}
        for position in positions:
            _require_fixed_softness(pipeline, position)
        return tuple(sorted(positions.items(), key=lambda item: item[0]))
    annealed = [i for i, stage in enumerate(pipeline.steps) if _has_fixed_softness(stage)]
    if not annealed:
        raise ConfigError("anneal was given, but no stage of this pipeline holds a fixed Softness")
    return tuple((position, anneal) for position in annealed)


def _has_fixed_softness(stage: nnx.Module) -> bool:
    return any(not softness.learnable for softness in softnesses(stage))


def _require_fixed_softness(pipeline: Pipeline, position: int) -> None:
    name, held = pipeline.names[position], list(softnesses(pipeline.steps[position]))
    if not held:
        able = [n for n, s in zip(pipeline.names, pipeline.steps, strict=True) if _has_fixed_softness(s)]
        raise ConfigError(f"stage {name!r} holds no Softness to anneal; stages that hold a fixed one: {listed(able)}")
    if not _has_fixed_softness(pipeline.steps[position]):
        raise ConfigError(
            f"the Softness of stage {name!r} is learnable, so gradient descent sets it: leave the stage "
            "out of anneal, or build it with a fixed Softness"
        )


def _position(pipeline: Pipeline, stage: str, option: str) -> int:
    """Return the position of a stage."""
    if stage not in pipeline.names:
        raise ConfigError(
            f"{option} names {stage!r}, which is no stage{nearest(stage, pipeline.names)}; "
            f"the stages are {listed(pipeline.names)}"
        )
    return pipeline.names.index(stage)
