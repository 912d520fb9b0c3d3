"""What operators learned is written by the exporters that plugins declare, step by step."""

import jax
import pytest
from flax import nnx
from test_registry import entry, plugin_module
from toy_operators import Jitter, JitterConfig, Project, ProjectConfig

from diffbio.core import Pipeline, exports
from diffbio.core.hookspecs import ExporterDeclaration, Plugin
from diffbio.core.registry import PluginWarning, Registry


def export_weights(operator, path, *, metadata):
    path.write_text(f"{metadata['genes']} {operator.weights[...].shape}")


@pytest.fixture
def registered(monkeypatch):
    def register(target):
        declaration = ExporterDeclaration(
            name="toy weights", target=target, summary="x", operator="Project", suffix=".txt"
        )
        registry = Registry([entry("toys", plugin_module(Plugin(api=1, exporters=(declaration,))))])
        monkeypatch.setattr(exports, "registry", lambda: registry)

    return register


def make():
    inner = Pipeline(Project(ProjectConfig(n_genes=3), rngs=nnx.Rngs(0)), names=["project"])
    return Pipeline(inner, Jitter(JitterConfig(), rngs=nnx.Rngs(1)), names=["inner", "jitter"])


def test_each_step_with_an_exporter_gets_a_file(registered, tmp_path):
    registered(f"{__name__}:export_weights")
    written = exports.export(make(), tmp_path / "exports", metadata={"genes": "abc"})
    assert written == [tmp_path / "exports" / "inner.project.txt"]
    assert written[0].read_text() == "abc (3, 2)"


def test_without_exporters_nothing_is_written(tmp_path):
    assert exports.export(make(), tmp_path / "exports") == []
    assert not (tmp_path / "exports").exists()


def export_nothing(operator, path, *, metadata):
    raise OSError("disk full")


@pytest.mark.parametrize(
    ("target", "reason"), [("absent_module:export", "absent_module"), (f"{__name__}:export_nothing", "disk full")]
)
def test_an_exporter_that_fails_is_named_and_stops_nothing(registered, tmp_path, target, reason):
    registered(target)
    with pytest.warns(PluginWarning, match=rf"no inner.project.txt by 'toy weights' of toys 1.0: .*{reason}"):
        assert exports.export(make(), tmp_path) == []


def test_parameters_that_are_numbers_go_by_their_step():
    pipeline = make()
    pipeline.steps[0].steps[0].weights[...] = jax.numpy.zeros((3, 2))
    assert exports.scalar_parameters(pipeline) == {}
    for weights in (jax.numpy.float32(2.0), jax.numpy.full(1, 2.0)):
        pipeline.steps[0].steps[0].weights = nnx.Param(weights)
        assert exports.scalar_parameters(pipeline) == {"inner.project.weights": 2.0}
