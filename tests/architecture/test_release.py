"""What `hatch run release:build` looks for is found: each fault, in wheels made for it."""

import zipfile

import pytest
import release
from made_projects import build_project
from release import Built

GOOD = {
    "diffbio/plugins/dock.py": "",
    "diffbio/operators/dock/__init__.py": "",
    "diffbio/operators/dock/py.typed": "",
}
METADATA = """Metadata-Version: 2.4
Name: {name}
Version: {version}
Summary: Docking.
License-Expression: {licence}
License-File: LICENSE
Requires-Python: <3.14,>=3.12
Keywords: docking
{further}
Description-Content-Type: text/markdown

# Docking
"""
FURTHER = "\n".join(
    f"Classifier: {classifier}"
    for classifier in (
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
        "Typing :: Typed",
    )
)
NEEDS_CORE = "Requires-Dist: diffbio-core<0.2,>=0.1\n"


@pytest.fixture
def built(tmp_path):
    """Return a function that lays out a package and its wheel."""

    def built(name="diffbio-dock", files=GOOD, *, further=NEEDS_CORE, licence="MIT", version="0.1.0", points=None):
        wheel = tmp_path / f"{name}.whl"
        domain = name.removeprefix("diffbio-")
        points = f"[diffbio.plugins]\n{domain} = diffbio.plugins.{domain}\n" if points is None else points
        said = METADATA.format(name=name, version=version, licence=licence, further=further + FURTHER)
        described = {
            "METADATA": said,
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "entry_points.txt": points,
            "licenses/LICENSE": (release.ROOT / "LICENSE").read_text(encoding="utf-8"),
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
            for path, text in described.items():
                archive.writestr(f"{name}-{version}.dist-info/{path}", text)
        for path, text in files.items():
            source = tmp_path / name / "src" / path
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_text(text)
        return Built(tmp_path / name, wheel, tmp_path / "none.tar.gz")

    return built


@pytest.fixture
def core(built):
    files = {"diffbio/cli/__init__.py": "", "diffbio/cli/py.typed": ""}
    points = "[console_scripts]\ndiffbio = diffbio.cli:main\n"
    return built("diffbio-core", files, further="", points=points)


def faults(check, *built):
    return "\n".join(check(built))


def test_sound_wheels_pass(built, core):
    dock = built()
    for check in release.CHECKS:
        if check not in (release.readmes_render, release.source_distributions_build_the_same_wheel):
            assert not faults(check, core, dock), check.__name__


def test_metadata_that_is_not_valid_is_named(built):
    assert "diffbio-dock" in faults(release.metadata_is_valid, built(licence="Free as in beer"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"licence": "BSD-3-Clause"}, "its licence is 'BSD-3-Clause', not 'MIT'"),
        ({"further": "Classifier: Topic :: Docking\n"}, "the index knows no classifiers ['Topic :: Docking']"),
        ({"further": "Requires-Dist: jax @ https://example.org/jax.whl\n"}, "it needs something by URL"),
    ],
)
def test_metadata_that_lacks_something_is_named(options, said, built):
    assert faults(release.metadata_is_complete, built(**options)) == f"diffbio-dock: {said}"


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ("[diffbio.plugins]\ndock = diffbio.plugins.doc\n", "names diffbio.plugins.doc, which the wheel lacks"),
        ("", "diffbio-dock: diffbio.plugins holds []"),
        (
            "[diffbio.plugins]\ndock = diffbio.plugins.dock\n[console_scripts]\ndock = diffbio.plugins.dock:main\n",
            "the commands are {'diffbio': 'diffbio-core', 'dock': 'diffbio-dock'}",
        ),
    ],
)
def test_entry_points_that_lead_nowhere_are_named(points, said, built, core):
    assert said in faults(release.entry_points_lead_somewhere, core, built(points=points))


def test_one_file_in_two_wheels_is_named(built):
    fold = built("diffbio-fold", {"diffbio/plugins/dock.py": ""})
    assert "both write ['diffbio/plugins/dock.py']" in faults(release.nobody_settles_in_a_shared_folder, built(), fold)


def test_a_package_that_hides_others_is_named(built):
    fold = built("diffbio-fold", {"diffbio/operators/__init__.py": ""})
    assert faults(release.nobody_settles_in_a_shared_folder, built(), fold) == (
        "diffbio-fold: diffbio/operators/__init__.py hides diffbio/operators/dock/__init__.py of diffbio-dock"
    )


@pytest.mark.parametrize("place", ["diffbio/py.typed", "diffbio/operators/dock/deep/py.typed"])
def test_a_marker_of_types_in_the_wrong_place_is_named(place, built):
    said = faults(release.leaves_are_typed, built(files={**GOOD, place: ""}))
    assert said == f"diffbio-dock: py.typed is amiss in ['{place.removesuffix('/py.typed')}']"


def test_tests_in_a_wheel_are_named(built):
    files = {**GOOD, "diffbio/operators/dock/test_dock.py": ""}
    assert "the wheel holds ['test_dock.py']" in faults(release.wheels_hold_the_sources_alone, built(files=files))


def test_a_file_that_the_wheel_lacks_is_named(built):
    dock = built()
    (dock.package / "src" / "diffbio" / "operators" / "dock" / "table.csv").write_text("1,2\n")
    said = faults(release.wheels_hold_the_sources_alone, dock)
    assert said == "diffbio-dock: the wheel and src differ in ['diffbio/operators/dock/table.csv']"


def test_a_source_distribution_that_builds_another_wheel_is_named(tmp_path):
    pytest.importorskip("hatchling")
    without = '[tool.hatch.build.targets.sdist]\nexclude = ["b.py"]\n'
    build_project(tmp_path, tmp_path / "dist", "diffbio-dock", {"a.py": "", "b.py": ""}, without)
    release.build(tmp_path / "diffbio-dock", tmp_path / "dist", "sdist")
    wheel, sdist = sorted((tmp_path / "dist").iterdir())
    said = faults(release.source_distributions_build_the_same_wheel, Built(tmp_path / "diffbio-dock", wheel, sdist))
    assert "gives other wheel: ['b.py', 'diffbio_dock-9.9.dist-info/RECORD']" in said
    assert "gives missing file: ['CHANGELOG.md', 'tests']" in said


@pytest.mark.parametrize("need", ["diffbio-core>=0.2", "diffbio-core>=0.1", "diffbio-core==0.0.9", "jax"])
def test_a_bound_that_does_not_fit_is_named(need, built, core):
    assert "diffbio-dock: " in faults(release.bounds_hold_core, core, built(further=f"Requires-Dist: {need}\n"))
