"""A page of Markdown for each public module: signatures, docstrings and fields, read from the source by griffe.

Nothing is imported: annotations stand as they are written, `Float[Array, "*cells genes"]`, which shows shapes, and the
portions of the namespace need no care. A package is public if it has `__all__`; single modules are named here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docstrings
import griffe
import tables

ROOT = Path(__file__).parents[2]
MODULES = (
    "diffbio.core.errors",
    "diffbio.core.hookspecs",
    "diffbio.core.registry",
    "diffbio.core.soft_ops.random",
    "diffbio.operators.alignment.profile_partition",
    "diffbio.operators.singlecell.terminal_states",
    "diffbio.pipelines.alignment.multiple",
    "diffbio.pipelines.alignment.profile",
    "diffbio.pipelines.variant.calls",
    "diffbio.pipelines.variant.recipes",
    "diffbio.pipelines.variant.simulation",
    "diffbio.pipelines.variant.sites",
)
"""Modules that users import from although no package hands their names on."""

INTRODUCTION = """# API

Every public module, by its import path. Shapes stand in the annotations of
[jaxtyping](https://docs.kidger.site/jaxtyping/): `Float[Array, "*cells genes"]` is an array of reals whose last axis is
`genes`, after any number of axes; see [the contract](../../docs/concepts.md#the-contract-is-the-signature-of-compute).
What operators do, and what was measured, is on [a page for each](../operators/index.md).
"""


def source() -> griffe.Module:
    """Return the namespace `diffbio` of all packages in the repository."""
    paths = [str(path) for path in sorted(ROOT.glob("packages/*/src"))]
    loader = griffe.GriffeLoader(search_paths=paths, allow_inspection=False)
    loaded = loader.load("diffbio", submodules=True)
    loader.resolve_aliases(implicit=False)
    if not isinstance(loaded, griffe.Module):
        raise TypeError(f"diffbio is {loaded!r}, which is no module")
    return loaded


def pages(root: griffe.Module) -> dict[str, str]:
    """Return all pages by name, `index` and one for each public module."""
    modules = dict(sorted((module.path, module) for module in public_modules(root)))
    rows = [["module", "holds"], *([f"[{path}]({path}.md)", first_line(module)] for path, module in modules.items())]
    listed = docstrings.fenced(":hidden:\n\n" + "\n".join(modules), "{toctree}")
    index = "\n\n".join([INTRODUCTION.strip(), tables.table(rows), listed]) + "\n"
    return {"index": index, **{path: page(module) for path, module in modules.items()}}


def public_modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """Yield the modules that have a page, in and below a module."""
    for member in module.members.values():
        if isinstance(member, griffe.Module):
            if member.exports is not None or member.path in MODULES:
                yield member
            yield from public_modules(member)


def page(module: griffe.Module) -> str:
    """Return the page of a module: its names under the module that each is written in."""
    parts = [f"# {module.path}", docstrings.fenced("", f"{{py:module}} {module.path}"), described(module)]
    homes: dict[str, list[griffe.Object]] = {}
    for found in public_members(module):
        homes.setdefault(found.module.path, []).append(found)
    for path, members in sorted(homes.items()):
        if path != module.path:
            written = members[0].module
            parts += [f"## {path.removeprefix(f'{module.path}.')}", first_line(written)]
        parts += [rendered(member, member.name) for member in members]
    return "\n\n".join(part for part in parts if part) + "\n"


def public_members(module: griffe.Module) -> Iterator[griffe.Object]:
    """Yield the objects that users import from a module: those of `__all__`, or all that are its own and public."""
    if module.exports is None:
        own = [member for name, member in module.members.items() if name[0] != "_"]
        yield from (member for member in own if isinstance(member, griffe.Object) and not member.is_module)
        return
    for name in map(str, module.exports):
        member = module.members.get(name)
        found = member.final_target if isinstance(member, griffe.Alias) else member
        if isinstance(found, griffe.Module) and name in found.members:
            found = found.members[name]  # a function hides the module that it is written in
        if isinstance(found, griffe.Object) and not found.is_module and name != "__version__":
            yield found


def rendered(found: griffe.Object, name: str) -> str:
    """Return one object as a directive of the Python domain, whatever its kind."""
    match found:
        case griffe.Class():
            return _class(found, name)
        case griffe.Function():
            return _directive("py:function", f"{name}{signature(found)}", described(found), found)
        case griffe.Attribute():
            return _attribute(found, name, "py:data")
        case _:
            return ""


def signature(function: griffe.Function, *, method: bool = False) -> str:
    """Return parameters, annotations and result of a function, as they are written."""
    shown: list[str] = []
    parameters = list(function.parameters)[1 if method else 0 :]
    kinds = griffe.ParameterKind
    for i, parameter in enumerate(parameters):
        before = parameters[i - 1].kind if i else None
        if parameter.kind is kinds.keyword_only and before not in (kinds.keyword_only, kinds.var_positional):
            shown.append("*")
        if before is kinds.positional_only and parameter.kind is not kinds.positional_only:
            shown.append("/")
        star = "*" if parameter.kind is kinds.var_positional else "**" if parameter.kind is kinds.var_keyword else ""
        text = star + parameter.name
        if parameter.annotation is not None:
            text += f": {_one_line(parameter.annotation)}"
        if parameter.default is not None and not star:
            text += f" = {_one_line(parameter.default)}"
        shown.append(text)
    result = f" -> {_one_line(function.returns)}" if function.returns is not None else ""
    return f"({', '.join(shown)}){result}"


def described(found: griffe.Object, *, arguments: bool = True) -> str:
    """Return an object's docstring as Markdown, with or without its list of arguments."""
    return docstrings.rendered(found.docstring.value, arguments=arguments) if found.docstring else ""


def first_line(found: griffe.Object) -> str:
    """Return the first line of an object's docstring."""
    return found.docstring.value.splitlines()[0] if found.docstring else ""


def _class(found: griffe.Class, name: str) -> str:
    body = [f"An operator: see [its page](../operators/{name}.md)."] if _is_registered(found) else []
    fields = [member for member in found.members.values() if isinstance(member, griffe.Attribute) and _is_field(member)]
    record = bool(fields) and (found.has_labels("dataclass") or bool(_bases(found) & {"NamedTuple", "TypedDict"}))
    body.append(described(found, arguments=not record))
    if record:
        body.append(_table_of(found, fields))
    for member in found.members.values():
        if isinstance(member, griffe.Function) and _is_shown(member):
            static = "staticmethod" in member.labels
            options = [label for label in ("classmethod", "staticmethod") if label in member.labels]
            text = f"{member.name}{signature(member, method=not static)}"
            body.append(_directive("py:method", text, described(member), member, options, fence=4))
        elif isinstance(member, griffe.Attribute) and member.docstring and member.is_public:
            body.append(_attribute(member, member.name, "py:attribute", fence=4))
    init = found.members.get("__init__")
    arguments = signature(init, method=True) if isinstance(init, griffe.Function) and not record else ""
    return _directive("py:class", name + arguments.removesuffix(" -> None"), "\n\n".join(filter(None, body)), found)


def _is_registered(found: griffe.Class) -> bool:
    return "Operator" in _bases(found) and found.path.startswith("diffbio.operators.")


def _bases(found: griffe.Class) -> set[str]:
    return {str(base).partition("[")[0].rpartition(".")[2] for base in found.bases}


def _is_field(member: griffe.Attribute) -> bool:
    return member.annotation is not None and member.name[0] != "_" and "instance-attribute" in member.labels


def _is_shown(method: griffe.Function) -> bool:
    return method.is_public and method.name[0] != "_" and (method.docstring is not None or method.name == "compute")


def _table_of(found: griffe.Class, fields: list[griffe.Attribute]) -> str:
    meanings = docstrings.fields(found.docstring.value) if found.docstring else {}
    rows = [["field", "type", "default", "meaning"]]
    for field in fields:
        default = "" if field.value is None else f"`{_one_line(field.value)}`"
        rows.append([f"`{field.name}`", f"`{_one_line(field.annotation)}`", default, meanings.get(field.name, "")])
    return tables.table(rows)


def _attribute(found: griffe.Attribute, name: str, directive: str, fence: int = 5) -> str:
    options = {} if found.annotation is None else {"type": _one_line(found.annotation)}
    value = _one_line(found.value) if found.value is not None else ""
    if value and len(value) < 60 and "property" not in found.labels:
        options["value"] = value
    stated = [f"{key}: {text}" for key, text in options.items()]
    return _directive(directive, name, described(found), found, stated, fence=fence)


def _directive(
    kind: str, text: str, body: str, found: griffe.Object, options: list[str] | None = None, *, fence: int = 5
) -> str:
    colons = ":" * fence
    stated = [*(options or [])]
    if found.parent is not None and found.parent.is_module:
        stated.append(f"canonical: {found.path}")
    options_shown = [f":{option}" if ":" in option else f":{option}:" for option in stated]
    head = "\n".join([f"{colons}{{{kind}}} {text}", *options_shown])
    return f"{head}\n\n{body}\n{colons}"


def _one_line(expression: object) -> str:
    return " ".join(str(expression).split())
