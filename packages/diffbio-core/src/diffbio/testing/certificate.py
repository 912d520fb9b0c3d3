"""A pytest plugin, `-p diffbio.testing.certificate`: comparison tests record what they measured.

The tables of a documentation are made from the records, so that no figure is typed by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FOLDER = os.environ.get("DIFFBIO_CERTIFICATES")
"""Where records go, one JSON line each; nothing is written where this is not set."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that certify, so that `-m certificate` selects them."""
    for item in items:
        if "certificate" in getattr(item, "fixturenames", ()):
            item.add_marker("certificate")


@pytest.fixture
def certificate(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Return a function that prints and records one measured agreement; rows of a failed test are dropped."""
    rows: list[dict] = []

    def record(*, operator: str, reference: str, data: str, quantity: str, value: float, bar: str) -> None:
        print(f"{operator} vs {reference} on {data}: {quantity} {float(value):.3g} (bar {bar})")
        test = request.node.nodeid.split("[")[0].rsplit("/", 1)[-1]
        rows.append(
            {
                "operator": operator,
                "reference": reference,
                "data": data,
                "quantity": quantity,
                "value": float(value),
                "bar": bar,
                "test": test,
            }
        )

    failed = request.session.testsfailed
    yield record
    if FOLDER and rows and request.session.testsfailed == failed:
        with (Path(FOLDER) / f"{os.getpid()}.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
