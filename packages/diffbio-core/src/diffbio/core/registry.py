"""The registry: finds plugins through entry points, keeps each failure to itself, and imports no JAX.

A plugin that can't be loaded breaks only itself and is kept by name and reason in `Registry.broken`. A name that two
distributions claim belongs to neither: asking for it is an error that names both.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import pluggy

from diffbio.core.errors import RegistryError, listed, nearest
from diffbio.core.hookspecs import (
    API_VERSION,
    ENTRY_POINT_GROUP,
    Declaration,
    ExporterDeclaration,
    Hooks,
    OperatorDeclaration,
    Plugin,
    ReaderDeclaration,
    WriterDeclaration,
)

KINDS = ("operators", "readers", "writers", "losses", "recipes", "plots", "commands", "exporters")
SLOW_IMPORT = 1.0
"""Seconds from which the import of a plugin's module is named as slow: declarations take milliseconds."""

_TYPES = {
    "operators": OperatorDeclaration,
    "readers": ReaderDeclaration,
    "writers": WriterDeclaration,
    "exporters": ExporterDeclaration,
}
_OF_KERNEL = re.compile(
    r"(cannot import name|No module named) .*diffbio\.core|(Plugin|Declaration)\.__init__\(\) got an unexpected keyword"
)
DISABLE_VARIABLE = "DIFFBIO_DISABLE_PLUGINS"
"""Environment variable: distributions whose plugins are not loaded, separated by commas."""


class PluginWarning(UserWarning):
    """A plugin could not be used, or takes long to import; the others are unaffected."""


@dataclasses.dataclass(frozen=True)
class Registered:
    """A declaration and the distribution that it came with."""

    declaration: Any  # a Declaration of the kind that was asked for
    distribution: str
    version: str


@dataclasses.dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be used, and why."""

    name: str
    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"plugin {self.name!r} of {self.distribution} {self.version}: {self.reason}"


class Registry:
    """All that the given plugins declare, by kind and name.

    Args:
        plugins: Entry points of the group `diffbio.plugins`; by default those of the installed distributions.
    """

    def __init__(self, plugins: Iterable[EntryPoint] | None = None) -> None:
        found = entry_points(group=ENTRY_POINT_GROUP) if plugins is None else plugins
        disabled = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",")}
        self.broken: list[BrokenPlugin] = []
        self.distributions: dict[str, str] = {}
        self._claims: dict[str, dict[str, list[Registered]]] = {kind: {} for kind in KINDS}
        for entry in sorted(found, key=lambda e: (_distribution(e), e.name)):
            if _distribution(entry) not in disabled:
                self._add(entry)

    def __getattr__(self, kind: str) -> Mapping[str, Registered]:
        """Return the declarations of one kind (`operators`, `readers`, ...) by name, clashes left out."""
        if kind not in KINDS:
            raise AttributeError(kind)
        claims = self._claims[kind].items()
        return MappingProxyType({name: owners[0] for name, owners in sorted(claims) if len(owners) == 1})

    @property
    def clashes(self) -> list[str]:
        """Return one line for each name that several distributions claim."""
        return [
            self._clash(kind, name) for kind in KINDS for name, owners in self._claims[kind].items() if len(owners) > 1
        ]

    def find(self, kind: str, name: str) -> Registered:
        """Return the declaration of `name`.

        Args:
            kind: One of `operators`, `readers`, `writers`, `losses`, `recipes`, `plots`, `commands`, `exporters`.
            name: The registered name.

        Raises:
            RegistryError: Nobody registered the name (the message has the nearest names and who has them), or two
                distributions did.
        """
        owners = self._claims[kind].get(name, [])
        if len(owners) == 1:
            return owners[0]
        if owners:
            raise RegistryError(self._clash(kind, name))
        known = getattr(self, kind)
        homes = ", ".join(f"{close} ({known[close].distribution})" for close in _close(name, known))
        hint = f"nearest: {homes}" if homes else f"registered: {listed(known)}"
        broken = f". Plugins that could not be used: {'; '.join(map(str, self.broken))}" if self.broken else ""
        raise RegistryError(f"no {kind.rstrip('s')} is called {name!r}; {hint}{broken}")

    def load(self, kind: str, name: str) -> Any:
        """Import and return what `name` stands for.

        Raises:
            RegistryError: The name is unknown or claimed twice, or its target can't be imported.
        """
        found = self.find(kind, name)
        try:
            return found.declaration.load()
        except Exception as error:  # whatever a module does when it is imported
            raise RegistryError(
                f"{name!r} of {found.distribution} {found.version} can't be imported: {type(error).__name__}: {error}"
            ) from error

    def writers_of(self, key: str) -> str:
        """Return in words which registered operators write a data key."""
        writers = [
            f"{name} ({found.distribution})"
            for name, found in self.operators.items()
            if key in found.declaration.writes
        ]
        return ", ".join(writers) or "none"

    def _clash(self, kind: str, name: str) -> str:
        owners = [f"{o.distribution} {o.version}" for o in self._claims[kind][name]]
        if len(set(owners)) == 1:
            return (
                f"the {kind.rstrip('s')} name {name!r} is declared {len(owners)} times by {owners[0]}: its plugin has "
                "to give each a name of its own"
            )
        return (
            f"the {kind.rstrip('s')} name {name!r} is claimed by {' and '.join(owners)}: uninstall one, or name it in "
            f"the environment variable {DISABLE_VARIABLE}"
        )

    def _add(self, entry: EntryPoint) -> None:
        distribution, version = _distribution(entry), _version(entry)
        try:
            module, seconds = _import(entry)
            plugin = _read(entry, module, f"{distribution}:{entry.name}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin does, it breaks only itself
            reason = str(error) if isinstance(error, RegistryError) else f"{type(error).__name__}: {error}"
            if _OF_KERNEL.search(reason):  # what it asks for is not there, before it could say for which API it is
                reason += "; if it is written for a newer diffbio-core: pip install --upgrade diffbio-core"
            self.broken.append(BrokenPlugin(entry.name, distribution, version, reason))
            warnings.warn(f"{self.broken[-1]}; it is left out", PluginWarning, stacklevel=4)
            return
        if seconds > SLOW_IMPORT:
            slow = (
                f"plugin {entry.name!r} of {distribution} {version}: importing {entry.value} takes {seconds:.1f} s, "
                "for which every command waits; let it import JAX and other heavy libraries in the modules that its "
                "declarations name, or within functions"
            )
            warnings.warn(slow, PluginWarning, stacklevel=4)
        self.distributions[distribution] = version
        for kind in KINDS:
            for declaration in getattr(plugin, kind):
                claims = self._claims[kind].setdefault(declaration.name, [])
                claims.append(Registered(declaration, distribution, version))


def _import(entry: EntryPoint) -> tuple[Any, float]:
    """Return the module that an entry point names, and how many seconds its import took."""
    start = time.perf_counter()
    try:
        module = entry.load()
    except Exception as error:  # whatever a module does when it is imported
        raise RegistryError(f"{entry.value!r} can't be imported: {type(error).__name__}: {error}") from error
    return module, time.perf_counter() - start


def _read(entry: EntryPoint, module: Any, name: str) -> Plugin:
    """Ask one plugin by itself what it brings, and check what it says.

    A manager of its own for each plugin: the hook of one that raises must not stop the others.
    """
    manager = pluggy.PluginManager("diffbio")
    manager.add_hookspecs(Hooks)
    manager.register(module, name=name)
    manager.check_pending()
    values = manager.hook.diffbio_plugin()
    if len(values) != 1 or not isinstance(values[0], Plugin):
        raise RegistryError(
            f"{entry.value} must hold one function diffbio_plugin, marked @hookimpl, that returns a "
            f"diffbio.core.Plugin; it gave {values!r}"
        )
    plugin = values[0]
    if plugin.api != API_VERSION:
        newer = isinstance(plugin.api, int) and plugin.api > API_VERSION
        upgrade = "diffbio-core" if newer else _distribution(entry)
        raise RegistryError(
            f"it is written for plugin API {plugin.api!r}, this diffbio-core has API {API_VERSION}: "
            f"pip install --upgrade {upgrade}"
        )
    for kind in KINDS:
        for declaration in getattr(plugin, kind):
            _check(kind, declaration)
    return plugin


def _check(kind: str, declaration: Any) -> None:
    """Refuse what listings and lookups would stumble over."""
    wanted = _TYPES.get(kind, Declaration)
    if not isinstance(declaration, wanted):
        raise RegistryError(f"its {kind} hold {declaration!r}, which is no {wanted.__name__}")
    for field in dataclasses.fields(declaration):
        value, annotation = getattr(declaration, field.name), str(field.type)
        if value is None and "None" in annotation:
            continue
        if "tuple" in annotation:
            fits, example = isinstance(value, tuple) and all(isinstance(item, str) for item in value), "('counts',)"
        else:
            fits, example = isinstance(value, str), "'counts'"
        if not fits:
            raise RegistryError(
                f"its {kind} hold {declaration.name!r} with {field.name}={value!r}; it must look like {example}"
            )


def _close(name: str, known: Mapping[str, Any]) -> list[str]:
    lowered = {candidate.lower(): candidate for candidate in known}
    hint = nearest(name.lower(), lowered)
    return [candidate for low, candidate in lowered.items() if repr(low) in hint]


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown distribution"


def _version(entry: EntryPoint) -> str:
    return entry.dist.version if entry.dist else "?"


@functools.cache
def registry() -> Registry:
    """Return the registry of the installed plugins, made on first use."""
    return Registry()
