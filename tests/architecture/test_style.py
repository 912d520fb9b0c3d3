"""What a reader finds in every file, as far as a machine can tell."""

import ast
import re
from pathlib import Path

import pytest

from diffbio.core.registry import registry

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
TESTS = sorted([*ROOT.glob("packages/*/tests/**/*.py"), *ROOT.glob("tests/**/*.py")])

MOST_LINES = 300
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplemented|NotImplementedError|assert True)\b")
SEEDED = {"key", "PRNGKey", "Rngs", "default_rng", "seed", "RandomState"}

of_each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-3:]))


def constant_seeds(tree: ast.AST) -> list[ast.Call]:
    """Return the calls that seed randomness with a number, other than for shapes alone."""
    shapes = {id(inner) for node in ast.walk(tree) if is_call(node, {"eval_shape"}) for inner in ast.walk(node)}
    return [
        node
        for node in ast.walk(tree)
        if is_call(node, SEEDED)
        and id(node) not in shapes
        and any(isinstance(argument, ast.Constant) and isinstance(argument.value, int) for argument in node.args)
    ]


def is_call(node: ast.AST, names: set[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)) in names


@of_each_source
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("paths", [SOURCES, TESTS], ids=["sources", "tests"])
def test_nothing_is_left_for_later(paths):
    found = []
    for path in paths:
        if path != Path(__file__):
            lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
            found += [f"{path.relative_to(ROOT)}:{number}" for number, line in lines if UNFINISHED.search(line)]
    assert not found


@of_each_source
def test_no_seed_is_a_constant(path):
    if "examples" in path.parts or path.stem == "example":
        return  # the one place for fixed data: every law sees the same
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for call in constant_seeds(ast.parse(text)):
        said = "#" in lines[call.lineno - 1] or lines[call.lineno - 2].lstrip().startswith("#")
        assert said, f"line {call.lineno}: take a key from the caller, or say in a comment why this seed is fixed"


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("jax.random.key(0)", 1),
        ("np.random.default_rng(7).normal()", 1),
        ("nnx.Rngs(params=key)", 0),
        ("jax.eval_shape(lambda: jax.random.key(0))", 0),
        ("data.key('x')", 0),
    ],
)
def test_constant_seeds_are_recognized(code, count):
    assert len(constant_seeds(ast.parse(code))) == count


@pytest.mark.parametrize("operator", list(registry().operators))
def test_each_operator_has_its_place_in_the_reference(operator):
    heading = re.compile(rf"^#+ .*\b{operator}\b", re.MULTILINE)
    pages = sorted(ROOT.glob("docs/reference/**/*.md"))
    assert any(heading.search(page.read_text(encoding="utf-8")) for page in pages), (
        f"no page of docs/reference has a heading {operator}"
    )
