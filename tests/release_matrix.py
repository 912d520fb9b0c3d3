"""All that an install can be, from the wheels in `dist`: each package alone, pairs, other versions, other projects.

    python tests/release_matrix.py [--skip-tests] [--only NAME ...]

1. Each package in a clean environment of its own, with nothing but what it declares: its operators are listed and made,
   and all its own tests pass.
2. Each pair of plugins in one environment: a pipeline with operators of both is saved; when one plugin goes the other
   works on, and loading the pipeline says which distribution and version are missing, and the command that brings them
   back, after which it gives the same numbers.
3. A plugin of a later version works with the same core; one for a newer plugin API, or that needs a newer core, is
   refused in a sentence that says what to upgrade.
4. Where another project called diffbio is installed beside ours, the command says so in a sentence, and the commands
   in it mend it.

`hatch run release:matrix` builds `dist` before. Needs uv (which comes with hatch) and the package index. Exit status 1
if anything fails.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

from environments import CORE, PLUGINS, Environment, FailedStepError, find_uv
from made_projects import build_other_diffbio, build_plugin, build_version
from release import ROOT
from selective_install import copy_wheels, core_alone, listed

NAMES = [plugin.name for plugin in PLUGINS]

COMPOSED = {
    # cells in order as a series in time, beside a reference of another pace
    ("diffbio-alignment", "diffbio-singlecell"): [
        {"operator": "Scaling"},
        {"operator": "SoftTimeWarping", "reads": {"series": "scaled"}},
    ],
    # sites in groups by the likelihoods of their genotypes
    ("diffbio-singlecell", "diffbio-variant"): [
        {"operator": "HaplotypeGenotyping"},
        {
            "operator": "SoftKMeansClustering",
            "config": {"n_clusters": 2},
            "reads": {"embeddings": "call_log_likelihoods"},
        },
    ],
    ("diffbio-alignment", "diffbio-variant"): "reads-to-variants",
}
"""A pipeline for each pair of plugins whose data keys meet: its steps, or the recipe that a plugin brings."""

SAVE = """
import sys
from flax import nnx
import numpy as np
from diffbio.core import Pipeline, Recipe, save
from diffbio.core.registry import registry

steps, folder, *wanted = eval(sys.argv[1]), *sys.argv[2:]
numbers = np.random.default_rng(0).normal(size=(12, 5, 2)).astype(np.float32)
data = {"normalized": numbers[..., 0], "reference_series": numbers[:7, :, 1], "alignment_score": numbers}
if isinstance(steps, str):
    pipeline = Pipeline.from_recipe(registry().load("recipes", steps)(), rngs=nnx.Rngs(0))
else:
    recipe = Recipe.from_dict({"format": 1, "steps": steps})
    pipeline = Pipeline.from_recipe(recipe, rngs=nnx.Rngs(0), data=data)
    result = pipeline.apply(data, {}, None)[0]
    np.savez(f"{folder}.npz", **data, **{f"out_{key}": result[key] for key in result.keys() - data.keys()})
save(pipeline, folder)
of = {registry().operators[type(step).__name__].distribution for step in pipeline.steps}
assert of == set(wanted), of
print(*pipeline.names, sep=", ")
"""
"""Composes a pipeline of the distributions that are named, saves it, and keeps beside it what it gave."""

LOAD = """
import sys
from pathlib import Path
import numpy as np
from diffbio.core import load
from diffbio.core.errors import StorageError

folder = Path(sys.argv[1])
try:
    pipeline = load(folder)
except StorageError as error:
    sys.exit(f"StorageError: {error}")
if folder.with_suffix(".npz").exists():
    kept = dict(np.load(folder.with_suffix(".npz")))
    result = pipeline.apply({key: kept[key] for key in kept if not key.startswith("out_")}, {}, None)[0]
    for key in kept:
        if key.startswith("out_"):
            np.testing.assert_array_equal(result[key.removeprefix("out_")], kept[key])
"""
"""Loads a pipeline, and fails unless it gives what it gave."""

IMPORT = """
from diffbio.core.registry import KINDS, registry

for kind in KINDS:
    for found in getattr(registry(), kind).values():
        found.declaration.load()
"""
"""Fails unless all that is declared can be imported."""


def main() -> int:
    """Take all steps, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-tests", action="store_true", help="leave out the packages' own tests, which take long")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these packages alone, and nothing of the rest")
    options = parser.parse_args()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".hatch" / "compiled"))
    with tempfile.TemporaryDirectory() as name:
        environments = []
        for package in (CORE, *PLUGINS):
            if not options.only or package.name in options.only:
                environments.append(clean(Path(name), package.name))
                check_alone(environments[-1], package, tests=not options.skip_tests)
        if not options.only:
            environments.append(clean(Path(name), "pairs"))
            check_together(environments[-1])
        failed = any(environment.failed for environment in environments)
    print("every install works" if not failed else "something fails: see above")
    return int(failed)


def clean(folder: Path, name: str) -> Environment:
    """Return a clean environment in a folder of its own, with the wheels beside it."""
    (folder / name).mkdir()
    copy_wheels(ROOT / "dist", folder / name / "wheels")
    return Environment(folder / name, find_uv())


def install(environment: Environment, *arguments: str) -> None:
    """Install from the wheels beside the environment, within the tested set."""
    found = ("--find-links", str(environment.folder / "wheels"), "-c", str(ROOT / "constraints.txt"))
    environment.pip("install", *found, *arguments)


def check_alone(environment: Environment, package: Path, *, tests: bool) -> None:
    """Install one package with what it declares, and see that it works."""
    name, step = package.name, environment.step
    if not step(f"{name} installs", lambda: install(environment, name)):
        return
    step(f"{name} has all that it needs", lambda: environment.pip("check"))
    if package == CORE:
        step("core alone brings no operators", lambda: core_alone(environment))
    else:
        step(f"{name} lists its operators alone", lambda: listed(environment, name))
        step(f"{name} makes its operators", environment.made)
    if tests and step(f"{name}[test] installs", lambda: install(environment, f"{name}[test]")):
        step(f"{name}'s tests pass", lambda: environment.tests(package, str(package / "tests")))


def check_together(environment: Environment) -> None:
    """See that plugins come and go without harm to each other, in one environment."""
    step = environment.step
    if not step("all packages install together", lambda: install(environment, *NAMES)):
        return
    step("all operators are listed", lambda: listed(environment, *NAMES))
    for one, other in itertools.combinations(NAMES, 2):
        rest = [name for name in NAMES if name not in (one, other)]
        step(f"without {' and '.join(rest)}", lambda rest=rest: environment.pip("uninstall", *rest))
        check_pair(environment, one, other)
        step("all come back", lambda: install(environment, *NAMES))
    check_versions(environment)
    check_other_diffbio(environment)


def check_pair(environment: Environment, one: str, other: str) -> None:
    """Compose two plugins, take each away, and bring it back by the command that the message names."""
    step, steps, saved = environment.step, COMPOSED.get((one, other)), environment.folder / f"{one}-{other}"
    python = str(environment.python)
    step(f"{one} and {other} list their operators", lambda: listed(environment, one, other))
    composed = steps is not None and step(
        f"{one} and {other} are one pipeline",
        lambda: environment.call(python, "-c", SAVE, repr(steps), str(saved), one, other).strip(),
    )
    for gone, left in ((one, other), (other, one)):
        step(f"{gone} goes", lambda gone=gone: environment.pip("uninstall", gone))
        step(f"{left} works on", lambda left=left: works_on(environment, left))
        if composed:
            step(f"its absence and the remedy are named: {gone}", lambda gone=gone: mend(environment, saved, gone))
            step("the pipeline gives what it gave", lambda: environment.call(python, "-c", LOAD, str(saved)))
        else:
            step(f"{gone} comes back", lambda gone=gone: install(environment, gone))


def works_on(environment: Environment, left: str) -> str:
    """Check that the plugin that is left is listed alone, and that all that it declares can be imported."""
    said = listed(environment, left)
    environment.call(str(environment.python), "-c", IMPORT)
    return said


def mend(environment: Environment, saved: Path, gone: str) -> str:
    """Check that loading says what is missing, and follow the command that it names."""
    result = environment.run(str(environment.python), "-c", LOAD, str(saved))
    start, _, command = result.stderr.strip().partition(": pip install ")
    if not re.fullmatch(rf"StorageError: the pipeline uses .* of {gone} \S+; it is not installed", start):
        raise FailedStepError(f"load says {result.stderr}")
    install(environment, *shlex.split(command))
    return f"pip install {command}"


def check_versions(environment: Environment) -> None:
    """See that versions are independent within their bounds, and what is said outside of them."""
    made, wheels, step = environment.folder / "made", environment.folder / "wheels", environment.step
    name, following = "diffbio-alignment", "9.9"
    build_version(made, wheels, name, following)
    wanted = f"{name}=={following}"
    if step(f"{name} {following} installs", lambda: install(environment, wanted)):
        step("it works with the others", lambda: says(environment, f"{name} {following}", *NAMES))
        for saved in sorted(environment.folder.glob(f"*{name}*.npz")):
            run = (str(environment.python), "-c", LOAD, str(saved.with_suffix("")))
            step("it loads what was saved with the version before", lambda run=run: environment.call(*run))
    build_plugin(made, wheels, "diffbio-tomorrow", api=99, needs="diffbio-core>=0.1")
    install(environment, "diffbio-tomorrow")
    sentence = (
        "plugin 'diffbio_tomorrow' of diffbio-tomorrow 9.9: it is written for plugin API 99, this diffbio-core has"
    )
    remedy = ": pip install --upgrade diffbio-core; it is left out"
    step("a plugin for API 99 is left out in a sentence", lambda: says(environment, sentence, remedy, *NAMES))
    environment.pip("uninstall", "diffbio-tomorrow")
    build_plugin(made, wheels, "diffbio-later", api=1, needs="diffbio-core>=99")
    step("a plugin for core 99 is refused by the installer", lambda: refused(environment, "diffbio-later"))


def says(environment: Environment, *wanted: str) -> None:
    """Check that listing the operators goes well, and says all of these."""
    result = environment.run(str(environment.python.parent / "diffbio"), "operators")
    printed = result.stdout + result.stderr
    if result.returncode or [text for text in wanted if text not in printed]:
        raise FailedStepError(f"diffbio operators exits {result.returncode} and says {printed}")


def refused(environment: Environment, name: str) -> None:
    """Check that the installer names core as the reason not to install a distribution."""
    try:
        install(environment, name)
    except FailedStepError as failure:
        if "diffbio-core>=99" in str(failure):
            return
        raise
    raise FailedStepError(f"{name} is installed")


def check_other_diffbio(environment: Environment) -> None:
    """See that the command names another project that took our name, and that what it advises helps."""
    step = environment.step
    build_other_diffbio(environment.folder / "made", environment.folder / "wheels")
    step("another project called diffbio installs", lambda: install(environment, "--no-index", "diffbio==9.9"))
    step("the command names it, and what to do", lambda: advised(environment))
    step("that helps", lambda: listed(environment, *NAMES))


def advised(environment: Environment) -> str:
    """Check that the command says one sentence, do what it says, and return that."""
    result = environment.run(str(environment.python.parent / "diffbio"), "operators")
    said = result.stderr.strip()
    if result.returncode != 1 or "\n" in said or " of diffbio 9.9, another project, hides " not in said:
        raise FailedStepError(f"diffbio operators exits {result.returncode} and says {said}")
    remedy = said.rpartition(": ")[2]
    for command in remedy.split(" && "):
        _, verb, *arguments = command.split()
        if verb == "install":
            install(environment, *arguments)
        else:
            environment.pip(verb, *arguments)
    return remedy


if __name__ == "__main__":
    sys.exit(main())
