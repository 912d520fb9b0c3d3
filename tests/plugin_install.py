"""A new plugin as its author meets it: written by the command, built, installed beside core alone, tested, composed.

A part of `tests/selective_install.py`, in its environment. `diffbio new-plugin` writes a plugin there, whose wheel is
built and installed. Its formatting, lints and types are checked with its own settings (by the ruff and pyright of the
Python that runs this, where it has them) and all its tests are run. Then diffbio-singlecell is installed, and the
plugin's operator stands behind one of its operators in a pipeline that is saved and loaded.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from environments import Environment, FailedStepError

NAME = "my-filter"

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


def check_new_plugin(environment: Environment, wheels: Path) -> None:
    """Take the steps in order, as long as the next one can be taken, beside core alone; leave the environment so."""
    plugin = environment.folder / NAME
    steps = [
        ("diffbio new-plugin writes a plugin", lambda: written(environment, plugin)),
        ("its wheel is built", lambda: environment.build(wheels, plugin)),
        ("it installs beside core alone", lambda: environment.install(wheels, f"{NAME}[test]")),
        ("diffbio operators lists it", lambda: listed(environment)),
        ("its formatting, lints and types are right", lambda: checked(environment, plugin)),
        ("its tests and all laws pass", lambda: tested(environment, plugin)),
        ("diffbio-singlecell installs beside it", lambda: environment.install(wheels, "diffbio-singlecell")),
        ("its operator and one of ours are a pipeline", lambda: composed(environment)),
        ("both go", lambda: environment.pip("uninstall", NAME, "diffbio-singlecell")),
    ]
    all(environment.step(title, action) for title, action in steps)


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
