"""Versions are independent, and fit together: each package has its own, within bounds that hold the present core."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from diffbio.core import __version__
from diffbio.core.registry import registry

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
PLUGINS = [package for package in PACKAGES if package.name != "diffbio-core"]
HEADING = re.compile(r"^## (\S+) \((unreleased|\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)

of_each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
of_each_plugin = pytest.mark.parametrize("package", PLUGINS, ids=lambda path: path.name)


def settings(package: Path) -> dict:
    return tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))


def version_of(package: Path) -> Version:
    """Return the version that the package's `__about__.py` states, where its settings say that it is."""
    about = package / settings(package)["tool"]["hatch"]["version"]["path"]
    found = re.search(r'^__version__ = "(.+)"$', about.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{about} states no version"
    return Version(found[1])


@of_each_package
def test_the_changelog_begins_with_the_version(package):
    text = (package / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## .*$", text, re.MULTILINE)
    versions = [Version(found[1]) for heading in headings if (found := HEADING.match(heading))]
    assert len(versions) == len(headings), f"a heading is not like '## 0.1.0 (2026-01-31)': {headings}"
    assert versions[0] == version_of(package)
    assert versions == sorted(versions, reverse=True)


@of_each_plugin
def test_the_bound_on_core_holds_it_and_not_the_next_that_may_break(package):
    needs = map(Requirement, settings(package)["project"]["dependencies"])
    (need,) = [need for need in needs if need.name == "diffbio-core"]
    core = Version(__version__)
    assert core in need.specifier
    assert Version(f"{core.major}.{core.minor + 1}.0") not in need.specifier, "before 1.0 a minor version may break"


def test_our_plugins_are_written_for_this_api():
    assert not registry().broken
    assert {package.name for package in PLUGINS} <= set(registry().distributions)
