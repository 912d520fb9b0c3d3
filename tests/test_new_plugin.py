"""A new plugin passes its own checks as it comes, and names that would not work are refused."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import pytest
import yaml

from diffbio.cli import main
from diffbio.cli.new_plugin import LONGEST, Project, compatible, render
from diffbio.core import __version__
from diffbio.core.errors import ConfigError

ROOT = Path(__file__).parents[1]

pytest_plugins = "pytester"


@pytest.fixture
def diffbio(monkeypatch, capsys, tmp_path):
    """Run `diffbio new-plugin` in an empty folder; return exit status and what it printed and complained about."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["diffbio", "new-plugin", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def checked(folder, *command):
    """Run a checker, a module, in a project with its own settings."""
    result = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_command_writes_a_project_and_says_what_comes_next(diffbio, tmp_path):
    status, printed, complaint = diffbio("My.Filter", "--operator", "ReadTrimmer", "--author", 'Ada "L" Müller')
    assert status == 0, complaint
    folder = tmp_path / "my-filter"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        ".github/workflows/test.yml",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "src/my_filter/__init__.py",
        "src/my_filter/examples.py",
        "src/my_filter/plugin.py",
        "src/my_filter/py.typed",
        "src/my_filter/read_trimmer.py",
        "tests/test_laws.py",
        "tests/test_read_trimmer.py",
    ]
    commands = [line.strip() for line in printed.splitlines()[1:]]
    assert commands == ["cd my-filter", 'python -m pip install -e ".[lint,test]"', "pytest"]
    assert project(folder)["project"]["authors"] == [{"name": 'Ada "L" Müller'}]
    assert re.search(r"^Copyright \(c\) \d{4} Ada \"L\" Müller$", (folder / "LICENSE").read_text("utf-8"), re.MULTILINE)
    assert not [path for path in folder.rglob("*") if path.is_file() and "@@" in path.read_text(encoding="utf-8")]


def test_the_metadata_fit_the_kernel_that_made_it(tmp_path):
    render(Project(distribution="my-filter"), tmp_path, year=2026)
    made = project(tmp_path)["project"]
    core = tomllib.loads((ROOT / "packages/diffbio-core/pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert made["requires-python"] == core["requires-python"]
    pythons = [line.rpartition(" ")[2] for line in core["classifiers"] if re.search(r"Python :: 3\.\d+", line)]
    assert [f"Programming Language :: Python :: {python}" in made["classifiers"] for python in pythons] == [True, True]
    workflow = yaml.safe_load((tmp_path / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    assert workflow["strategy"]["matrix"]["python"] == pythons
    assert [step["run"] for step in workflow["steps"] if "run" in step][1:] == [
        "ruff format --check .",
        "ruff check .",
        "pyright",
        "pytest",
    ]
    assert f"diffbio-core{compatible(__version__)}" in made["dependencies"]
    assert made["entry-points"]["diffbio.plugins"] == {"my-filter": "my_filter.plugin"}
    assert made["authors"] == [{"name": "The my-filter developers"}]
    assert "Copyright (c) 2026 The my-filter developers" in (tmp_path / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("distribution", "operator"),
    [("my-filter", "DepthFilter"), ("x", "U"), ("n" * LONGEST, "Operat" + "o" * (LONGEST - 6))],
    ids=["usual", "shortest", "longest"],
)
def test_it_is_formatted_and_linted_whatever_the_names(tmp_path, distribution, operator):
    render(Project(distribution=distribution, operator=operator), tmp_path, year=2026)
    checked(tmp_path, "ruff", "format", "--check", "--no-cache", ".")
    checked(tmp_path, "ruff", "check", "--no-cache", ".")


def test_its_tests_and_the_examples_of_its_pages_pass(tmp_path, install, pytester):
    assert jax.__version__  # what pytester imports first, it forgets again: jax can't be imported twice
    render(Project(distribution="my-filter"), tmp_path, year=2026)
    install("my-filter", "my_filter.plugin", sources=[tmp_path / "src"])
    options = ("-c", tmp_path / "pyproject.toml", "--rootdir", tmp_path, "-p", "no:cacheprovider", "-n", "0", "-v")
    # all laws, and its types, are checked where it is installed: tests/plugin_install.py
    result = pytester.runpytest_inprocess(*options, tmp_path, "-k", "not test_laws or config_round_trip")
    outcomes = result.parseoutcomes()
    assert outcomes.pop("deselected") > 10
    assert outcomes == {"passed": 6}
    result.stdout.fnmatch_lines_random(
        [
            "*my_filter.depth_filter.DepthFilter PASSED*",
            "*my_filter.depth_filter.depth_weights PASSED*",
            "*test_laws?DepthFilter-config_round_trip? PASSED*",
            "*test_in_the_limit_it_is_the_hard_rule PASSED*",
            "*test_a_pipeline_has_gradients_in_parameters_and_data PASSED*",
            "*README.md::README.md PASSED*",
        ]
    )


def definitions(text):
    """Return what a text of Python defines, by name, without docstrings."""
    found = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for top in found.values():
        for node in ast.walk(top):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
    return {name: ast.dump(node) for name, node in found.items()}


def test_the_page_on_operators_shows_what_is_written(tmp_path):
    page = (ROOT / "docs/write-an-operator.md").read_text(encoding="utf-8")
    render(Project(distribution="my-dist"), tmp_path, year=2026)
    shown = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        shown |= definitions(block)
    for name in ("depth_filter", "examples", "plugin"):
        written = definitions((tmp_path / f"src/my_dist/{name}.py").read_text(encoding="utf-8"))
        assert written
        assert {key: shown.get(key) for key in written} == written
    for path in re.findall(r"(?:src|tests|\.github)/[\w./]+\.\w+", page.partition("## ")[0]):
        assert (tmp_path / path).is_file(), path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my filter"], "'my filter' can't be the name of a distribution; take letters and digits, with . _ or -"),
        (["filter-"], "'filter-' can't be the name of a distribution"),
        (["diffbio"], "'diffbio' is reserved: names that begin with diffbio- are those of this project's own packages"),
        (["Diffbio_Filter"], "'Diffbio_Filter' is reserved"),
        (["a" * 41], f"has 41 characters; take a name of at most {LONGEST}"),
        (["JAX"], "a distribution jax is installed here, version"),
        (["3d-genome"], "would be imported as '3d_genome', which Python can't import"),
        (["lambda"], "would be imported as 'lambda', which Python can't import"),
        (["email"], "which is a module of Python's standard library"),
        (["yaml"], "'yaml' would be imported as 'yaml', which is a module already, in "),
        (["my-filter", "--operator", "depth_filter"], "'depth_filter' can't be the name of an operator; take a class"),
        (["my-filter", "--operator", "ValueError"], "'ValueError' can't be the name of an operator"),
        (["my-filter", "--operator", "A" * 41], f"has 41 characters; take a name of at most {LONGEST}"),
        (["my-filter", "--operator", "Examples"], "'Examples' means something else in the new project"),
        (["my-filter", "--operator", "Lambda"], "'Lambda' means something else in the new project"),
        (["my-filter", "--operator", "Softness"], "'Softness' means something else in the new project"),
        (["my-filter", "--operator", "PCAProjection"], "an operator PCAProjection comes with diffbio-singlecell"),
        (["my-filter", "--author", "Ada\nLovelace"], "the author is 'Ada\\nLovelace'; give a name in one line"),
        (["my-filter", "--author", " "], "the author is ' '; give a name in one line"),
    ],
)
def test_a_name_that_would_not_work_is_refused(diffbio, tmp_path, arguments, said):
    status, _, complaint = diffbio(*arguments)
    assert status == 1
    assert complaint.startswith("error:")
    assert said in complaint
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(diffbio, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    status, _, complaint = diffbio("my-filter", "--out", "full")
    assert status == 1
    assert "the folder full is not empty; name one that is, or that is not there yet, with --out" in complaint
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    status, _, complaint = diffbio("my-filter", "--out", "full/mine.txt")
    assert status == 1
    assert "full/mine.txt can't be written: " in complaint
    status, printed, _ = diffbio("my-filter", "--out", "empty")
    assert status == 0
    assert "cd empty" in printed


def test_a_name_is_made_the_usual_one():
    assert Project(distribution="My__Own.Filter").distribution == "my-own-filter"
    with pytest.raises(ConfigError, match="is installed here"):
        Project(distribution="Ml_Dtypes")
