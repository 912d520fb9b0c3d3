"""The registry keeps a plugin's failure to itself, and never picks silently between two that claim one name."""

import dataclasses
import importlib
import subprocess
import sys
import time
import warnings
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from diffbio.core import registry as registry_module
from diffbio.core.errors import RegistryError
from diffbio.core.hookspecs import (
    Declaration,
    OperatorDeclaration,
    Plugin,
    ReaderDeclaration,
    WriterDeclaration,
    hookimpl,
)
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


SOUND = OperatorDeclaration(name="A", target="math:sqrt", summary="x", reads=("x",), writes=("y",), example="a:b")
READER = ReaderDeclaration(name="files", target="math:sqrt", summary="x", suffixes=(".x",))


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
        (plugin_module(Plugin(api=1, operators=("x",))), "its operators hold 'x', which is no OperatorDeclaration"),
        (plugin_module(Plugin(api=1, operators=(READER,))), "name='files', target='math:sqrt', summary='x', suffixes="),
        (plugin_module(Plugin(api=1, readers=(SOUND,))), "which is no ReaderDeclaration"),
        (plugin_module(Plugin(api=1, losses=None)), "TypeError: 'NoneType' object is not iterable"),
        (
            plugin_module(Plugin(api=1, operators=(dataclasses.replace(SOUND, reads="counts"),))),
            "its operators hold 'A' with reads='counts'; it must look like ('counts',)",
        ),
        (plugin_module(Plugin(api=1, operators=(dataclasses.replace(SOUND, writes=(1,)),))), "with writes=(1,); it"),
        (plugin_module(Plugin(api=1, readers=(dataclasses.replace(READER, suffixes=".x"),))), "with suffixes='.x'; it"),
        (
            plugin_module(Plugin(api=1, losses=(Declaration(name=None, target="a:b", summary="x"),))),
            "its losses hold None with name=None; it must look like 'counts'",
        ),
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


def test_a_name_that_one_plugin_declares_twice_is_its_authors_to_mend():
    registry = Registry([entry("one", declares("Same", "Same", "A"))])
    assert list(registry.operators) == ["A"]
    assert registry.clashes == [
        "the operator name 'Same' is declared 2 times by one 1.0: its plugin has to give each a name of its own"
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("absent_module", "'absent_module' can't be imported: ModuleNotFoundError: No module named 'absent_module'"),
        ("math:absent", "'math:absent' can't be imported: AttributeError"),
        ("not a module", "'not a module' can't be imported: AttributeError"),
        ("math", "math must hold one function diffbio_plugin, marked @hookimpl"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_quoted(value, reason):
    with pytest.warns(PluginWarning, match="it is left out"):
        registry = Registry([EntryPoint("wrong", value, "diffbio.plugins")])
    assert reason in registry.broken[0].reason


def test_optional_fields_may_be_left_out():
    writer = WriterDeclaration(name="files", target="math:sqrt", summary="x", suffixes=(".x",))
    registry = Registry([entry("one", plugin_module(Plugin(api=1, operators=(SOUND,), writers=(writer,))))])
    assert registry.broken == []
    assert list(registry.writers) == ["files"]


def test_a_plugin_that_takes_long_to_import_is_named_and_used(monkeypatch):
    def slowly():
        time.sleep(0.02)
        return declares("Slow")

    monkeypatch.setattr(registry_module, "SLOW_IMPORT", 0.01)
    said = r"plugin 'late' of late 1\.0: importing late:x takes \d\.\d s, for which every command waits; let it import"
    with pytest.warns(PluginWarning, match=said):
        registry = Registry([entry("late", slowly), entry("sound", declares("Good"))])
    assert list(registry.operators) == ["Good", "Slow"]
    assert registry.broken == []


def test_a_plugin_that_takes_no_time_is_not_spoken_of(monkeypatch):
    monkeypatch.setattr(registry_module, "SLOW_IMPORT", 60.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Registry([entry("one", declares("A"))])


def test_unknown_names_answer_with_the_nearest_and_who_has_it():
    registry = Registry([entry("one", declares("SoftKMeans", "Velocity"))])
    with pytest.raises(RegistryError, match=r"no operator is called 'softkmean'; nearest: SoftKMeans \(one\)"):
        registry.find("operators", "softkmean")
    with pytest.raises(RegistryError, match="registered: 'SoftKMeans', 'Velocity'"):
        registry.find("operators", "zzz")


def test_targets_are_imported_when_asked_for():
    registry = Registry([entry("one", declares("Root")), entry("two", declares("Gone", target="nowhere:Gone"))])
    assert registry.load("operators", "Root")(4) == 2
    with pytest.raises(RegistryError, match=r"'Gone' of two 1\.0 can't be imported: ModuleNotFoundError: No module"):
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


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Plugin(api=2, notebooks=()),
        lambda: OperatorDeclaration(name="A", target="a:A", summary="A", cost="low"),
        lambda: importlib.import_module("diffbio.core.notebooks"),
    ],
    ids=["field", "field of a declaration", "module"],
)
def test_what_a_newer_kernel_would_have_is_named_with_the_command(ask):
    with pytest.warns(PluginWarning, match=r"of later 1.0: .*diffbio-core: pip install --upgrade diffbio-core; it is"):
        Registry([entry("later", plugin_module(ask))])
