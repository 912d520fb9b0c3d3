"""`pytest --diffbio DISTRIBUTION`: the laws of a distribution's operators, with no test file.

pytest loads this module at every start, so nothing here is imported before the option is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

_PROPERTY = "diffbio law"  # under which a report carries operator and law


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--diffbio`, which may be given once per distribution."""
    parser.getgroup("diffbio").addoption(
        "--diffbio",
        action="append",
        default=[],
        metavar="DISTRIBUTION",
        help="hold each operator of this distribution to the laws of diffbio.testing",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the laws alone, unless test files are named too."""
    if config.option.diffbio and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = []


@pytest.hookimpl(tryfirst=True)  # before -k and --deselect look at the items
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Append one item per operator and law."""
    for distribution in session.config.option.diffbio:
        laws = OperatorLaws.from_parent(session, name=distribution, nodeid=distribution, path=session.path)
        items.extend(laws.collect())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show what the operators can do, as `diffbio check` does."""
    if not config.option.diffbio:
        return
    from rich.console import Console

    from diffbio.testing.capabilities import Outcome, capability_table

    outcomes: dict[str, dict[str, Outcome]] = {}
    for kind, reports in terminalreporter.stats.items():
        for report in reports:
            for operator, law in (value for name, value in getattr(report, "user_properties", ()) if name == _PROPERTY):
                exempt = kind == "skipped" and "exempt: " in str(report.longrepr)
                outcome: Outcome = "ok" if kind == "passed" else "violated" if kind == "failed" else "not applicable"
                outcomes.setdefault(operator, {})[law] = "exempt" if exempt else outcome
    if outcomes:
        terminalreporter.section("what the operators can do")
        ordered = {operator: outcomes[operator] for operator in sorted(outcomes)}
        console = Console(force_terminal=terminalreporter.hasmarkup, width=100)
        with console.capture() as shown:
            console.print(capability_table(ordered))
        terminalreporter.write(shown.get())


class OperatorLaws(pytest.Collector):
    """The laws of one distribution's operators."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield `Operator-law` for each operator and each law, in the order of the table."""
        from diffbio.core.errors import RegistryError
        from diffbio.testing.suite import law_cases

        try:
            cases = law_cases(self.name)
        except RegistryError as error:
            raise pytest.UsageError(f"--diffbio {self.name}: {error}") from None
        for operator, law in cases:
            yield LawItem.from_parent(self, name=f"{operator}-{law}", operator=operator, law=law)


class LawItem(pytest.Item):
    """One law, held against one operator."""

    def __init__(self, *, operator: str, law: str, **node: Any) -> None:
        super().__init__(**node)
        self.operator, self.law = operator, law

    def runtest(self) -> None:
        """Hold the operator to the law; skip where the law is exempt or does not apply."""
        from diffbio.testing.suite import hold

        self.user_properties.append((_PROPERTY, (self.operator, self.law)))
        hold(self.operator, self.law)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show a violation as its message alone: the traceback into the law helps nobody."""
        from diffbio.testing.verdict import LawViolation

        if isinstance(excinfo.value, LawViolation):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Name the operator and the law, which belong to no file."""
        return self.path, None, self.name
