"""Tables of Markdown, for all pages that are made."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(rows: Sequence[Sequence[str]], *, numbers: Collection[str] = ()) -> str:
    """Return rows as a table of Markdown.

    Args:
        rows: Cells, the first row being the head.
        numbers: Columns, by their head, that stand at the right.
    """
    head, *others = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    rule = ["--:" if name in numbers else "---" for name in head]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *others])
