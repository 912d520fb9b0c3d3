"""How noisy bins are along a genome, whatever changes of copy number there are.

References:
    Rousseeuw and Croux, Alternatives to the median absolute deviation, JASA 1993.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

LEAST_NOISE = 1e-4
"""A standard deviation below that of any assay, so that constant data divide nothing by zero."""


def neighbour_noise(
    log2_ratio: Float[Array, " bins"], bin_mask: Bool[Array, " bins"] | None = None
) -> Float[Scalar, ""]:
    """Return the standard deviation of bins, from the median of the differences of neighbours.

    Few neighbours differ by a change of copy number, and the median does not see them.

    Args:
        log2_ratio: Of the bins, in the order of the genome.
        bin_mask: Which bins count; differences are between the bins that do.

    Returns:
        The median of the absolute differences / (0.6745 sqrt 2), at least 1e-4; that is its least value where fewer
        than two bins count, too.

    Example:
        >>> round(float(neighbour_noise(jnp.array([0.0, 0.1, 0.0, 1.1, 1.0, 1.1]))), 4)
        0.1048
    """
    counted = jnp.ones(len(log2_ratio), bool) if bin_mask is None else bin_mask
    order = jnp.argsort(~counted, stable=True)
    values, both = log2_ratio[order], counted[order][1:]
    differences = jnp.where(both, jnp.abs(jnp.diff(jnp.where(counted[order], values, 0.0))), jnp.nan)
    median = jnp.nan_to_num(jnp.nanmedian(differences)) if len(log2_ratio) > 1 else jnp.zeros((), log2_ratio.dtype)
    return jnp.maximum(median / (0.6744898 * 2**0.5), LEAST_NOISE)
