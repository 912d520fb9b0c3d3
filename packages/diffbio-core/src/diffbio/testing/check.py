"""Holding an example to all laws, from a notebook or the command line, with a table as the answer."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from functools import cache

from rich.console import Console
from rich.table import Table

from diffbio.core.errors import RegistryError, listed, nearest
from diffbio.core.registry import registry
from diffbio.testing.capabilities import Outcome
from diffbio.testing.example import Example
from diffbio.testing.laws import LAWS
from diffbio.testing.verdict import LawViolation, NotApplicable

_STYLES: dict[Outcome, str] = {
    "ok": "green",
    "not applicable": "dim",
    "exempt": "yellow",
    "violated": "bold red",
}


@dataclass(frozen=True)
class Finding:
    """What holding one operator to one law gave.

    Attributes:
        law: The name of the law.
        outcome: `ok`, `not applicable`, `exempt` or `violated`.
        note: Why it is exempt or not applicable, or what was seen and how to mend it.
        seconds: How long it took.
        violation: The error that the law raised, if it is violated.
    """

    law: str
    outcome: Outcome
    note: str = ""
    seconds: float = 0.0
    violation: LawViolation | None = None


@dataclass(frozen=True)
class Report:
    """What holding one operator to all laws gave; prints as a table.

    Attributes:
        operator: The name of the operator's class.
        findings: One for each law, in the order of the laws.
    """

    operator: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no law is violated."""
        return not self.violations

    @property
    def violations(self) -> tuple[Finding, ...]:
        """The findings of the laws that are violated."""
        return tuple(finding for finding in self.findings if finding.outcome == "violated")

    @property
    def seconds(self) -> float:
        """How long all laws took."""
        return sum(finding.seconds for finding in self.findings)

    def __rich__(self) -> Table:
        """Return the table that rich prints."""
        verdict = "keeps all laws" if self.ok else f"breaks {len(self.violations)} of {len(LAWS)} laws"
        table = Table(title=f"{self.operator} {verdict}", title_justify="left")
        table.add_column("law", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
        table.add_column("what it says", overflow="fold")
        for finding in self.findings:
            style = _STYLES[finding.outcome]
            says = finding.note or description(finding.law)
            table.add_row(finding.law, f"[{style}]{finding.outcome}[/]", says.replace("[", r"\["))
        return table

    def __str__(self) -> str:
        """Return the table as plain text, 100 columns wide."""
        console = Console(file=io.StringIO(), width=100, no_color=True)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def check_operator(example: Example) -> Report:
    """Hold an example to every law.

    Args:
        example: The operator, its tiny data, and what its author declares about it.

    Returns:
        The findings; `print(report)` shows them as a table, `report.ok` sums them up.

    Example:
        >>> report = check_operator(soft_kmeans_clustering())  # doctest: +SKIP
        >>> report.ok  # doctest: +SKIP
        True
    """
    return Report(example.name, tuple(judge(law, example) for law in LAWS))


def check_registered(operator: str) -> Report:
    """Hold the example that a registered operator ships to every law; without one, that is the only finding.

    Args:
        operator: The registered name.

    Raises:
        RegistryError: No operator has that name.
    """
    start = time.perf_counter()
    try:
        return check_operator(example_of(operator))
    except LawViolation as violation:
        return Report(operator, (_violated(violation, start),))


def judge(law: str, example: Example) -> Finding:
    """Hold an example to one law, and return the finding instead of raising.

    Args:
        law: The name of a law.
        example: What to hold to it.
    """
    if law in example.exempt:
        return Finding(law, "exempt", example.exempt[law])
    start = time.perf_counter()
    try:
        LAWS[law](example)
    except NotApplicable as reason:
        return Finding(law, "not applicable", str(reason), time.perf_counter() - start)
    except LawViolation as violation:
        return _violated(violation, start)
    except Exception as error:  # noqa: BLE001 - an operator may fail in any way, in any law
        seen = f"raises {type(error).__name__}: {error}"
        violation = LawViolation(law, example.name, seen, "make the operator run on its example")
        violation.__cause__ = error
        return _violated(violation, start)
    return Finding(law, "ok", seconds=time.perf_counter() - start)


def description(law: str) -> str:
    """Return what a law says, in one line."""
    return (LAWS[law].__doc__ or "").partition("\n")[0]


def examples_of(distribution: str | None = None) -> dict[str, Example]:
    """Return the examples of the registered operators, by the operators' names.

    Args:
        distribution: The distribution whose operators are wanted; by default all.

    Raises:
        RegistryError: No plugin of that distribution could be used.
        LawViolation: An operator ships no example.
    """
    return {name: example_of(name) for name in operators_of(distribution)}


def operators_of(distribution: str | None = None) -> tuple[str, ...]:
    """Return the names of the registered operators of a distribution, importing none of them.

    Args:
        distribution: The distribution whose operators are wanted; by default all.

    Raises:
        RegistryError: No plugin of that distribution could be used.
    """
    found = registry()
    if distribution is not None and distribution not in found.distributions:
        broken = [str(plugin) for plugin in found.broken if plugin.distribution == distribution]
        known = "; ".join(broken) or f"those with plugins are {listed(found.distributions)}"
        raise RegistryError(
            f"no plugin of {distribution!r} could be used{nearest(distribution, found.distributions)}; {known}"
        )
    return tuple(name for name, operator in found.operators.items() if distribution in (None, operator.distribution))


@cache
def example_of(operator: str) -> Example:
    """Return the example that a registered operator ships, built once.

    Args:
        operator: The registered name.

    Raises:
        RegistryError: No operator has that name.
        LawViolation: It ships no example, or one that can't be built.
    """
    declaration = registry().find("operators", operator).declaration
    mend = 'declare example="package.module:function", a function that returns a diffbio.testing.Example'
    try:
        example = declaration.load_example()
    except Exception as error:  # a plugin may fail in any way
        seen = f"its example {declaration.example!r} can't be built: {type(error).__name__}: {error}"
        raise LawViolation("ships_an_example", operator, seen, mend) from error
    if not isinstance(example, Example):
        seen = f"{declaration.example!r} returns a {type(example).__name__}"
        raise LawViolation("ships_an_example", operator, seen, mend)
    if type(example.operator) is not declaration.load():
        seen = f"{declaration.example!r} holds a {example.name}"
        raise LawViolation("ships_an_example", operator, seen, "return an example of this operator")
    return example


def _violated(violation: LawViolation, start: float) -> Finding:
    note = f"{violation.seen}. To mend it: {violation.mend}"
    note = f"{violation.key!r} {note}" if violation.key else note
    return Finding(violation.law, "violated", note, time.perf_counter() - start, violation)
