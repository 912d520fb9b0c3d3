"""Draw the figures of docs/tutorials: run the Python of each page, and keep the pictures that it saves.

`hatch run figures` runs all pages, `python docs/figures/tutorials.py single-cell` one. The code stands in the pages
alone, and is run as the tests of the documentation run it.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
import types
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1]
IMAGES = DOCS / "images"
LARGEST = 80_000  # bytes of a picture

sys.path.insert(0, str(DOCS.parent / "tests" / "docs"))
from test_docs import blocks_of, run  # noqa: E402 - what runs the pages in the tests


def draw(page: Path, folder: Path) -> list[Path]:
    """Run the Python of a page, and copy the pictures `tutorial-*.png` that it saves into `folder`."""
    blocks, _ = blocks_of(page.read_text(encoding="utf-8"))
    module = types.ModuleType("docs_page")  # a module, so that operators that the page defines can be found again
    sys.modules[module.__name__] = module
    back = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            for block in blocks:
                if block.language == "python" and block.not_run is None:
                    with contextlib.redirect_stdout(io.StringIO()):
                        run(block, page.name, vars(module))
        finally:
            os.chdir(back)
        drawn = sorted(Path(scratch).glob("tutorial-*.png"))
        return [Path(shutil.copy(path, folder)) for path in drawn]


def main(names: Sequence[str]) -> None:
    """Draw the figures of the pages of these names, or of all."""
    pages = sorted((DOCS / "tutorials").glob("[!R]*.md"))
    for page in [page for page in pages if not names or page.stem in names]:
        for path in draw(page, IMAGES):
            size = path.stat().st_size
            print(f"{path.relative_to(DOCS.parent)}: {size:,} bytes")
            if size > LARGEST:
                sys.exit(f"{path.name} has more than {LARGEST:,} bytes; draw less, or save it with fewer dots per inch")


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"
    main(sys.argv[1:])
