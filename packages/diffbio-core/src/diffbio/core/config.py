"""Configurations of operators: frozen, validated on construction, compared by value, to and from JSON.

A configuration is a frozen keyword-only dataclass. Ranges stand beside the type, in the vocabulary of
`annotated_types`, so that the class reads as its own documentation:

>>> from dataclasses import dataclass
>>> from typing import Annotated, Literal
>>> from annotated_types import Ge, Gt
>>> @dataclass(frozen=True, kw_only=True)
... class KernelConfig(OperatorConfig):
...     n_neighbors: Annotated[int, Ge(1)] = 15
...     decay: Annotated[float, Gt(0)] = 1.0
...     metric: Literal["euclidean", "cosine"] = "euclidean"
>>> KernelConfig(n_neighbors=5).to_dict()
{'n_neighbors': 5, 'decay': 1.0, 'metric': 'euclidean'}
>>> KernelConfig(n_neighbors=0)
Traceback (most recent call last):
    ...
diffbio.core.errors.ConfigError: KernelConfig.n_neighbors is 0; it must be an integer >= 1
"""

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import annotated_types

from diffbio.core.errors import ConfigError, listed, nearest

_TYPE_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    type(None): "None",
}
_BOUNDS = {annotated_types.Ge: ("ge", ">="), annotated_types.Gt: ("gt", ">")}
_BOUNDS |= {annotated_types.Le: ("le", "<="), annotated_types.Lt: ("lt", "<")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """Base of every operator's configuration; subclasses are frozen keyword-only dataclasses.

    A field holds an `int`, `float`, `bool`, `str`, a `Literal`, `None`, or a tuple of those, so that
    it can stand in a recipe. Integers given for numbers and lists given for tuples are converted.

    Raises:
        ConfigError: A value has the wrong type or is out of its range.
    """

    batch_strategy: ClassVar[str] = "vmap"  # read by datarax, which maps operators over records

    def __post_init__(self) -> None:
        """Check and normalize every field."""
        for name, hint in config_fields(type(self)).items():
            value = getattr(self, name)
            try:
                normalized = _normalize(value, hint)
            except _UnfitError:
                wanted = describe(hint)
                raise ConfigError(f"{type(self).__name__}.{name} is {value!r}; it must be {wanted}") from None
            object.__setattr__(self, name, normalized)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON and TOML can hold."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that `to_dict` described.

        Raises:
            ConfigError: A name is not a field of this configuration, or a field without default is
                missing.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"{cls.__name__} has no field {name!r}{nearest(name, known)}; its fields are {listed(known)}"
                )
        missing = [name for name in required_fields(cls) if name not in values]
        if missing:
            raise ConfigError(f"{cls.__name__} needs {listed(missing)}, which the given values lack")
        return cls(**values)


@functools.cache
def config_fields(cls: type[OperatorConfig]) -> dict[str, Any]:
    """Return the fields of a configuration class with their resolved type hints."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def required_fields(cls: type[OperatorConfig]) -> list[str]:
    """Return the names of the fields that have no default."""
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]


class _UnfitError(Exception):
    """A value that does not fit its type hint."""


def _normalize(value: Any, hint: Any) -> Any:  # noqa: PLR0911 - a table of kinds
    """Return `value` as the type of `hint`, or raise `_UnfitError`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner = _normalize(value, args[0])
        if inner is not None and not all(_within(inner, bound) for bound in args[1:]):
            raise _UnfitError
        return inner
    if origin is Literal:
        if value not in args:
            raise _UnfitError
        return value
    if origin in (Union, types.UnionType):
        for option in args:
            try:
                return _normalize(value, option)
            except _UnfitError:
                continue
        raise _UnfitError
    if origin is tuple:
        return _normalize_tuple(value, args)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and math.isfinite(value):
        return value
    if hint is not float and type(value) is hint:
        return value
    raise _UnfitError


def _normalize_tuple(value: Any, items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _UnfitError
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_normalize(item, items[0]) for item in value)
    if len(value) != len(items):
        raise _UnfitError
    return tuple(_normalize(item, hint) for item, hint in zip(value, items, strict=True))


def _within(value: Any, bound: Any) -> bool:
    match bound:
        case annotated_types.Ge(ge=limit):
            return value >= limit
        case annotated_types.Gt(gt=limit):
            return value > limit
        case annotated_types.Le(le=limit):
            return value <= limit
        case annotated_types.Lt(lt=limit):
            return value < limit
        case _:
            return True


def describe(hint: Any) -> str:
    """Return the allowed values in words, for error messages."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [
            f"{sign} {getattr(bound, attribute)}"
            for bound in args[1:]
            for kind, (attribute, sign) in _BOUNDS.items()
            if isinstance(bound, kind)
        ]
        return " ".join([describe(args[0]), " and ".join(bounds)]).strip()
    if origin is Literal:
        return f"one of {listed(map(str, args))}"
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in args)
    if origin is tuple:
        items = [a for a in args if a is not Ellipsis]
        return f"a list whose items are each {' / '.join(describe(item) for item in items)}"
    return _TYPE_NAMES.get(hint, str(hint))
