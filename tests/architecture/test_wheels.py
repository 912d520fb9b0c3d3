"""What users install: each wheel whole, by itself, and sharing no file with another."""

import importlib.util
import itertools
import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(ROOT.glob("packages/*"))
PLUGINS = [package for package in PACKAGES if package.name != "diffbio-core"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="building wheels needs hatchling in this environment"
)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheels")
    for package in PACKAGES:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(build, cwd=package, check=True, capture_output=True)
    built = {path.name.split("-")[0].replace("_", "-"): zipfile.ZipFile(path) for path in folder.glob("*.whl")}
    assert sorted(built) == [package.name for package in PACKAGES]
    return built


def files(wheel: zipfile.ZipFile) -> set[str]:
    """Return what the wheel puts into site-packages, beside its own metadata."""
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def described(wheel: zipfile.ZipFile, name: str) -> str:
    """Return a file of the wheel's metadata."""
    return next(wheel.read(path).decode() for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))


def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(described(wheel, "METADATA"))


def requirements(wheel: zipfile.ZipFile) -> list[Requirement]:
    return [Requirement(line) for line in metadata(wheel).get_all("Requires-Dist", [])]


of_each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
of_each_plugin = pytest.mark.parametrize("package", PLUGINS, ids=lambda path: path.name)


def test_no_two_wheels_write_one_file(wheels):
    for (one, first), (other, second) in itertools.combinations(wheels.items(), 2):
        assert not files(first) & files(second), f"{one} and {other} would overwrite each other"


@of_each_package
def test_a_wheel_holds_all_of_its_sources_and_nothing_else(package, wheels):
    source = package / "src"
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    assert files(wheels[package.name]) == wanted
    modules = [name.rpartition("/")[2] for name in wanted if name.endswith(".py")]  # templates of tests are none
    assert not [name for name in modules if name.startswith(("test_", "conftest"))]


def test_the_wheel_of_core_brings_the_template_of_plugins_hidden_files_too(wheels):
    held = files(wheels["diffbio-core"])
    for name in (".gitignore", ".github/workflows/test.yml", "src/MODULE/py.typed", "tests/test_laws.py"):
        assert f"diffbio/cli/plugin_template/{name}.template" in held


def test_the_single_cell_wheel_brings_its_recipe_and_its_cells(wheels):
    held = files(wheels["diffbio-singlecell"])
    assert "diffbio/pipelines/singlecell/annotation.toml" in held
    assert "diffbio/io/singlecell/data/pbmc68k_reduced.h5ad" in held
    assert "diffbio/io/singlecell/data/LICENSE-pbmc68k.txt" in held


@of_each_package
def test_a_wheel_says_who_may_use_it_and_where(package, wheels):
    wheel = wheels[package.name]
    said = metadata(wheel)
    assert said["License-Expression"] == "MIT"
    assert described(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert said["Requires-Python"] == "<3.14,>=3.12"
    assert {"Programming Language :: Python :: 3.12", "Typing :: Typed"} <= set(said.get_all("Classifier"))
    assert said["Summary"]
    assert re.search(r"\w", str(said.get_payload())), "the README, which the index shows, is empty"
    assert "Tag: py3-none-any" in described(wheel, "WHEEL")
    assert all(requirement.url is None for requirement in requirements(wheel))


def test_core_needs_no_other_package_of_ours(wheels):
    assert not [need.name for need in requirements(wheels["diffbio-core"]) if need.name.startswith("diffbio")]
    assert "diffbio = diffbio.cli:main" in described(wheels["diffbio-core"], "entry_points.txt")


@of_each_plugin
def test_a_plugin_needs_core_alone_in_a_range_that_holds_it(package, wheels):
    ours = [need for need in requirements(wheels[package.name]) if need.name.startswith("diffbio")]
    assert {need.name for need in ours} == {"diffbio-core"}
    core = Version(metadata(wheels["diffbio-core"])["Version"])
    for need in ours:
        assert core in need.specifier
        assert Version(f"{core.major}.{core.minor + 1}.0") not in need.specifier, "before 1.0 a minor version may break"


@of_each_plugin
def test_a_plugin_is_found_by_one_entry_point(package, wheels):
    domain = package.name.removeprefix("diffbio-")
    points = described(wheels[package.name], "entry_points.txt")
    assert points.split() == ["[diffbio.plugins]", domain, "=", f"diffbio.plugins.{domain}"]
