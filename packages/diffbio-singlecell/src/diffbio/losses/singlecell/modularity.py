"""The loss of graph clustering: the negative modularity of soft assignments on a neighbour graph."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.reading import read
from diffbio.operators.singlecell.modularity import adaptive_shares, modularity


def modularity_loss(data: Mapping[str, Array], *, resolution: ArrayLike = 1.0) -> Float[Array, ""]:
    """Return minus the modularity of `cluster_assignments` on the graph of `neighbor_indices`.

    It trains any operator that writes assignments, such as a classifier that has seen no label: cells of few edges
    between them become few clusters, and the constant answer, of modularity 0 at resolution 1, does not pay.

    Args:
        data: Holds `cluster_assignments` (cells, clusters), whose rows sum to 1, `neighbor_indices` (cells,
            neighbors) and, optionally, `neighbor_distances` (cells, neighbors), by which edges weigh; without them
            all weigh the same.
        resolution: gamma, above 0; larger for more and smaller clusters.

    Returns:
        A scalar, at least -1.

    Raises:
        MissingKeyError: `cluster_assignments` or `neighbor_indices` is missing.

    References:
        Reichardt and Bornholdt, Statistical mechanics of community detection, Physical Review E 2006.

    Example:
        >>> assignments = jnp.repeat(jnp.eye(2), 2, axis=0)
        >>> data = {"cluster_assignments": assignments, "neighbor_indices": jnp.array([[1], [0], [3], [2]])}
        >>> float(modularity_loss(data))
        -0.5
    """
    assignments, indices = read("modularity_loss", data, "cluster_assignments", "neighbor_indices")
    distances = data.get("neighbor_distances", jnp.zeros(indices.shape, assignments.dtype))
    return -modularity(assignments, adaptive_shares(distances, indices), indices, resolution=resolution)
