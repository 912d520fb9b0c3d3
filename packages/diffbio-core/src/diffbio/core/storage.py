"""Saved pipelines: a folder with the recipe as JSON and the weights as safetensors.

`pipeline.json` holds the recipe, the versions of the distributions that its operators come from, and whatever the
caller adds (gene names, class names). `weights.safetensors` holds every parameter and buffer under its path in
the module. Both can be read without diffbio.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.core.errors import RegistryError, StorageError, listed
from diffbio.core.pipeline import Pipeline
from diffbio.core.recipe import Recipe, Step
from diffbio.core.registry import registry

FORMAT = 1
"""The version of the folder's layout."""

_RECIPE, _WEIGHTS = "pipeline.json", "weights.safetensors"


def save(
    pipeline: Pipeline,
    directory: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
) -> None:
    """Save a pipeline: recipe, weights, and the versions that made it.

    Args:
        pipeline: The pipeline.
        directory: The folder to write; it is made if needed, its earlier pipeline replaced.
        metadata: JSON-able facts to keep beside it, such as gene and class names.
        recipe: Whose `data` and `training` tables to keep with it.

    Raises:
        StorageError: `metadata` can't be written as JSON, or two steps share parameters.
    """
    from safetensors.numpy import save as to_bytes  # imported when used: listing operators needs no files

    _refuse_shared(pipeline)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    steps = pipeline.to_recipe()
    kept = {"data": dict(recipe.data), "training": dict(recipe.training)} if recipe else {}
    description = {
        "format": FORMAT,
        "recipe": {**steps.to_dict(), **{name: table for name, table in kept.items() if table}},
        "distributions": _distributions(steps.steps),
        "metadata": dict(metadata or {}),
    }
    try:
        text = json.dumps(description, indent=2)
    except TypeError as error:
        raise StorageError(f"the metadata can't be written as JSON: {error}") from error
    (directory / _WEIGHTS).write_bytes(to_bytes({path: _to_numpy(value) for path, value in _arrays(pipeline)}))
    (directory / _RECIPE).write_text(text + "\n", encoding="utf-8")


def load(directory: str | Path) -> Pipeline:
    """Return the pipeline that `save` wrote.

    Raises:
        StorageError: The folder holds no saved pipeline, one of a newer layout, or weights that do not fit; or an
            operator's distribution is not installed (the message gives its name, version and the command).
    """
    from safetensors.numpy import load_file  # as above

    directory = Path(directory)
    description = describe_saved(directory)
    recipe = Recipe.from_dict(description["recipe"])
    try:
        # only shapes are made here, and no key is drawn from: the weights come from the file
        pipeline = nnx.eval_shape(lambda: Pipeline.from_recipe(recipe, rngs=nnx.Rngs(0)))
    except RegistryError as error:
        raise StorageError(_who_is_missing(description, recipe.steps) or str(error)) from error
    weights = load_file(directory / _WEIGHTS)
    missing = [path for path, _ in _arrays(pipeline) if path not in weights]
    if missing:
        raise StorageError(
            f"{directory / _WEIGHTS} lacks {listed(missing[:3])}: it was saved with "
            f"{description['distributions']}, by operators that have changed since"
        )
    state = nnx.state(pipeline)
    for path, leaf in _variables(state):
        value = leaf.get_value()
        if value is not None:
            leaf.set_value(_restored(path, value, weights[path]))
    nnx.update(pipeline, state)
    return pipeline


def describe_saved(directory: str | Path) -> dict[str, Any]:
    """Return recipe, versions and metadata of a saved pipeline, without building it.

    Raises:
        StorageError: The folder holds no saved pipeline, or one of a newer layout.
    """
    path = Path(directory) / _RECIPE
    if not path.is_file():
        raise StorageError(f"{directory} holds no saved pipeline: {_RECIPE} is not there")
    description = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format") != FORMAT:
        raise StorageError(
            f"{path} has layout {description.get('format')!r}; this diffbio-core reads {FORMAT}: "
            "pip install --upgrade diffbio-core"
        )
    return description


def _variables(state: Any) -> Iterator[tuple[str, nnx.Variable[Any]]]:
    for path, leaf in nnx.to_flat_state(state):
        yield ".".join(map(str, path)), leaf


def _arrays(module: nnx.Module) -> Iterator[tuple[str, Any]]:
    for path, leaf in _variables(nnx.state(module)):
        value = leaf.get_value()
        if value is not None:
            yield path, value


def _refuse_shared(pipeline: Pipeline) -> None:
    """Raise if two steps hold the same arrays: a recipe has no words for that."""
    together = sum(path.startswith("steps.") for path, _ in _arrays(pipeline))
    if together < sum(1 for step in pipeline.steps for _ in _arrays(step)):
        raise StorageError(
            f"two of the steps {listed(pipeline.names)} share their parameters, which a saved pipeline can't say: "
            "make each step an operator of its own before saving"
        )
    for step in pipeline.steps:
        if isinstance(step, Pipeline):
            _refuse_shared(step)


def _is_key(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _to_numpy(value: Any) -> np.ndarray:
    return np.array(jax.random.key_data(value) if _is_key(value) else value, order="C")


def _restored(path: str, wanted: Any, saved: np.ndarray) -> jax.Array:
    array = jnp.asarray(saved)
    if _is_key(wanted):
        return jax.random.wrap_key_data(array)
    if array.shape != wanted.shape:
        raise StorageError(f"the saved {path} has shape {array.shape}; the operator has {wanted.shape}")
    return array.astype(wanted.dtype)


def _operators(steps: tuple[Step, ...]) -> Iterator[str]:
    for step in steps:
        if step.operator:
            yield step.operator
        yield from _operators(step.steps)


def _distributions(steps: tuple[Step, ...]) -> dict[str, dict[str, Any]]:
    """Return for each distribution its version and which of the operators it brings."""
    found: dict[str, dict[str, Any]] = {"diffbio-core": {"version": _installed("diffbio-core"), "operators": []}}
    for name in dict.fromkeys(_operators(steps)):
        known = registry().operators.get(name)
        if known is not None:
            entry = {"version": known.version, "operators": []}
            found.setdefault(known.distribution, entry)["operators"].append(name)
    return found


def _who_is_missing(description: dict[str, Any], steps: tuple[Step, ...]) -> str | None:
    known = registry().operators
    unknown = {name for name in _operators(steps) if name not in known}
    said, commands = [], []
    for distribution, entry in description["distributions"].items():
        if lost := [name for name in entry["operators"] if name in unknown]:
            have = _installed(distribution)
            remedy = f"{have} is installed, which does not bring it" if have != "none" else "it is not installed"
            said.append(f"{listed(lost)} of {distribution} {entry['version']}; {remedy}")
            commands.append(f"'{distribution}=={entry['version']}'")
    return f"the pipeline uses {', and '.join(said)}: pip install {' '.join(commands)}" if said else None


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"
