"""Google docstrings as MyST: griffe takes them apart, their text is Markdown as it stands."""

from __future__ import annotations

import textwrap
from typing import Any

import griffe

SESSION = "pycon"


def sections(text: str) -> list[griffe.DocstringSection]:
    """Return the parts of a docstring."""
    options: dict[str, Any] = {"warnings": False, "returns_named_value": False, "returns_multiple_items": False}
    return griffe.Docstring(text).parse("google", **options)


def prose(text: str) -> str:
    """Return what a docstring says before and between its sections."""
    return "\n\n".join(part.value for part in sections(text) if part.kind is griffe.DocstringSectionKind.text)


def fields(text: str) -> dict[str, str]:
    """Return what a docstring says of each argument and attribute, one line each."""
    kinds = (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes)
    found = [part.value for part in sections(text) if part.kind in kinds]
    return {item.name: " ".join(item.description.split()) for items in found for item in items}


def titled(text: str, title: str) -> str:
    """Return the section of a docstring under a title that Google's style leaves open, such as `References`."""
    found = [part.value.contents for part in sections(text) if part.title == title]
    return "\n".join(found)


def fenced(code: str, language: str) -> str:
    """Return a fenced block."""
    return f"```{language}\n{code}\n```"


def example(text: str) -> str:
    """Return an example: a session in a block, words as words."""
    lines = textwrap.dedent(text)
    return fenced(lines, SESSION) if lines.lstrip().startswith(">>>") else lines


def references(text: str) -> str:
    """Return references as a list: each ends with the line that ends in a full stop or a semicolon."""
    entries: list[str] = []
    for line in text.splitlines():
        if entries and not entries[-1].endswith((".", ";")):
            entries[-1] += f" {line.strip()}"
        else:
            entries.append(line.strip())
    return "\n".join(f"- {entry.rstrip(';')}" for entry in entries)


def rendered(text: str, *, arguments: bool = True) -> str:
    """Return a whole docstring as the body of a directive: field lists for arguments, results and errors.

    Args:
        text: The docstring.
        arguments: Whether arguments are listed; those of records stand in a table.
    """
    blocks: list[str] = []
    for part in sections(text):
        match part.kind:
            case griffe.DocstringSectionKind.text:
                blocks.append(part.value)
            case griffe.DocstringSectionKind.parameters if arguments:
                blocks.append("\n".join(_field(f"param {item.name}", item.description) for item in part.value))
            case griffe.DocstringSectionKind.returns | griffe.DocstringSectionKind.yields:
                blocks.append("\n".join(_field(part.kind.value, _sentence(item)) for item in part.value))
            case griffe.DocstringSectionKind.raises:
                blocks.append("\n".join(_field(f"raises {item.annotation}", item.description) for item in part.value))
            case griffe.DocstringSectionKind.admonition if part.value.kind == "example":
                blocks.append(f"**Example**\n\n{example(part.value.contents)}")
            case griffe.DocstringSectionKind.examples:
                blocks.append("**Example**\n\n" + example("\n\n".join(value for _, value in part.value)))
            case griffe.DocstringSectionKind.admonition if part.value.kind == "references":
                blocks.append(f"**References**\n\n{references(part.value.contents)}")
            case griffe.DocstringSectionKind.admonition:
                blocks.append(f"**{part.title}.** {part.value.contents}")
            case _:
                continue  # attributes stand in a table of their own
    return "\n\n".join(blocks)


def _sentence(item: griffe.DocstringReturn | griffe.DocstringYield) -> str:
    """Return a result in words: griffe takes what stands before a colon for a type, which we never write there."""
    return f"{item.annotation}: {item.description}" if item.annotation else item.description


def _field(name: str, text: str) -> str:
    return f":{name}: " + " ".join(text.split())
