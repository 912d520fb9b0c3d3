"""The site: Sphinx over the Markdown that GitHub shows, with a page per operator and the API made at each build.

The source folder is the root of the repository, so that the links of the pages lead where they lead on GitHub.
"""

from __future__ import annotations

import logging
import re
import shlex
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from diffbio.core import __version__

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs/site"), str(ROOT / "docs")]

import api  # noqa: E402 - the path is set above
import navigation  # noqa: E402
import operators  # noqa: E402

project = "diffbio"
author = "the diffbio developers"
release = __version__

extensions = ["myst_parser", "sphinxcontrib.mermaid", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/**/*.md",
    "*.md",
    "benchmarks/README.md",
    "packages/*/README.md",
    "packages/*/CHANGELOG.md",
    "site/*/*.md",
]
exclude_patterns = [".*", "**/.*", "dist", "tests", "packages/*/src", "packages/*/tests", "**/__pycache__"]
source_suffix = {".md": "markdown"}
highlight_language = "none"  # what has no language is a formula or an output
smartquotes_action = "D"  # dashes of argument lists; quotes stay as they are written
suppress_warnings = [
    "config.cache",
    "ref.python",  # annotations have short names, which two modules may share
]

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 4  # those of GitHub
myst_fence_as_directive = ["mermaid"]

add_module_names = False
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 72
toc_object_entries = False  # the sidebar has the modules; their names are in the search

mermaid_output_format = "svg"  # drawn here: the pages ask no other host for a script
mermaid_cmd = f"{shlex.quote(sys.executable)} -m mermaidx --quiet"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "diffbio"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_extra_path = ["site/root"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def generate(app: Sphinx) -> None:
    """Write the pages of operators and of the API, those that changed."""
    logging.getLogger("griffe").setLevel(logging.ERROR)  # it warns of results without a name, which is our style
    made = {
        **{f"operators/{name}.md": text for name, text in operators.pages().items()},
        **{f"api/{name}.md": text for name, text in api.pages(api.source()).items()},
    }
    folder = ROOT / "site"
    for path in folder.glob("*/*.md"):
        if path.relative_to(folder).as_posix() not in made:
            path.unlink()
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def with_navigation(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the pages with lists of pages: they are read again, as the lists may be others."""
    return [page for page in navigation.TREES if page in env.found_docs] if added or removed else []


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Add the lists of pages to those pages that have some."""
    source[0] += navigation.toctrees(name, sorted(app.env.found_docs))


def report(app: Sphinx, error: Exception | None) -> None:
    """Print what the site holds."""
    if error is None and app.env is not None:
        pages = sorted(app.env.found_docs)
        texts = [Path(app.env.doc2path(page)).read_text(encoding="utf-8") for page in pages if page[:5] != "site/"]
        blocks = sum(len(re.findall(r"(?m)^ *```python\b", text)) for text in texts)
        of_operators = [page for page in pages if page.startswith("site/operators/") and page[-6:] != "/index"]
        print(f"{len(pages)} pages, {len(of_operators)} of operators; {blocks} blocks of Python, run by the tests")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make pages before Sphinx looks for them."""
    app.connect("builder-inited", generate)
    app.connect("env-get-outdated", with_navigation)
    app.connect("source-read", add_navigation)
    app.connect("build-finished", report)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
