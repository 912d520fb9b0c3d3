"""`diffbio fit` and `diffbio apply`: files in, files out, figures beside them."""

from __future__ import annotations

import inspect
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from diffbio.core.errors import ConfigError, DataError, MissingExtraError, RegistryError, listed
from diffbio.core.registry import Registered, registry

_Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def fit_command(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe: a TOML file, or the name of a registered one.")],
    data: Annotated[Path, typer.Argument(help="The file or folder to train on, such as cells.h5ad.")],
    out: Annotated[Path, typer.Option(help="The folder to write the run to.")],
    seed: _Seed = 0,
) -> None:
    """Train the pipeline of RECIPE on DATA: weights, history and training curves go to OUT.

    What operators learned goes to OUT/exports in forms that other tools read, where there is one.

    Further options go to the reader of DATA, such as --reference genome.fa for reads, before those of the recipe.
    """
    # the listing commands must not pay for these imports
    import jax

    from diffbio.core import Recipe, save
    from diffbio.core.exports import export
    from diffbio.training import data_options, prepare

    console = Console()
    named = recipe in registry().recipes and not Path(recipe).exists()
    wanted = registry().load("recipes", recipe)() if named else Recipe.read(recipe)
    dataset = read_dataset(data, {**data_options(wanted), **reader_options(context.args)})
    pipeline, plan, loss, key = prepare(wanted, dataset, key=jax.random.key(seed))
    console.print(pipeline.describe(), highlight=False, markup=False, soft_wrap=True)
    if plan.anchored:
        selection = plan.select(pipeline, dataset, loss, key=key)
        result = selection.fit
        held = "frozen" if selection.strength is None else f"anchored with strength {selection.strength:g}"
        console.print(f"{listed(plan.anchored)}: {held}, as chosen on inner splits")
    else:
        result = plan.fit(pipeline, dataset, loss, key=key)
    out.mkdir(parents=True, exist_ok=True)
    save(result.pipeline, out, metadata=dataset.metadata, recipe=wanted)
    if not named:
        shutil.copyfile(recipe, out / "recipe.toml")
    result.history.to_csv(out / "history.csv")
    try:
        result.history.plot(out / "training.png")
    except MissingExtraError as error:
        console.print(f"no training.png: {error}", markup=False)
    console.print(result.history.table())
    norms = result.history.gradient_norms()
    console.print(result.pipeline.describe(norms), highlight=False, markup=False, soft_wrap=True)
    for path in export(result.pipeline, out / "exports", metadata=dataset.metadata):
        console.print(f"for other tools: {path}", markup=False)
    console.print(f"best epoch {result.best_epoch}; the run is in {out}", markup=False)


def apply_command(  # noqa: PLR0917 - typer makes a command line of them
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A folder that `diffbio fit` wrote.")],
    data: Annotated[Path, typer.Argument(help="The file or folder to apply it to.")],
    out: Annotated[Path, typer.Option(help="The file to write, such as annotated.h5ad.")],
    everything: Annotated[bool, typer.Option("--all", help="Also write what is only a step on the way.")] = False,
    seed: _Seed = 0,
) -> None:
    """Apply the trained pipeline of RUN to DATA: results go to OUT, figures beside it.

    Arrays as large as the data that only a later step reads (scaled expression, say) are left out, unless --all.
    Further options go to the reader of DATA, such as --reference genome.fa for reads, before those of the recipe.
    """
    import jax  # as above
    import numpy as np

    from diffbio.core import load
    from diffbio.core.exports import scalar_parameters
    from diffbio.core.storage import describe_saved
    from diffbio.training import transform

    console = Console()
    pipeline, saved = load(run), describe_saved(run)
    metadata = saved["metadata"]
    options = {**saved["recipe"].get("data", {}), **reader_options(context.args)}
    dataset = read_dataset(data, options, trained_on=metadata)
    writer = _by_suffix("writers", out).declaration
    results = transform(pipeline, dataset, key=jax.random.key(seed), keys=None if everything else writer.reads)
    out.parent.mkdir(parents=True, exist_ok=True)
    write = writer.load()
    if not everything:
        results = _without_intermediates(pipeline, dataset.take(np.arange(1)), results)
    made_by = {"recipe": saved["recipe"], "parameters": scalar_parameters(pipeline)}
    write(out, dataset, results, metadata={**metadata, **made_by})
    console.print(f"{len(dataset)} rows, {listed(results)}: {out}", markup=False)
    for plot, found in registry().plots.items():
        try:
            for name, figure in registry().load("plots", plot)(dataset, results, metadata).items():
                path = out.with_name(f"{out.stem}_{name}.png")
                figure.savefig(path, dpi=150)
                console.print(f"figure: {path}", markup=False)
        except Exception as error:  # noqa: BLE001 - the results are written; one plugin's figure takes no other down
            said = f"no figure of {plot!r} ({found.distribution} {found.version}): {type(error).__name__}: {error}"
            Console(stderr=True).print(said, markup=False, highlight=False, soft_wrap=True)


def _without_intermediates(pipeline: Any, row: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a later step reads and what has as many columns as the data; `row` is one row of it."""
    width = max(array.size for array in row.values())
    read = {key for step in pipeline.steps for key in step.contract.reads}
    return {key: array for key, array in results.items() if key not in read or array.ndim < 2 or array[0].size < width}


def reader_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options of a reader that stand on the command line, as `--name value` or `--name=value`.

    Values are numbers, true or false, or lists where they read as such in TOML, and otherwise text.

    Raises:
        ConfigError: An argument is no option, or an option has no value.

    Example:
        >>> reader_options(["--reference", "genome.fa", "--min-depth=3"])
        {'reference': 'genome.fa', 'min_depth': 3}
    """
    options: dict[str, Any] = {}
    waiting = list(arguments)
    while waiting:
        name, separator, value = waiting.pop(0).partition("=")
        if not name.startswith("--"):
            raise ConfigError(f"{name!r} is one argument too many; options of the reader are given as --name value")
        if not separator:
            if not waiting:
                raise ConfigError(f"the option {name} has no value; give it as {name} value")
            value = waiting.pop(0)
        options[name.removeprefix("--").replace("-", "_")] = _value(value)
    return options


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def read_dataset(path: Path, options: Mapping[str, Any], *, trained_on: Mapping[str, Any] | None = None) -> Any:
    """Read a file with the reader that its suffix names.

    Args:
        path: The file or folder.
        options: The reader's options, from the recipe's `data` table and the command line.
        trained_on: The metadata of the dataset that a pipeline was trained on; what the reader has an option for
            (gene and class names) is fixed to it.

    Raises:
        RegistryError: No reader takes the suffix.
        ConfigError: The reader has no such option.
    """
    read = _by_suffix("readers", path).declaration.load()
    known = [name for name in inspect.signature(read).parameters if name != "path"]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(f"the reader of {path.name} has no option {listed(unknown)}; it takes {listed(known)}")
    fixed = {name: value for name, value in (trained_on or {}).items() if name in known and value is not None}
    return read(path, **{**fixed, **options})


def _by_suffix(kind: str, path: Path) -> Registered:
    found = getattr(registry(), kind)
    name = "/" if path.is_dir() and path.suffix != ".zarr" else path.name
    fitting = [
        (len(suffix), entry)
        for entry in found.values()
        for suffix in entry.declaration.suffixes
        if name.endswith(suffix)
    ]
    if fitting:
        return max(fitting, key=lambda pair: pair[0])[1]
    if kind == "readers" and not path.exists():
        raise DataError(f"there is no file {path}")
    known = sorted({suffix for entry in found.values() for suffix in entry.declaration.suffixes})
    raise RegistryError(f"no installed plugin has one of the {kind} for {path.name!r}; known suffixes: {listed(known)}")
