"""The certificates: every comparison is where it belongs, as it was recorded."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from diffbio.core.registry import registry

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob("reference/*.md"))
ROWS = json.loads((DOCS / "certificates.json").read_text())

_spec = importlib.util.spec_from_file_location("certificates", DOCS / "certificates.py")
assert _spec is not None
assert _spec.loader is not None
certificates = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(certificates)


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_records(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert certificates.filled(text, ROWS) == text, "run python docs/certificates.py"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_for_what_was_measured(page):
    asked = [
        name
        for place in certificates.PLACE.finditer((DOCS / page).read_text(encoding="utf-8"))
        for name in certificates.names(place)
    ]
    measured = {row["operator"] for row in ROWS} | {"all"}
    assert [name for name in asked if name not in measured] == []


def test_every_record_has_its_page():
    text = "\n".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)
    asked = {name for place in certificates.PLACE.finditer(text) for name in certificates.names(place)}
    assert sorted({row["operator"] for row in ROWS} - asked) == []


@pytest.mark.parametrize("operator", registry().operators)
def test_every_operator_is_compared(operator):
    assert any(re.search(rf"\b{operator}\b", row["operator"]) for row in ROWS)
