"""The laws as pytest tests: one for each operator and law."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from diffbio.testing.check import example_of, judge, operators_of
from diffbio.testing.laws import LAWS


def operator_laws(distribution: str | None = None) -> Callable[[str, str], None]:
    """Return a test function that holds each operator of a distribution to each law.

    Args:
        distribution: The distribution whose operators are tested; by default every registered one.

    Returns:
        A parametrized test, with ids such as `SoftKMeansClustering-eager_equals_jit`. Examples are
        built when their first law runs, once per operator.

    Raises:
        RegistryError: No plugin of that distribution could be used.

    Example:
        In a test file, this is all:

        >>> from diffbio.testing import operator_laws
        >>> test_laws = operator_laws("diffbio-singlecell")  # doctest: +SKIP
    """
    cases = law_cases(distribution)

    @pytest.mark.parametrize(("operator", "law"), cases, ids=["-".join(case) for case in cases])
    def test_laws(operator: str, law: str) -> None:
        __tracebackhide__ = True
        hold(operator, law)

    return test_laws


def law_cases(distribution: str | None = None) -> list[tuple[str, str]]:
    """Return the pairs of operator and law that a distribution has to answer for."""
    return [(operator, law) for operator in operators_of(distribution) for law in LAWS]


def hold(operator: str, law: str) -> None:
    """Hold a registered operator to a law, as the body of a test.

    Args:
        operator: The registered name.
        law: The name of the law.

    Raises:
        LawViolation: The law is violated, or the operator ships no example.
        Skipped: The law is exempt or does not apply; the reason says which.
    """
    __tracebackhide__ = True
    finding = judge(law, example_of(operator))
    if finding.violation is not None:
        raise finding.violation
    if finding.outcome != "ok":
        pytest.skip(f"{finding.outcome}: {finding.note}")
