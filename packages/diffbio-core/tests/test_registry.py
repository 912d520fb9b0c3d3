"""The registry keeps a plugin's failure to itself, and never picks silently between two that claim one name."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from diffbio.core.errors import RegistryError
from diffbio.core.hookspecs import OperatorDeclaration, Plugin, hookimpl
from diffbio.core.registry import DISABLE_VARIABLE, PluginWarning, Registry


def plugin_module(plugin):
    @hookimpl
    def diffbio_plugin():
        return plugin() if callable(plugin) else plugin

    return SimpleNamespace(diffbio_plugin=diffbio_plugin)


class Entry(SimpleNamespace):
    """An entry point whose module is given."""

    def load(self):
        return self.module() if callable(self.module) else self.module


def entry(distribution, module, version="1.0"):
    return Entry(
        name=distribution,
        value=f"{distribution}:x",
        module=module,
        dist=SimpleNamespace(name=distribution, version=version),
    )


def declares(*names, target="math:sqrt"):
    return plugin_module(
        Plugin(
            api=1,
            operators=tuple(
                OperatorDeclaration(name=n, target=target, summary=n, reads=("x",), writes=(f"{n}_out",), example="a:b")
                for n in names
            ),
        )
    )


def exits():
    raise SystemExit("bye")


def missing():
    raise ModuleNotFoundError("No module named 'absent'")


@hookimpl
def misspelt():
    return Plugin(api=1)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (missing, "ModuleNotFoundError: No module named 'absent'"),
        (exits, "SystemExit: bye"),
        (SimpleNamespace(), "must hold one function diffbio_plugin"),
        (plugin_module(lambda: 1 / 0), "ZeroDivisionError"),
        (plugin_module("text"), "it gave ['text']"),
        (
            plugin_module(Plugin(api=2)),
            "written for plugin API 2, this diffbio-core has API 1: pip install --upgrade diffbio-core",
        ),
        (plugin_module(Plugin(api=0)), "pip install --upgrade broken"),
        (SimpleNamespace(diffbio_plugins=misspelt), "diffbio_plugins"),
        (plugin_module(Plugin(api=1, operators=("x",))), "its operators hold 'x', which is no declaration"),
    ],
)
def test_a_broken_plugin_breaks_only_itself(module, reason):
    with pytest.warns(PluginWarning, match="broken"):
        registry = Registry([entry("broken", module), entry("sound", declares("Good"))])
    assert list(registry.operators) == ["Good"]
    assert reason in str(registry.broken[0])
    assert "plugin 'broken' of broken 1.0" in str(registry.broken[0])


def test_one_name_claimed_twice_belongs_to_nobody():
    registry = Registry([entry("one", declares("Same", "A")), entry("two", declares("Same", "B"), "2.1")])
    assert list(registry.operators) == ["A", "B"]
    with pytest.raises(RegistryError, match=r"'Same' is claimed by one 1.0 and two 2.1: uninstall one, or"):
        registry.find("operators", "Same")
    assert len(registry.clashes) == 1


def test_unknown_names_answer_with_the_nearest_and_who_has_it():
    registry = Registry([entry("one", declares("SoftKMeans", "Velocity"))])
    with pytest.raises(RegistryError, match=r"no operator is called 'softkmean'; nearest: SoftKMeans \(one\)"):
        registry.find("operators", "softkmean")
    with pytest.raises(RegistryError, match="registered: 'SoftKMeans', 'Velocity'"):
        registry.find("operators", "zzz")


def test_targets_are_imported_when_asked_for():
    registry = Registry([entry("one", declares("Root")), entry("two", declares("Gone", target="nowhere:Gone"))])
    assert registry.load("operators", "Root")(4) == 2
    with pytest.raises(RegistryError, match=r"'Gone' of two 1\.0 can't be imported"):
        registry.load("operators", "Gone")
    assert registry.writers_of("Root_out") == "Root (one)"


def test_plugins_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(DISABLE_VARIABLE, "one, other")
    assert list(Registry([entry("one", declares("A")), entry("two", declares("B"))]).operators) == ["B"]


def test_listing_imports_no_jax():
    code = (
        "import sys; from diffbio.core.registry import registry; registry().operators;"
        "import diffbio.cli; print([m for m in ('jax', 'flax', 'datarax', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
