"""The laws accept every kind of sound operator: stochastic, integer, masked at a fixed size, strict in dtype, piped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from annotated_types import Ge
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig, Pipeline
from diffbio.testing import Example, check_operator

LIMITLESS = {"limit_is_hard_reference": "relaxes nothing"}
RANDOM = np.random.default_rng(5)
COUNTS = RANDOM.gamma(2.0, 1.0, (4, 3)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class ScaleConfig(OperatorConfig):
    scale: float = 0.1


class Noisy(NamedTuple):
    noisy: Float[Array, "*cells genes"]


class Noise(Operator[ScaleConfig]):
    """Draws from its key; its log-scale is learned."""

    def __init__(self, config: ScaleConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.log_scale = nnx.Param(jnp.log(jnp.float32(config.scale)))

    def compute(self, counts: Float[Array, "*cells genes"], *, key: Array) -> Noisy:
        return Noisy(counts + jnp.exp(self.log_scale[...]) * jax.random.normal(key, counts.shape, counts.dtype))


def noise() -> Noise:
    return Noise(ScaleConfig(), rngs=nnx.Rngs(0))


class Label(NamedTuple):
    labels: Int[Array, "*cells"]


class Labeling(Operator[ScaleConfig]):
    """Gives integers, which have no gradient by nature."""

    def compute(self, counts: Float[Array, "*cells genes"]) -> Label:
        return Label((counts > self.config.scale).sum(-1))


@dataclass(frozen=True, kw_only=True)
class ReadConfig(OperatorConfig):
    n_length: Annotated[int, Ge(2)] = 3


class Pooled(NamedTuple):
    pooled: Float[Array, " reads"]
    centered: Float[Array, "reads length"]


class Pooling(Operator[ReadConfig]):
    """A masked mean over a dimension whose size the configuration fixes."""

    def compute(self, signal: Float[Array, "reads length"], read_mask: Bool[Array, "reads length"]) -> Pooled:
        kept = jnp.where(read_mask, signal, 0.0)
        mean = kept.sum(1) / jnp.maximum(read_mask.sum(1), 1)
        return Pooled(mean, jnp.where(read_mask, signal - mean[:, None], 0.0))


class Walked(NamedTuple):
    walked: Float[Array, " genes"]


class Walk(Operator[ScaleConfig]):
    """Refuses float64: its loop carries float32."""

    def compute(self, counts: Float[Array, "cells genes"]) -> Walked:
        def step(place: Array, row: Array) -> tuple[Array, None]:
            return place + self.config.scale * jnp.sin(place + row), None

        return Walked(jax.lax.scan(step, jnp.zeros(counts.shape[1], jnp.float32), counts)[0])


class LeakyPooling(Pooling):
    """Forgets the mask in the mean."""

    def compute(self, signal: Float[Array, "reads length"], read_mask: Bool[Array, "reads length"]) -> Pooled:
        mean = signal.mean(1)
        return Pooled(mean, jnp.where(read_mask, signal - mean[:, None], 0.0))


def pooling(kind: type[Pooling] = Pooling) -> Example:
    mask = np.array([[True, True, True], [True, True, False], [True, False, True], [True, True, True]])
    data = {"signal": COUNTS, "read_mask": mask}
    masks = {"read_mask": "length"}
    return Example(kind(ReadConfig()), data, masks=masks, symmetric=("reads",), exempt=LIMITLESS)


def on_counts(operator: Operator[Any], **declared: Any) -> Example:
    return Example(operator, {"counts": COUNTS}, exempt=LIMITLESS, **declared)


EXAMPLES = {
    "stochastic": lambda: on_counts(noise()),
    "integer": lambda: on_counts(Labeling(ScaleConfig()), symmetric=("cells",)),
    "masked at a fixed size": pooling,
    "strict in dtype": lambda: on_counts(Walk(ScaleConfig())),
    "rebound": lambda: on_counts(Walk(ScaleConfig()).reads(counts="counts").writes(walked="path")),
    "pipeline": lambda: on_counts(
        Pipeline(Noise(ScaleConfig(), rngs=nnx.Rngs(0)), Walk(ScaleConfig()).reads(counts="noisy"))
    ),
}
NOT_APPLICABLE = {
    "integer": {"finite_gradients", "gradients_match_finite_differences", "trainable_parameters_learn"},
    "pipeline": {"no_dead_config_field"},
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_sound_operator_keeps_all_laws(kind: str) -> None:
    report = check_operator(EXAMPLES[kind]())
    print(report, f"\n{report.seconds:.2f} s")
    assert report.ok, str(report)
    skipped = {finding.law for finding in report.findings if finding.outcome == "not applicable"}
    assert NOT_APPLICABLE.get(kind, set()) <= skipped


def test_a_leak_through_the_mask_is_caught_at_a_fixed_size() -> None:
    broken = check_operator(pooling(LeakyPooling)).violations
    assert [finding.law for finding in broken] == ["masked_padding_is_inert"]
