"""Every page of the project: its Python runs and prints what it says, its links and images lead somewhere.

The ```python blocks of one page run in order in one module, in an empty folder. A ```text block right below one is
what it prints. A block that can't run here says
why, in a comment right above it: `<!-- not run: needs a cluster -->`.
"""

import doctest
import itertools
import re
import sys
import types
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("packages/*/*.md"), *ROOT.glob("docs/**/*.md")])

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,}) *(?P<language>[\w+-]*)[^\n]*$")
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*?) -->\s*$")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?(?P<target>[^\s)>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(?P<target>[^\s>]+)", re.MULTILINE)
HTML = re.compile(r"<(?:img|a|source)\b[^>]*?\b(?:src|href)=[\"'](?P<target>[^\"']+)")


class Block(NamedTuple):
    """A fenced block: where it begins, its language, its text, and why it is not run."""

    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def end(self) -> int:
        """The line of the closing fence."""
        return self.line + len(self.text.splitlines()) + 1


def blocks_of(page: str) -> tuple[list[Block], str]:
    """Return the fenced blocks of a page, and the page without them."""
    blocks: list[Block] = []
    prose: list[str] = []
    fence, start, inside = None, 0, []
    for number, line in enumerate(page.splitlines(), start=1):
        found = FENCE.match(line)
        if fence is None and found:
            fence, start, inside = found, number, []
        elif fence is not None and line.strip() == fence["ticks"]:
            above = next((text for text in reversed(prose) if text.strip()), "")
            reason = NOT_RUN.search(above)
            text = "\n".join(inner.removeprefix(fence["indent"]) for inner in inside)
            blocks.append(Block(start, fence["language"].lower(), text, reason["reason"] if reason else None))
            prose.append("```")  # a comment is right above one block only
            fence = None
        elif fence is not None:
            inside.append(line)
        else:
            prose.append(line)
    assert fence is None, f"the block of line {start} is never closed"
    return blocks, "\n".join(prose)


def run(block: Block, name: str, namespace: dict) -> None:
    """Run a block, whether it is a script or a session with `>>>`."""
    if block.text.lstrip().startswith(">>>"):
        session = doctest.DocTestParser().get_doctest(block.text, namespace, name, name, block.line)
        said: list[str] = []
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        runner.run(session, out=said.append, clear_globs=False)
        namespace.update(session.globs)
        assert not runner.failures, "".join(said)
        return
    # blank lines above, so that a traceback shows the line of the page
    exec(compile("\n" * block.line + block.text, name, "exec"), namespace)


def anchors_of(page: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page, and those set by hand."""
    _, prose = blocks_of(page)
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*\s*$", prose, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.replace("`", "").lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found) | set(re.findall(r"\b(?:id|name)=[\"']([^\"']+)", prose))


def relative_targets(page: str) -> list[str]:
    _, prose = blocks_of(page)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    targets = [found["target"] for pattern in (LINK, REFERENCE, HTML) for found in pattern.finditer(prose)]
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:|//", target)]


of_each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


@of_each_page
@pytest.mark.filterwarnings("ignore")
def test_the_python_of_a_page_runs_and_prints_what_it_says(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    blocks, _ = blocks_of(path.read_text(encoding="utf-8"))
    name = path.relative_to(ROOT).as_posix()
    page = types.ModuleType("docs_page")  # a module, so that operators that the page defines can be found again
    monkeypatch.setitem(sys.modules, page.__name__, page)
    for block, following in itertools.zip_longest(blocks, blocks[1:]):
        if block.language not in ("python", "py"):
            continue
        if block.not_run is not None:
            compile(block.text, name, "exec")  # it is Python all the same
            continue
        run(block, name, vars(page))
        printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        if following is not None and following.language == "text" and following.line <= block.end + 2:
            assert printed == following.text.splitlines(), f"{name}:{following.line} is not what the block above prints"


@of_each_page
def test_links_and_images_lead_somewhere(path):
    lost = []
    for target in relative_targets(path.read_text(encoding="utf-8")):
        there, _, anchor = urllib.parse.unquote(target).partition("#")
        destination = (path.parent / there).resolve() if there else path
        found = destination.exists() and destination.is_relative_to(ROOT)
        if found and anchor and destination.suffix == ".md":
            found = anchor in anchors_of(destination.read_text(encoding="utf-8"))
        if not found:
            lost.append(target)
    assert not lost


@of_each_page
def test_images_have_a_description(path):
    _, prose = blocks_of(path.read_text(encoding="utf-8"))
    assert not re.findall(r"!\[\s*\]\([^)]*\)", prose)
    assert not [image for image in re.findall(r"<img\b[^>]*>", prose) if not re.search(r"\balt=[\"'][^\"']", image)]


def test_the_project_has_a_page():
    assert ROOT / "README.md" in PAGES


PAGE = """# A page

```python
x = 1
```

~~~python
>>> x + 1
2
~~~

<!-- not run: needs a cluster -->
```python
launch()
```

```python
assert x == 2
```

See [this](missing.md), [that](#a-page) and ![](other.png).
"""


def test_pages_are_read_as_meant():
    blocks, _ = blocks_of(PAGE)
    assert [block.not_run for block in blocks] == [None, None, "needs a cluster", None]
    namespace: dict = {}
    run(blocks[0], "page", namespace)
    run(blocks[1], "page", namespace)
    with pytest.raises(AssertionError):
        run(blocks[3], "page", namespace)
    assert anchors_of(PAGE) == {"a-page"}
    assert relative_targets(PAGE) == ["missing.md", "#a-page", "other.png"]
