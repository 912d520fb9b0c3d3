"""The pipeline: operators in a row, wired by named keys; itself an operator."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import jax
from flax import nnx

from diffbio.core.config import OperatorConfig
from diffbio.core.contract import Contract, Port, Sizes
from diffbio.core.errors import DiffbioError, WiringError, listed, nearest
from diffbio.core.operator import Data, Operator
from diffbio.core.wiring import wire

if TYPE_CHECKING:
    from diffbio.core.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(OperatorConfig):
    """What a pipeline knows besides its steps.

    Attributes:
        names: The name of each step.
        inputs: The data keys that it is given from outside, or `None` to take whatever no step writes.
    """

    names: tuple[str, ...]
    inputs: tuple[str, ...] | None = None


class Pipeline(Operator[PipelineConfig]):
    """Operators applied in order, each on the keys that it reads: any step may read any earlier key.

    The wiring is checked when the pipeline is built. A pipeline is an operator: it nests, saves, vmaps, and stands
    as a stage in a datarax pipeline.

    Args:
        *steps: The operators, in order.
        names: A name for each step; by default the class names in snake case.
        inputs: The data keys that are given from outside. Where it is stated, a step that reads another key which no
            earlier step writes is an error at once.
        rngs: Source of the base key for datarax's per-record keys; by default that of the first stochastic step.

    Raises:
        WiringError: There are no steps; names repeat; a key is read before it is written; a step overwrites a key
            that it does not read; with `inputs`, a key is read that nobody gives, or given that nobody reads.

    Example:
        `Pipeline(imputer, clusterer.reads(embeddings="imputed_counts"), pseudotime)`
    """

    def __init__(
        self,
        *steps: Operator[Any],
        names: tuple[str, ...] | list[str] | None = None,
        inputs: tuple[str, ...] | list[str] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        if not steps:
            raise WiringError("a pipeline needs at least one operator: Pipeline(operator, ...)")
        for step in steps:
            if not isinstance(step, Operator):
                raise WiringError(f"a step of a pipeline is an Operator; got a {type(step).__name__}")
        names = tuple(names) if names is not None else _default_names(steps)
        if len(names) != len(steps) or len(set(names)) != len(names):
            raise WiringError(f"{len(steps)} steps need as many different names; got {listed(names)}")
        given = tuple(inputs) if inputs is not None else None
        contract = wire([(name, step.contract) for name, step in zip(names, steps, strict=True)], given)
        drawing = [step for step in steps if step.signature.takes_key]
        if drawing and rngs is None:
            rngs = nnx.Rngs(drawing[0]._base_key[...])  # noqa: SLF001 - datarax's own slot
        self._wired = nnx.static(contract)
        super().__init__(PipelineConfig(names=names, inputs=given), rngs=rngs)
        self.steps = nnx.List(steps)

    @property
    def signature(self) -> Contract:
        """The keys that come from outside, and all keys that the steps write."""
        return self._wired

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the steps, in order."""
        return self.config.names

    def __getitem__(self, name: str) -> Operator[Any]:
        """Return the step of that name."""
        if name not in self.names:
            raise WiringError(f"no step is called {name!r}{nearest(name, self.names)}; steps: {listed(self.names)}")
        return self.steps[self.names.index(name)]

    def compute(self, *, key: jax.Array | None = None, **inputs: jax.Array) -> dict[str, Any]:
        """Return all that the steps write, from the keys that come from outside."""
        data: dict[str, Any] = inputs
        for index, (name, step) in enumerate(zip(self.names, self.steps, strict=True)):
            with _naming(name):
                data, _, _ = step.apply(data, {}, None, self.step_key(index, key))
        return {port.parameter: data[port.parameter] for port in self.signature.outputs}

    def step_key(self, index: int, key: jax.Array | None) -> jax.Array | None:
        """Return the key that a step is given when the pipeline is given `key`; None for a step that draws nothing."""
        if key is None or not self.steps[index].signature.takes_key:
            return None
        return jax.random.fold_in(key, index)

    def initialize(self, *, key: jax.Array | None = None, **data: Any) -> None:
        """Initialize the steps in order, each on what the earlier ones give.

        Args:
            key: A random key, needed if a step draws.
            **data: The named arrays; more than the pipeline reads is fine.
        """
        last = len(self.steps) - 1
        for index, (name, step) in enumerate(zip(self.names, self.steps, strict=True)):
            step_key = None if key is None else jax.random.fold_in(key, index)
            with _naming(name):
                step.initialize_from(data, key=step_key)
                if index < last:
                    data, _, _ = step.apply(data, {}, None, self.step_key(index, step_key))

    def check(self, data: Data) -> dict[str, Any]:
        """Return shape and dtype of every key after the pipeline, without computing anything.

        Args:
            data: Named arrays, or a `jax.ShapeDtypeStruct` for each key.

        Raises:
            MissingKeyError: A key is missing.
            ContractError: An array does not fit a step; the error's note names the step.
        """
        return self.output_spec(jax.tree.map(_shape_of, dict(data)))

    def describe(self, gradient_norms: Mapping[str, float] | None = None) -> str:
        """Return a table of the steps: name, operator, keys read and written, number of parameters.

        Args:
            gradient_norms: By step, a further column: the norm of a loss's gradient in its parameters, such as
                `History.gradient_norms` has it. A step that is not named gets a dash.
        """
        rows = [["step", "operator", "reads", "writes", "parameters"]]
        for name, step in zip(self.names, self.steps, strict=True):
            count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(step, nnx.Param)))
            contract = step.contract
            keys = [f"{port.key}?" if port.optional else port.key for port in contract.inputs]
            rows.append([name, step.title, ", ".join(keys), ", ".join(contract.writes), f"{count:,}"])
        if gradient_norms is not None:
            norms = [f"{gradient_norms[name]:.3g}" if name in gradient_norms else "-" for name in self.names]
            rows = [[*row, norm] for row, norm in zip(rows, ["gradient", *norms], strict=True)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])

    def to_mermaid(self) -> str:
        """Return the graph of steps and keys in Mermaid's language, as GitHub and Jupyter draw it."""
        lines = ["graph LR"]
        source = dict(zip(self.signature.reads, self.signature.reads, strict=True))
        lines += [f"    {key}([{key}])" for key in source]
        for index, (name, step) in enumerate(zip(self.names, self.steps, strict=True)):
            lines.append(f"    step{index}[{name}]")
            for key in step.contract.reads:
                label = "" if source.get(key) == key else f"|{key}|"
                lines += [f"    {source[key]} -->{label} step{index}"] if key in source else []
            source |= dict.fromkeys(step.contract.writes, f"step{index}")
        for key, origin in source.items():
            if origin != key and not self._is_read_later(key, origin):
                lines.append(f"    {origin} --> {key}([{key}])")
        return "\n".join(lines)

    def to_recipe(self) -> Recipe:
        """Return the declarative form: steps, configurations and wiring, without weights."""
        from diffbio.core.recipe import (
            recipe_of,
        )  # a recipe names operators, so it needs the registry

        return recipe_of(self)

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        *,
        rngs: nnx.Rngs | None = None,
        data: Data | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> Self:
        """Build the pipeline that a recipe describes.

        Args:
            recipe: Steps, configurations and wiring.
            rngs: Source of the starting parameters.
            data: Arrays or shapes from which sizes are taken that the recipe leaves open (`n_genes` from `counts`).
            sizes: Sizes that no input shows, such as `{"classes": 10}`.

        Raises:
            RegistryError: An operator is not registered here.
            ConfigError: A configuration is wrong, or a size is neither stated nor found.
        """
        from diffbio.core.recipe import build  # as above

        return build(cls, recipe, rngs=rngs, data=data, sizes=sizes or {})

    def _check(self, port: Port, array: jax.Array, sizes: Sizes, *, output: bool = False) -> None:
        """Leave the checks to the steps: two of them may give one name of a dimension two sizes."""

    def _is_read_later(self, key: str, origin: str) -> bool:
        index = int(origin.removeprefix("step"))
        return any(key in step.contract.reads for step in list(self.steps)[index + 1 :])


def _default_names(steps: tuple[Operator[Any], ...]) -> tuple[str, ...]:
    names: list[str] = []
    for step in steps:
        snake = snake_case(step.title)
        count = sum(name == snake or re.fullmatch(rf"{snake}_\d+", name) is not None for name in names)
        names.append(f"{snake}_{count + 1}" if count else snake)
    return tuple(names)


def snake_case(name: str) -> str:
    """Return the name of a step or function for that of a class.

    Example:
        >>> snake_case("PCAProjection"), snake_case("CellTypeClassifier"), snake_case("UMAP")
        ('pca_projection', 'cell_type_classifier', 'umap')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


@contextlib.contextmanager
def _naming(step: str) -> Iterator[None]:
    """Let an error that a step raises tell in which step."""
    try:
        yield
    except DiffbioError as error:
        error.add_note(f"in step {step!r} of the pipeline")
        raise
