"""The static check of a pipeline's wiring: which keys come from outside, and what is read or written wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from diffbio.core.contract import Contract, Port
from diffbio.core.errors import WiringError, listed, nearest

Named = tuple[str, Contract]


def wire(steps: Sequence[Named], given: Sequence[str] | None) -> Contract:
    """Return the contract of steps in a row: it reads what no earlier step writes, and writes all they write.

    Args:
        steps: The name and the contract of each step, in order.
        given: The keys that come from outside, or `None` to take whatever no step writes.

    Raises:
        WiringError: A key is read before it is written; a step overwrites a key that it does not read; with `given`,
            a key is read that nobody gives, or given that nobody reads.
    """
    external: dict[str, Port] = {}
    written: dict[str, Port] = {}
    writer: dict[str, str] = {}
    for index, (name, contract) in enumerate(steps):
        for port in contract.inputs:
            if port.key not in written and _comes_from_outside(port, steps[index:], given, list(written)):
                known = external.get(port.key)
                external[port.key] = known if known and not known.optional else _under_its_key(port)
        for port in contract.outputs:
            if port.key in {*written, *external} and port.key not in contract.reads:
                owner = f"step {writer[port.key]!r}" if port.key in writer else "the input"
                raise WiringError(
                    f"step {name!r} would overwrite {port.key!r} of {owner}, which it does not read: "
                    f"rename its output with .writes({port.parameter}={port.key + '_2'!r})"
                )
            written[port.key], writer[port.key] = _under_its_key(port), name
    unread = [key for key in given or () if key not in external]
    if unread:
        raise WiringError(f"no step reads the input {listed(unread)}; the steps read {listed(external)}")
    takes_key = any(contract.takes_key for _, contract in steps)
    return Contract(tuple(external.values()), tuple(written.values()), takes_key)


def _comes_from_outside(port: Port, steps: Sequence[Named], given: Sequence[str] | None, written: list[str]) -> bool:
    """Return whether a key that no earlier step writes is an input of the whole; raise if it can't be.

    Args:
        port: What the first of `steps` reads.
        steps: The step that reads it, and those that follow.
        given: The keys that come from outside, or `None` if any may.
        written: The keys that earlier steps write.
    """
    (name, contract), *following = steps
    later = next((other for other, c in following if port.key in c.writes and port.key not in c.reads), None)
    if port.key in (given or ()):
        return True
    if port.optional:
        return given is None and later is None
    if later is not None and port.key not in contract.writes:
        raise WiringError(f"step {name!r} reads {port.key!r} before step {later!r} writes it: move {later!r} forward")
    if given is None:
        return True
    from diffbio.core.registry import registry  # only a failing build pays for the registry

    known = [*given, *written]
    raise WiringError(
        f"step {name!r} reads {port.key!r}, which is no input and which no earlier step writes"
        f"{nearest(port.key, known)}. Keys there: {listed(known)}. Registered operators that write it: "
        f"{registry().writers_of(port.key)}. To read another key: .reads({port.parameter}=...)"
    )


def _under_its_key(port: Port) -> Port:
    """Return the port named by its data key, as the whole knows it."""
    return replace(port, parameter=port.key)
