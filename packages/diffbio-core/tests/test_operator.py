import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from toy_operators import Jitter, JitterConfig, Project, ProjectConfig, Score

from diffbio.core import Operator
from diffbio.core.errors import (
    ClobberedKeyError,
    ContractError,
    MissingKeyError,
    MissingRandomnessError,
    WiringError,
)


@pytest.fixture
def project():
    return Project(ProjectConfig(n_genes=3), rngs=nnx.Rngs(0))


def test_keeps_every_input_key_and_the_triple(project):
    data = {"counts": jnp.ones((4, 3)), "labels": jnp.arange(4)}
    result, state, metadata = project.apply(data, {"step": 1}, {"name": "x"})
    assert set(result) == {"counts", "labels", "embeddings"}
    assert set(data) == {"counts", "labels"}
    assert state == {"step": 1}
    assert metadata == {"name": "x"}


def test_takes_numpy_arrays_and_single_cells(project):
    result, _, _ = project.apply({"counts": np.ones(3)}, {}, None)
    assert result["embeddings"].shape == (2,)
    assert result["embeddings"].dtype == jnp.float32


def message(operator, data, error, **kwargs):
    with pytest.raises(error) as caught:
        operator.apply(data, {}, None, **kwargs)
    return str(caught.value)


def test_missing_key_names_operator_shape_keys_and_writers(project):
    text = message(project, {"count": jnp.ones((4, 3))}, MissingKeyError)
    assert "Project reads 'counts' (*cells, genes=3), which the data lacks (did you mean 'count'?)" in text
    assert "Keys present: 'count'" in text
    assert "Registered operators that write it: " in text
    assert ".reads(counts=...)" in text


def test_wrong_size_rank_dtype_and_kind_are_named(project):
    assert "has shape (4, 5); wanted (*cells, genes=3): genes is 5, where the operator has 3" in message(
        project, {"counts": jnp.ones((4, 5))}, ContractError
    )
    assert "it has 0 axes, not at least 1" in message(project, {"counts": jnp.float32(1)}, ContractError)
    assert "has dtype int32; wanted float; convert it with .astype(jnp.float32)" in message(
        project, {"counts": jnp.ones((4, 3), jnp.int32)}, ContractError
    )
    assert "'counts' is a list; wanted an array" in message(project, {"counts": [1.0]}, ContractError)


def test_named_dimensions_agree_within_a_call():
    data = {"embeddings": jnp.ones((4, 3)), "weights": jnp.ones(2)}
    text = message(Score(JitterConfig()), data, ContractError)
    assert "features is 2, where another array of this call has 3" in text


def test_wrong_size_is_found_under_jit(project):
    with pytest.raises(ContractError, match="genes is 5"):
        jax.jit(lambda data: project.apply(data, {}, None)[0])({"counts": jnp.ones((4, 5))})


def test_optional_input_may_be_missing():
    score = Score(JitterConfig())
    plain, _, _ = score.apply({"embeddings": jnp.ones((4, 3))}, {}, None)
    weighted, _, _ = score.apply({"embeddings": jnp.ones((4, 3)), "weights": jnp.zeros(3)}, {}, None)
    assert plain["score"].tolist() == [3.0] * 4
    assert weighted["score"].tolist() == [0.0] * 4


def test_overwriting_an_unread_key_is_refused(project):
    data = {"counts": jnp.ones((4, 3)), "embeddings": jnp.ones((4, 2))}
    text = message(project, data, ClobberedKeyError)
    assert "Project would overwrite 'embeddings'" in text
    assert ".writes(embeddings='embeddings_2')" in text


def test_updating_a_key_that_is_read_is_allowed():
    jitter = Jitter(JitterConfig(scale=0.0), rngs=nnx.Rngs(0))
    result, _, _ = jitter.apply({"embeddings": jnp.ones((4, 2))}, {}, None, key=jax.random.key(0))
    assert result["embeddings"].tolist() == jnp.ones((4, 2)).tolist()


def test_randomness_must_be_given():
    with pytest.raises(MissingRandomnessError, match=r"Jitter draws random numbers: build it with rngs=nnx.Rngs"):
        Jitter(JitterConfig())
    with pytest.raises(MissingRandomnessError, match=r"Project draws random numbers"):
        Project(ProjectConfig(n_genes=3))
    jitter = Jitter(JitterConfig(), rngs=nnx.Rngs(0))
    text = message(jitter, {"embeddings": jnp.ones((4, 2))}, MissingRandomnessError)
    assert "Jitter is stochastic: pass a random key" in text


def test_rebound_operators_share_parameters(project):
    moved = project.reads(counts="imputed").writes(embeddings="latent")
    result, _, _ = moved.apply({"imputed": jnp.ones((4, 3))}, {}, None)
    assert set(result) == {"imputed", "latent"}
    assert moved.weights is project.weights
    assert project.contract.reads == ("counts",)
    with pytest.raises(WiringError, match=r"reads\(count=...\): it has no such name \(did you mean 'counts'"):
        project.reads(count="x")


def test_apply_is_final():
    with pytest.raises(TypeError, match="overrides apply, which is final"):
        type("Own", (Operator,), {"apply": lambda self: None})


def test_initialize_takes_what_it_names(project):
    project.reads(counts="raw").initialize_from({"raw": jnp.full((4, 3), 2.0), "labels": jnp.arange(4)})
    assert project.center[...].tolist() == [2.0] * 3
    with pytest.raises(MissingKeyError, match="is initialized from 'counts'"):
        project.initialize_from({"raw": jnp.ones((4, 3))})


def test_output_spec_agrees_with_apply(project):
    spec = project.output_spec({"counts": jax.ShapeDtypeStruct((7, 3), jnp.float32)})
    assert spec["embeddings"].shape == (7, 2)


def test_jit_adds_nothing_to_the_computation(project):
    counts = jnp.ones((4, 3))
    applied = jax.make_jaxpr(lambda x: project.apply({"counts": x}, {}, None)[0]["embeddings"])(counts)
    pure = jax.make_jaxpr(lambda x: project.compute(x).embeddings)(counts)
    print(f"equations under jit: apply {len(applied.eqns)}, compute {len(pure.eqns)}")
    assert str(applied) == str(pure)
