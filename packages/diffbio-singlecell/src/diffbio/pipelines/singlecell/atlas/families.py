"""The families of comparisons: what each needs, in the order in which an analysis runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

from diffbio.core.errors import ConfigError, listed, nearest
from diffbio.pipelines.singlecell.atlas import expression, graphs, groups, integration, models
from diffbio.pipelines.singlecell.atlas.cells import Atlas
from diffbio.pipelines.singlecell.atlas.rows import Comparison, NotRun


class Family(NamedTuple):
    """Comparisons of like operators.

    Attributes:
        compare: Makes them.
        tools: The distributions to compare with, by the module that each is imported as; the first is named.
        needs: What of the cells must be there, of `_OPTIONS`.
        by_name: Whether it runs only when it is asked for, because it takes long.
    """

    compare: Callable[[Atlas], Iterator[Comparison | NotRun]]
    tools: Mapping[str, str]
    needs: tuple[str, ...] = ()
    by_name: bool = False

    @property
    def tool(self) -> str:
        """The tool and its version."""
        name = next(iter(self.tools.values()))
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return name


_SCANPY, _SKLEARN = {"scanpy": "scanpy"}, {"sklearn": "scikit-learn"}

FAMILIES: Mapping[str, Family] = {
    "normalization": Family(expression.normalization, _SCANPY, needs=("counts",)),
    "genes": Family(expression.gene_selection, _SCANPY),
    "pca": Family(expression.principal_components, _SKLEARN),
    "neighbors": Family(graphs.neighbors, _SKLEARN),
    "umap": Family(graphs.umap, {"umap": "umap-learn"}),
    "tsne": Family(graphs.tsne, _SKLEARN, by_name=True),
    "diffusion": Family(graphs.diffusion, _SCANPY),
    "pseudotime": Family(graphs.pseudotime, _SCANPY),
    "clustering": Family(groups.clustering, _SKLEARN),
    "communities": Family(groups.communities, {"leidenalg": "leidenalg", "igraph": "igraph"}),
    "doublets": Family(groups.doublets, {"scrublet": "scrublet"}, needs=("counts",)),
    "harmony": Family(integration.harmony, {"harmonypy": "harmonypy"}, needs=("batches",)),
    "metrics": Family(integration.metrics, {"scib_metrics": "scib-metrics"}, needs=("labels",)),
    "annotation": Family(models.annotation, _SKLEARN, needs=("labels",)),
    "markers": Family(expression.markers, _SCANPY, needs=("labels",)),
    "vae": Family(models.vae, {"scvi": "scvi-tools"}, needs=("counts",), by_name=True),
}
"""By name, in the order in which they run."""

_OPTIONS = {
    "counts": "the values are no whole numbers; name raw counts with --layer NAME or --use-raw",
    "labels": "give --labels COLUMN",
    "batches": "give --batch COLUMN",
}
"""What to do about something that the cells lack."""


def chosen(names: Iterable[str]) -> list[str]:
    """Return the families of these names, in the order in which they run.

    Raises:
        ConfigError: There is no family of a name.

    Example:
        >>> chosen(["pca", "genes"])
        ['genes', 'pca']
    """
    names = list(names)
    for name in names:
        if name not in FAMILIES:
            raise ConfigError(f"there is no family {name!r}{nearest(name, FAMILIES)}; there are {listed(FAMILIES)}")
    return [name for name in FAMILIES if name in names]


def compare(name: str, cells: Atlas, *, asked: bool = True) -> list[Comparison | NotRun]:
    """Return the comparisons of one family, or why it was not run.

    A tool that is not installed, data that it needs, or a failure are reasons, and no errors.

    Args:
        name: Of the family.
        cells: The cells.
        asked: Whether the family was asked for by its name, which those that take long want.

    Raises:
        ConfigError: There is no family of this name.
    """
    family = FAMILIES[chosen([name])[0]]
    if family.by_name and not asked:
        return [NotRun("", f"it takes long: ask for it with --only {name}")]
    reason = _unmet(family, cells)
    return [NotRun("", reason)] if reason else _compared(family, cells)


def _unmet(family: Family, cells: Atlas) -> str | None:
    """Return why a family can't run, or `None`."""
    lacking = [need for need in family.needs if getattr(cells, need) is None]
    if lacking:
        return "; ".join(_OPTIONS[need] for need in lacking)
    absent = [distribution for module, distribution in family.tools.items() if find_spec(module) is None]
    return f"pip install {' '.join(absent)}" if absent else None


def _compared(family: Family, cells: Atlas) -> list[Comparison | NotRun]:
    found: list[Comparison | NotRun] = []
    try:
        for row in family.compare(cells):
            found.append(row)  # one by one: what was found before a failure stays
    except Exception as error:  # noqa: BLE001 - a tool may fail in any way, and the other families go on
        message = str(error).strip().partition("\n")[0]
        found.append(NotRun("", f"{type(error).__name__}: {message}", failed=True))
    return found
