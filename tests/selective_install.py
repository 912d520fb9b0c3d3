"""Each package as its users get it: the wheel of core alone, then core and one plugin, in a clean environment.

    python tests/selective_install.py [--wheels DIST]

Takes the wheels of a folder or builds them, makes one virtual environment, and then, for core and for each plugin in
turn: installs the wheel by its metadata, lists what it brings, tests it there, and takes it away again, upon which core
is as before. Tested is what a wheel can break: registry, recipes and storage of the kernel, and that all that a plugin
declares can be imported, its operators made with the data of their examples, and that the first of them keeps all laws.
`tests/release_matrix.py` takes longer, and looks at all that an install can be.
Needs uv (which comes with hatch) and the package index. Exit status 1 if anything fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = ROOT / "packages" / "diffbio-core"
PLUGINS = sorted(path for path in ROOT.glob("packages/*") if path != CORE)

ALONE = """
import importlib.metadata, sys
from pathlib import Path
import diffbio
from diffbio.core import Pipeline, soft_ops
from diffbio.core.registry import registry

site = Path(sys.prefix).resolve()
assert getattr(diffbio, "__file__", None) is None, "diffbio is no namespace here"
assert all(Path(path).resolve().is_relative_to(site) for path in diffbio.__path__), list(diffbio.__path__)
assert not registry().broken, registry().broken
print(*registry().operators)
"""
"""Fails unless all of diffbio is that of the environment; prints the operators that are registered."""

MADE = """
from diffbio.core.registry import registry
from diffbio.testing import check_operator

examples = [found.declaration.load_example() for found in registry().operators.values()]
for kind in ("readers", "writers", "losses", "recipes", "plots", "commands", "exporters"):
    for found in getattr(registry(), kind).values():
        found.declaration.load()
report = check_operator(examples[0])
assert report.ok, report
print(f"{len(examples)} examples are made; {examples[0].name} keeps all laws")
"""
"""Fails unless all that is declared can be imported, each operator made, and the first of them keeps its contract."""

OF_KERNEL = ("test_registry.py", "test_storage.py", "test_old_saves.py", "test_pipeline.py", "test_testing_plugin.py")


class FailedStepError(Exception):
    """A step did not do what it should; the message says what was seen."""


class Environment:
    """A virtual environment, and the steps that are taken in it."""

    def __init__(self, folder: Path, uv: str) -> None:
        self.uv, self.python, self.folder = uv, folder / "venv" / "bin" / "python", folder
        self.failed = False
        # nothing of the shell that calls may leak in; bytecode is compiled once instead of at each start
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.variables = {**kept, "UV_COMPILE_BYTECODE": "1", "COLUMNS": "120"}
        self.call(uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv"))

    def pip(self, command: str, *arguments: str) -> None:
        """Run `uv pip` in the environment."""
        self.call(self.uv, "pip", command, "--python", str(self.python), "--quiet", *arguments)

    def install(self, wheels: Path, requirement: str) -> None:
        """Install a wheel by its name, so that its metadata decides what comes with it."""
        self.pip("install", "--find-links", str(wheels), "-c", str(ROOT / "constraints.txt"), requirement)

    def operators(self) -> set[str]:
        """Return the names of the operators that are registered."""
        return set(self.call(str(self.python), "-c", ALONE).split())

    def listing(self) -> str:
        """Return what `diffbio operators` prints."""
        return self.call(str(self.python.parent / "diffbio"), "operators")

    def made(self) -> str:
        """Make all operators, and return what that says."""
        return self.call(str(self.python), "-c", MADE).strip()

    def tests(self, package: Path, *chosen: str) -> str:
        """Run tests of a package, and return pytest's last line."""
        settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(package), "-p", "no:cacheprovider"]
        printed = self.call(str(self.python), "-m", "pytest", "-q", "-n", "2", *settings, *chosen)
        return printed.strip().splitlines()[-1]

    def step(self, title: str, action: Callable[[], str | None]) -> bool:
        """Take a step, print its line of the summary, and return whether it went well."""
        start = time.perf_counter()
        try:
            said, mark = action() or "", "ok"
        except FailedStepError as failure:
            said, mark, self.failed = str(failure), "FAILED", True
        print(f"{mark:6} {time.perf_counter() - start:6.1f} s  {title}{': ' if said else ''}{said}", flush=True)
        return mark == "ok"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command, away from the source tree."""
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.variables, cwd=self.folder)

    def call(self, *command: str) -> str:
        """Run a command that should go well, and return what it prints."""
        result = self.run(*command)
        if result.returncode:
            said = "\n".join((result.stdout + result.stderr).strip().splitlines()[-40:])
            raise FailedStepError(f"{Path(command[0]).name} {command[1]} exits {result.returncode}\n{said}")
        return result.stdout


def main() -> int:
    """Take all steps, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, help="the folder with the wheels; without it they are built")
    given = parser.parse_args().wheels
    with tempfile.TemporaryDirectory() as name:
        environment, wheels = Environment(Path(name), find_uv()), Path(name) / "wheels"
        if given:
            copy_wheels(given, wheels)
        if given or environment.step("wheels are built", lambda: build(environment, wheels)):
            check_core(environment, wheels)
            for plugin in PLUGINS:
                check_plugin(environment, plugin, wheels)
    print("each package works with core alone" if not environment.failed else "something fails: see above")
    return int(environment.failed)


def find_uv() -> str:
    """Return the program uv: that of the path, or the one that came with hatch."""
    return shutil.which("uv") or str(ROOT / ".venv" / "bin" / "uv")


def copy_wheels(given: Path, wheels: Path) -> None:
    """Copy wheels to a new folder: of a folder that it has seen, uv's cache would give those of an earlier build."""
    shutil.copytree(given, wheels, ignore=shutil.ignore_patterns("*.tar.gz"))


def check_core(environment: Environment, wheels: Path) -> None:
    """Install core by itself, and see that it works."""
    if environment.step("diffbio-core installs", lambda: environment.install(wheels, "diffbio-core[test]")):
        environment.step("core alone brings no operators", lambda: core_alone(environment))
        chosen = [str(CORE / "tests" / name) for name in OF_KERNEL]
        environment.step("diffbio-core's tests pass", lambda: environment.tests(CORE, *chosen))


def check_plugin(environment: Environment, plugin: Path, wheels: Path) -> None:
    """Install a plugin beside core, see that it works, and take it away."""
    name = plugin.name
    if environment.step(f"{name} installs", lambda: environment.install(wheels, f"{name}[test]")):
        environment.step(f"{name} lists its operators", lambda: listed(environment, name))
        environment.step(f"{name} makes its operators", environment.made)
        environment.step(f"{name} goes", lambda: environment.pip("uninstall", name))
        environment.step("core is as before", lambda: core_alone(environment))


def build(environment: Environment, wheels: Path) -> str:
    """Build the wheel of every package."""
    options = ["--quiet", "--python", sys.executable, "--wheel", "--out-dir", str(wheels)]
    for package in (CORE, *PLUGINS):
        environment.call(environment.uv, "build", *options, str(package))
    sizes = sorted((path.name, path.stat().st_size) for path in wheels.glob("*.whl"))
    return ", ".join(f"{name} {size / 1024:.0f} kB" for name, size in sizes)


def core_alone(environment: Environment) -> str:
    """Check that nothing is registered, and that the listing says what to install."""
    found = environment.operators()
    if found:
        raise FailedStepError(f"there are {sorted(found)}")
    if "No plugin brings operators" not in (printed := environment.listing()):
        raise FailedStepError(f"diffbio operators says {printed!r}")
    return ""


def listed(environment: Environment, *names: str) -> str:
    """Check that the registered operators are those of these distributions alone, and that the listing has them."""
    found, printed = environment.operators(), environment.listing()
    absent = [operator for operator in found if operator not in printed]
    others = [other.name for other in PLUGINS if (other.name in names) != (other.name in printed)]
    if not found or absent or others:
        raise FailedStepError(f"registered {sorted(found)}, not listed {absent}, other distributions {others}")
    return f"{len(found)} operators"


if __name__ == "__main__":
    sys.exit(main())
