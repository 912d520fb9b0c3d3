"""Lets a test run the command line, see a plugin as if pip had installed it, and import the scripts beside it."""

import sys
from pathlib import Path

import pytest

from diffbio.cli import main
from diffbio.core.registry import registry

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def diffbio(monkeypatch, capsys):
    """Run a command; return its exit status, what it printed, and what it complained about."""
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments):
        registry.cache_clear()  # each command is a process of its own
        monkeypatch.setattr(sys, "argv", ["diffbio", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


@pytest.fixture
def install(tmp_path_factory, monkeypatch):
    """Return a function that puts a distribution on the path, found by its entry point as any other is."""
    site = tmp_path_factory.mktemp("site-packages")
    monkeypatch.syspath_prepend(site)
    before = set(sys.modules)

    def install(distribution, target, *, modules=None, sources=(), version="1.0"):
        """Install a distribution.

        Args:
            distribution: Its name.
            target: The module that its entry point names.
            modules: Text of modules, by name.
            sources: Folders with further modules.
            version: Its version.

        Returns:
            The folder that a Python of its own needs in PYTHONPATH, beside `sources`.
        """
        described = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {distribution}\nVersion: {version}\n")
        (described / "entry_points.txt").write_text(f"[diffbio.plugins]\n{distribution} = {target}\n")
        for name, text in (modules or {}).items():
            (site / f"{name}.py").write_text(text)
        for folder in sources:
            monkeypatch.syspath_prepend(folder)
        registry.cache_clear()
        return site

    yield install
    registry.cache_clear()
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if Path(origin).is_relative_to(site):
            del sys.modules[name]
