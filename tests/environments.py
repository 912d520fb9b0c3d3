"""Virtual environments into which wheels are installed as users do it, and timed steps that are taken in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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


class FailedStepError(Exception):
    """A step did not do what it should; the message says what was seen."""


class Environment:
    """A virtual environment, and the steps that are taken in it."""

    def __init__(self, folder: Path, uv: str) -> None:
        self.uv, self.python, self.folder = uv, folder / "venv" / "bin" / "python", folder
        self.failed = False
        # nothing of the shell that calls may leak in; bytecode is compiled once instead of at each start
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        # programs here are tiny and run once, so that most of the time goes to compiling them
        quick = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "UV_COMPILE_BYTECODE": "1"}
        self.variables = {**kept, **quick, "COLUMNS": "120"}
        self.call(uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv"))

    def pip(self, command: str, *arguments: str) -> None:
        """Run `uv pip` in the environment."""
        self.call(self.uv, "pip", command, "--python", str(self.python), "--quiet", *arguments)

    def build(self, wheels: Path, package: Path) -> None:
        """Build the wheel of a package."""
        options = ["--quiet", "--python", sys.executable, "--wheel", "--out-dir", str(wheels)]
        self.call(self.uv, "build", *options, str(package))

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


def find_uv() -> str:
    """Return the program uv: that of the path, or the one that came with hatch."""
    return shutil.which("uv") or str(ROOT / ".venv" / "bin" / "uv")
