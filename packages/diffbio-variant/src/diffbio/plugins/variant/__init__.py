"""What diffbio-variant brings to the registry: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import Plugin, hookimpl
from diffbio.plugins.variant import genotypes

_FAMILIES = (genotypes,)


@hookimpl
def diffbio_plugin() -> Plugin:
    """Return the operators of variant calling and copy number."""
    return Plugin(api=1, operators=tuple(operator for family in _FAMILIES for operator in family.OPERATORS))
