"""A small pipeline and simulated cells for the tests of training."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Pipeline, Softness, require_rngs
from diffbio.training import ArrayDataset

GENES, CLASSES = 20, 3


class Centered(NamedTuple):
    centered: Float[Array, "*cells genes"]


class RunningCenter(Operator[OperatorConfig]):
    """Subtracts a running mean: state that no gradient changes."""

    def __init__(self, config=None, *, rngs=None):
        super().__init__(config or OperatorConfig(), rngs=rngs)
        self.mean = nnx.Variable(jnp.zeros(GENES))

    def compute(self, counts: Float[Array, "*cells genes"]) -> Centered:
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * counts.mean(0)
        return Centered(counts - self.mean[...])


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig(OperatorConfig):
    n_features: Annotated[int, Ge(1)] = 4
    noise: float = 0.0


class Embeddings(NamedTuple):
    embeddings: Float[Array, "*cells features"]


class Projection(Operator[ProjectionConfig]):
    """A stochastic linear projection."""

    def __init__(self, config, *, rngs=None):
        super().__init__(config, rngs=rngs)
        shape = (GENES, config.n_features)
        self.basis = nnx.Param(jax.random.normal(require_rngs(self, rngs).params(), shape) / GENES**0.5)

    def compute(self, centered: Float[Array, "*cells genes"], *, key: jax.Array) -> Embeddings:
        projected = centered @ self.basis[...]
        return Embeddings(projected + self.config.noise * jax.random.normal(key, projected.shape))


@dataclass(frozen=True, kw_only=True)
class HeadConfig(OperatorConfig):
    n_features: Annotated[int, Ge(1)] = 4
    n_classes: Annotated[int, Ge(1)] = CLASSES
    temperature: Annotated[float, Gt(0)] = 1.0
    learnable: bool = False


class Logits(NamedTuple):
    cell_type_logits: Float[Array, "*cells classes"]


class Head(Operator[HeadConfig]):
    """A linear classifier with a temperature."""

    def __init__(self, config, *, rngs=None):
        super().__init__(config, rngs=rngs)
        shape = (config.n_features, config.n_classes)
        self.weights = nnx.Param(jax.random.normal(require_rngs(self, rngs).params(), shape))
        self.softness = Softness(config.temperature, learnable=config.learnable)

    def compute(self, embeddings: Float[Array, "*cells features"]) -> Logits:
        return Logits(embeddings @ self.weights[...] / self.softness())


def make_pipeline(seed=0, *, noise=0.0, learnable=False):
    """Return center, projection and head."""
    rngs = nnx.Rngs(seed)
    projection = Projection(ProjectionConfig(noise=noise), rngs=rngs)
    head = Head(HeadConfig(learnable=learnable), rngs=rngs)
    return Pipeline(RunningCenter(), projection, head, names=("center", "projection", "head"))


def make_data(cells=200, seed=0, spread=1.0):
    """Return cells of three types in four batches, around one profile per type."""
    generator = np.random.default_rng(seed)
    profiles = np.random.default_rng(7).normal(size=(CLASSES, GENES))
    labels = generator.integers(0, CLASSES, cells)
    counts = profiles[labels] + spread * generator.normal(size=(cells, GENES))
    batches = generator.integers(0, 4, cells)
    arrays = {"counts": counts.astype(np.float32), "labels": labels, "batch_labels": batches}
    return ArrayDataset(arrays, {"classes": ["a", "b", "c"]})


def cross_entropy(data):
    """Return the mean cross-entropy of the labels."""
    return optax.softmax_cross_entropy_with_integer_labels(data["cell_type_logits"], data["labels"]).mean()


def accuracy(data):
    """Return the share of cells whose label has the highest score."""
    return (data["cell_type_logits"].argmax(-1) == data["labels"]).mean()
