"""Who imports whom, and what an import may cost."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffbio.core.registry import KINDS, registry

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(ROOT.glob("packages/*"))
CORE = ROOT / "packages" / "diffbio-core"

of_each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def module_name(path: Path) -> str:
    """Return the dotted name of a file below a `src` folder."""
    parts = path.with_suffix("").parts
    inner = parts[parts.index("src") + 1 :]
    return ".".join(inner[:-1] if inner[-1] == "__init__" else inner)


def modules_of(package: Path) -> set[str]:
    return {module_name(path) for path in package.glob("src/**/*.py")}


def imports_of(path: Path) -> Iterator[str]:
    """Yield what a file imports, at its top or inside a function, as `module` or `module.name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_of(name: str, modules: set[str]) -> bool:
    """Return whether an imported name is one of the modules, or an attribute of one."""
    return name in modules or name.rpartition(".")[0] in modules


def in_fresh_python(code: str, **variables: str) -> str:
    """Return what the code prints in an interpreter that has imported nothing."""
    environment = {**os.environ, **variables}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@of_each_package
def test_a_package_and_its_tests_import_core_and_themselves_alone(package):
    allowed = modules_of(CORE) | modules_of(package)
    for path in [*package.glob("src/**/*.py"), *package.glob("tests/**/*.py")]:
        foreign = [name for name in imports_of(path) if f"{name}.".startswith("diffbio.") and not is_of(name, allowed)]
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}; packages meet in data keys alone"


def test_datarax_is_imported_in_one_file():
    sources = [path for package in PACKAGES for path in package.glob("src/**/*.py")]
    importers = [path for path in sources if any(f"{name}.".startswith("datarax.") for name in imports_of(path))]
    assert importers == [CORE / "src/diffbio/core/operator.py"]


@of_each_package
def test_declarations_import_nothing_heavy(package):
    plugins = [name for name in modules_of(package) if re.fullmatch(r"diffbio\.plugins\.\w+", name)]
    assert len(plugins) == (package != CORE)
    code = "import importlib, sys\n"
    for plugin in plugins:
        code += f"importlib.import_module({plugin!r}).diffbio_plugin()\n"
    code += "print([m for m in ('anndata', 'datarax', 'flax', 'jax', 'matplotlib', 'numpy') if m in sys.modules])"
    assert in_fresh_python(code) == "[]"


@pytest.mark.parametrize("light", ["diffbio.core", "diffbio.core.errors", "diffbio.core.hookspecs", "diffbio.cli"])
def test_the_light_modules_of_core_import_no_jax(light):
    code = f"import sys, {light}; print([m for m in ('jax', 'flax', 'datarax', 'numpy') if m in sys.modules])"
    assert in_fresh_python(code) == "[]"


def test_soft_ops_need_jax_alone():
    code = "import sys; from diffbio.core import soft_ops; print([m for m in ('flax', 'datarax') if m in sys.modules])"
    assert in_fresh_python(code) == "[]"


def test_importing_does_no_device_work_and_turns_no_switch():
    code = """
import importlib, sys
import jax
from jax._src import xla_bridge

switches = dict(jax.config.values)
for name in NAMES:
    importlib.import_module(name)
    if xla_bridge._backends:
        sys.exit(f"importing {name} does device work")
    changed = {switch for switch, value in jax.config.values.items() if switches.get(switch, value) != value}
    if changed:
        sys.exit(f"importing {name} sets {changed}")
print("none")
"""
    names = sorted(set.union(*map(modules_of, PACKAGES)) - {"diffbio.cli.__main__"})
    assert in_fresh_python(code.replace("NAMES", repr(names))) == "none"


def test_all_that_plugins_declare_can_be_imported():
    for kind in KINDS:
        for found in getattr(registry(), kind).values():
            found.declaration.load()
            if kind == "operators":
                module, _, function = found.declaration.example.partition(":")
                assert callable(getattr(importlib.import_module(module), function))
    assert not registry().broken
    assert not registry().clashes


def test_public_names_exist():
    for package in PACKAGES:
        for init in package.glob("src/**/__init__.py"):
            module = importlib.import_module(module_name(init))
            missing = [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)]
            assert not missing, f"{module.__name__}.__all__ names {missing}"
