"""What a plugin declares: one hook that returns one value. Imports nothing heavy.

A distribution brings operators (and readers, losses, recipes, plots, commands) by an entry point in the group
`diffbio.plugins` that names a light module with one function:

    from diffbio.core.hookspecs import OperatorDeclaration, Plugin, hookimpl

    @hookimpl
    def diffbio_plugin() -> Plugin:
        return Plugin(api=1, operators=(OperatorDeclaration(name="Doubling", target="mypackage:Doubling", ...),))

Declarations are names, lazy import targets and one-line summaries, so that listing everything imports no JAX.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import pluggy

API_VERSION = 1
"""The version of this interface; a plugin states the one that it was written for."""

ENTRY_POINT_GROUP = "diffbio.plugins"

hookspec = pluggy.HookspecMarker("diffbio")
hookimpl = pluggy.HookimplMarker("diffbio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A named thing that a plugin brings, importable when asked for.

    Attributes:
        name: The name under which users find it.
        target: Where it is: `package.module:attribute`.
        summary: One line for listings.
    """

    name: str
    target: str
    summary: str

    def load(self) -> Any:
        """Import and return the target.

        Raises:
            ImportError: The module can't be imported, or lacks the attribute.
        """
        return load_target(self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorDeclaration(Declaration):
    """An operator class.

    Attributes:
        reads: The data keys that it reads by default; a conformance law holds them to the class.
        writes: The data keys that it writes by default.
        example: Where the function stands that returns its `diffbio.testing.Example`.
        objective: The registered name of the loss that trains it; None for an operator that means something without
            training.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    example: str
    objective: str | None = None

    def load_example(self) -> Any:
        """Import and call the function that builds the operator's example."""
        return load_target(self.example)()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderDeclaration(Declaration):
    """A function `read(path, **options) -> Dataset` for files with these suffixes (or folders: `/`)."""

    suffixes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterDeclaration(Declaration):
    """A function `write(path, dataset, results, *, metadata)` for files with these suffixes.

    Attributes:
        suffixes: Ends of file names; one that is longer comes first (`.vcf.gz` before `.gz`).
        reads: The results that it takes, so that no others are computed; None for all.
    """

    suffixes: tuple[str, ...]
    reads: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterDeclaration(Declaration):
    """A function `export(operator, path, *, metadata)` that writes what an operator learned as a file of its field.

    Attributes:
        operator: The registered name of the operator.
        suffix: End of the file's name, such as `.hmm`; each exporter of an operator has its own.
    """

    operator: str
    suffix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """All that one distribution brings.

    Attributes:
        api: The `API_VERSION` that the plugin was written for.
        operators: Operator classes.
        readers: Functions from files to datasets.
        writers: Functions from results to files.
        losses: Pure functions of the data dict.
        recipes: Functions that return a `Recipe`, for `diffbio fit NAME`.
        plots: Functions `(dataset, results, metadata) -> {name: Figure}` whose figures `diffbio apply` writes.
        commands: Functions that become subcommands of `diffbio`.
        exporters: Functions that write what an operator learned, for other tools.
    """

    api: int
    operators: tuple[OperatorDeclaration, ...] = ()
    readers: tuple[ReaderDeclaration, ...] = ()
    writers: tuple[WriterDeclaration, ...] = ()
    losses: tuple[Declaration, ...] = ()
    recipes: tuple[Declaration, ...] = ()
    plots: tuple[Declaration, ...] = ()
    commands: tuple[Declaration, ...] = ()
    exporters: tuple[ExporterDeclaration, ...] = ()


class Hooks:
    """The specification of the one hook."""

    @hookspec
    def diffbio_plugin(self) -> Plugin:
        """Return what this plugin brings."""
        raise TypeError("a specification is not called")


def load_target(target: str) -> Any:
    """Import `package.module:attribute`.

    Raises:
        ImportError: The module can't be imported, or lacks the attribute.
    """
    module, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ImportError(f"{module} has no {attribute!r}")
        found = getattr(found, part)
    return found
