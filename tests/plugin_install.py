"""A new plugin as its author meets it: written by the command, built, installed beside core alone, tested, composed.

    python tests/plugin_install.py

Builds the wheel of core, installs it in a clean virtual environment, and there lets `diffbio new-plugin` write a
plugin, whose wheel is built and installed too. Its formatting, lints and types are checked with its own settings (by
the ruff and pyright of the Python that runs this, where it has them) and all its tests are run. Then diffbio-singlecell
is installed, and the plugin's operator stands behind one of its operators in a pipeline that is saved and loaded.
Each step says how long it took. Needs uv (which comes with hatch) and the package index. Exit status 1 if anything
fails.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from selective_install import CORE, ROOT, Environment, FailedStepError

NAME = "my-filter"
SINGLECELL = ROOT / "packages" / "diffbio-singlecell"

COMPOSED = """
import tempfile

import jax
import numpy as np

from diffbio.core import Pipeline, Recipe, load, save

steps = [
    {"operator": "LibrarySizeNormalization", "name": "normalization"},
    {"operator": "DepthFilter", "name": "filter", "reads": {"counts": "normalized"}},
]
counts = np.random.default_rng(0).poisson(np.geomspace(0.1, 9, 20)[:, None], (20, 30)).astype(np.float32)
pipeline = Pipeline.from_recipe(Recipe.from_dict({"format": 1, "inputs": ["counts"], "steps": steps}))
pipeline.initialize(counts=jax.numpy.asarray(counts))


def weights(pipeline, counts):
    return pipeline.apply({"counts": counts}, {}, None)[0]["cell_weight"]


slope = jax.grad(lambda counts: weights(pipeline, counts).sum())(jax.numpy.asarray(counts))
assert np.isfinite(slope).all() and np.abs(slope).max() > 0, slope
with tempfile.TemporaryDirectory() as folder:
    save(pipeline, folder)
    np.testing.assert_array_equal(weights(load(folder), counts), weights(pipeline, counts))
print("gradients reach the counts; saved and loaded, it gives the same weights")
"""
"""Fails unless the plugin's operator and one of ours work as one pipeline."""


def main() -> int:
    """Take all steps, and return the exit status."""
    uv = shutil.which("uv") or str(ROOT / ".venv" / "bin" / "uv")
    with tempfile.TemporaryDirectory() as name:
        environment, wheels = Environment(Path(name), uv), Path(name) / "wheels"
        if take_steps(environment, wheels, Path(name) / NAME):
            print("a new plugin works as it comes")
        else:
            print("something fails: see above")
    return int(environment.failed)


def take_steps(environment: Environment, wheels: Path, plugin: Path) -> bool:
    """Take the steps in order as long as the next one can be taken, and return whether all went well."""
    steps = [
        ("the wheel of diffbio-core is built", lambda: build(environment, wheels, CORE)),
        ("diffbio-core installs", lambda: environment.install(wheels, "diffbio-core")),
        ("diffbio new-plugin writes a plugin", lambda: written(environment, plugin)),
        ("its wheel is built", lambda: build(environment, wheels, plugin)),
        ("it installs beside core alone", lambda: environment.install(wheels, f"{NAME}[test]")),
        ("diffbio operators lists it", lambda: listed(environment)),
        ("its formatting, lints and types are right", lambda: checked(environment, plugin)),
        ("its tests and all laws pass", lambda: tested(environment, plugin)),
        ("the wheel of diffbio-singlecell is built", lambda: build(environment, wheels, SINGLECELL)),
        ("diffbio-singlecell installs beside it", lambda: environment.install(wheels, "diffbio-singlecell")),
        ("its operator and one of ours are a pipeline", lambda: composed(environment)),
    ]
    return all(environment.step(title, action) for title, action in steps)


def build(environment: Environment, wheels: Path, package: Path) -> None:
    """Build the wheel of one package."""
    options = ["--quiet", "--python", sys.executable, "--wheel", "--out-dir", str(wheels)]
    environment.call(environment.uv, "build", *options, str(package))


def written(environment: Environment, plugin: Path) -> str:
    """Let the installed command write the plugin, and return what it says first."""
    printed = environment.call(str(environment.python.parent / "diffbio"), "new-plugin", NAME)
    if not (plugin / "pyproject.toml").exists():
        raise FailedStepError(f"there is no project in {plugin}; it says {printed!r}")
    return printed.splitlines()[0].removesuffix(" Next:")


def listed(environment: Environment) -> None:
    """Check that the listing has the plugin with its operator."""
    printed = environment.listing()
    if NAME not in printed or "counts -> cell_weight" not in printed:
        raise FailedStepError(f"diffbio operators says {printed!r}")


def checked(environment: Environment, plugin: Path) -> str:
    """Check the plugin with its own settings, by the tools that are there, and return which they were."""
    commands = {
        "ruff format": ("ruff", "format", "--check", "--no-cache", str(plugin)),
        "ruff check": ("ruff", "check", "--no-cache", str(plugin)),
        "pyright": ("pyright", "--project", str(plugin), "--pythonpath", str(environment.python)),
    }
    used = []
    for title, (tool, *arguments) in commands.items():
        if program := shutil.which(tool, path=str(Path(sys.executable).parent)):
            environment.call(program, *arguments)
            used.append(title)
    return ", ".join(used) or "neither ruff nor pyright is here"


def tested(environment: Environment, plugin: Path) -> str:
    """Run all tests of the plugin with its own settings, and return pytest's last line."""
    settings = ["-c", str(plugin / "pyproject.toml"), "--rootdir", str(plugin), "-p", "no:cacheprovider"]
    wanted = [str(plugin / name) for name in ("src", "tests", "README.md")]
    return environment.call(str(environment.python), "-m", "pytest", "-q", *settings, *wanted).strip().splitlines()[-1]


def composed(environment: Environment) -> str:
    """Put the plugin's operator behind one of ours, and return what that says."""
    return environment.call(str(environment.python), "-c", COMPOSED).strip()


if __name__ == "__main__":
    sys.exit(main())
