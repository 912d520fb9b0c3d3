"""`diffbio check`: every law on the operators of a distribution, and a table of what they can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from diffbio.testing.capabilities import Outcome
    from diffbio.testing.check import Finding
    from diffbio.testing.cost import Cost

_LEAST_WIDTH = 100  # a terminal wraps the lines of a table that would otherwise lose its words


def check_command(
    distribution: Annotated[str, typer.Argument(help="An installed distribution with a plugin, such as my-dist.")],
    operator: Annotated[list[str] | None, typer.Option(help="Only this operator; repeatable.")] = None,
    *,
    cost: Annotated[bool, typer.Option(help="Also measure CPU time at three sizes.")] = True,
) -> None:
    """Hold the operators of DISTRIBUTION to every law, and show what they can do; exit status 1 if one breaks a law."""
    # needs the operators themselves, and so JAX
    from diffbio.core.errors import RegistryError, listed
    from diffbio.testing.capabilities import capability_table, cost_table
    from diffbio.testing.check import check_registered, operators_of

    known = operators_of(distribution)
    console = Console(width=max(Console().width, _LEAST_WIDTH))
    chosen = tuple(operator or known)
    if unknown := [name for name in chosen if name not in known]:
        raise RegistryError(f"{distribution} has no operator {listed(unknown)}; it has {listed(known)}")
    outcomes: dict[str, dict[str, Outcome]] = {}
    costs: dict[str, Cost] = {}
    broken: list[tuple[str, Finding]] = []
    with console.status("") as status:
        for name in chosen:
            status.update(f"{name} ({len(outcomes) + 1} of {len(chosen)})")
            report = check_registered(name)
            outcomes[name] = {finding.law: finding.outcome for finding in report.findings}
            broken += [(name, finding) for finding in report.violations]
            if cost and report.ok and (measured := _cost(name)) is not None:
                costs[name] = measured
    console.print(capability_table(outcomes))
    if costs:
        console.print("\nCPU time of one application, the example repeated to that many elements:")
        console.print(cost_table(costs))
    for name, finding in broken:
        console.print(f"\n[bold]{name}[/] breaks {finding.law}: ", end="")
        console.print(finding.note, markup=False, highlight=False, soft_wrap=True)
    kept = len(chosen) - len({name for name, _ in broken})
    console.print(f"\n{kept} of {len(chosen)} operators of {distribution} keep all laws", highlight=False)
    if broken:
        raise typer.Exit(1)


def _cost(name: str) -> Cost | None:
    """Return what an operator costs, if that can be measured."""
    from diffbio.testing.check import example_of
    from diffbio.testing.cost import cost_of
    from diffbio.testing.verdict import NotApplicable

    try:
        return cost_of(example_of(name))
    except NotApplicable:
        return None
