import jax
import jax.numpy as jnp
import numpy as np
import pytest
from datarax.core.element_batch import Batch, Element
from datarax.pipeline import Pipeline as DataraxPipeline
from datarax.sources import MemorySource, MemorySourceConfig
from flax import nnx
from toy_operators import Jitter, JitterConfig, Project, ProjectConfig, Score

from diffbio.core import Pipeline, Recipe
from diffbio.core.errors import ContractError, MissingKeyError, RegistryError, WiringError


def make(**kwargs):
    rngs = nnx.Rngs(0)
    project = Project(ProjectConfig(n_genes=3), rngs=rngs)
    return Pipeline(project, Jitter(JitterConfig(), rngs=rngs), Score(JitterConfig()), **kwargs)


@pytest.fixture
def data():
    return {"counts": jnp.arange(12.0).reshape(4, 3)}


def test_runs_its_steps_and_keeps_everything(data):
    pipeline = make()
    result, _, _ = pipeline.apply({**data, "labels": jnp.arange(4)}, {}, None, key=jax.random.key(0))
    assert set(result) == {"counts", "labels", "embeddings", "score"}
    assert pipeline.names == ("project", "jitter", "score")
    assert pipeline.contract.reads == ("counts", "weights")
    assert pipeline["score"] is pipeline.steps[2]
    with pytest.raises(WiringError, match=r"no step is called 'scor' \(did you mean 'score'"):
        pipeline["scor"]


def test_gradient_reaches_data_and_every_parameter(data):
    pipeline = make()

    def loss(counts):
        return pipeline.apply({"counts": counts}, {}, None, key=jax.random.key(0))[0]["score"].mean()

    gradient = jax.grad(loss)(data["counts"])
    assert np.isfinite(gradient).all()
    assert float(jnp.abs(gradient).min()) > 0


def test_nests(data):
    rngs = nnx.Rngs(1)
    outer = Pipeline(
        make(), Project(ProjectConfig(n_genes=2), rngs=rngs).reads(counts="embeddings").writes(embeddings="z")
    )
    result, _, _ = outer.apply(data, {}, None, key=jax.random.key(0))
    assert result["z"].shape == (4, 2)
    assert outer.names == ("pipeline", "project")


def test_key_is_needed_and_decides(data):
    pipeline = make()
    one, again, other = (pipeline.apply(data, {}, None, key=jax.random.key(seed))[0]["score"] for seed in (0, 0, 1))
    assert one.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda p, s: Pipeline(), "a pipeline needs at least one operator"),
        (
            lambda p, s: Pipeline(s, p),
            "step 'score' reads 'embeddings' before step 'project' writes it: move 'project'",
        ),
        (lambda p, s: Pipeline(p, p), "step 'project_2' would overwrite 'embeddings' of step 'project'"),
        (lambda p, s: Pipeline(p, p), ".writes(embeddings='embeddings_2')"),
        (lambda p, s: Pipeline(p, s, names=["a", "a"]), "2 steps need as many different names; got 'a', 'a'"),
        (
            lambda p, s: Pipeline(p, s.reads(embeddings="z"), inputs=["counts"]),
            "step 'score' reads 'z', which is no input",
        ),
        (lambda p, s: Pipeline(p, s, inputs=["counts", "batch"]), "no step reads the input 'batch'"),
        (
            lambda p, s: Pipeline(p, p.reads(counts="embeddings").writes(embeddings="counts"), inputs=["counts"]),
            "'counts' of the input",
        ),
    ],
)
def test_wiring_is_checked_when_built(build, text):
    project = Project(ProjectConfig(n_genes=3), rngs=nnx.Rngs(0))
    with pytest.raises(WiringError) as caught:
        build(project, Score(JitterConfig()))
    assert text in str(caught.value)


def test_check_finds_shapes_without_computing(data):
    pipeline = make()
    assert pipeline.check(data)["score"].shape == (4,)
    with pytest.raises(ContractError, match="genes is 5") as caught:
        pipeline.check({"counts": jax.ShapeDtypeStruct((4, 5), jnp.float32)})
    assert "in step 'project' of the pipeline" in caught.value.__notes__
    with pytest.raises(MissingKeyError, match="reads 'counts'"):
        pipeline.check({})


def test_initializes_in_order(data):
    pipeline = make()
    pipeline.initialize(key=jax.random.key(0), **data)
    assert pipeline.steps[0].center[...].tolist() == data["counts"].mean(0).tolist()


def test_describe_and_mermaid():
    table = make().describe()
    assert table.splitlines()[2].split() == ["project", "Project", "counts", "embeddings", "6"]
    assert "weights?" in table
    graph = make().to_mermaid()
    assert graph.startswith("graph LR")
    assert "step0 -->|embeddings| step1" in graph
    assert "step2 --> score([score])" in graph


def test_describe_has_the_norm_of_each_gradient():
    table = make().describe({"project": 0.25})
    rows = [line.split() for line in table.splitlines()]
    assert rows[0][-1] == "gradient"
    assert [row[-1] for row in rows[2:]] == ["0.25", *["-"] * (len(rows) - 3)]


def test_recipe_round_trip_and_open_sizes(data):
    recipe = make().to_recipe()
    again = Recipe.from_dict(recipe.to_dict())
    assert again == recipe
    built = Pipeline.from_recipe(again, rngs=nnx.Rngs(0))
    assert built.to_recipe() == recipe
    steps = [{"operator": "toy_operators:Project", "config": {"n_features": 4}}]
    open_size = Recipe.from_dict({"format": 1, "steps": steps})
    assert Pipeline.from_recipe(open_size, rngs=nnx.Rngs(0), data=data).steps[0].config.n_genes == 3
    unknown = Recipe.from_dict({"format": 1, "steps": [{"operator": "SoftKMean"}]})
    with pytest.raises(RegistryError, match="no operator is called 'SoftKMean'"):
        Pipeline.from_recipe(unknown)


def test_is_a_stage_of_a_datarax_pipeline_with_a_key_per_record():
    counts = np.arange(24, dtype=np.float32).reshape(8, 3)
    pipeline = make()
    source = MemorySource(MemorySourceConfig(), {"counts": counts})
    batches = list(DataraxPipeline(source=source, stages=[pipeline], batch_size=4, rngs=nnx.Rngs(0)))
    got = np.concatenate([batch["score"] for batch in batches])
    assert got.shape == (8,)
    whole = DataraxPipeline(source=source, stages=[pipeline], batch_size=8, rngs=nnx.Rngs(0))
    # a record's key does not depend on its batch
    np.testing.assert_allclose(got, next(iter(whole))["score"], rtol=1e-5)


def test_apply_batch_equals_apply_per_record(data):
    project = Project(ProjectConfig(n_genes=3), rngs=nnx.Rngs(0))
    batch = Batch([Element(data={"counts": row}) for row in data["counts"]])
    batched = project(batch).data.get_value()["embeddings"]
    np.testing.assert_allclose(batched, project.apply(data, {}, None)[0]["embeddings"], rtol=1e-5)
