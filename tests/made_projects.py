"""Tiny distributions, built on the fly: other versions of ours, a plugin from the future, and another project."""

from __future__ import annotations

import shutil
from pathlib import Path

from release import PACKAGES, build

PLUGIN = """
from diffbio.core.hookspecs import Plugin, hookimpl


@hookimpl
def diffbio_plugin():
    return Plugin(api={api})
"""


def build_project(folder: Path, wheels: Path, name: str, files: dict[str, str], settings: str = "") -> None:
    """Write a project with these files, and build its wheel.

    Args:
        folder: Where the project is written.
        wheels: Where the wheel goes.
        name: The distribution, version 9.9.
        files: Text by path in the wheel.
        settings: Further lines of the table `project`.
    """
    project = folder / name
    for path, text in files.items():
        (project / "src" / path).parent.mkdir(parents=True, exist_ok=True)
        (project / "src" / path).write_text(text, encoding="utf-8")
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[tool.hatch.build.targets.wheel]\nonly-include = ["src"]\nsources = ["src"]\n'
        f'[project]\nname = "{name}"\nversion = "9.9"\n{settings}',
        encoding="utf-8",
    )
    build(project, wheels, "wheel")


def build_plugin(folder: Path, wheels: Path, name: str, *, api: int, needs: str) -> None:
    """Build the wheel of a plugin that states an API and which core it needs."""
    module = name.replace("-", "_")
    settings = f'dependencies = ["{needs}"]\n[project.entry-points."diffbio.plugins"]\n{module} = "{module}"\n'
    build_project(folder, wheels, name, {f"{module}.py": PLUGIN.format(api=api)}, settings)


def build_other_diffbio(folder: Path, wheels: Path) -> None:
    """Build the wheel of another project that is called diffbio, replaces files of ours, and can't be imported."""
    files = {
        f"diffbio/{name}": 'raise RuntimeError("this is another project")\n'
        for name in ("__init__.py", "core/__init__.py")
    }
    build_project(folder, wheels, "diffbio", files)


def build_version(folder: Path, wheels: Path, name: str, version: str) -> None:
    """Build the wheel of a package of ours as if it had another version."""
    package = next(package for package in PACKAGES if package.name == name)
    copy = shutil.copytree(package, folder / name, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    about = next(copy.glob("src/**/__about__.py"))
    about.write_text(f'"""The version."""\n\n__version__ = "{version}"\n', encoding="utf-8")
    build(copy, wheels, "wheel")
