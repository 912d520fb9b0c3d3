"""Functions of an AnnData, made from registered operators: nothing about an operator is said here a second time.

The signature of a function holds the fields of the operator's configuration, less those that the data give (`n_genes`
is the number of genes), and one argument for the place of each array that the operator reads (see `places`).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

import jax
import optax
from anndata import AnnData
from flax import nnx

from diffbio.core import Operator, OperatorConfig, Pipeline
from diffbio.core.contract import Port, contract_of, inputs_of
from diffbio.core.errors import listed, nearest
from diffbio.core.pipeline import snake_case
from diffbio.core.recipe import Recipe, Step, config_class_of
from diffbio.core.registry import registry
from diffbio.singlecell.places import Cells, places_of, put
from diffbio.training import ArrayDataset, fit, transform

_PREPROCESSING = frozenset(
    {"embeddings", "gated", "gene_gate", "imputed_counts", "neighbor_indices", "normalized", "scaled", "size_factors"}
    | {"pearson_residuals", "quantile_normalized", "selected_embeddings", "tfidf", "transformed"}
)
"""An operator that writes one of these data keys, and no cell types, is preprocessing, any other a tool."""

_SIZES = {"n_classes": "classes", "n_batches": "batches"}
"""Fields of configurations that hold the number of names of labels or batches, by entry of the cells' metadata."""

_TRAINING = {"epochs": 100, "batch_size": 128, "learning_rate": 1e-3}
"""Arguments of the functions of operators that have to be trained, and their defaults."""


_SCANPY_NAMES = {"pca_projection": "pca", "diffusion_map": "diffmap", "diffusion_pseudotime": "dpt"}
"""What scanpy calls the results of functions that have another name here."""


def function_names(module: str) -> list[str]:
    """Return the names of the functions of `pp` or `tl`."""
    return sorted(_operators(module))


def function_of(name: str, module: str) -> Callable[..., Operator[Any]]:
    """Return the function `name` of `pp` or `tl`.

    Raises:
        AttributeError: No operator of single cells has that name there.
    """
    known = _operators(module)
    if name not in known:
        other = "tl" if module == "pp" else "pp"
        hint = f"; it is in {other}" if name in _operators(other) else nearest(name, known)
        raise AttributeError(f"diffbio.singlecell.{module} has no {name!r}{hint}; it has {listed(sorted(known))}")
    return _made(known[name], name, module)


def _operators(module: str) -> dict[str, str]:
    """Return the operators of this distribution that belong to the module, by the name of their function."""
    return {
        snake_case(name): name
        for name, entry in registry().operators.items()
        if entry.distribution == "diffbio-singlecell"
        and _is_preprocessing(entry.declaration.writes) == (module == "pp")
    }


def _is_preprocessing(writes: Iterable[str]) -> bool:
    return not _PREPROCESSING.isdisjoint(writes) and "cell_type_probabilities" not in writes


@functools.cache
def _made(operator_name: str, name: str, module: str) -> Callable[..., Operator[Any]]:
    operator: type[Operator[Any]] = registry().load("operators", operator_name)
    ports = _inputs(operator)
    objective = registry().find("operators", operator_name).declaration.objective
    places = places_of(ports)
    config = config_class_of(operator)
    fields = _free_fields(config, ports)

    def function(adata: AnnData, *arguments: Any, **keywords: Any) -> Operator[Any]:
        bound = signature.bind(adata, *arguments, **keywords)
        bound.apply_defaults()
        values = bound.arguments
        cells = Cells(adata, ports, {key: values[place] for key, place in places.items()})
        given = {field: values[field] for field in fields}
        pipeline = _initialized(operator_name, given, cells, seed=values["random_state"])
        if objective is not None:
            pipeline = _trained(pipeline, objective, cells, values)
        results = transform(pipeline, cells, key=jax.random.key(values["random_state"]))
        made = pipeline.steps[0]
        title = values["key_added"] or _SCANPY_NAMES.get(name, name)
        rest = put(adata, made.contract.outputs, results, title, cells.metadata.get("classes", []))
        params = made.config.to_dict() | {place: values[place] for place in places.values() if values[place]}
        params |= {name: values[name] for name in ("random_state", *(_TRAINING if objective else ()))}
        adata.uns[title] = {"params": _storable(params), "diffbio_version": version("diffbio-singlecell"), **rest}
        return made

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("adata", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=AnnData)]
    parameters += [inspect.Parameter(place, keyword, default=None, annotation=str | None) for place in places.values()]
    parameters += [field.replace(kind=keyword) for field in fields.values()]
    if objective is not None:
        parameters += [inspect.Parameter(name, keyword, default=default) for name, default in _TRAINING.items()]
    parameters += [inspect.Parameter("key_added", keyword, default=None, annotation=str | None)]
    parameters += [inspect.Parameter("random_state", keyword, default=0, annotation=int)]
    signature = inspect.Signature(parameters, return_annotation=operator)
    function.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    function.__name__ = function.__qualname__ = name
    function.__module__ = f"diffbio.singlecell.{module}"
    function.__doc__ = _documentation(operator, config, fields, places, trained=objective is not None)
    return function


def _inputs(operator: type[Operator[Any]]) -> tuple[Port, ...]:
    """Return what the operator reads, in `compute` and in `initialize`."""
    ports = {port.key: port for port in contract_of(operator.compute).inputs}
    if operator.initialize is not Operator.initialize:
        for port in inputs_of(operator.initialize):
            ports.setdefault(port.key, port)
    outputs = contract_of(operator.compute).outputs
    if any("classes" in (port.dims or ()) for port in outputs):
        # labels name the classes, and train; they can be left out where another array says how many classes there are
        counted = any("classes" in (port.dims or ()) for port in ports.values())
        labels = ports.get("labels", Port("labels", "labels", ("*cells",), ("int32",)))
        ports["labels"] = dataclasses.replace(labels, optional=counted)
    return tuple(ports.values())


def _free_fields(config: type[OperatorConfig], ports: tuple[Port, ...]) -> dict[str, inspect.Parameter]:
    """Return the fields of a configuration that the data do not give."""
    dims = {dim.lstrip("*") for port in ports for dim in port.dims or ()}
    fields = inspect.signature(config).parameters
    return {
        name: field
        for name, field in fields.items()
        if not (
            name in _SIZES or (field.default is inspect.Parameter.empty and name.startswith("n_") and name[2:] in dims)
        )
    }


def _initialized(operator_name: str, given: Mapping[str, Any], cells: Cells, *, seed: int) -> Pipeline:
    fields = inspect.signature(config_class_of(registry().load("operators", operator_name))).parameters
    config = dict(given) | {name: size for name, size in _sizes(cells).items() if name in fields}
    arrays = cells.all()
    recipe = Recipe(steps=(Step(operator=operator_name, config=config),))
    pipeline = Pipeline.from_recipe(recipe, rngs=nnx.Rngs(seed), data=arrays)
    pipeline.initialize(key=jax.random.key(seed), **arrays)
    return pipeline


def _sizes(cells: Cells) -> dict[str, int]:
    return {name: len(cells.metadata[entry]) for name, entry in _SIZES.items() if entry in cells.metadata}


def _trained(pipeline: Pipeline, objective: str, cells: Cells, values: Mapping[str, Any]) -> Pipeline:
    loss = registry().load("losses", objective)
    key, operator, data = jax.random.key(values["random_state"]), pipeline.steps[0], cells
    simulate = getattr(operator, "training_cells", None)
    if simulate is not None:  # it learns from cells that it makes of these
        key, simulation_key = jax.random.split(key)
        data = ArrayDataset(simulate(**cells.all(), key=simulation_key)._asdict())
    sizes = {name: size for name, size in _sizes(cells).items() if name in inspect.signature(loss).parameters}
    return fit(
        pipeline,
        data,
        functools.partial(loss, **sizes) if sizes else loss,
        optimizer=optax.adam(values["learning_rate"]),
        epochs=values["epochs"],
        batch_size=min(values["batch_size"], len(data)),
        key=key,
        progress=False,
    ).pipeline


def _storable(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as an `.h5ad` can hold them: what is None is left out."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in params.items() if v is not None}


def _documentation(
    operator: type[Operator[Any]],
    config: type[OperatorConfig],
    fields: Iterable[str],
    places: Mapping[str, str],
    *,
    trained: bool,
) -> str:
    about, _, _ = (inspect.getdoc(operator) or "").partition("\n\nArgs:")
    described = re.findall(r"(?m)^    (\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(config) or "")
    arguments = ["adata: The cells; changed in place, results go where `diffbio.singlecell.places` says."]
    arguments += [f"{place}: Where `{key}` is read from." for key, place in places.items()]
    arguments += [f"{name}: {text}" for name, text in described if name in fields]
    if trained:
        arguments += ["epochs: Passes over the cells.", "batch_size: Cells of one step of training."]
        arguments += ["learning_rate: Of Adam."]
    arguments += ["key_added: The name of the results; by default that of this function."]
    arguments += ["random_state: Seed of everything random."]
    lines = "\n    ".join(arguments)
    returned = "The operator, initialized and, where it has to be, trained on these cells, to apply to others."
    return f"{about}\n\nArgs:\n    {lines}\n\nReturns:\n    {returned}\n"
