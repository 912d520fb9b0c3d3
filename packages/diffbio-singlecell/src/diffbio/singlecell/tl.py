"""Tools: operators that give clusters, orders, labels, maps or corrected embeddings, as functions of an AnnData."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffbio.singlecell.functions import function_names, function_of


def __getattr__(name: str) -> Callable[..., Any]:
    return function_of(name, "tl")


def __dir__() -> list[str]:
    return function_names("tl")
