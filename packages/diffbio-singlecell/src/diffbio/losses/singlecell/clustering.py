"""The loss of soft clustering: how far cells are from the centroids to which they belong."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.reading import read


def cluster_compactness(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the soft within-cluster sum of squares per cell: mean_i sum_k a_ik |x_i - c_k|^2.

    With one-hot assignments it is the inertia of k-means divided by the number of cells.

    Args:
        data: Holds `embeddings` x (cells, features), `cluster_assignments` a (cells, clusters), whose
            rows sum to 1, and `cluster_centroids` c (clusters, features), in the unit of the embeddings.

    Returns:
        A scalar, at least 0, in the squared unit of the embeddings.

    Raises:
        MissingKeyError: One of the three keys is missing.

    References:
        Lloyd, Least squares quantization in PCM, IEEE Transactions on Information Theory 1982.

    Example:
        >>> data = {
        ...     "embeddings": jnp.array([[0.0], [2.0]]),
        ...     "cluster_assignments": jnp.array([[1.0, 0.0], [0.0, 1.0]]),
        ...     "cluster_centroids": jnp.array([[1.0], [2.0]]),
        ... }
        >>> float(cluster_compactness(data))
        0.5
    """
    embeddings, assignments, centroids = read(
        "cluster_compactness", data, "embeddings", "cluster_assignments", "cluster_centroids"
    )
    # Split at each cell's own mean centroid m_i: |x_i - m_i|^2 + sum_k a_ik |c_k - m_i|^2, where the second is
    # sum_k a_ik |c_k|^2 - |m_i|^2. So no array of cells x clusters x features is formed. Taking out a common
    # origin keeps that difference exact for centroids far from zero.
    origin = centroids.mean(0)
    centroids, embeddings = centroids - origin, embeddings - origin
    own = assignments @ centroids
    to_own = jnp.square(embeddings - own).sum(-1)
    within = assignments @ jnp.square(centroids).sum(-1) - jnp.square(own).sum(-1)
    return (to_own + within).mean()
