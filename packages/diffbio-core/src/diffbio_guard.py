"""Says why diffbio can't be imported where another distribution has taken its name; the command `diffbio` starts here.

The name `diffbio` is a namespace: many distributions have a folder in it, and none a `diffbio/__init__.py`. A
distribution that ships one hides all others, wherever it stands on the path, and may have overwritten files of theirs.
Nothing within the namespace can be trusted to say so, which is why this module stands outside.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions, entry_points
from importlib.util import find_spec
from pathlib import Path

NAMESPACE = "diffbio"


class ForeignPackageWarning(UserWarning):
    """Something else called diffbio is installed, and hides packages of ours or replaces them."""


def foreign_package() -> Path | None:
    """Return the file of a regular package or module `diffbio`, without running it; None where there is no such file.

    Example:
        >>> foreign_package() is None
        True
    """
    spec = find_spec(NAMESPACE)
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def remedy(found: Path) -> str:
    """Return in one sentence whose file hides the namespace, and the commands that mend it.

    Args:
        found: What `foreign_package` returned.

    Example:
        >>> print(remedy(Path("notes/diffbio.py")).partition(":")[0])
        notes/diffbio.py hides the packages of diffbio and belongs to no distribution
    """
    owner = _owner(found)
    if owner is None:
        return (
            f"{found} hides the packages of {NAMESPACE} and belongs to no distribution: rename it, or take its folder "
            "off sys.path"
        )
    return (
        f"{found} of {owner.name} {owner.version}, another project, hides the packages of {NAMESPACE} and may have "
        f"replaced some: pip uninstall {owner.name} && pip install --force-reinstall --no-deps "
        f"{' '.join(_ours())}"
    )


def main() -> None:
    """Run the command line, or say in one sentence why it can't run."""
    found = foreign_package()
    if found is not None:
        sys.exit(f"error: {remedy(found)}")
    from diffbio.cli import main as command_line  # only now is it known to be ours

    command_line()


def _owner(found: Path) -> Distribution | None:
    """Return the distribution that lists the file among its own."""
    for distribution in distributions():
        for file in distribution.files or ():
            if file.name == found.name and Path(str(distribution.locate_file(file))).resolve() == found.resolve():
                return distribution
    return None


def _ours() -> list[str]:
    """Return the installed distributions with modules in the namespace, as they are installed."""
    points = [*entry_points(group="diffbio.plugins"), *entry_points(group="console_scripts", name=NAMESPACE)]
    owners = [entry.dist for entry in points if entry.dist and entry.module.startswith((f"{NAMESPACE}.", __name__))]
    return sorted({f"{owner.name}=={owner.version}" for owner in owners})
