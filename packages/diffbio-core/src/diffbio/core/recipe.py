"""Recipes: a pipeline as text, the same schema for a person's TOML and for what is stored beside weights.

    format = 1

    [[steps]]
    operator = "SoftKMeansClustering"        # the registered name, or "package.module:Class"
    name = "clusterer"                       # optional
    config = { n_clusters = 10 }             # sizes that the data shows (n_features) may be left out
    reads = { embeddings = "imputed_counts" }

A step with `steps` instead of `operator` is a nested pipeline. The tables `data` and `training` belong to the
command line; a pipeline carries them along.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import jax
from flax import nnx

from diffbio.core.config import OperatorConfig, required_fields
from diffbio.core.contract import Sizes, bind_sizes, contract_of
from diffbio.core.errors import ConfigError, RegistryError, listed, nearest
from diffbio.core.hookspecs import load_target
from diffbio.core.operator import Operator
from diffbio.core.registry import registry

if TYPE_CHECKING:
    from diffbio.core.pipeline import Pipeline

    PipelineT = TypeVar("PipelineT", bound=Pipeline)

FORMAT = 1
"""The version of the schema; older ones stay readable."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: an operator with its configuration and wiring, or a nested pipeline."""

    operator: str | None = None
    name: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, str] = field(default_factory=dict)
    writes: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the step that a table describes.

        Raises:
            ConfigError: An entry is unknown, or there is not exactly one of `operator` and `steps`.
        """
        _refuse_unknown("a step of a recipe", values, cls.__dataclass_fields__)
        if ("operator" in values) == ("steps" in values):
            raise ConfigError(f"a step has either 'operator' or 'steps'; this one has {listed(values)}")
        steps = tuple(cls.from_dict(step) for step in values.get("steps", ()))
        return cls(**{**values, "steps": steps})

    def to_dict(self) -> dict[str, Any]:
        """Return the table, without what is empty."""
        values = {name: getattr(self, name) for name in ("operator", "name", "config", "reads", "writes")}
        table = {name: dict(v) if isinstance(v, Mapping) else v for name, v in values.items() if v}
        return table | ({"steps": [step.to_dict() for step in self.steps]} if self.steps else {})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A pipeline as text.

    Attributes:
        steps: The steps in order.
        inputs: The data keys that are given from outside, or `None`.
        data: How the command line reads a file into arrays (reader options).
        training: How the command line trains (loss, optimizer, epochs).
    """

    steps: tuple[Step, ...]
    inputs: tuple[str, ...] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe that a table describes.

        Raises:
            ConfigError: The format is newer than this kernel knows, or an entry is unknown or missing.
        """
        _refuse_unknown("a recipe", values, {"format", *cls.__dataclass_fields__})
        if values.get("format") != FORMAT:
            raise ConfigError(
                f"the recipe has format {values.get('format')!r}; this diffbio-core reads format {FORMAT} "
                "(write 'format = 1', or upgrade with: pip install --upgrade diffbio-core)"
            )
        if not values.get("steps"):
            raise ConfigError("the recipe has no steps: write at least one [[steps]] table")
        inputs = values.get("inputs")
        return cls(
            steps=tuple(Step.from_dict(step) for step in values["steps"]),
            inputs=None if inputs is None else tuple(inputs),
            data=values.get("data", {}),
            training=values.get("training", {}),
        )

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the recipe in a TOML or JSON file.

        Raises:
            ConfigError: The file is not there, or is not valid TOML or JSON of this schema.
        """
        path = Path(path)
        if not path.is_file():
            raise ConfigError(f"there is no recipe file {path}")
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{path} is not valid {path.suffix.strip('.').upper()}: {error}") from error
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the table, without what is empty."""
        table: dict[str, Any] = {"format": FORMAT, "steps": [step.to_dict() for step in self.steps]}
        table |= {"inputs": list(self.inputs)} if self.inputs is not None else {}
        return table | {name: dict(v) for name in ("data", "training") if (v := getattr(self, name))}


def recipe_of(pipeline: Pipeline) -> Recipe:
    """Return the recipe of a pipeline."""
    steps = zip(pipeline.names, pipeline.steps, strict=True)
    return Recipe(steps=tuple(_step_of(name, step) for name, step in steps), inputs=pipeline.config.inputs)


def build(
    cls: type[PipelineT],
    recipe: Recipe | Step,
    *,
    rngs: nnx.Rngs | None,
    data: Mapping[str, Any] | None,
    sizes: Mapping[str, int],
    inputs: tuple[str, ...] | None = None,
) -> PipelineT:
    """Build the pipeline of a recipe; each step's open sizes are found from the shapes before it."""
    shapes = None if data is None else {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in data.items()}
    operators: list[Operator[Any]] = []
    for step in recipe.steps:
        if step.steps:
            operator: Operator[Any] = build(cls, step, rngs=rngs, data=shapes, sizes=sizes)
        else:
            operator_class = operator_named(step.operator or "")
            config_class = config_class_of(operator_class)
            config = _with_sizes(operator_class, config_class, step, shapes or {}, sizes)
            operator = operator_class(config_class.from_dict(config), rngs=rngs)
        operator = operator.reads(**step.reads).writes(**step.writes)
        if shapes is not None:
            shapes = operator.output_spec(shapes)
        operators.append(operator)
    named = all(step.name for step in recipe.steps)
    names = tuple(str(step.name) for step in recipe.steps) if named else None
    given = recipe.inputs if isinstance(recipe, Recipe) else None
    return cls(*operators, names=names, inputs=given, rngs=rngs)


def operator_named(name: str) -> type[Operator[Any]]:
    """Return the operator class of a registered name, or of `package.module:Class`.

    Raises:
        RegistryError: It is not registered, or can't be imported.
    """
    if ":" not in name:
        return registry().load("operators", name)
    try:
        return load_target(name)
    except ImportError as error:
        raise RegistryError(f"the operator {name!r} can't be imported: {error}") from error


def name_of(operator_class: type[Operator[Any]]) -> str:
    """Return the registered name of an operator class, or `package.module:Class`."""
    known = registry().operators.get(operator_class.__name__)
    if known is not None and known.declaration.load() is operator_class:
        return operator_class.__name__
    return f"{operator_class.__module__}:{operator_class.__qualname__}"


def config_class_of(operator_class: type[Operator[Any]]) -> type[OperatorConfig]:
    """Return the configuration class that an operator class is declared with: `Operator[ItsConfig]`."""
    for base in getattr(operator_class, "__orig_bases__", ()):
        for argument in getattr(base, "__args__", ()):
            if isinstance(argument, type) and issubclass(argument, OperatorConfig):
                return argument
    raise ConfigError(f"{operator_class.__name__} does not say its configuration: derive from Operator[ItsConfig]")


def _step_of(name: str, operator: Operator[Any]) -> Step:
    reads, writes = dict(operator._read_keys), dict(operator._written_keys)  # noqa: SLF001
    if hasattr(operator, "steps"):
        nested = recipe_of(operator)  # pyright: ignore[reportArgumentType] - only pipelines have steps
        return Step(name=name, reads=reads, writes=writes, steps=nested.steps)
    optional = {field.name for field in dataclasses.fields(operator.config) if field.default is None}
    values = operator.config.to_dict().items()
    config = {key: value for key, value in values if value is not None or key not in optional}
    return Step(operator=name_of(type(operator)), name=name, config=config, reads=reads, writes=writes)


def _with_sizes(
    operator_class: type[Operator[Any]],
    config_class: type[OperatorConfig],
    step: Step,
    shapes: Mapping[str, Any],
    sizes: Mapping[str, int],
) -> dict[str, Any]:
    """Return the step's configuration with open sizes (`n_genes`) filled from the shapes of what it reads."""
    config = dict(step.config)
    found: Sizes = {}
    for port in contract_of(operator_class.compute).bound_to(step.reads, {}).inputs:
        if port.key in shapes and port.dims is not None:
            bind_sizes(port.dims, shapes[port.key].shape, found, lambda _: None)
    for name in required_fields(config_class):
        size = found.get(name.removeprefix("n_"), sizes.get(name.removeprefix("n_")))
        if name not in config and name.startswith("n_") and isinstance(size, int):
            config[name] = size
    return config


def _refuse_unknown(owner: str, values: Mapping[str, Any], known: Any) -> None:
    for name in values:
        if name not in known:
            raise ConfigError(f"{owner} has no entry {name!r}{nearest(name, known)}; it has {listed(known)}")
