"""Operators of packages that know nothing of each other compose, train and are kept together.

Two small distributions of third parties are laid out as pip would install them. They are seen by the processes that
have their folder on the path, and by no other.
"""

import json
import os
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from flax import nnx

from diffbio.core import Pipeline, load
from diffbio.core.errors import RegistryError, StorageError
from diffbio.core.registry import registry
from diffbio.operators.normalization import PCAProjection, PCAProjectionConfig
from diffbio.operators.singlecell import SoftClusteringConfig, SoftKMeansClustering

MIXING = '''
"""Proportions of cell states in a sample: what a third party might make of soft clusters."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig


@dataclass(frozen=True, kw_only=True)
class MixingConfig(OperatorConfig):
    n_clusters: Annotated[int, Ge(1)]


class Mixture(NamedTuple):
    cluster_weights: Float[Array, "cells clusters"]
    proportions: Float[Array, " clusters"]


class StateMixing(Operator[MixingConfig]):
    def __init__(self, config, *, rngs=None):
        super().__init__(config, rngs=rngs)
        self.importance = nnx.Param(jnp.zeros(config.n_clusters))

    def compute(self, cluster_assignments: Float[Array, "cells clusters"]) -> Mixture:
        weights = cluster_assignments * jax.nn.softmax(self.importance[...])
        return Mixture(weights, weights.mean(axis=0))
'''

RESPONSE = '''
"""The response of a sample to a drug, from the proportions of its cell states."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, require_rngs


@dataclass(frozen=True, kw_only=True)
class ResponseConfig(OperatorConfig):
    n_states: int


class Response(NamedTuple):
    response: Float[Array, ""]


class DrugResponse(Operator[ResponseConfig]):
    def __init__(self, config, *, rngs=None):
        super().__init__(config, rngs=rngs)
        self.effect = nnx.Param(require_rngs(self, rngs).params.normal((config.n_states,)))

    def compute(self, proportions: Float[Array, " states"]) -> Response:
        return Response(jnp.tanh(proportions @ self.effect[...]))
'''

TRAIN_AND_SAVE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np, optax
from flax import nnx
from diffbio.core import Pipeline, Recipe, load, save

recipe = Recipe.from_dict({
    "format": 1,
    "inputs": ["scaled"],
    "steps": [
        {"operator": "PCAProjection", "name": "projection", "config": {"n_components": 3, "learnable": True}},
        {"operator": "SoftKMeansClustering", "name": "states",
         "config": {"n_clusters": 4, "temperature": 1.0, "n_iterations": 1}},
        {"operator": "StateMixing", "name": "mixing"},
        {"operator": "DrugResponse", "name": "response", "config": {"n_states": 4}},
    ],
})
scaled = jnp.asarray(np.random.default_rng(0).normal(size=(30, 8)), jnp.float32)
pipeline = Pipeline.from_recipe(recipe, rngs=nnx.Rngs(0), data={"scaled": scaled})
pipeline.initialize(key=jax.random.key(0), scaled=scaled)

def loss(pipeline):
    return jnp.square(pipeline.apply({"scaled": scaled}, {}, None)[0]["response"] - 0.5)

grads = nnx.grad(loss)(pipeline)
sizes = {
    name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads["steps"][index]))
    for index, name in enumerate(pipeline.names)
}
to_data = jax.grad(lambda scaled: pipeline.apply({"scaled": scaled}, {}, None)[0]["response"])(scaled)
optimizer = nnx.Optimizer(pipeline, optax.adam(0.05), wrt=nnx.Param)
before = float(loss(pipeline))
for _ in range(20):
    optimizer.update(pipeline, nnx.grad(loss)(pipeline))
save(pipeline, sys.argv[1])
again = load(sys.argv[1])
same = {
    key: bool(jnp.array_equal(value, again.apply({"scaled": scaled}, {}, None)[0][key]))
    for key, value in pipeline.apply({"scaled": scaled}, {}, None)[0].items()
}
print(json.dumps({"gradients": sizes, "to_data": float(jnp.abs(to_data).max()), "before": before,
                  "after": float(loss(pipeline)), "same": same}))
"""


def install(site, distribution, version, source, operator, reads, writes):
    """Lay out a distribution with one operator, as an installer would."""
    module = distribution.replace("-", "_")
    (site / f"{module}.py").write_text(source)
    (site / f"{module}_plugin.py").write_text(
        textwrap.dedent(f"""
        from diffbio.core.hookspecs import OperatorDeclaration, Plugin, hookimpl

        @hookimpl
        def diffbio_plugin():
            return Plugin(api=1, operators=(OperatorDeclaration(
                name={operator!r}, target="{module}:{operator}", summary="Of a third party.",
                reads={reads!r}, writes={writes!r}, example="{module}:example"),))
        """)
    )
    information = site / f"{module}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {distribution}\nVersion: {version}\n")
    (information / "entry_points.txt").write_text(f"[diffbio.plugins]\n{module} = {module}_plugin\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with two distributions that know nothing of each other nor of the first-party plugins."""
    folder = tmp_path_factory.mktemp("site")
    writes = ("cluster_weights", "proportions")
    install(folder, "statemix-bio", "2.1", MIXING, "StateMixing", ("cluster_assignments",), writes)
    install(folder, "response-bio", "0.3", RESPONSE, "DrugResponse", ("proportions",), ("response",))
    return folder


def python_with(site, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def trained(site, tmp_path_factory):
    """A pipeline of three distributions, trained and saved where all are installed; what was measured on the way."""
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    measured = json.loads(python_with(site, "-c", TRAIN_AND_SAVE, folder).splitlines()[-1])
    print(measured)
    return folder, measured


def test_operators_of_three_distributions_train_as_one(trained):
    _, measured = trained
    assert set(measured["gradients"]) == {"projection", "states", "mixing", "response"}
    for stage, gradient in measured["gradients"].items():
        assert gradient > 1e-5, f"no gradient reaches {stage}"
    assert measured["to_data"] > 1e-5
    assert measured["after"] < 0.5 * measured["before"]


def test_what_is_loaded_is_what_was_saved(trained):
    folder, measured = trained
    assert set(measured["same"]) >= {"scaled", "embeddings", "cluster_assignments", "proportions", "response"}
    assert all(measured["same"].values())
    saved = json.loads((folder / "pipeline.json").read_text())["distributions"]
    assert saved["statemix-bio"] == {"version": "2.1", "operators": ["StateMixing"]}
    assert saved["response-bio"] == {"version": "0.3", "operators": ["DrugResponse"]}
    assert saved["diffbio-singlecell"]["operators"] == ["PCAProjection", "SoftKMeansClustering"]


def test_where_a_distribution_is_missing_it_is_named_with_the_remedy(trained):
    folder, _ = trained
    with pytest.raises(StorageError) as caught:
        load(folder)
    assert "'StateMixing' of statemix-bio 2.1" in str(caught.value)
    assert "it is not installed" in str(caught.value)
    assert "pip install 'statemix-bio==2.1'" in str(caught.value)


def test_third_parties_are_listed_like_the_first(site):
    listing = python_with(site, "-m", "diffbio.cli", "operators")
    for words in ("diffbio-singlecell", "statemix-bio", "2.1", "StateMixing", "response-bio", "DrugResponse"):
        assert words in listing
    assert "StateMixing" not in registry().operators
    with pytest.raises(RegistryError, match="no operator is called 'StateMixing'"):
        registry().find("operators", "StateMixing")


def test_an_operator_of_a_script_composes_without_being_registered(site, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(site)
    import statemix_bio

    from diffbio.core import save

    rngs = nnx.Rngs(0)
    pipeline = Pipeline(
        PCAProjection(PCAProjectionConfig(n_genes=6, n_components=2), rngs=rngs),
        SoftKMeansClustering(SoftClusteringConfig(n_clusters=3, n_features=2), rngs=rngs),
        statemix_bio.StateMixing(statemix_bio.MixingConfig(n_clusters=3)),
    )
    scaled = jax.random.normal(jax.random.key(0), (10, 6))
    pipeline.initialize(key=jax.random.key(1), scaled=scaled)
    save(pipeline, tmp_path)
    again = load(tmp_path)
    assert again.to_recipe().steps[2].operator == "statemix_bio:StateMixing"
    one, other = (p.apply({"scaled": scaled}, {}, None)[0]["proportions"] for p in (pipeline, again))
    np.testing.assert_array_equal(one, other)
