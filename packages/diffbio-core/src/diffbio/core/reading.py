"""How a loss takes its arrays from the data dict."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Array

from diffbio.core.errors import MissingKeyError, listed, nearest


def read(loss: str, data: Mapping[str, Array], *keys: str) -> list[Array]:
    """Return the arrays under `keys`, in that order.

    Args:
        loss: Name of the loss, for the message.
        data: Named arrays of any shape.
        *keys: What the loss needs.

    Raises:
        MissingKeyError: A key is missing; the message says which operators write it.

    Example:
        >>> read("a_loss", {"labels": 1, "logits": 2}, "logits", "labels")
        [2, 1]
    """
    for key in keys:
        if key not in data:
            from diffbio.core.registry import registry  # only a failing call pays for the registry

            raise MissingKeyError(
                f"{loss} reads {key!r}, which the data lacks{nearest(key, data)}. "
                f"Keys present: {listed(data)}. "
                f"Registered operators that write it: {registry().writers_of(key)}"
            )
    return [data[key] for key in keys]
