"""The house: which distribution owns which folder of the shared namespace, and that nobody else settles there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(ROOT.glob("packages/*"))

SHARED = {"", "io", "losses", "operators", "pipelines", "plots", "plugins"}
"""Folders below `diffbio` in which several distributions have theirs: one `__init__.py` there hides all others."""

OWNED = {
    "diffbio-core": {"cli", "core", "testing", "training"},
    "diffbio-alignment": {
        "io/sequence",
        "losses/alignment",
        "operators/alignment",
        "operators/preprocessing",
        "pipelines/alignment",
        "plugins/alignment",
    },
    "diffbio-singlecell": {
        "io/singlecell",
        "losses/singlecell",
        "operators/normalization",
        "operators/singlecell",
        "pipelines/singlecell",
        "plots/singlecell",
        "plugins/singlecell",
        "singlecell",
    },
    "diffbio-variant": {"io/reads", "losses/variant", "operators/variant", "pipelines/variant", "plugins/variant"},
}
"""The regular packages of each distribution. Who adds a distribution, or a package to one, says so here."""

MACHINE_PATH = re.compile(r"(?<![\w.:/<>-])/(work|tmp|root|home|Users)/")
TEXT = {
    "",
    ".cff",
    ".cfg",
    ".css",
    ".csv",
    ".html",
    ".ini",
    ".json",
    ".md",
    ".py",
    ".sh",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
}

of_each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def leaves(package: Path) -> set[str]:
    """Return the topmost regular packages of a distribution, as paths below `diffbio`."""
    base = package / "src" / "diffbio"
    regular = {init.parent.relative_to(base).as_posix() for init in base.rglob("__init__.py")}
    return {leaf for leaf in regular if not any(str(parent) in regular for parent in Path(leaf).parents)}


@of_each_package
def test_shared_folders_hold_folders_alone(package):
    base = package / "src" / "diffbio"
    for shared in SHARED:
        files = [path.name for path in (base / shared).glob("*") if path.is_file()]
        allowed = {f"{package.name.removeprefix('diffbio-')}.py"} if shared == "plugins" else set()
        assert set(files) <= allowed, f"{base / shared} is shared with other distributions: move {files}"


@of_each_package
def test_each_package_keeps_to_its_own_folders(package):
    assert package.name in OWNED, f"say in OWNED which folders {package.name} owns"
    assert leaves(package)
    assert leaves(package) <= OWNED[package.name]
    beside = {"diffbio_guard.py"} if package.name == "diffbio-core" else set()  # says what hides the namespace
    top = {path.name for path in (package / "src").glob("[!._]*")}
    assert top == {"diffbio"} | beside, "src holds the namespace alone"


def test_no_folder_has_two_owners():
    folders = [folder for owned in OWNED.values() for folder in owned]
    assert len(folders) == len(set(folders))
    for one in folders:
        assert one not in SHARED
        assert not any(other.startswith(f"{one}/") for other in folders)


@of_each_package
def test_each_leaf_says_that_it_is_typed(package):
    base = package / "src" / "diffbio"
    typed = {marker.parent.relative_to(base).as_posix() for marker in base.rglob("py.typed")}
    assert typed == leaves(package)


@of_each_package
def test_each_folder_of_a_leaf_is_a_package(package):
    base = package / "src" / "diffbio"
    for module in base.rglob("*.py"):
        folder = module.parent.relative_to(base).as_posix().removeprefix(".")
        assert folder in SHARED or (module.parent / "__init__.py").exists(), f"{module.parent} lacks an __init__.py"


def project_files() -> Iterator[Path]:
    """Yield the project's own text files: no environment, cache or build."""
    for top in ROOT.iterdir():
        if top.name.startswith(".") and top.name not in (".ci", ".gitignore", ".python-version"):
            continue
        if top.name not in ("dist", "shared", "site"):
            paths = [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
            yield from (path for path in paths if path.suffix in TEXT and ".pytest_cache" not in path.parts)


def test_no_file_holds_a_path_of_a_machine():
    found = []
    for path in project_files():
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        found += [f"{path.relative_to(ROOT)}:{number}" for number, line in lines if MACHINE_PATH.search(line)]
    assert not found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('path = "|home|me|cells.h5ad"', True),
        ("see `|tmp|run`", True),
        ("# |root|.cache", True),
        ("https:||example.org|home|page", False),
        ("docs|work|flow.md", False),
    ],
)
def test_paths_of_machines_are_recognized(line, found):
    assert bool(MACHINE_PATH.search(line.replace("|", "/"))) is found
