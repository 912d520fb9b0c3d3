"""Laws of configuration and storage: an operator can be described, saved and built again."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from diffbio.core import Operator, OperatorConfig, Pipeline, load, save
from diffbio.core.errors import listed
from diffbio.testing.functional import run
from diffbio.testing.subject import SEED, subject_of
from diffbio.testing.verdict import LawViolation, NotApplicable, require_close

if TYPE_CHECKING:
    from diffbio.testing.example import Example


def no_dead_config_field(example: Example) -> None:
    """Each field of the configuration is read when the operator is built, initialized or applied.

    A field that nothing reads lets people tune what has no effect. Remove it or use it; where one
    setting switches another on, let the example switch it on.
    """
    subject = subject_of(example)
    if isinstance(example.operator, Pipeline):
        raise NotApplicable("a pipeline is configured by its steps")
    config, read = _recording(example.operator.config)
    operator: Operator[Any] = type(example.operator)(config, rngs=nnx.Rngs(SEED))
    fields = {field.name for field in dataclasses.fields(config)}
    jax.eval_shape(lambda data, key: operator.apply(data, {}, None, key)[0], subject.data, subject.key)
    if fields - read:  # initialization may cost much more, so only where a field is still unread
        operator.initialize_from(subject.data, key=jax.random.key(SEED))
    if fields - read:
        seen = f"nothing reads {listed(sorted(fields - read))} of {type(config).__name__}"
        mend = "use the field or remove it, or let the example set what makes it count"
        field = sorted(fields - read)[0]
        raise LawViolation("no_dead_config_field", subject.name, seen, mend, field)


def config_round_trip(example: Example) -> None:
    """A configuration survives JSON: it comes back equal.

    Recipes and saved pipelines hold configurations as text. Use numbers, strings, booleans, `None`
    and tuples of those as fields, and let no `__post_init__` turn a value into another.
    """
    config = example.operator.config
    mend = "use only int, float, bool, str, Literal, None and tuples of those as fields"
    try:
        restored = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    except (TypeError, ValueError) as error:  # ConfigError is a ValueError
        seen = f"{type(config).__name__} does not survive JSON: {error}"
        raise LawViolation("config_round_trip", example.name, seen, mend) from error
    for field in dataclasses.fields(config):
        before, after = getattr(config, field.name), getattr(restored, field.name)
        if before != after or type(before) is not type(after):
            seen = f"is {after!r} after a round trip through JSON, not {before!r}"
            raise LawViolation("config_round_trip", example.name, seen, mend, field.name)
    if restored != config:
        seen = f"{type(config).__name__} is not compared by value"
        raise LawViolation("config_round_trip", example.name, seen, "make it a frozen dataclass")


def save_load_round_trip(example: Example) -> None:
    """An operator that was saved and loaded gives the same outputs.

    It is rebuilt from its class, its configuration and its stored arrays, so `__init__` must follow
    from the configuration alone, and whatever `initialize` sets must be an `nnx.Variable` or
    `nnx.Param` of the shape that `__init__` gave it: a plain attribute is not stored.
    """
    subject = subject_of(example)
    operator = subject.fresh()
    whole = operator if isinstance(operator, Pipeline) else Pipeline(operator)
    with tempfile.TemporaryDirectory() as directory:
        save(whole, directory)
        loaded = load(directory)
    restored = loaded if isinstance(operator, Pipeline) else loaded.steps[0]
    if restored.config != operator.config:
        seen = f"comes back with {restored.config}, not {operator.config}"
        mend = "let no field mean something else when it is read again"
        raise LawViolation("save_load_round_trip", subject.name, seen, mend)
    require_close(
        "save_load_round_trip",
        subject.name,
        subject.compiled,
        run(restored, subject.data, subject.key),
        seen="after saving and loading",
        mend="hold all state in nnx.Param or nnx.Variable, made in __init__ from config alone",
    )


def _recording(config: OperatorConfig) -> tuple[OperatorConfig, set[str]]:
    """Return a copy of a configuration, and the set of its fields that have been read since.

    The copy is hashed and compared by identity: the dataclass would read all fields to do so.
    """
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    read: set[str] = set()

    class Recording(type(config)):
        def __getattribute__(self, name: str) -> Any:
            if name in fields:
                read.add(name)
            return super().__getattribute__(name)

        def __eq__(self, other: object) -> bool:
            return self is other

        __hash__ = object.__hash__

    Recording.__name__ = type(config).__name__
    recording = object.__new__(Recording)
    for name, value in fields.items():
        object.__setattr__(recording, name, value)
    return recording, read
