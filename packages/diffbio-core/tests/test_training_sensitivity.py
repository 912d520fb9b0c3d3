"""The gradient of a loss at each stage, parameters or none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training_toys import GENES, Projection, ProjectionConfig, RunningCenter

from diffbio.core import Pipeline
from diffbio.core.errors import MissingKeyError
from diffbio.training import stage_gradients

KEY = jax.random.key(3)


@pytest.fixture
def pipeline():
    return Pipeline(RunningCenter(), Projection(ProjectionConfig(), rngs=nnx.Rngs(0)), names=("center", "projection"))


@pytest.fixture
def data():
    return {"counts": jnp.asarray(np.random.default_rng(0).normal(size=(6, GENES)), jnp.float32)}


def loss(data):
    return (data["embeddings"] ** 2).sum() + 3 * data["centered"].sum()


def test_norms_are_those_of_the_chain_rule(pipeline, data):
    found = stage_gradients(pipeline, data, loss, key=KEY)
    centered = data["counts"] - 0.1 * data["counts"].mean(0)
    basis = pipeline["projection"].basis[...]
    embeddings = centered @ basis
    assert found["center"].parameters is None
    np.testing.assert_allclose(found["center"].outputs, jnp.linalg.norm(2 * embeddings @ basis.T + 3), rtol=1e-5)
    np.testing.assert_allclose(found["projection"].outputs, jnp.linalg.norm(2 * embeddings), rtol=1e-5)
    np.testing.assert_allclose(found["projection"].parameters, jnp.linalg.norm(2 * centered.T @ embeddings), rtol=1e-5)


def test_what_the_loss_does_not_read_has_gradient_0_and_nothing_changes(pipeline, data):
    mean = np.asarray(pipeline["center"].mean[...])
    found = stage_gradients(pipeline, data, lambda data: data["counts"].sum(), key=KEY)
    assert found["projection"] == (0.0, 0.0)
    assert found["center"].outputs == 0.0
    np.testing.assert_array_equal(pipeline["center"].mean[...], mean)


def test_a_loss_of_what_is_not_there_says_so(pipeline, data):
    with pytest.raises(MissingKeyError, match="latent"):
        stage_gradients(pipeline, data, lambda data: data["latent"].sum(), key=KEY)
