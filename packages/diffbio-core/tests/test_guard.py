"""Something else called diffbio is named, with the commands that mend it, whatever it does when it is imported."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import diffbio_guard

FILES = {
    "diffbio/__init__.py": "from artifex import nothing",
    "diffbio-0.1.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: diffbio\nVersion: 0.1.9\n",
    "diffbio-0.1.9.dist-info/RECORD": "diffbio/__init__.py,,\ndiffbio-0.1.9.dist-info/METADATA,,\n",
}


def lay_out(site, files):
    for name, text in files.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder before all others on the path, where the other project is installed."""
    lay_out(tmp_path, FILES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "diffbio")  # or its specification would be taken, not that of the path
    return tmp_path


def test_a_namespace_is_no_foreign_package():
    assert diffbio_guard.foreign_package() is None


def test_the_message_names_the_file_its_distribution_and_the_commands(site):
    found = diffbio_guard.foreign_package()
    assert found == site / "diffbio" / "__init__.py"
    start, _, command = diffbio_guard.remedy(found).partition(": ")
    assert start == (
        f"{found} of diffbio 0.1.9, another project, hides the packages of diffbio and may have replaced some"
    )
    assert command.startswith("pip uninstall diffbio && pip install --force-reinstall --no-deps diffbio-")
    assert f"diffbio-core=={version('diffbio-core')}" in command


def test_a_file_of_nobody_is_to_be_renamed(site):
    (site / "diffbio-0.1.9.dist-info" / "RECORD").unlink()
    assert "belongs to no distribution: rename it" in diffbio_guard.remedy(site / "diffbio" / "__init__.py")


def test_the_command_says_it_in_one_line_and_runs_nothing_of_the_other(site):
    with pytest.raises(SystemExit, match=r"^error: .* of diffbio 0\.1\.9, another project, .*--force-reinstall"):
        diffbio_guard.main()


def test_the_command_runs_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["diffbio", "--help"])
    with pytest.raises(SystemExit) as ended:
        diffbio_guard.main()
    assert ended.value.code == 0
    assert "operators" in capsys.readouterr().out


def test_an_import_warns_once(tmp_path):
    # this one lets the others be found, as namespaces of old did
    extending = "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"
    lay_out(tmp_path, {**FILES, "diffbio/__init__.py": extending})
    ours = str(Path(diffbio_guard.__file__).parent)
    result = subprocess.run(
        [sys.executable, "-c", "import diffbio.core\nfrom diffbio.core import errors, hookimpl"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), ours])},
    )
    warnings = [line for line in result.stderr.splitlines() if "Warning" in line]
    assert len(warnings) == 1, result.stderr
    assert "ForeignPackageWarning" in warnings[0]
    assert "of diffbio 0.1.9, another project" in warnings[0]
