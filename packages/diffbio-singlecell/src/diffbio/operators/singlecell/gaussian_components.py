"""Gaussian components: their densities, and how expectation-maximization finds them.

A covariance is held by its modified Cholesky factors: with A unit lower triangular, A (x - m) has independent
entries of standard deviations s_j. So every value of the parameters is a valid covariance, nothing is inverted, and
as each s_j is held above a floor, no component can shrink on one cell to infinite likelihood.

References:
    Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm, JRSS B 1977.
    Pourahmadi, Joint mean-covariance models with applications to longitudinal data, Biometrika 1999 (the factors).
    Ueda and Nakano, Deterministic annealing EM algorithm, Neural Networks 1998 (tau above 1).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import soft_ops

Covariance = Literal["full", "diagonal", "spherical"]

_NO_MASS = 1e-6  # of one cell: a component with less stays as it is
_CONVERGED = 1e-5  # the largest change of an assignment in one step


class Components(NamedTuple):
    """The components of a mixture.

    Attributes:
        log_weights: Logarithm of each component's share, up to a common constant (clusters,).
        means: Centres, in the unit of the embeddings (clusters, features).
        log_scales: Logarithm of the standard deviation of each entry of A (x - m), the floor not included
            (clusters, features), or (clusters, 1) where all are the same.
        regression: What stands below the diagonal of A (clusters, features, features); entries on and above it are
            not read. `None` where A is the identity.
        log_floor: Logarithm of the smallest standard deviation (). Variances are exp(2 log_scales) + exp(2 log_floor).
    """

    log_weights: Float[Array, " clusters"]
    means: Float[Array, "clusters features"]
    log_scales: Float[Array, "clusters scales"]
    regression: Float[Array, "clusters features features"] | None
    log_floor: Float[Array, ""]


class MixtureClusters(NamedTuple):
    """What a mixture says about cells.

    Attributes:
        cluster_assignments: A distribution over the components for each cell (*cells, clusters).
        cluster_log_likelihood: Log density of each cell under the mixture, in nats (*cells,); low for cells that
            belong to no component.
    """

    cluster_assignments: Float[Array, "*cells clusters"]
    cluster_log_likelihood: Float[Array, "*cells"]


@jax.jit
def gaussian_mixture(
    embeddings: Float[Array, "*cells features"], components: Components, *, softness: ArrayLike = 1.0
) -> MixtureClusters:
    """Return assignments and log-likelihoods of cells under a mixture.

    Args:
        embeddings: Coordinates (*cells, features).
        components: As `fit_gaussian_mixture` returns them.
        softness: tau > 0, in nats; 1 gives posterior probabilities.

    Returns:
        Assignments (*cells, clusters) and log-likelihoods (*cells,). Memory is cells x (clusters + features), for the
        gradient too.

    References:
        scikit-learn `GaussianMixture.predict_proba` and `score_samples`.

    Example:
        >>> components = Components(jnp.zeros(2), jnp.array([[0.0], [4.0]]), jnp.zeros((2, 1)), None, jnp.array(-9.0))
        >>> gaussian_mixture(jnp.array([[0.0], [2.0]]), components).cluster_assignments.round(3).tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    joint = _log_joint(embeddings, components)
    return MixtureClusters(soft_ops.argmax(joint, axis=-1, softness=softness), jax.nn.logsumexp(joint, axis=-1))


@partial(jax.jit, static_argnames=("covariance", "max_iterations"))
def fit_gaussian_mixture(
    embeddings: Float[Array, "cells features"],
    assignments: Float[Array, "cells clusters"],
    *,
    covariance: Covariance = "full",
    regularization: ArrayLike = 1e-4,
    softness: ArrayLike = 1.0,
    max_iterations: int = 300,
) -> Components:
    """Return the components at which expectation-maximization comes to rest.

    Args:
        embeddings: Coordinates (cells, features), in any unit: they are scaled to 1 inside.
        assignments: Where to start: shares of each cell, at least 0 (cells, clusters); rows sum to 1.
        covariance: Shape of the components.
        regularization: What is added to each variance, as a share of the features' mean variance, above 0.
        softness: tau > 0, in nats. With tau above 1 it is deterministic annealing, below 1 nearer to k-means.
        max_iterations: Steps at most; 1 gives the components that `assignments` describe, and one step from there.

    Returns:
        The components. One to which no cell belongs stays where it was last.

    References:
        scikit-learn `GaussianMixture(reg_covar=regularization * mean variance)`, from the same assignments.

    Example:
        >>> cells = jnp.array([[0.0], [2.0], [9.0], [13.0]])
        >>> components = fit_gaussian_mixture(cells, jnp.repeat(jnp.eye(2), 2, axis=0))
        >>> components.means.ravel().round(2).tolist()
        [1.0, 11.0]
    """
    middle = embeddings.mean(0)
    reach = jnp.max(jnp.abs(embeddings - middle))
    unit = jnp.where(reach > 0, reach, 1.0)
    points = (embeddings - middle) / unit
    variance = points.var(0).mean()
    floor = regularization * jnp.where(variance > 0, variance, 1.0)
    n_clusters, n_features = assignments.shape[1], embeddings.shape[1]
    nowhere = Components(
        jnp.zeros(n_clusters, points.dtype),
        jnp.zeros((n_clusters, n_features), points.dtype),
        jnp.zeros((n_clusters, 1 if covariance == "spherical" else n_features), points.dtype),
        jnp.zeros((n_clusters, n_features, n_features), points.dtype) if covariance == "full" else None,
        jnp.log(floor) / 2,
    )
    start = _maximized(points, assignments, nowhere, covariance)

    def moves(state: tuple[Array, Components, Array, Array]) -> Array:
        iteration, _, _, change = state
        return (iteration < max_iterations) & (change > _CONVERGED)

    def step(state: tuple[Array, Components, Array, Array]) -> tuple[Array, Components, Array, Array]:
        iteration, components, before, _ = state
        shares = soft_ops.argmax(_log_joint(points, components), axis=-1, softness=softness)
        change = jnp.max(jnp.abs(shares - before))
        return iteration + 1, _maximized(points, shares, components, covariance), shares, change

    unsettled = jnp.ones((), points.dtype)
    found = lax.while_loop(moves, step, (jnp.int32(0), start, jnp.full_like(assignments, jnp.inf), unsettled))[1]
    return found._replace(
        means=found.means * unit + middle,
        log_scales=found.log_scales + jnp.log(unit),
        log_floor=found.log_floor + jnp.log(unit),
    )


def _log_joint(embeddings: Array, components: Components) -> Float[Array, "*cells clusters"]:
    """Return log w_k + log N(x; m_k, S_k), one component at a time."""

    @jax.checkpoint  # else the gradient would keep an array cells x clusters x features
    def of_component(component: Components) -> Array:
        deviations = embeddings - component.means
        if component.regression is not None:
            explained = jnp.matmul(deviations, jnp.tril(component.regression, -1).T, precision=lax.Precision.HIGHEST)
            deviations = deviations + explained
        log_scales = jnp.logaddexp(2 * component.log_scales, 2 * component.log_floor) / 2
        log_scales = jnp.broadcast_to(log_scales, component.means.shape)
        squared = jnp.square(deviations * jnp.exp(-log_scales)).sum(-1)
        constant = math.log(2 * math.pi) / 2 * component.means.shape[-1]
        return component.log_weights - constant - log_scales.sum() - squared / 2

    floors = jnp.broadcast_to(components.log_floor, components.log_weights.shape)
    return jnp.moveaxis(lax.map(of_component, components._replace(log_floor=floors)), 0, -1)


def _maximized(points: Array, shares: Array, before: Components, covariance: Covariance) -> Components:
    """Return the components that best explain the cells with these shares (the M step)."""
    floor = jnp.exp(2 * before.log_floor)

    def of_component(share: Array) -> tuple[Array, Array, Array | None]:
        mass = jnp.maximum(share.sum(), _NO_MASS)
        share = share / mass
        mean = jnp.matmul(share, points, precision=lax.Precision.HIGHEST)
        deviations = points - mean
        if covariance != "full":
            variances = jnp.matmul(share, deviations**2, precision=lax.Precision.HIGHEST)
            return mean, (variances.mean(keepdims=True) if covariance == "spherical" else variances), None
        scatter = jnp.matmul((share[:, None] * deviations).T, deviations, precision=lax.Precision.HIGHEST)
        factor = jnp.linalg.cholesky(scatter + floor * jnp.eye(len(mean), dtype=mean.dtype))
        scales = jnp.diagonal(factor)
        unit_factor = factor / scales
        inverse = jax.scipy.linalg.solve_triangular(unit_factor, jnp.eye(len(mean), dtype=mean.dtype), lower=True)
        return mean, scales**2 - floor, inverse

    means, variances, regression = lax.map(of_component, shares.T)
    # a variance at the floor itself would have the logarithm of zero
    log_scales = jnp.log(jnp.maximum(variances, 1e-6 * floor)) / 2
    mass = shares.sum(0)
    alive = mass > _NO_MASS
    found = Components(
        jnp.log(jnp.maximum(mass, _NO_MASS) / len(points)), means, log_scales, regression, before.log_floor
    )

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(alive.reshape(-1, *[1] * (new.ndim - 1)), new, old) if new.ndim else new

    return jax.tree.map(kept, found, before._replace(log_weights=found.log_weights))
