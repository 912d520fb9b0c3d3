"""The recipe of `diffbio fit reads-to-variants`."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from diffbio.core.errors import RegistryError, listed
from diffbio.core.recipe import Recipe
from diffbio.core.registry import registry

_OF_ALIGNMENT = ("QualityTrimming", "PairHMM")


def reads_to_variants() -> Recipe:
    """Return the recipe from aligned reads to genotypes: qualities, trimming, realignment, genotypes, classifier.

    Raises:
        RegistryError: diffbio-alignment is not installed, from which some of its operators are.

    Example:
        >>> [step.name for step in reads_to_variants().steps][:3]  # doctest: +SKIP
        ['recalibration', 'trimming', 'pileup']
    """
    missing = [name for name in _OF_ALIGNMENT if name not in registry().operators]
    if missing:
        raise RegistryError(
            f"the recipe reads-to-variants has the operators {listed(missing)} of diffbio-alignment, which is not "
            "installed; install it with: pip install diffbio-alignment"
        )
    text = (files(__package__) / "reads-to-variants.toml").read_text(encoding="utf-8")
    return Recipe.from_dict(tomllib.loads(text))
