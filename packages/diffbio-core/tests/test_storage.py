import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from toy_operators import Jitter, JitterConfig, Project, ProjectConfig, Score

from diffbio.core import Pipeline, load, save
from diffbio.core.errors import StorageError
from diffbio.core.storage import describe_saved


@pytest.fixture
def pipeline():
    rngs = nnx.Rngs(3)
    inner = Pipeline(Project(ProjectConfig(n_genes=3, temperature=0.5), rngs=rngs), Jitter(JitterConfig(), rngs=rngs))
    return Pipeline(inner, Score(JitterConfig()), names=["encode", "score"])


def test_round_trip_gives_the_same_numbers(pipeline, tmp_path):
    counts = jnp.arange(12.0).reshape(4, 3)
    pipeline.initialize(key=jax.random.key(1), counts=counts)
    save(pipeline, tmp_path, metadata={"genes": ["a", "b", "c"]})
    loaded = load(tmp_path)
    before, after = (p.apply({"counts": counts}, {}, None, key=jax.random.key(0))[0] for p in (pipeline, loaded))
    np.testing.assert_array_equal(before["score"], after["score"])
    assert loaded.to_recipe() == pipeline.to_recipe()
    description = describe_saved(tmp_path)
    assert description["metadata"] == {"genes": ["a", "b", "c"]}
    assert "version" in description["distributions"]["diffbio-core"]


def edit(folder, change):
    path = folder / "pipeline.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def test_missing_distribution_is_named_with_its_version(pipeline, tmp_path):
    save(pipeline, tmp_path)

    def pretend(description):
        description["recipe"]["steps"][1]["operator"] = "SoftDocking"
        description["distributions"]["diffbio-dock"] = {"version": "0.3.1", "operators": ["SoftDocking"]}

    edit(tmp_path, pretend)
    with pytest.raises(
        StorageError, match=r"uses 'SoftDocking' of diffbio-dock 0\.3\.1; it is not installed: pip install"
    ):
        load(tmp_path)


def test_all_missing_distributions_are_named_at_once(pipeline, tmp_path):
    save(pipeline, tmp_path)

    def pretend(description):
        description["recipe"]["steps"][0]["steps"][0]["operator"] = "Folding"
        description["recipe"]["steps"][1]["operator"] = "SoftDocking"
        description["distributions"]["diffbio-fold"] = {"version": "2.0", "operators": ["Folding"]}
        description["distributions"]["diffbio-dock"] = {"version": "0.3.1", "operators": ["SoftDocking"]}

    edit(tmp_path, pretend)
    with pytest.raises(StorageError) as raised:
        load(tmp_path)
    assert str(raised.value) == (
        "the pipeline uses 'Folding' of diffbio-fold 2.0; it is not installed, and 'SoftDocking' of diffbio-dock "
        "0.3.1; it is not installed: pip install 'diffbio-fold==2.0' 'diffbio-dock==0.3.1'"
    )


def test_other_formats_and_folders_are_refused(pipeline, tmp_path):
    with pytest.raises(StorageError, match="holds no saved pipeline"):
        load(tmp_path)
    save(pipeline, tmp_path)
    edit(tmp_path, lambda description: description.update(format=99))
    with pytest.raises(StorageError, match="has layout 99; this diffbio-core reads 1"):
        load(tmp_path)
    with pytest.raises(StorageError, match="can't be written as JSON"):
        save(pipeline, tmp_path, metadata={"x": object()})


def test_weights_of_another_shape_are_named(pipeline, tmp_path):
    save(pipeline, tmp_path)

    def widen(description):
        description["recipe"]["steps"][0]["steps"][0]["config"]["n_genes"] = 5

    edit(tmp_path, widen)
    with pytest.raises(StorageError, match=r"the saved steps.0.steps.0.*has shape \(3"):
        load(tmp_path)


def test_shared_parameters_are_refused(tmp_path):
    project = Project(ProjectConfig(n_genes=2), rngs=nnx.Rngs(0))
    again = project.reads(counts="embeddings").writes(embeddings="z")
    with pytest.raises(StorageError, match="'project', 'project_2' share their parameters"):
        save(Pipeline(project, again), tmp_path)
