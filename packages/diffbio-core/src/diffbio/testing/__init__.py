"""The laws that every operator obeys, and the ways to hold an operator to them.

A plugin ships one tiny `Example` per operator and inherits every law. One line in a test file runs
them all, each as a test of its own:

    test_laws = operator_laws("diffbio-singlecell")

`check_operator(example)` runs the same laws from a notebook or the command line, and
`pytest --diffbio diffbio-singlecell` runs them with no test file at all.

Names are imported when asked for: pytest loads this package at every start, with or without JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffbio.testing.check import Report, check_operator, examples_of
    from diffbio.testing.example import Example, Limit
    from diffbio.testing.laws import LAWS
    from diffbio.testing.suite import operator_laws
    from diffbio.testing.verdict import LawViolation, NotApplicable

__all__ = [
    "LAWS",
    "Example",
    "LawViolation",
    "Limit",
    "NotApplicable",
    "Report",
    "check_operator",
    "examples_of",
    "operator_laws",
]

_MODULES = {
    "LAWS": "laws",
    "Example": "example",
    "LawViolation": "verdict",
    "Limit": "example",
    "NotApplicable": "verdict",
    "Report": "check",
    "check_operator": "check",
    "examples_of": "check",
    "operator_laws": "suite",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
