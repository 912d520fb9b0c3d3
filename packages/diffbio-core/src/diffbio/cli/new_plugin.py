"""`diffbio new-plugin`: a project with one working operator and its tests, to be changed into one's own."""

from __future__ import annotations

import builtins
import datetime
import importlib.util
import json
import keyword
import re
import shlex
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from diffbio.core.__about__ import __version__
from diffbio.core.errors import ConfigError
from diffbio.core.hookspecs import API_VERSION
from diffbio.core.registry import registry

LONGEST = 40
"""Characters of a name; the lines of the template leave room for as many."""

_SUFFIX = ".template"
_TAKEN_FILES = ("examples", "plugin")
_TAKEN_NAMES = (
    *("Annotated", "Array", "ArrayLike", "CellWeights", "Example", "Float", "Gt", "Limit", "MeanProfile"),
    *("NamedTuple", "Operator", "OperatorConfig", "Pipeline", "Profile", "Softness"),
)
"""What the files of the template import or define themselves."""


class _Template(string.Template):
    """Text with `@@{name}`, a mark that neither Python, TOML, Markdown nor GitHub's workflows know."""

    delimiter = "@@"


@dataclass(frozen=True, kw_only=True)
class Project:
    """The names in a new project, checked.

    Args:
        distribution: What pip installs; another spelling of the same name (`My_Filter`) is made the usual one.
        operator: The class of the first operator.
        author: Who holds the rights; by default the developers of the distribution.

    Raises:
        ConfigError: A name can't be used, or is in use here.

    Example:
        >>> project = Project(distribution="My.Filter", operator="ReadTrimmer")
        >>> project.distribution, project.module, project.file
        ('my-filter', 'my_filter', 'read_trimmer')
    """

    distribution: str
    operator: str = "DepthFilter"
    author: str = ""

    def __post_init__(self) -> None:
        """Check each name."""
        object.__setattr__(self, "distribution", _distribution(self.distribution))
        object.__setattr__(self, "author", self.author or f"The {self.distribution} developers")
        _check_module(self.module, self.distribution)
        _check_operator(self.operator, self.file)
        if not self.author.isprintable() or not self.author.strip():
            raise ConfigError(f"the author is {self.author!r}; give a name in one line, such as 'Ada Lovelace'")

    @property
    def module(self) -> str:
        """The package that is imported."""
        return self.distribution.replace("-", "_")

    @property
    def file(self) -> str:
        """The module of the operator."""
        # brings JAX, which listing the commands must not
        from diffbio.core.pipeline import snake_case

        return snake_case(self.operator)


def new_plugin(
    name: Annotated[str, typer.Argument(help="The name of the new distribution, such as my-filter.")],
    operator: Annotated[str, typer.Option(help="The class of its first operator.")] = "DepthFilter",
    out: Annotated[Path | None, typer.Option(help="The folder to write to; by default NAME.")] = None,
    author: Annotated[str, typer.Option(help="Who holds the rights; by default 'The NAME developers'.")] = "",
) -> None:
    """Write a new plugin: a project that installs, with a working operator, its tests and its declaration.

    The operator weighs cells by their depth. Change it into yours; the tests say whether it keeps the laws.
    """
    project = Project(distribution=name, operator=operator, author=author)
    folder = Path(project.distribution) if out is None else out
    written = render(project, folder, year=datetime.datetime.now().astimezone().year)
    console = Console()
    console.print(f"{project.distribution}: {len(written)} files in {folder}. Next:", markup=False, soft_wrap=True)
    for command in (f"cd {shlex.quote(str(folder))}", 'python -m pip install -e ".[lint,test]"', "pytest"):
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


def render(project: Project, folder: Path, *, year: int) -> list[Path]:
    """Write the files of a new project.

    Args:
        project: Its names.
        folder: Where; it is made, or is empty.
        year: The year of the copyright.

    Returns:
        The files.

    Raises:
        ConfigError: The folder holds something, is a file, or can't be written.

    Example:
        >>> written = render(Project(distribution="my-filter"), Path("my-filter"), year=2026)  # doctest: +SKIP
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"the folder {folder} is not empty; name one that is, or that is not there yet, with --out")
    values = {
        "distribution": project.distribution,
        "module": project.module,
        "operator": project.operator,
        "file": project.file,
        "author": project.author,
        "quoted_author": json.dumps(project.author, ensure_ascii=False),  # as TOML writes it too
        "year": str(year),
        "core": compatible(__version__),
        "api": str(API_VERSION),
    }
    written = []
    try:
        for name, text in _templates(files("diffbio.cli") / "plugin_template"):
            place = name.removesuffix(_SUFFIX).replace("MODULE", project.module).replace("OPERATOR", project.file)
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_Template(text).substitute(values), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise ConfigError(f"{folder} can't be written: {error}; name another folder with --out") from error
    return written


def compatible(version: str) -> str:
    """Return the versions of diffbio-core that a plugin made for this one takes: before 1.0 a minor one may break.

    Example:
        >>> compatible("0.3.1"), compatible("2.4.0")
        ('>=0.3.1,<0.4', '>=2.4.0,<3')
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">={version},<{major + 1}" if major else f">={version},<0.{minor + 1}"


def _templates(folder: Traversable, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield path within the template, and text, of each of its files."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, f"{at}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield f"{at}{entry.name}", entry.read_text(encoding="utf-8")


def _distribution(name: str) -> str:
    """Return the name as package indexes spell it.

    Raises:
        ConfigError: It is no name, is reserved, too long, or installed here.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise ConfigError(
            f"{name!r} can't be the name of a distribution; take letters and digits, with . _ or - between them, "
            "such as my-filter"
        )
    usual = re.sub(r"[._-]+", "-", name).lower()
    if usual == "diffbio" or usual.startswith("diffbio-"):
        raise ConfigError(
            f"{name!r} is reserved: names that begin with diffbio- are those of this project's own packages; "
            "take another, such as my-filter"
        )
    if len(usual) > LONGEST:
        raise ConfigError(f"{name!r} has {len(usual)} characters; take a name of at most {LONGEST}")
    try:
        version = metadata.version(usual)
    except metadata.PackageNotFoundError:
        return usual
    raise ConfigError(f"a distribution {usual} is installed here, version {version}; uninstall it or take another name")


def _check_module(module: str, distribution: str) -> None:
    made = f"{distribution!r} would be imported as {module!r}, "
    if not module.isidentifier() or keyword.iskeyword(module):
        raise ConfigError(f"{made}which Python can't import; take a name that begins with a letter and is no keyword")
    if module in sys.stdlib_module_names:
        raise ConfigError(f"{made}which is a module of Python's standard library; take another name")
    found = importlib.util.find_spec(module)
    # a folder of that name is no package: it may be the one to write to
    if found is not None and found.origin is not None:
        raise ConfigError(f"{made}which is a module already, in {found.origin}; take another name")


def _check_operator(operator: str, file: str) -> None:
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", operator) or hasattr(builtins, operator):
        raise ConfigError(f"{operator!r} can't be the name of an operator; take a class name, such as DepthFilter")
    if len(operator) > LONGEST:
        raise ConfigError(f"{operator!r} has {len(operator)} characters; take a name of at most {LONGEST}")
    if operator in _TAKEN_NAMES or file in _TAKEN_FILES or keyword.iskeyword(file):
        raise ConfigError(f"{operator!r} means something else in the new project; take another name for the operator")
    found = registry().operators.get(operator)
    if found is not None:
        raise ConfigError(
            f"an operator {operator} comes with {found.distribution} {found.version}, and a name that two packages "
            "claim belongs to neither; give another with --operator"
        )
