"""The operator: a module whose `compute` signature is its contract. The only file that imports datarax."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar, final

import jax
from datarax.core.config import OperatorConfig as DataraxOperatorConfig
from datarax.core.operator import OperatorModule
from flax import nnx

from diffbio.core.config import OperatorConfig
from diffbio.core.contract import Contract, Port, Sizes, as_array, check_array, contract_of
from diffbio.core.errors import (
    ClobberedKeyError,
    MissingKeyError,
    MissingRandomnessError,
    WiringError,
    listed,
    nearest,
)

ConfigT = TypeVar("ConfigT", bound=OperatorConfig)
Data = Mapping[str, Any]


class Operator(OperatorModule, Generic[ConfigT]):
    """Base of all operators: an author writes `compute`, and never `apply`.

    The parameters of `compute` are the data keys that the operator reads, the fields of the `NamedTuple` that it
    returns are those it writes, and their jaxtyping annotations are checked at each call (under `jit`, while
    tracing: at no cost). A parameter with the default `None` is an optional input. A keyword-only `key` makes the
    operator stochastic.

    Args:
        config: The operator's configuration.
        rngs: Source of randomness; a stochastic operator needs it.

    Raises:
        MissingRandomnessError: The operator is stochastic and `rngs` is missing.

    Example:
        >>> from dataclasses import dataclass
        >>> from typing import NamedTuple
        >>> import jax.numpy as jnp
        >>> from jaxtyping import Array, Float
        >>> @dataclass(frozen=True, kw_only=True)
        ... class DoublingConfig(OperatorConfig):
        ...     factor: float = 2.0
        >>> class Doubled(NamedTuple):
        ...     doubled: Float[Array, "cells genes"]
        >>> class Doubling(Operator[DoublingConfig]):
        ...     def compute(self, counts: Float[Array, "cells genes"]) -> Doubled:
        ...         return Doubled(self.config.factor * counts)
        >>> result, _, _ = Doubling(DoublingConfig()).apply({"counts": jnp.ones((2, 3))}, {}, None)
        >>> sorted(result)
        ['counts', 'doubled']
    """

    config: ConfigT  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep `apply` final: a subclass that overrides it is refused."""
        super().__init_subclass__(**kwargs)
        if "apply" in cls.__dict__:
            raise TypeError(f"{cls.__name__} overrides apply, which is final: write compute instead")

    def __init__(self, config: ConfigT, *, rngs: nnx.Rngs | None = None) -> None:
        stochastic = self.signature.takes_key
        if stochastic:
            require_rngs(self, rngs)
        stream = "default" if stochastic else None
        super().__init__(DataraxOperatorConfig(stochastic=stochastic, stream_name=stream), rngs=rngs)
        self.config = nnx.static(config)  # pyright: ignore[reportIncompatibleVariableOverride]
        self._read_keys = nnx.static(())
        self._written_keys = nnx.static(())

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """Return the named outputs for the named inputs; each operator defines it."""
        raise TypeError(f"{type(self).__name__} defines no compute method")

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Set parameters and buffers from data before training; by default there is nothing to set.

        An operator that overrides it names the data keys that it wants as parameters, as in `compute`.
        """

    @property
    def signature(self) -> Contract:
        """The contract under the operator's own names."""
        return contract_of(type(self).compute)

    @property
    def contract(self) -> Contract:
        """The contract under the data keys that `reads` and `writes` have bound."""
        return self.signature.bound_to(dict(self._read_keys), dict(self._written_keys))

    def reads(self, **keys: str) -> Self:
        """Return this operator reading other data keys; the two share their parameters.

        Args:
            **keys: For a parameter of `compute` or `initialize`, the data key to read instead.

        Raises:
            WiringError: A name is not a parameter.

        Example:
            `clusterer.reads(embeddings="imputed_counts")`
        """
        known = [port.parameter for port in self.signature.inputs]
        known += [name for name in _initialize_parameters(self) if name not in known]
        return self._rebound("_read_keys", "reads", known, keys)

    def writes(self, **keys: str) -> Self:
        """Return this operator writing other data keys; the two share their parameters.

        Args:
            **keys: For a field of the result, the data key to write instead.

        Raises:
            WiringError: A name is not an output.

        Example:
            `encoder.writes(latent="rna_latent")`
        """
        known = [port.parameter for port in self.signature.outputs]
        return self._rebound("_written_keys", "writes", known, keys)

    @final
    def apply(
        self,
        data: Data,
        state: Any,
        metadata: dict[str, Any] | None,
        key: jax.Array | None = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], Any, dict[str, Any] | None]:
        """Return `data` with the operator's outputs added, `state` and `metadata` unchanged.

        Args:
            data: Named arrays; those that the operator does not read pass through.
            state: The element's state, passed through.
            metadata: The element's metadata, passed through.
            key: A random key, for a stochastic operator.
            stats: Taken for datarax's sake; statistics of diffbio operators are their own buffers.

        Returns:
            The triple `(data, state, metadata)`; `data` is a new dict.

        Raises:
            MissingKeyError: A key that the operator reads is not in `data`.
            ContractError: An array has another rank, size or dtype than `compute` says.
            ClobberedKeyError: An output would replace a key that the operator does not read.
            MissingRandomnessError: The operator is stochastic and `key` is missing.
        """
        contract = self.contract
        sizes: Sizes = {}
        inputs = self._inputs(contract, data, sizes)
        if contract.takes_key:
            if key is None:
                raise MissingRandomnessError(
                    f"{self.title} is stochastic: pass a random key, "
                    "apply(data, state, metadata, key=jax.random.key(seed))"
                )
            inputs["key"] = key
        outputs = self.compute(**inputs)
        named = outputs if isinstance(outputs, Mapping) else outputs._asdict()
        result = dict(data)
        for port in contract.outputs:
            array = as_array(self.title, port, named[port.parameter])
            self._check(port, array, sizes, output=True)
            result[port.key] = array
        return result, state, metadata

    def initialize_from(self, data: Data, *, key: jax.Array | None = None) -> None:
        """Call `initialize` with the arrays that it names, taken from `data` under the bound keys.

        Args:
            data: Named arrays.
            key: A random key, for an `initialize` that draws.

        Raises:
            MissingKeyError: An array that `initialize` names is missing.
            MissingRandomnessError: `initialize` draws and `key` is missing.
        """
        bound = dict(self._read_keys)
        arguments: dict[str, Any] = {}
        for name, parameter in _initialize_parameters(self, with_key=True).items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments |= {
                    **data,
                    **{own: data[there] for own, there in bound.items() if there in data},
                }
            elif name == "key":
                if key is None and parameter.default is inspect.Parameter.empty:
                    raise MissingRandomnessError(f"{self.title}.initialize draws: pass key=...")
                arguments["key"] = key
            elif bound.get(name, name) in data:
                arguments[name] = data[bound.get(name, name)]
            elif parameter.default is inspect.Parameter.empty:
                raise self._missing(Port(name, bound.get(name, name)), data, verb="is initialized from")
        self.initialize(**arguments)

    def output_spec(self, input_spec: Data) -> dict[str, Any]:
        """Return shapes and dtypes of the result for those of the input, without computing anything.

        Args:
            input_spec: A `jax.ShapeDtypeStruct` (or array) for each data key.
        """
        key = jax.eval_shape(lambda: jax.random.key(0)) if self.signature.takes_key else None
        return jax.eval_shape(lambda data, key: self.apply(data, {}, None, key)[0], dict(input_spec), key)

    @property
    def title(self) -> str:
        """The operator's name in messages."""
        return type(self).__name__

    def _check(self, port: Port, array: jax.Array, sizes: Sizes, *, output: bool = False) -> None:
        owner = f"{self.title} (its output)" if output else self.title
        check_array(owner, port, array, sizes, self._size_of)

    def _size_of(self, dim: str) -> int | None:
        """Return the size that the configuration fixes for a dimension, or `None`."""
        size = getattr(self.config, f"n_{dim}", None)
        return size if isinstance(size, int) else None

    def _inputs(self, contract: Contract, data: Data, sizes: Sizes) -> dict[str, Any]:
        read = set(contract.reads)
        for key in contract.writes:
            if key in data and key not in read:
                raise self._clobbered(key)
        inputs = {}
        for port in contract.inputs:
            value = data.get(port.key)
            if value is None:
                if not port.optional:
                    raise self._missing(port, data)
                continue
            array = as_array(self.title, port, value)
            self._check(port, array, sizes)
            inputs[port.parameter] = array
        return inputs

    def _missing(self, port: Port, data: Data, verb: str = "reads") -> MissingKeyError:
        from diffbio.core.registry import registry  # only a failing call pays for the registry

        return MissingKeyError(
            f"{self.title} {verb} {port.key!r} {port.wanted(self._size_of)}, which the data lacks"
            f"{nearest(port.key, data)}. Keys present: {listed(data)}. "
            f"Registered operators that write it: {registry().writers_of(port.key)}. "
            f"To read another key: .reads({port.parameter}=...)"
        )

    def _clobbered(self, key: str) -> ClobberedKeyError:
        from diffbio.core.registry import registry  # only a failing call pays for the registry

        parameter = next(port.parameter for port in self.contract.outputs if port.key == key)
        return ClobberedKeyError(
            f"{self.title} would overwrite {key!r}, which is in the data already and which it does not "
            f"read (operators that write it: {registry().writers_of(key)}). Write elsewhere with "
            f".writes({parameter}={key + '_2'!r}), or take {key!r} out of the data first"
        )

    def _rebound(self, slot: str, verb: str, known: list[str], keys: Mapping[str, str]) -> Self:
        for name in keys:
            if name not in known:
                raise WiringError(
                    f"{self.title}.{verb}({name}=...): it has no such name{nearest(name, known)}; "
                    f"it {verb} {listed(known)}"
                )
        view = copy.copy(self)
        setattr(view, slot, nnx.static(tuple({**dict(getattr(self, slot)), **keys}.items())))
        return view


def require_rngs(operator: Operator[Any], rngs: nnx.Rngs | None) -> nnx.Rngs:
    """Return `rngs`, for an operator that draws its starting parameters.

    Raises:
        MissingRandomnessError: `rngs` is missing.
    """
    if rngs is None:
        raise MissingRandomnessError(
            f"{type(operator).__name__} draws random numbers: build it with rngs=nnx.Rngs(seed)"
        )
    return rngs


def _initialize_parameters(operator: Operator[Any], *, with_key: bool = False) -> dict[str, inspect.Parameter]:
    """Return the parameters of an operator's own `initialize`; none where it defines none."""
    if type(operator).initialize is Operator.initialize:
        return {}
    parameters = dict(inspect.signature(operator.initialize).parameters)
    return {name: p for name, p in parameters.items() if with_key or name != "key"}
