"""The certificates: what the comparison tests measured, as JSON and as the tables of the reference pages.

    hatch run reference:certify            # runs the comparison tests, then writes
    python docs/certificates.py            # writes again from docs/certificates.json

Each test that asks for the fixture `certificate` records what it measured against a tool of the field. Where a page
says `<!-- certificates: Harmony -->`, the table below that line is made from the records of that operator; `all`
stands for every one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).parent
RECORDS = DOCS / "certificates.json"
PLACE = re.compile(r"(<!-- certificates: ([\w, ]+) -->\n)(?:\n?\|.*\n(?:\|.*\n)*)?")


def measured(tests: Iterable[str]) -> list[dict]:
    """Run the comparison tests and return their records; those of tests that were not run are kept as they were."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"DIFFBIO_CERTIFICATES": folder}
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "-m", "certificate", *tests]
        failed = subprocess.run(command, env=environment, cwd=DOCS.parent, check=False).returncode
        new = [json.loads(line) for file in Path(folder).glob("*.jsonl") for line in file.read_text().splitlines()]
    if failed:
        print("some comparison failed: its records are left out", file=sys.stderr)
    run = {row["test"] for row in new}
    kept = [row for row in json.loads(RECORDS.read_text()) if row["test"] not in run] if RECORDS.exists() else []
    return sorted([*kept, *new], key=lambda row: tuple(map(str, row.values())))


def table(rows: list[dict]) -> str:
    """Return the rows as a table of Markdown; operators are named where there is more than one."""
    several = len({row["operator"] for row in rows}) > 1
    lines = [["reference", "data", "quantity", "measured", "bar", "test"], ["---", "---", "---", "--:", "---", "---"]]
    for row in rows:
        value, test = f"{row['value']:.3g}", f"`{row['test']}`"
        lines.append([row["reference"], row["data"], row["quantity"], value, row["bar"], test])
    if several:
        first = ["operator", "---", *(row["operator"] for row in rows)]
        lines = [[name, *line] for name, line in zip(first, lines, strict=True)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def names(place: re.Match[str]) -> list[str]:
    """Return the operators that a page asks for at a place."""
    return [name.strip() for name in place[2].split(",")]


def filled(page: str, rows: list[dict]) -> str:
    """Return a page with the tables that it asks for."""

    def with_table(place: re.Match[str]) -> str:
        return place[1] + "\n" + table([row for row in rows if place[2] == "all" or row["operator"] in names(place)])

    return PLACE.sub(with_table, page)


def main() -> None:
    """Measure if asked to, and write the tables."""
    if "--measure" in sys.argv[1:]:
        tests = [argument for argument in sys.argv[1:] if argument != "--measure"]
        RECORDS.write_text(json.dumps(measured(tests), indent=1) + "\n")
    rows = json.loads(RECORDS.read_text())
    for page in sorted(DOCS.glob("reference/*.md")):
        text = page.read_text(encoding="utf-8")
        page.write_text(filled(text, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
