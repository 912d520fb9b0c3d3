"""Each package as its users get it: the wheel of core alone, then core and one plugin, in a clean environment.

    python tests/selective_install.py [--wheels DIST]

Takes the wheels of a folder or builds them, makes one virtual environment, and then, for core and for each plugin in
turn: installs the wheel by its metadata, lists what it brings, tests it there, and takes it away again, upon which core
is as before. Tested is what a wheel can break: registry, recipes and storage of the kernel, and that all that a plugin
declares can be imported, its operators made with the data of their examples, and that the first of them keeps all laws.
Beside core alone stands, for a while, what `diffbio new-plugin` writes: see `plugin_install.py`.
`tests/release_matrix.py` takes longer, and looks at all that an install can be.
Needs uv (which comes with hatch) and the package index. Exit status 1 if anything fails.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from environments import CORE, PLUGINS, Environment, FailedStepError, find_uv
from plugin_install import check_new_plugin

OF_KERNEL = ("test_registry.py", "test_storage.py", "test_old_saves.py", "test_pipeline.py", "test_testing_plugin.py")


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
            check_new_plugin(environment, wheels)
            for plugin in PLUGINS:
                check_plugin(environment, plugin, wheels)
    print("each package works with core alone" if not environment.failed else "something fails: see above")
    return int(environment.failed)


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
    for package in (CORE, *PLUGINS):
        environment.build(wheels, package)
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
