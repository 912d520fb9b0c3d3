from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jaxtyping import Array, Float
from training_toys import GENES, Head, HeadConfig, Projection, ProjectionConfig, cross_entropy, make_data

from diffbio.core import Operator, OperatorConfig, Pipeline
from diffbio.core.errors import NonFiniteError
from diffbio.training import ArrayDataset, fit
from diffbio.training.options import dials_of, program_of
from diffbio.training.step import Carry, compiled_step, take_apart

KEY = jax.random.key(0)
SGD = optax.sgd(0.1)


class Centered(NamedTuple):
    centered: Float[Array, "*cells genes"]


class Weighted(Operator[OperatorConfig]):
    """A stage with one weight per gene, and a function that can fail."""

    def __init__(self):
        super().__init__(OperatorConfig())
        self.scale = nnx.Param(jnp.ones(GENES))


class Log(Weighted):
    def compute(self, counts: Float[Array, "*cells genes"]) -> Centered:
        return Centered(jnp.log(self.scale[...] * counts))


class Root(Weighted):
    def compute(self, counts: Float[Array, "*cells genes"]) -> Centered:
        return Centered(jnp.sqrt(self.scale[...] * counts))


def pipeline_with(first):
    rngs = nnx.Rngs(0)
    steps = (first, Projection(ProjectionConfig(), rngs=rngs), Head(HeadConfig(), rngs=rngs))
    return Pipeline(*steps, names=("first", "projection", "head"))


def positive_data(value=None, row=37):
    data = make_data()
    counts = np.abs(data.arrays["counts"]) + 0.1
    if value is not None:
        counts[row, 5] = value
    return ArrayDataset({**data.arrays, "counts": counts.astype(np.float32)})


def failure(first, data, loss=cross_entropy, optimizer=SGD, **options):
    with pytest.raises(NonFiniteError) as caught:
        fit(pipeline_with(first), data, loss, optimizer=optimizer, epochs=3, key=KEY, progress=False, **options)
    print(caught.value)
    return str(caught.value)


def test_names_the_stage_whose_output_is_not_finite():
    message = failure(Log(), positive_data(-1.0))
    assert "step 0 of epoch 1" in message
    assert "in stage 'first' output 'centered' is not finite" in message
    assert "Nothing of that step was applied" in message


def test_names_step_and_epoch_among_batches():
    data = positive_data(-1.0)
    message = failure(Log(), data, batch_size=10)
    step = next(int(word) for word in message.split() if word.isdigit())
    assert "stage 'first'" in message
    assert step < 20
    quiet = ArrayDataset({**data.arrays, "counts": np.abs(data.arrays["counts"])})
    fit(pipeline_with(Log()), quiet, cross_entropy, optimizer=SGD, epochs=1, key=KEY, batch_size=10)


def test_names_the_stage_whose_gradient_is_not_finite():
    message = failure(Root(), positive_data(0.0))
    assert "in stage 'first' the gradient by 'scale' is not finite" in message
    assert "a root" in message


def test_names_the_data():
    assert "in the data 'counts' is not finite" in failure(Root(), positive_data(np.nan))


def test_names_the_loss():
    assert "in the loss the value is not finite" in failure(
        Root(), positive_data(), lambda d: jnp.log(-1.0 * d["counts"].sum())
    )
    root_of_zero = lambda d: jnp.sqrt(jnp.sum(0.0 * d["cell_type_logits"]))  # noqa: E731
    assert "in the loss the gradient by 'cell_type_logits'" in failure(Root(), positive_data(), root_of_zero)


def test_names_the_optimizer():
    assert "in the optimizer the update is not finite" in failure(Root(), positive_data(), optimizer=optax.sgd(1e39))


def test_names_the_stage_in_validation():
    data = positive_data(-1.0)
    assert "validation failed after step 1: in stage 'first'" in failure(Log(), data, validation=np.array([37, 38]))


def test_a_failed_step_changes_nothing_ever_after():
    pipeline = pipeline_with(Log())
    _, weights, buffers = take_apart(pipeline)
    optimizer = optax.adam(0.1)
    step = compiled_step(program_of(pipeline, cross_entropy, optimizer, None))
    dials = dials_of(pipeline, weights, trainable=None, anchor=None, clip_norm=None)
    carry = Carry(weights, buffers, optimizer.init(weights), jnp.int32(0), jnp.int32(-1))
    good, bad = positive_data().take(np.arange(20)), positive_data(-1.0).take(np.arange(20, 40))
    carry, _ = step(jax.tree.map(jnp.copy, carry), dials, weights, good, KEY)
    held = jax.tree.map(np.array, (carry.weights, carry.moments))
    for batch in (bad, good, good):
        carry, _ = step(carry, dials, weights, batch, KEY)
        jax.tree.map(np.testing.assert_array_equal, (carry.weights, carry.moments), held)
    assert int(carry.failed) == int(carry.step) == 1
