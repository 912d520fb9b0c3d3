"""What is published: the source distribution and the wheel of each package in `dist`, and what is checked of them.

    python tests/release.py

Builds all packages as they are in the tree, then prints a line for each check. Needs hatchling, packaging and twine,
which `hatch run release:build` brings. Exit status 1 if anything fails.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path, PurePosixPath

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
CORE = "diffbio-core"
GROUP = "diffbio.plugins"


@dataclasses.dataclass(frozen=True)
class Built:
    """A package, and the files that were built of it."""

    package: Path
    wheel: Path
    sdist: Path

    @property
    def name(self) -> str:
        """The name of the distribution."""
        return self.package.name

    @functools.cached_property
    def contents(self) -> dict[str, bytes]:
        """The files of the wheel."""
        return contents(self.wheel)

    @property
    def files(self) -> set[str]:
        """What the wheel puts into site-packages, beside its own metadata."""
        return {name for name in self.contents if ".dist-info/" not in name}

    @functools.cached_property
    def metadata(self) -> Metadata:
        """The wheel's metadata, valid."""
        return Metadata.from_email(self.described("METADATA"))

    def described(self, name: str) -> bytes:
        """Return a file of the wheel's `.dist-info`."""
        return next(content for path, content in self.contents.items() if path.endswith(f".dist-info/{name}"))

    def entry_points(self) -> EntryPoints:
        """Return what the wheel registers."""
        text = self.described("entry_points.txt").decode()
        group, points = "", []
        for line in filter(None, map(str.strip, text.splitlines())):
            if line.startswith("["):
                group = line.strip("[]")
            else:
                name, _, value = (part.strip() for part in line.partition("="))
                points.append(EntryPoint(name, value, group))
        return EntryPoints(points)

    def ours(self) -> list[Requirement]:
        """Return which packages of diffbio it needs."""
        return [need for need in self.metadata.requires_dist or [] if need.name.startswith("diffbio")]


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def build(package: Path, folder: Path, *targets: str) -> list[Path]:
    """Build targets of a package (`sdist`, `wheel`) into a folder, and return the files, sorted."""
    options = [word for target in targets for word in ("-t", target)]
    command = [sys.executable, "-m", "hatchling", "build", *options, "-d", str(folder)]
    result = subprocess.run(command, cwd=package, check=False, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{package.name} can't be built:\n{result.stdout}{result.stderr}")
    return sorted(folder.glob(f"{package.name.replace('-', '_')}-*"))


def build_all(folder: Path) -> list[Built]:
    """Build all packages into a folder that is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    built = []
    for package in PACKAGES:
        wheel, sdist = build(package, folder, "sdist", "wheel")  # `-py3` comes before `.tar`
        built.append(Built(package, wheel, sdist))
    return built


def readmes_render(built: Sequence[Built]) -> Iterator[str]:
    """The README renders as the index will show it."""
    paths = [str(path) for each in built for path in (each.wheel, each.sdist)]
    twine = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *paths]
    result = subprocess.run(twine, check=False, capture_output=True, text=True)
    if result.returncode:
        yield (result.stdout + result.stderr).strip()


def metadata_is_valid(built: Sequence[Built]) -> Iterator[str]:
    """Metadata follows the standard, the expression of the licence too."""
    for each in built:
        try:
            each.metadata  # noqa: B018 - reading it validates it
        except ExceptionGroup as group:
            yield from (f"{each.name}: {error}" for error in group.exceptions)


def metadata_is_complete(built: Sequence[Built]) -> Iterator[str]:
    """It says who may use it, on which Python, what it is, and that it is typed."""
    python = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    for each in built:
        said, known = each.metadata, classifiers()
        given = set(said.classifiers or ())
        wanted = {"Typing :: Typed", "Topic :: Scientific/Engineering :: Bio-Informatics"}
        wanted |= {f"Programming Language :: Python :: 3.{minor}" for minor in (12, 13)}
        license_file = each.described("licenses/LICENSE") if said.license_files == ["LICENSE"] else b""
        for fits, fault in (
            (said.license_expression == "MIT", f"its licence is {said.license_expression!r}, not 'MIT'"),
            (license_file == (ROOT / "LICENSE").read_bytes(), "its LICENSE is not that of the repository"),
            (
                str(said.requires_python) == str(Requirement(f"x{python}").specifier),
                "its Python is not the workspace's",
            ),
            (given <= known, f"the index knows no classifiers {sorted(given - known)}"),
            (wanted <= given, f"it lacks the classifiers {sorted(wanted - given)}"),
            (bool(said.summary and said.keywords and (said.description or "").strip()), "it does not say what it is"),
            (b"Tag: py3-none-any" in each.described("WHEEL"), "the wheel is not for any system"),
            (not [need for need in said.requires_dist or [] if need.url], "it needs something by URL"),
        ):
            if not fits:
                yield f"{each.name}: {fault}"


def classifiers() -> set[str]:
    """Return the classifiers that the index accepts."""
    from trove_classifiers import classifiers

    return set(classifiers)


def entry_points_lead_somewhere(built: Sequence[Built]) -> Iterator[str]:
    """Each entry point is in its wheel; a plugin has one in the group of diffbio, core has the command."""
    for each in built:
        points = each.entry_points()
        for point in points:
            module = point.module.replace(".", "/")
            if not {f"{module}.py", f"{module}/__init__.py"} & each.files:
                yield f"{each.name}: {point.group} names {point.value}, which the wheel lacks"
        domain = each.name.removeprefix("diffbio-")
        found = [(point.name, point.value) for point in points.select(group=GROUP)]
        if found != ([] if each.name == CORE else [(domain, f"{GROUP}.{domain}")]):
            yield f"{each.name}: {GROUP} holds {found}"
    commands = {
        point.name: each.name for each in built for point in each.entry_points().select(group="console_scripts")
    }
    if commands != {"diffbio": CORE}:
        yield f"the commands are {commands}"


def regular(files: set[str]) -> set[str]:
    """Return the topmost folders that are regular packages."""
    packages = {str(PurePosixPath(name).parent) for name in files if name.endswith("/__init__.py")}
    return {name for name in packages if not packages & set(map(str, PurePosixPath(name).parents))}


def nobody_settles_in_a_shared_folder(built: Sequence[Built]) -> Iterator[str]:
    """No two wheels write one file, and no `__init__.py` of one hides a folder of another."""
    for one, other in itertools.permutations(built, 2):
        if one.name < other.name and (both := one.files & other.files):
            yield f"{one.name} and {other.name} both write {sorted(both)}"
        for leaf in sorted(regular(one.files)):
            if hidden := sorted(name for name in other.files if name.startswith(f"{leaf}/")):
                yield f"{one.name}: {leaf}/__init__.py hides {hidden[0]} of {other.name}"


def leaves_are_typed(built: Sequence[Built]) -> Iterator[str]:
    """`py.typed` stands in each topmost regular package, and nowhere else."""
    for each in built:
        typed = {name.removesuffix("/py.typed") for name in each.files if name.endswith("/py.typed")}
        if wrong := sorted(typed ^ regular(each.files)):
            yield f"{each.name}: py.typed is amiss in {wrong}"


def wheels_hold_the_sources_alone(built: Sequence[Built]) -> Iterator[str]:
    """A wheel holds every file below `src`, and no test, cache or other file."""
    for each in built:
        source = each.package / "src"
        paths = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
        wanted = {path.as_posix() for path in paths if "__pycache__" not in path.parts}
        if wrong := sorted(wanted ^ each.files):
            yield f"{each.name}: the wheel and src differ in {wrong}"
        names = [PurePosixPath(name).name for name in sorted(each.files) if name.endswith((".py", ".pyc"))]
        if strays := [name for name in names if name.startswith(("test_", "conftest")) or name.endswith(".pyc")]:
            yield f"{each.name}: the wheel holds {strays}"


def source_distributions_build_the_same_wheel(built: Sequence[Built]) -> Iterator[str]:
    """The wheel that an installer makes of the source distribution holds the same bytes; tests come with the source."""
    for each in built:
        with tempfile.TemporaryDirectory() as name, tarfile.open(each.sdist) as archive:
            archive.extractall(name, filter="data")
            unpacked = next(Path(name).iterdir()).rename(Path(name) / each.name)
            made = contents(*build(unpacked, Path(name) / "wheel", "wheel"))
            missing = [file for file in ("CHANGELOG.md", "tests") if not (unpacked / file).exists()]
            strays = [path.name for path in unpacked.rglob("*") if path.suffix == ".pyc" or "cache" in path.name]
        differing = sorted(path for path in made.keys() | each.contents if made.get(path) != each.contents.get(path))
        for fault, found in (("other wheel", differing), ("missing file", missing), ("stray file", strays)):
            if found:
                yield f"{each.name}: the source distribution gives {fault}: {found}"


def bounds_hold_core(built: Sequence[Built]) -> Iterator[str]:
    """A plugin needs core, in a range that holds the present one and not the next that may break it."""
    core = next(each.metadata.version for each in built if each.name == CORE)
    following = Version(f"{core.major}.{core.minor + 1}.0" if core.major == 0 else f"{core.major + 1}.0.0")
    for each in built:
        if {need.name for need in each.ours()} != (set() if each.name == CORE else {CORE}):
            yield f"{each.name}: of ours it needs {[str(need) for need in each.ours()]}"
        for need in each.ours():
            if core not in need.specifier or following in need.specifier:
                yield f"{each.name}: {need} has to hold {core}, and not {following}"


CHECKS: tuple[Callable[[Sequence[Built]], Iterator[str]], ...] = (
    readmes_render,
    metadata_is_valid,
    metadata_is_complete,
    entry_points_lead_somewhere,
    nobody_settles_in_a_shared_folder,
    leaves_are_typed,
    wheels_hold_the_sources_alone,
    source_distributions_build_the_same_wheel,
    bounds_hold_core,
)


def main() -> int:
    """Build, check, and return the exit status."""
    start = time.perf_counter()
    built = build_all(ROOT / "dist")
    for each in built:
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 1024:.0f} kB" for path in (each.sdist, each.wheel))
        print(f"built  {sizes}")
    failed = False
    for check in CHECKS:
        faults = list(check(built))
        failed |= bool(faults)
        print("FAILED" if faults else "ok    ", (check.__doc__ or "").strip(), flush=True)
        for fault in faults:
            print(f"       {fault}")
    print(f"{len(built)} packages in dist" if not failed else "something fails: see above", end="")
    print(f" ({time.perf_counter() - start:.0f} s)")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
