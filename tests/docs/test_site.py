"""The site without building it: every page has its place, every operator and every public name has a page."""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from diffbio.core.registry import registry

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_path = list(sys.path)
sys.path[:0] = [str(DOCS / "site"), str(DOCS)]
import api  # noqa: E402 - the path is set above
import compared  # noqa: E402 - the path is set above
import docstrings  # noqa: E402 - the path is set above
import navigation  # noqa: E402 - the path is set above
import operators  # noqa: E402 - the path is set above

sys.path[:] = _path

GENERATED = ["site/operators/index", "site/api/index"]


def names_of_pages():
    paths = [*ROOT.glob("*.md"), *ROOT.glob("packages/*/*.md"), *DOCS.glob("**/*.md"), ROOT / "benchmarks/README.md"]
    return [path.relative_to(ROOT).with_suffix("").as_posix() for path in paths]


@pytest.fixture(scope="module")
def of_operators():
    return operators.pages()


@pytest.fixture(scope="module")
def of_api():
    return api.pages(api.source())


def test_every_page_has_one_place_on_the_site():
    known = [*names_of_pages(), *GENERATED]
    listed = [
        name for page in navigation.TREES for below in navigation.listed_below(page, known).values() for name in below
    ]
    assert Counter(listed) == Counter(name for name in known if name != navigation.HOME)


def test_lists_of_pages_are_toctrees():
    known = ["docs/index", "README", "docs/concepts", "packages/diffbio-core/CHANGELOG"]
    text = navigation.toctrees("docs/index", known)
    assert text.count("```{toctree}") == 2
    assert ":caption: Start\n\nTwo commands </README>\n/docs/concepts\n" in text
    assert "Changes of diffbio-core </packages/diffbio-core/CHANGELOG>" in text
    assert navigation.toctrees("docs/concepts", known) == ""


def test_every_operator_has_a_page(of_operators):
    assert set(of_operators) == {"index", *registry().operators}
    for name, text in of_operators.items():
        assert name == "index" or f"[{name}]({name}.md)" in of_operators["index"]
        assert text.startswith(f"# {'Operators' if name == 'index' else name}\n")


def test_a_page_says_what_the_operator_says(of_operators):
    text = of_operators["Scaling"]
    assert "from diffbio.operators.normalization import Scaling, ScalingConfig" in text
    assert "| reads | `normalized` | `(*cells, genes)` | float |  |" in text
    assert "| `n_genes` | an integer >= 1 | required | Number of genes. |" in text
    assert "    scaled = clip((normalized - mean) / std, -max_value, max_value)" in text
    assert ">>> scaling.initialize(normalized)" in text
    assert "scanpy pp.scale" in text
    assert "## Cost\n\nTime and memory grow as" in text
    assert "- Wolf, Angerer and Theis, SCANPY, Genome Biology 2018 (`pp.scale`)." in text
    assert "[normalization in the reference](../../docs/reference/normalization.md#scaling)" in text
    assert "Trained by the registered loss `cell_type_cross_entropy`." in of_operators["CellTypeClassifier"]
    assert "Each call draws random numbers" in of_operators["DoubletScorer"]


def test_every_page_of_an_operator_is_complete(of_operators):
    lacking = {}
    for name in registry().operators:
        text = of_operators[name]
        wanted = ["in the reference](", "## Contract", "## Configuration", "## Formula and limit", "## Example"]
        missing = [part for part in wanted if part not in text]
        missing += ["a comparison"] if operators.NO_AGREEMENT in text else []
        configuration = text.partition("## Configuration")[2].partition("\n## ")[0]
        missing += re.findall(r"(?m)^\| `(\w+)` .*\|  \|$", configuration)  # a field without a meaning
        if missing:
            lacking[name] = missing
    assert lacking == {}


def test_all_that_the_pages_import_is_in_the_api(of_api):
    documented = {name for text in of_api.values() for name in re.findall(r"(?m)^:canonical: (\S+)$", text)}
    documented |= {
        f"{module}.{name}"
        for module, text in of_api.items()
        for name in re.findall(r"(?m)^:+\{py:(?:class|function|data)\} (\w+)", text)
    }
    imported = set()
    for page in [*DOCS.glob("**/*.md"), ROOT / "README.md", *ROOT.glob("packages/*/README.md")]:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            if not block.lstrip().startswith(">>>"):
                statements = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
                imported |= {f"{node.module}.{alias.name}" for node in statements for alias in node.names}
    ours = {name for name in imported if name.startswith("diffbio.") and not name.endswith(".*")}
    assert sorted(ours - documented - set(of_api)) == []


def test_all_public_names_of_a_package_are_in_the_api(of_api):
    import diffbio.losses.variant as package

    for name in package.__all__:
        assert f"{{py:function}} {name}(" in of_api["diffbio.losses.variant"]


def test_signatures_show_shapes_as_they_are_written(of_api):
    text = of_api["diffbio.operators.normalization"]
    assert "{py:function} moments(x: Float[Array, 'cells genes']) -> Moments\n" in text
    assert "{py:class} Scaling(config: ScalingConfig, *, rngs: nnx.Rngs | None = None)\n" in text
    assert "{py:method} compute(normalized: Float[Array, '*cells genes']) -> ScaledExpression\n" in text
    assert "| `max_value` | `Annotated[float, Gt(0)] \\| None` | `10.0` | Largest absolute scaled value" in text


DOCSTRING = """Do it to `x` (*cells, genes).

Args:
    x: Numbers,
        any.

Returns:
    The same: `x`.

Raises:
    DataError: There are none.

References:
    A, B, 2001.
    C, in
    D, 2002.

Example:
    >>> 1
    1
"""


def test_docstrings_become_markdown():
    text = docstrings.rendered(DOCSTRING)
    assert text.startswith("Do it to `x` (*cells, genes).\n\n:param x: Numbers, any.\n")
    assert ":returns: The same: `x`." in text
    assert ":raises DataError: There are none." in text
    assert "- A, B, 2001.\n- C, in D, 2002." in text
    assert "```pycon\n>>> 1\n1\n```" in text
    assert docstrings.fields(DOCSTRING) == {"x": "Numbers, any."}


def test_tables_of_comparisons_are_those_of_the_records():
    page = compared.PAGE.read_text(encoding="utf-8")
    assert {place[2] for place in compared.PLACE.finditer(page)} == set(compared.TABLES)
    assert compared.filled(page) == page, "run hatch run docs:compared"


def test_tools_are_known_by_whole_names():
    assert compared.tool_of("scikit-learn and SciPy") == "scikit-learn"
    assert compared.tool_of("POT 0.9.7.post1") == "POT"
    assert compared.tool_of("the potential") is None
    assert compared.Ratio("singlecell", "Harmony of 50,000 cells, over harmonypy", 0.5).command == (
        "`hatch run reference:benchmark singlecell`"
    )
