"""`diffbio operators` and `diffbio show`: what is installed, and what one operator is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diffbio.core.registry import registry


def operators() -> None:
    """List every operator that the installed plugins bring."""
    console = Console()
    found = registry()
    for distribution in dict.fromkeys(entry.distribution for entry in found.operators.values()):
        console.print(f"[bold]{distribution}[/] {found.distributions[distribution]}")
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, entry in found.operators.items():
            if entry.distribution == distribution:
                declared = entry.declaration
                keys = f"{', '.join(declared.reads)} -> {', '.join(declared.writes)}"
                table.add_row(f"  {name}", f"{escape(declared.summary)}\n[dim]{escape(keys)}[/]")
        console.print(table)
    if not found.operators:
        console.print("No plugin brings operators yet; for single-cell analysis: pip install diffbio-singlecell")
    for clash in found.clashes:
        Console(stderr=True).print(f"[yellow]warning:[/] {escape(clash)}", highlight=False, soft_wrap=True)


def show(name: Annotated[str, typer.Argument(help="The operator's name, as in `diffbio operators`.")]) -> None:
    """Show one operator: what it is for, its keys and shapes, its configuration."""
    # needs the class itself, and so JAX
    import inspect

    from diffbio.core.config import config_fields, describe, required_fields
    from diffbio.core.contract import contract_of
    from diffbio.core.recipe import config_class_of, operator_named

    operator = operator_named(name)
    contract = contract_of(operator.compute)
    config = config_class_of(operator)
    console = Console()
    console.print(f"[bold]{operator.__name__}[/]  {operator.__module__}\n")
    console.print((inspect.getdoc(operator) or "").strip() + "\n", markup=False, highlight=False, soft_wrap=True)
    keys = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("", "key", "shape", "dtype"):
        keys.add_column(column)
    for verb, ports in (("reads", contract.inputs), ("writes", contract.outputs)):
        for port in ports:
            shape = port.wanted(lambda _: None)
            keys.add_row(verb, f"{port.key}{' (optional)' if port.optional else ''}", shape, port.kind())
    console.print(keys)
    declared = registry().operators.get(operator.__name__)
    if declared is not None and declared.declaration.objective:
        console.print(f"\ntrained by the loss {declared.declaration.objective}")
    fields = Table(box=None, header_style="bold", pad_edge=False)
    for column in (config.__name__, "value", "default"):
        fields.add_column(column)
    for field, hint in config_fields(config).items():
        default = "required" if field in required_fields(config) else repr(getattr(config, field))
        fields.add_row(field, describe(hint), default)
    console.print()
    console.print(fields)
