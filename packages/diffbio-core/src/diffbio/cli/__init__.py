"""The command line: `diffbio operators | show | fit | apply | check | new-plugin`, and the commands that plugins bring.

Nothing heavy is imported before a command needs it: listing every operator takes no JAX.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from diffbio.cli import checking, listing, new_plugin, running
from diffbio.core.errors import DiffbioError
from diffbio.core.registry import PluginWarning, registry

_OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}
"""For commands of plugins, and for those whose further options are those of a reader."""


def make_app() -> typer.Typer:
    """Return the command line with the commands of all plugins."""
    app = typer.Typer(
        name="diffbio",
        help="Differentiable bioinformatics: operators that compose and train end to end.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command("operators")(listing.operators)
    app.command("show")(listing.show)
    app.command("fit", context_settings=_OPEN)(running.fit_command)
    app.command("apply", context_settings=_OPEN)(running.apply_command)
    app.command("check")(checking.check_command)
    app.command("new-plugin")(new_plugin.new_plugin)
    own = {command.name for command in app.registered_commands}
    for name, found in registry().commands.items():
        if name in own:
            left_out = f"the command {name!r} of {found.distribution} {found.version} is left out: diffbio has its own"
            warnings.warn(left_out, PluginWarning, stacklevel=2)
            continue
        summary = escape(f"{found.declaration.summary} ({found.distribution})")  # typer reads it as rich markup
        app.command(name, help=summary, context_settings=_OPEN, add_help_option=False)(_lazy(name))
    return app


def _lazy(name: str) -> Any:
    """Return a command that imports its plugin's function when it is run, and hands its arguments on."""

    def run(context: typer.Context) -> None:
        command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        command.command()(registry().load("commands", name))
        command(context.args, prog_name=f"diffbio {name}", standalone_mode=False)

    return run


def main() -> None:
    """Run the command line; an error that diffbio raised on purpose is shown as one message, without a traceback.

    What is wrong with a plugin is said at the end, in a line each, and stops nothing.
    """
    console = Console(stderr=True)
    with warnings.catch_warnings(record=True) as caught:
        app = make_app()
    try:
        app()
    except DiffbioError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        for note in getattr(error, "__notes__", ()):
            console.print(f"  {note}", highlight=False, markup=False)
        sys.exit(1)
    finally:
        for warning in caught:
            if isinstance(warning.message, PluginWarning):
                console.print(f"[yellow]warning:[/] {escape(str(warning.message))}", highlight=False, soft_wrap=True)
            else:
                warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
