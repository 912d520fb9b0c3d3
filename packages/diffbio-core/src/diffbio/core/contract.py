"""The contract of an operator, read from the signature of its `compute`.

A parameter is a data key that is read; a field of the returned `NamedTuple` is a data key that is written; their
jaxtyping annotations say dtype and shape. A dimension whose name is `x` is fixed to the configuration's field
`n_x` where that exists; any other name must have one size throughout a call. `*cells` stands for
any number of leading axes.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

from diffbio.core.errors import ContractError

Sizes = dict[str, int | tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Port:
    """One array that an operator reads or writes.

    Attributes:
        parameter: The name in the operator's signature or result.
        key: The data key that it is bound to; the same name unless `reads` or `writes` changed it.
        dims: The names or sizes of its axes, such as `("*cells", "genes")`; `None` when unknown.
        dtypes: The names of the dtypes that are taken; empty for any.
        optional: Whether the operator works without it.
    """

    parameter: str
    key: str
    dims: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] = ()
    optional: bool = False

    def bound_to(self, keys: Mapping[str, str]) -> Port:
        """Return the port under the data key that `keys` gives for its parameter."""
        return dataclasses.replace(self, key=keys.get(self.parameter, self.key))

    def wanted(self, fixed: Callable[[str], int | None]) -> str:
        """Return the wanted shape in words: `(cells, features=50)`."""
        if self.dims is None:
            return "any shape"
        sizes = {dim: fixed(dim) for dim in self.dims}
        named = [dim if sizes[dim] is None else f"{dim}={sizes[dim]}" for dim in self.dims]
        return f"({', '.join(named)}{',' if len(named) == 1 else ''})"

    def kind(self) -> str:
        """Return the wanted dtype in words."""
        if not self.dtypes:
            return "any dtype"
        for kind in ("float", "int", "bool", "complex"):
            if any(name.startswith(kind) for name in self.dtypes):
                return kind
        return self.dtypes[0]


@dataclasses.dataclass(frozen=True)
class Contract:
    """What an operator reads and writes, and whether it draws random numbers."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    takes_key: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The data keys that the operator reads."""
        return tuple(port.key for port in self.inputs)

    @property
    def writes(self) -> tuple[str, ...]:
        """The data keys that the operator writes."""
        return tuple(port.key for port in self.outputs)

    def bound_to(self, reads: Mapping[str, str], writes: Mapping[str, str]) -> Contract:
        """Return the contract with its parameters bound to other data keys."""
        return dataclasses.replace(
            self,
            inputs=tuple(port.bound_to(reads) for port in self.inputs),
            outputs=tuple(port.bound_to(writes) for port in self.outputs),
        )


@functools.cache
def contract_of(compute: Callable[..., Any]) -> Contract:
    """Return the contract that the signature of `compute` declares.

    Raises:
        ContractError: The signature can't be a contract: a parameter without a jaxtyping annotation, or a result
            that is no NamedTuple.
    """
    key = inspect.signature(compute).parameters.get("key")
    if key is not None and key.kind is not inspect.Parameter.KEYWORD_ONLY:
        raise ContractError(f"{compute.__qualname__}: make 'key' keyword-only (write '*, key')")
    result = _resolved(compute).get("return")
    if not (isinstance(result, type) and issubclass(result, tuple) and hasattr(result, "_fields")):
        raise ContractError(
            f"{compute.__qualname__} returns {result!r}; annotate it with a NamedTuple whose fields "
            "are the data keys that it writes"
        )
    arrays = _resolved(result)
    outputs = [_port_of(name, arrays[name], optional=False) for name in result._fields]  # type: ignore[attr-defined]
    return Contract(inputs_of(compute), tuple(outputs), takes_key=key is not None)


def inputs_of(method: Callable[..., Any]) -> tuple[Port, ...]:
    """Return the arrays that a method of an operator (`compute`, `initialize`) reads.

    Raises:
        ContractError: A parameter has no jaxtyping annotation.
    """
    hints = _resolved(method)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return tuple(_port(method, p, hints.get(p.name)) for p in parameters if p.name != "key")


def _resolved(annotated: Any) -> dict[str, Any]:
    try:
        return get_type_hints(annotated)
    except NameError as error:
        raise ContractError(
            f"the annotations of {annotated.__qualname__} can't be resolved ({error}): import the name in its "
            "module, or leave out 'from __future__ import annotations' where classes are made in a function"
        ) from error


def _port(compute: Callable[..., Any], parameter: inspect.Parameter, hint: Any) -> Port:
    if hint is None:
        raise ContractError(
            f"{compute.__qualname__}: annotate {parameter.name!r} with its dtype and shape, such as "
            'Float[Array, "cells genes"]'
        )
    return _port_of(parameter.name, hint, optional=parameter.default is None)


def _port_of(name: str, hint: Any, *, optional: bool) -> Port:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(option for option in get_args(hint) if option is not type(None))
    dim_str = getattr(hint, "dim_str", None)
    if dim_str is None:
        return Port(name, name, optional=optional)
    dtypes = tuple(hint.dtypes) if isinstance(hint.dtypes, list | tuple) else ()
    return Port(name, name, tuple(dim_str.split()), dtypes, optional)


def as_array(owner: str, port: Port, value: Any) -> jax.Array:
    """Return `value` as a JAX array.

    Raises:
        ContractError: `value` is no array.
    """
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return jnp.asarray(value)
    raise ContractError(
        f"{owner}: {port.key!r} is a {type(value).__name__}; wanted an array (convert it with jnp.asarray)"
    )


def check_array(owner: str, port: Port, array: jax.Array, sizes: Sizes, fixed: Callable[[str], int | None]) -> None:
    """Check dtype and shape against the annotation, and note the sizes of named dimensions in `sizes`.

    Args:
        owner: The operator's name, for messages.
        port: What is wanted.
        array: What is given; only its dtype and shape are looked at.
        sizes: The sizes that the names have in this call; filled as names are met.
        fixed: Gives the size that the operator's configuration fixes for a name, or `None`.

    Raises:
        ContractError: Wrong dtype, rank or size.
    """
    if port.dtypes and str(array.dtype) not in port.dtypes:
        remedy = {"float": "jnp.float32", "int": "jnp.int32", "bool": "bool"}.get(port.kind())
        advice = f"; convert it with .astype({remedy})" if remedy else ""
        raise ContractError(f"{owner}: {port.key!r} has dtype {array.dtype}; wanted {port.kind()}{advice}")
    if port.dims is None:
        return
    problem = bind_sizes(port.dims, array.shape, sizes, fixed)
    if problem:
        raise ContractError(f"{owner}: {port.key!r} has shape {array.shape}; wanted {port.wanted(fixed)}: {problem}")


def bind_sizes(
    dims: tuple[str, ...], shape: tuple[int, ...], sizes: Sizes, fixed: Callable[[str], int | None]
) -> str | None:
    """Match names with sizes; return what is wrong in words, or `None`."""
    variadic = [i for i, dim in enumerate(dims) if dim == "..." or dim.startswith("*")]
    if len(shape) < len(dims) - len(variadic) or (not variadic and len(shape) != len(dims)):
        at_least = "at least " if variadic else ""
        return f"it has {len(shape)} axes, not {at_least}{len(dims) - len(variadic)}"
    if variadic:
        start, extra = variadic[0], len(shape) - len(dims) + 1
        name, axes = dims[start], shape[start : start + extra]
        if name != "..." and sizes.setdefault(name, axes) != axes:
            return f"its leading axes are {axes}, where another array of this call has {sizes[name]}"
        dims = dims[:start] + dims[start + 1 :]
        shape = shape[:start] + shape[start + extra :]
    for dim, size in zip(dims, shape, strict=True):
        if dim == "_":
            continue
        known = int(dim) if dim.isdigit() else fixed(dim)
        if known is not None and size != known:
            return f"{dim} is {size}, where the operator has {known}"
        if known is None and sizes.setdefault(dim, size) != size:
            return f"{dim} is {size}, where another array of this call has {sizes[dim]}"
    return None
