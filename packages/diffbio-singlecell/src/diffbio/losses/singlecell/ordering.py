"""The loss of an order of cells: how far a pseudotime is from growing with time points that are known."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.reading import read

_NO_SPREAD = 1e-12


def pseudotime_disorder(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return 1 - r, with r the correlation of pseudotime with the time points of the cells that have one.

    Args:
        data: Holds `pseudotime` (cells,) and `labels` (cells,), codes of time points in their order; a cell with a
            label below 0, or whose pseudotime is not finite, does not count.

    Returns:
        A scalar from 0 to 2; 1 where nothing can be correlated, with gradient 0.

    Raises:
        MissingKeyError: One of the two keys is missing.

    Example:
        >>> data = {"pseudotime": jnp.array([0.0, 0.5, 1.0, 0.2]), "labels": jnp.array([0, 1, 2, -1])}
        >>> float(pseudotime_disorder(data))
        0.0
    """
    pseudotime, labels = read("pseudotime_disorder", data, "pseudotime", "labels")
    counts = (labels >= 0) & jnp.isfinite(pseudotime)
    x = _centred(jnp.where(counts, pseudotime, 0.0), counts)
    y = _centred(jnp.where(counts, labels, 0).astype(x.dtype), counts)
    spread = jnp.square(x).sum() * jnp.square(y).sum()
    known = spread > _NO_SPREAD
    return 1 - jnp.where(known, (x * y).sum() / jnp.sqrt(jnp.where(known, spread, 1.0)), 0.0)


def _centred(values: Array, counts: Array) -> Array:
    mean = values.sum() / jnp.maximum(counts.sum(), 1)
    return jnp.where(counts, values - mean, 0.0)
