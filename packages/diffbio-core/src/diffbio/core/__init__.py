"""The kernel of diffbio: soft operations, operators, pipelines, recipes and the plugin registry.

Names are imported when they are first used, so that `from diffbio.core import soft_ops` needs jax alone and the
registry needs no jax at all.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

from diffbio.core.__about__ import __version__

if TYPE_CHECKING:
    from diffbio.core import errors, soft_ops
    from diffbio.core.config import OperatorConfig
    from diffbio.core.contract import Contract, Port
    from diffbio.core.hookspecs import Plugin, hookimpl
    from diffbio.core.operator import Operator, require_rngs
    from diffbio.core.pipeline import Pipeline
    from diffbio.core.recipe import Recipe
    from diffbio.core.softness import Softness
    from diffbio.core.storage import load, save

_HOMES = {
    "Contract": "contract",
    "Operator": "operator",
    "OperatorConfig": "config",
    "Pipeline": "pipeline",
    "Plugin": "hookspecs",
    "Port": "contract",
    "Recipe": "recipe",
    "Softness": "softness",
    "hookimpl": "hookspecs",
    "load": "storage",
    "require_rngs": "operator",
    "save": "storage",
}

__all__ = [
    "Contract",
    "Operator",
    "OperatorConfig",
    "Pipeline",
    "Plugin",
    "Port",
    "Recipe",
    "Softness",
    "__version__",
    "errors",
    "hookimpl",
    "load",
    "require_rngs",
    "save",
    "soft_ops",
]


if getattr(sys.modules["diffbio"], "__file__", None) is not None:  # a namespace has none
    import diffbio_guard

    _found = diffbio_guard.foreign_package()
    if _found is not None:
        warnings.warn(diffbio_guard.remedy(_found), diffbio_guard.ForeignPackageWarning, stacklevel=2)


def __getattr__(name: str) -> Any:
    """Import the module that holds `name`, on first use."""
    if name in ("errors", "soft_ops"):
        return importlib.import_module(f"diffbio.core.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'diffbio.core' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"diffbio.core.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
