"""Gaussian mixture: clusters with a size, a place and a shape, and the probability of each for each cell.

Hard: each cell to the component of the largest posterior probability. Relaxed, with component weights w_k, means m_k
and covariances S_k:

    log p_ik = log w_k + log N(x_i; m_k, S_k)        a_ik = softmax_k(log p_ik / tau)

At tau = 1 the assignments are the posterior probabilities, which scikit-learn calls responsibilities; as tau -> 0
they become one-hot at its `predict`. The log-likelihood of a cell, log sum_k p_ik, does not depend on tau.

References:
    Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm, JRSS B 1977.
    Fraley and Raftery, Model-based clustering, discriminant analysis, and density estimation, JASA 2002.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs
from diffbio.core.errors import DataError
from diffbio.operators.singlecell.clustering import kmeans_plus_plus, soft_kmeans
from diffbio.operators.singlecell.gaussian_components import (
    Components,
    Covariance,
    MixtureClusters,
    fit_gaussian_mixture,
    gaussian_mixture,
)

_LLOYD_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class GaussianMixtureConfig(OperatorConfig):
    """Sizes, the shape of the components and how they are found.

    Args:
        n_clusters: Number of components.
        n_features: Number of coordinates of an embedding.
        covariance: `full`: any ellipsoid; `diagonal`: with axes along the features; `spherical`: a ball.
        regularization: What is added to each variance, as a share of the mean variance of the features over the cells
            that `initialize` sees. In float32 a component of fewer cells than features needs about 1e-4.
        temperature: Softness of the assignments, in nats; 1 for posterior probabilities.
        n_starts: Starts from k-means of which `initialize` keeps that of the largest likelihood.
        max_iterations: Steps of expectation-maximization at most, in `initialize`.
    """

    n_clusters: Annotated[int, Ge(1)]
    n_features: Annotated[int, Ge(1)]
    covariance: Covariance = "full"
    regularization: Annotated[float, Gt(0)] = 1e-4
    temperature: Annotated[float, Gt(0)] = 1.0
    n_starts: Annotated[int, Ge(1)] = 3
    max_iterations: Annotated[int, Ge(1)] = 300


class GaussianMixture(Operator[GaussianMixtureConfig]):
    """Assigns cells to Gaussian components that are parameters.

    Reads `embeddings` (*cells, features); writes `cluster_assignments` (*cells, clusters) and
    `cluster_log_likelihood` (*cells,), whose negative mean is the loss to train it by. The means start as standard
    normal draws with unit covariances; `initialize` fits all parameters by expectation-maximization.

    Args:
        config: Sizes, shape, regularization, temperature, starts.
        rngs: Source of the first means.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> mixture = GaussianMixture(GaussianMixtureConfig(n_clusters=2, n_features=1), rngs=nnx.Rngs(0))
        >>> cells = jnp.array([[0.0], [1.0], [2.0], [19.0], [20.0], [21.0]])
        >>> mixture.initialize(cells, key=jax.random.key(0))
        >>> sorted(mixture.means[...].ravel().round(2).tolist())
        [1.0, 20.0]
    """

    def __init__(self, config: GaussianMixtureConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        shape = (config.n_clusters, config.n_features)
        self.logits = nnx.Param(jnp.zeros(config.n_clusters))
        self.means = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.log_scales = nnx.Param(jnp.zeros((config.n_clusters, 1) if config.covariance == "spherical" else shape))
        full = config.covariance == "full"
        self.regression = nnx.Param(jnp.zeros((*shape, config.n_features))) if full else None
        self.log_floor = nnx.Variable(jnp.log(jnp.float32(config.regularization)) / 2)
        self.softness = Softness(config.temperature)

    @property
    def components(self) -> Components:
        """The components as they are now."""
        regression = None if self.regression is None else self.regression[...]
        return Components(
            jax.nn.log_softmax(self.logits[...]),
            self.means[...],
            self.log_scales[...],
            regression,
            self.log_floor[...],
        )

    def initialize(self, embeddings: Float[Array, "cells features"], *, key: Array) -> None:
        """Fit the components: k-means, then expectation-maximization until the likelihood rests.

        Args:
            embeddings: Coordinates (cells, features).
            key: Random key of the starts.

        Raises:
            ContractError: There are fewer cells than components.
            DataError: No start gave finite components.
        """
        best = _best_of_starts(embeddings, key, self.softness(), self.config)
        if not jnp.isfinite(best.means).all():
            raise DataError(
                f"no start of GaussianMixture gave finite components for embeddings of shape {embeddings.shape}; "
                f"make sure that they are finite, or raise regularization above {self.config.regularization}"
            )
        self.logits[...], self.means[...], self.log_scales[...] = best.log_weights, best.means, best.log_scales
        self.log_floor[...] = best.log_floor
        if self.regression is not None:
            self.regression[...] = best.regression

    def compute(self, embeddings: Float[Array, "*cells features"]) -> MixtureClusters:
        """Return assignments and log-likelihoods of the cells."""
        return gaussian_mixture(embeddings, self.components, softness=self.softness())


@partial(jax.jit, static_argnames="config")
def _best_of_starts(embeddings: Array, key: Array, softness: Array, config: GaussianMixtureConfig) -> Components:
    """Return the components of the largest likelihood among those found from several starts of k-means."""

    def fitted(key: Array) -> tuple[Components, Array]:
        components = fit_gaussian_mixture(
            embeddings,
            _kmeans(embeddings, config.n_clusters, key),
            covariance=config.covariance,
            regularization=config.regularization,
            softness=softness,
            max_iterations=config.max_iterations,
        )
        value = gaussian_mixture(embeddings, components).cluster_log_likelihood.mean()
        return components, jnp.where(jnp.isfinite(value), value, -jnp.inf)

    every, values = lax.map(fitted, jax.random.split(key, config.n_starts))
    return jax.tree.map(lambda leaf: leaf[jnp.argmax(values)], every)


def _kmeans(embeddings: Array, n_clusters: int, key: Array) -> Float[Array, "cells clusters"]:
    """Return the one-hot clusters of k-means from a drawn start."""
    centroids = kmeans_plus_plus(embeddings, n_clusters, key=key)
    hard = 1e-6 * embeddings.var(0).mean() + jnp.finfo(embeddings.dtype).tiny
    shares = soft_kmeans(embeddings, centroids, softness=hard, n_iterations=_LLOYD_STEPS).cluster_assignments
    return jax.nn.one_hot(shares.argmax(1), n_clusters, dtype=embeddings.dtype)
