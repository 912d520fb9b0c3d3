"""`diffbio fit` and `diffbio apply`: files in, files out, figures beside them."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from diffbio.core.errors import ConfigError, DataError, RegistryError, listed
from diffbio.core.registry import Registered, registry

_Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def fit_command(
    recipe: Annotated[Path, typer.Argument(help="A recipe: TOML with steps, data and training.")],
    data: Annotated[Path, typer.Argument(help="The file or folder to train on, such as cells.h5ad.")],
    out: Annotated[Path, typer.Option(help="The folder to write the run to.")],
    seed: _Seed = 0,
) -> None:
    """Train the pipeline of RECIPE on DATA: weights, history and training curves go to OUT."""
    # the listing commands must not pay for these imports
    import jax
    import numpy as np
    from flax import nnx

    from diffbio.core import Pipeline, Recipe, save
    from diffbio.training import TrainingPlan, fit

    console = Console()
    wanted = Recipe.read(recipe)
    options = dict(wanted.training)
    labels = options.pop("data", {})
    plan = TrainingPlan.from_dict(options)
    dataset = read_dataset(data, {**wanted.data, **labels})
    key, first_key, fit_key = jax.random.split(jax.random.key(seed), 3)
    rows = _some_rows(len(dataset), plan.initialize_rows, key)
    first = dataset.take(rows)
    pipeline = Pipeline.from_recipe(wanted, rngs=nnx.Rngs(seed), data=first, sizes=_sizes(dataset.metadata))
    console.print(pipeline.describe(), highlight=False, markup=False)
    pipeline.initialize(key=first_key, **first)
    result = fit(
        pipeline,
        dataset,
        _load_loss(plan.loss),
        optimizer=plan.make_optimizer(),
        epochs=plan.epochs,
        key=fit_key,
        batch_size=plan.batch_size,
        validation=plan.validation or None,
        patience=plan.patience,
        trainable=plan.trainable,
        anchor=plan.anchor or None,
        anneal=plan.make_schedule(),
        clip_norm=plan.clip_norm,
    )
    out.mkdir(parents=True, exist_ok=True)
    save(result.pipeline, out, metadata=dataset.metadata, recipe=wanted)
    shutil.copyfile(recipe, out / "recipe.toml")
    result.history.to_csv(out / "history.csv")
    result.history.plot(out / "training.png")
    console.print(result.history.table())
    console.print(f"{len(np.atleast_1d(rows))} rows set the start; best epoch {result.best_epoch}; run in {out}")


def apply_command(
    run: Annotated[Path, typer.Argument(help="A folder that `diffbio fit` wrote.")],
    data: Annotated[Path, typer.Argument(help="The file or folder to apply it to.")],
    out: Annotated[Path, typer.Option(help="The file to write, such as annotated.h5ad.")],
    seed: _Seed = 0,
) -> None:
    """Apply the trained pipeline of RUN to DATA: results go to OUT, figures beside it."""
    import jax  # as above

    from diffbio.core import load
    from diffbio.core.storage import describe_saved
    from diffbio.training import transform

    console = Console()
    pipeline, saved = load(run), describe_saved(run)
    metadata = saved["metadata"]
    dataset = read_dataset(data, saved["recipe"].get("data", {}), trained_on=metadata)
    results = transform(pipeline, dataset, key=jax.random.key(seed))
    out.parent.mkdir(parents=True, exist_ok=True)
    write = _by_suffix("writers", out).declaration.load()
    write(out, dataset, results, metadata={**metadata, "recipe": saved["recipe"]})
    console.print(f"{len(dataset)} rows, {listed(results)}: {out}")
    for found in registry().plots.values():
        for name, figure in found.declaration.load()(dataset, results, metadata).items():
            path = out.with_name(f"{out.stem}_{name}.png")
            figure.savefig(path, dpi=150)
            console.print(f"figure: {path}")


def read_dataset(path: Path, options: Mapping[str, Any], *, trained_on: Mapping[str, Any] | None = None) -> Any:
    """Read a file with the reader that its suffix names.

    Args:
        path: The file or folder.
        options: The reader's options, from the recipe's `data` table.
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
        raise ConfigError(f"the recipe's data table has {listed(unknown)}; the reader takes {listed(known)}")
    fixed = {name: value for name, value in (trained_on or {}).items() if name in known and value is not None}
    return read(path, **{**fixed, **options})


def _by_suffix(kind: str, path: Path) -> Registered:
    found = getattr(registry(), kind)
    suffix = "/" if path.is_dir() and path.suffix != ".zarr" else path.suffix
    for entry in found.values():
        if suffix in entry.declaration.suffixes:
            return entry
    if kind == "readers" and not path.exists():
        raise DataError(f"there is no file {path}")
    known = sorted({suffix for entry in found.values() for suffix in entry.declaration.suffixes})
    raise RegistryError(f"no installed plugin has one of the {kind} for {path.name!r}; known suffixes: {listed(known)}")


def _load_loss(name: str) -> Any:
    from diffbio.core.hookspecs import load_target

    return load_target(name) if ":" in name else registry().load("losses", name)


def _some_rows(count: int, most: int, key: Any) -> Any:
    import jax
    import numpy as np

    if count <= most:
        return np.arange(count)
    return np.sort(np.asarray(jax.random.choice(key, count, (most,), replace=False)))


def _sizes(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of names of each list in the metadata: `{"classes": 10}`."""
    return {name: len(value) for name, value in metadata.items() if isinstance(value, list | tuple)}
