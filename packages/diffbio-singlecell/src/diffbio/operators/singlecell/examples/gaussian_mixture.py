"""The conformance example of the Gaussian mixture."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.singlecell.gaussian_mixture import GaussianMixture, GaussianMixtureConfig
from diffbio.testing import Example, Limit


def gaussian_mixture() -> Example:
    """Return two overlapping groups of cells; the limit is the most probable component, from covariances."""
    random = np.random.default_rng(0)
    groups = np.repeat([[0.0, 0.0, 0.0], [2.0, 0.0, 1.0]], 7, axis=0)
    embeddings = (groups + random.normal(size=groups.shape)).astype(np.float32)
    config = GaussianMixtureConfig(n_clusters=2, n_features=3, regularization=0.2, temperature=0.7)
    operator = GaussianMixture(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(embeddings), key=jax.random.key(0))
    components = operator.components

    def sharpen(mixture: GaussianMixture) -> GaussianMixture:
        mixture.softness.set(1e-4)
        return mixture

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        weights, means, log_scales, regression, log_floor = (np.asarray(leaf, np.float64) for leaf in components)
        joint = np.empty((14, 2))
        for k in range(2):
            inverse = np.linalg.inv(np.eye(3) + np.tril(regression[k], -1))
            covariance = inverse * (np.exp(2 * log_scales[k]) + np.exp(2 * log_floor)) @ inverse.T
            deviations = np.asarray(data["embeddings"]) - means[k]
            squared = np.sum(deviations @ np.linalg.inv(covariance) * deviations, axis=1)
            joint[:, k] = weights[k] - (np.linalg.slogdet(2 * np.pi * covariance)[1] + squared) / 2
        densities = np.log(np.exp(joint).sum(axis=1))
        return {"cluster_assignments": np.eye(2)[joint.argmax(1)], "cluster_log_likelihood": densities}

    return Example(
        operator, {"embeddings": embeddings}, limit=Limit(sharpen, reference, atol=1e-4), symmetric=("cells",)
    )
