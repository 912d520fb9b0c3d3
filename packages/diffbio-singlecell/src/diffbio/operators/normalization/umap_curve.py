"""The similarity of two points in a map of UMAP, q = 1 / (1 + a d^(2 b)), and what it costs to be near or far.

The curve is fitted to the distance below which points count as one, and the decay beyond it. Attraction is -log q,
repulsion -log(1 - q); both take squared distances, so that no square root is differentiated at zero.

References:
    McInnes, Healy and Melville, UMAP: uniform manifold approximation and projection, 2018.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffbio.core.errors import ConfigError

_NEAREST = 1e-3  # squared distance that repulsion adds, as umap-learn does: two points in one place stay finite


@functools.cache
def umap_curve(min_dist: float = 0.1, spread: float = 1.0) -> tuple[float, float]:
    """Return a and b of the similarity 1 / (1 + a d^(2 b)) in a map.

    They are the least-squares fit to 1 up to `min_dist`, and exp(-(d - min_dist) / spread) beyond.

    Args:
        min_dist: Distance below which points count as one, at least 0, in the unit of the map.
        spread: Decay beyond it, above 0.

    Raises:
        ConfigError: A value is out of its range, or no curve fits.

    References:
        umap-learn `find_ab_params`.

    Example:
        >>> [round(parameter, 3) for parameter in umap_curve(0.1, 1.0)]
        [1.577, 0.895]
    """
    from scipy.optimize import curve_fit

    if min_dist < 0 or spread <= 0:
        raise ConfigError(f"min_dist is {min_dist} and spread {spread}; they must be at least 0 and above 0")
    distances = np.linspace(0, 3 * spread, 300)
    wanted = np.where(distances < min_dist, 1.0, np.exp(-(distances - min_dist) / spread))
    try:
        (a, b), _ = curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), distances, wanted)
    except RuntimeError as error:
        raise ConfigError(
            f"no curve of a map fits min_dist={min_dist} with spread={spread}; lower min_dist or raise spread"
        ) from error
    return float(a), float(b)


def umap_attraction(squared: Float[Array, "*pairs"], a: float | Array, b: float | Array) -> Float[Array, "*pairs"]:
    """Return -log q = log(1 + a d^(2 b)) for squared distances d^2 in the map.

    Args:
        squared: At least 0, any shape.
        a: Of `umap_curve`.
        b: Likewise.

    Example:
        >>> jnp.exp(umap_attraction(jnp.array([0.0, 1.0]), 1.0, 1.0)).tolist()
        [1.0, 2.0]
    """
    apart = squared > 0
    return jnp.where(apart, jnp.log1p(a * jnp.where(apart, squared, 1.0) ** b), 0.0)


def umap_repulsion(squared: Float[Array, "*pairs"], a: float | Array, b: float | Array) -> Float[Array, "*pairs"]:
    """Return -log(1 - q) = log(1 + 1 / (a s^b)) with s = d^2 + 0.001, finite for points in one place.

    Args:
        squared: Squared distances in the map, at least 0, any shape.
        a: Of `umap_curve`.
        b: Likewise.

    Example:
        >>> bool(umap_repulsion(jnp.array(0.0), 1.0, 1.0) > umap_repulsion(jnp.array(1.0), 1.0, 1.0))
        True
    """
    return jnp.log1p((squared + _NEAREST) ** -b / a)
