"""A page of Markdown for each registered operator, from its declaration, its class and its certificates.

What a page says stands in one place each: the contract in the signature of `compute`, ranges and defaults in the
configuration, formula and limit in the module's docstring, measured agreement in `docs/certificates.json`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import certificates
import docstrings
import tables

from diffbio.core import Operator, OperatorConfig
from diffbio.core.config import config_fields, describe, required_fields
from diffbio.core.contract import contract_of
from diffbio.core.recipe import config_class_of
from diffbio.core.registry import Registered, registry

DOCS = Path(__file__).parents[1]
NO_AGREEMENT = "No comparison with a tool of the field is recorded."


def pages() -> dict[str, str]:
    """Return all pages by name, `index` and one for each registered operator."""
    rows = json.loads(certificates.RECORDS.read_text(encoding="utf-8"))
    sections = reference_sections()
    found = registry().operators
    made = {name: page(name, entry, rows, sections) for name, entry in found.items()}
    return {"index": index(found), **made}


def index(found: Mapping[str, Registered]) -> str:
    """Return the page that lists all operators, by the package that holds them."""
    groups: dict[tuple[str, str], dict[str, Registered]] = {}
    for name, entry in found.items():
        groups.setdefault((entry.distribution, home(entry)), {})[name] = entry
    parts = [
        "# Operators",
        f"{len(found)} operators, as the installed distributions register them. Each page is made from the operator "
        "itself: its signature, its configuration, its docstrings and what was measured.",
    ]
    for (distribution, package), members in sorted(groups.items()):
        summary = inspect.getdoc(importlib.import_module(package)) or ""
        parts.append(f"## {package}\n\n{summary.splitlines()[0]} From {distribution}.")
        listing = [["operator", "does", "keys"]]
        for name, entry in members.items():
            declared = entry.declaration
            keys = f"{_codes(declared.reads)} → {_codes(declared.writes)}"
            listing.append([f"[{name}]({name}.md)", declared.summary, keys])
        parts.append(tables.table(listing))
        listed = "\n".join(members)
        parts.append(
            docstrings.fenced(f":hidden:\n:caption: {package.removeprefix('diffbio.')}\n\n{listed}", "{toctree}")
        )
    return "\n\n".join(parts) + "\n"


def page(name: str, entry: Registered, rows: list[dict[str, Any]], sections: Mapping[str, tuple[str, str]]) -> str:
    """Return the page of one operator.

    Args:
        name: Its registered name.
        entry: Its declaration, and where that came from.
        rows: All certificates.
        sections: The reference page and the text there of each operator, as `reference_sections` gives them.
    """
    operator: type[Operator[Any]] = entry.declaration.load()
    config = config_class_of(operator)
    package, about = home(entry), inspect.getdoc(operator) or ""
    module = inspect.getdoc(sys.modules[operator.__module__]) or ""
    reference, section = sections.get(name, ("", ""))
    links = [f"{entry.distribution} {entry.version}", f"[API](../api/{package}.md)"]
    if reference:
        links.insert(1, f"[{Path(reference).stem} in the reference](../../docs/{reference}#{name.lower()})")
    parts = [
        f"# {name}",
        entry.declaration.summary,
        " · ".join(links),
        docstrings.fenced(f"from {package} import {name}, {config.__name__}", "python"),
        docstrings.prose(about),
        "## Contract",
        contract_table(operator, entry.declaration.objective),
        "## Configuration",
        configuration_table(config),
        "## Formula and limit",
        docstrings.prose(module),
    ]
    if example := docstrings.titled(about, "Example"):
        parts += ["## Example", docstrings.example(example)]
    own = [row for row in rows if re.search(rf"\b{name}\b", row["operator"])]
    parts += ["## Measured agreement", certificates.table(own).strip() if own else NO_AGREEMENT]
    if cost := cost_of(section):
        parts += ["## Cost", cost]
    if sources := docstrings.titled(module, "References"):
        parts += ["## References", docstrings.references(sources)]
    return "\n\n".join(parts) + "\n"


def home(entry: Registered) -> str:
    """Return the package from which users import an operator, such as `diffbio.operators.variant`."""
    module, _, attribute = entry.declaration.target.partition(":")
    while "." in module:
        parent = module.rpartition(".")[0]
        if attribute not in getattr(importlib.import_module(parent), "__all__", ()):
            break
        module = parent
    return module


def contract_table(operator: type[Operator[Any]], objective: str | None) -> str:
    """Return the keys that an operator reads and writes, and what else a call needs."""
    contract = contract_of(operator.compute)
    rows = [["", "key", "shape", "dtype", ""]]
    for verb, ports in (("reads", contract.inputs), ("writes", contract.outputs)):
        for port in ports:
            shape = f"`{port.wanted(lambda _: None)}`"
            rows.append([verb, f"`{port.key}`", shape, port.kind(), "optional" if port.optional else ""])
    notes = []
    if contract.takes_key:
        notes.append("Each call draws random numbers: pass `key=jax.random.key(seed)` to `apply`.")
    if objective is not None:
        notes.append(f"Trained by the registered loss `{objective}`.")
    return "\n\n".join([tables.table(rows), *notes])


def configuration_table(config: type[OperatorConfig]) -> str:
    """Return the fields of a configuration: what they may be, their defaults and what they mean."""
    meanings: dict[str, str] = {}
    for base in reversed(config.__mro__):
        meanings |= docstrings.fields(inspect.getdoc(base) or "") if base.__doc__ else {}
    rows = [[f"`{config.__name__}`", "value", "default", "meaning"]]
    for field, hint in config_fields(config).items():
        default = "required" if field in required_fields(config) else f"`{getattr(config, field)!r}`"
        rows.append([f"`{field}`", describe(hint), default, meanings.get(field, "")])
    return tables.table(rows) if len(rows) > 1 else f"`{config.__name__}` has no fields."


def reference_sections() -> dict[str, tuple[str, str]]:
    """Return, for each second-level heading of the reference pages, the page and the text below it.

    Where two pages have the same heading, that counts which holds the table of the configuration.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(DOCS.glob("reference/*.md")):
        for part in re.split(r"(?m)^## ", path.read_text(encoding="utf-8"))[1:]:
            heading, _, text = part.partition("\n")
            name = heading.strip("` ")
            if name not in found or "| default |" in text:
                found[name] = (path.relative_to(DOCS).as_posix(), text)
    return found


def cost_of(section: str) -> str:
    """Return what a section of the reference says under `Cost.`, or nothing."""
    found = re.search(r"\*\*Cost\.\*\*\s+(.*?)(?=\s\*\*[A-Za-z ]+[.*]|\n\n|\Z)", section, re.DOTALL)
    return found[1].strip() if found else ""


def _codes(keys: tuple[str, ...]) -> str:
    return ", ".join(f"`{key}`" for key in keys)
