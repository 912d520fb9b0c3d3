"""What stands where on the site: lists of pages below a page, by headings of the sidebar.

The pages stay as GitHub shows them: the lists are added when the site is built. Names are those of Sphinx, from the
root of the repository; a pattern takes what matches and is named nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

TREES: dict[str, dict[str, tuple[str, ...]]] = {
    "docs/index": {
        "Start": ("README", "docs/getting-started", "docs/concepts", "docs/tutorials/README", "docs/tutorials/*"),
        "Look up": ("site/operators/index", "site/api/index", "docs/reference/cli", "docs/errors"),
        "Single cells": (
            "docs/reference/anndata",
            "docs/reference/io",
            "docs/reference/normalization",
            "docs/reference/count-transforms",
            "docs/reference/gene-selection",
            "docs/reference/projections",
            "docs/reference/generative-models",
            "docs/reference/maps",
            "docs/reference/integration",
            "docs/reference/groups-of-cells",
            "docs/reference/trajectories",
            "docs/reference/singlecell",
            "docs/reference/atlas",
        ),
        "Sequences and reads": (
            "docs/reference/sequence-files",
            "docs/reference/alignment",
            "docs/reference/multiple-alignment",
            "docs/reference/profile-hmm",
            "docs/reference/time-warping-and-pair-hmm",
            "docs/reference/reads",
            "docs/reference/duplicates-and-complexity",
        ),
        "Variants and copy number": (
            "docs/reference/aligned-reads",
            "docs/reference/base-quality-recalibration",
            "docs/reference/pileup-and-genotypes",
            "docs/reference/variant-classifiers",
            "docs/reference/variant-filter",
            "docs/reference/reads-to-variants",
            "docs/reference/copy-number",
        ),
        "Every field": (
            "docs/reference/soft_ops",
            "docs/reference/training",
            "docs/reference/losses",
            "docs/reference/*",
        ),
        "Plugins": ("docs/write-an-operator", "packages/*/README"),
        "How it compares": ("docs/how-it-compares", "docs/reference/certificates", "benchmarks/README"),
        "Project": ("CONTRIBUTING", "*", "docs/*", "docs/decisions/README", "packages/*/CHANGELOG"),
    },
    "docs/decisions/README": {"": ("docs/decisions/*",)},
}
HOME = "docs/index"

_NAMED = {entry for sections in TREES.values() for entries in sections.values() for entry in entries} | {HOME}


def title_of(page: str) -> str | None:
    """Return what the sidebar calls a page whose own title says too little there."""
    folder = page.split("/")[-2] if "/" in page else ""
    return {"README": "Two commands", f"packages/{folder}/CHANGELOG": f"Changes of {folder}"}.get(page)


def listed_below(page: str, known: Iterable[str]) -> dict[str, list[str]]:
    """Return the pages that are listed below a page, by heading; none for a page that has no list.

    Args:
        page: Its name.
        known: The names of all pages.
    """
    names = sorted(known)
    found = {
        heading: [name for entry in entries for name in names if _belongs(name, entry)]
        for heading, entries in TREES.get(page, {}).items()
    }
    return {heading: below for heading, below in found.items() if below}


def toctrees(page: str, known: Iterable[str]) -> str:
    """Return the lists of pages below a page as directives of MyST; nothing for a page that has none."""
    parts = []
    for heading, names in listed_below(page, known).items():
        options = [":hidden:", f":caption: {heading}"] if heading else [":hidden:"]
        entries = [f"{title} </{name}>" if (title := title_of(name)) else f"/{name}" for name in names]
        parts.append("\n".join(["```{toctree}", *options, "", *entries, "```"]))
    return "".join(f"\n\n{part}\n" for part in parts)


def _belongs(name: str, entry: str) -> bool:
    if name == entry:
        return True
    same_depth = name.count("/") == entry.count("/")  # fnmatch's * would also take folders
    return same_depth and name not in _NAMED and fnmatchcase(name, entry)
