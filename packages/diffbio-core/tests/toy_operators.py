"""Small operators that the kernel's tests compose."""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs


@dataclass(frozen=True, kw_only=True)
class ProjectConfig(OperatorConfig):
    """Sizes of a toy projection."""

    n_genes: Annotated[int, Ge(1)]
    n_features: Annotated[int, Ge(1)] = 2
    temperature: Annotated[float, Gt(0)] = 1.0
    kind: Literal["plain", "fancy"] = "plain"
    sizes: tuple[int, ...] = ()
    limit: float | None = None


class Projected(NamedTuple):
    embeddings: Float[Array, "*cells features"]


class Project(Operator[ProjectConfig]):
    """counts @ weights / temperature."""

    def __init__(self, config: ProjectConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        self.weights = nnx.Param(jax.random.normal(rngs.params(), (config.n_genes, config.n_features)))
        self.center = nnx.Variable(jax.numpy.zeros(config.n_genes))
        self.softness = Softness(config.temperature)

    def compute(self, counts: Float[Array, "*cells genes"]) -> Projected:
        """Project."""
        return Projected((counts - self.center[...]) @ self.weights[...] / self.softness())

    def initialize(self, counts: Float[Array, "cells genes"]) -> None:
        """Center on the data."""
        self.center[...] = counts.mean(0)


@dataclass(frozen=True, kw_only=True)
class JitterConfig(OperatorConfig):
    """How much noise."""

    scale: float = 1.0


class Jittered(NamedTuple):
    embeddings: Float[Array, "*cells features"]


class Jitter(Operator[JitterConfig]):
    """Adds noise to embeddings: an update of a key, and stochastic."""

    def compute(self, embeddings: Float[Array, "*cells features"], *, key: jax.Array) -> Jittered:
        """Add noise."""
        return Jittered(embeddings + self.config.scale * jax.random.normal(key, embeddings.shape))


class Scored(NamedTuple):
    score: Float[Array, "*cells"]


class Score(Operator[JitterConfig]):
    """Sum of squares, with optional weights."""

    def compute(
        self, embeddings: Float[Array, "*cells features"], weights: Float[Array, "features"] | None = None
    ) -> Scored:
        """Score."""
        squares = embeddings**2
        return Scored((squares if weights is None else squares * weights).sum(-1))
