"""The mixture of CellAssign: negative binomial counts in which each type expresses its markers more.

References:
    Zhang et al., Probabilistic cell-type assignment of single-cell RNA-seq for tumor microenvironment profiling,
    Nature Methods 2019.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, ScalarLike

from diffbio.operators.normalization.count_distributions import negative_binomial_log_pmf

_LEAST_SIZE = 1e-6  # of the mean cell: what a cell without counts has
_START_SHARPNESS = 2.0  # of the first assignments, per standard deviation of the mean marker
_LEAST_RATE = 1e-3  # counts per mean cell: the expression of a gene that no cell of a type has
_EXCESS_SPREAD = 1.0  # nats: of the prior of the logarithm of overexpression above its least


class MarkerModel(NamedTuple):
    """Parameters of the mixture.

    Attributes:
        class_logits: Log share of each type, up to a constant (classes,).
        log_baseline: Log mean count in a mean cell that the gene is no marker of (genes,).
        excess: Softplus of it is the log fold of a marker above the least (classes, genes); read at markers only.
        log_inverse_dispersion: Variances are mean + mean^2 / exp of it (genes,).
        batch_effects: Log fold of each batch, of which the mean over batches is taken off (batches, genes), or `None`.
    """

    class_logits: Float[Array, " classes"]
    log_baseline: Float[Array, " genes"]
    excess: Float[Array, "classes genes"]
    log_inverse_dispersion: Float[Array, " genes"]
    batch_effects: Float[Array, "batches genes"] | None


def marker_log_joint(
    counts: Float[Array, "*cells genes"],
    sizes: Float[Array, "*cells"],
    marker_genes: Float[Array, "classes genes"],
    model: MarkerModel,
    batch_labels: Int[Array, "*cells"] | None = None,
    *,
    least_overexpression: ScalarLike,
) -> Float[Array, "*cells classes"]:
    """Return log p(type) + log p(counts given type) of each cell and type.

    Args:
        counts: Raw counts (*cells, genes).
        sizes: Size factors, 1 for a mean cell (*cells,).
        marker_genes: 1 where the type has the marker, else 0 (classes, genes).
        model: Parameters of the mixture.
        batch_labels: Code of the batch of each cell, -1 for none (*cells,).
        least_overexpression: Log fold of a marker at least, in nats.

    Returns:
        Nats (*cells, classes). Time grows as cells x classes x genes; memory as cells x (genes + classes), for the
        gradient too.

    References:
        Zhang et al., Nature Methods 2019; here each gene has a dispersion of its own.

    Example:
        >>> model = MarkerModel(jnp.zeros(2), jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros(2), None)
        >>> joint = marker_log_joint(
        ...     jnp.array([9.0, 0.0]), jnp.array(1.0), jnp.eye(2), model, least_overexpression=1.0
        ... )
        >>> int(joint.argmax())
        0
    """
    log_mean = jnp.log(jnp.maximum(sizes, _LEAST_SIZE))[..., None] + model.log_baseline
    if batch_labels is not None and model.batch_effects is not None:
        effects = model.batch_effects - model.batch_effects.mean(0)
        log_mean = log_mean + jnp.pad(effects, ((0, 1), (0, 0)))[batch_labels]  # the last, of -1, is none
    mean, inverse_dispersion = jnp.exp(log_mean), jnp.exp(model.log_inverse_dispersion)
    baseline = negative_binomial_log_pmf(counts, mean, inverse_dispersion).sum(-1)

    @jax.checkpoint  # else the gradient would keep an array cells x classes x genes
    def of_class(markers: Array, excess: Array) -> Array:
        # where the gene is a marker its mean is larger by a fold, and the log-probability changes by
        fold = markers * (least_overexpression + jax.nn.softplus(excess))
        growth = jnp.log1p(mean * jnp.expm1(fold) / (inverse_dispersion + mean))
        return jnp.sum(counts * fold - (counts + inverse_dispersion) * growth, axis=-1)

    gains = jnp.moveaxis(lax.map(lambda each: of_class(*each), (marker_genes, model.excess)), 0, -1)
    return jax.nn.log_softmax(model.class_logits) + baseline[..., None] + gains


@partial(jax.jit, static_argnames="n_steps")
def fit_marker_model(
    counts: Float[Array, "cells genes"],
    sizes: Float[Array, " cells"],
    marker_genes: Float[Array, "classes genes"],
    start: MarkerModel,
    batch_labels: Int[Array, " cells"] | None = None,
    *,
    least_overexpression: ScalarLike,
    n_steps: int = 100,
    learning_rate: ScalarLike = 0.05,
) -> MarkerModel:
    """Return a model fitted to cells: shares and baselines by moments, the rest by likelihood.

    Cells are first assigned by their mean standardized marker. Shares of types and baselines of genes stay as these
    cells have them, which holds types to their markers: with all free, the largest likelihood is often one in which a
    type of few markers is used up for something that the model does not know. Overexpression, dispersions and batch
    effects are then found by gradient descent.

    Args:
        counts: Raw counts (cells, genes).
        sizes: Size factors, 1 for a mean cell (cells,).
        marker_genes: 1 where the type has the marker, else 0 (classes, genes).
        start: Shapes, and the values of what moments do not give.
        batch_labels: Code of the batch of each cell (cells,).
        least_overexpression: Log fold of a marker at least, in nats.
        n_steps: Steps of Adam; 0 gives the model of the moments.
        learning_rate: Of Adam, falling to zero along a cosine.

    Returns:
        The fitted model. The logarithm of a marker's fold above the least has a normal prior.

    Example:
        >>> counts = jnp.array([[8.0, 1.0], [9.0, 0.0], [1.0, 7.0], [0.0, 9.0]])
        >>> start = MarkerModel(jnp.zeros(2), jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros(2), None)
        >>> model = fit_marker_model(counts, jnp.ones(4), jnp.eye(2), start, least_overexpression=0.7)
        >>> bool((jax.nn.softplus(model.excess).diagonal() > 0.5).all())
        True
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, max(n_steps, 1)))

    def objective(model: MarkerModel) -> Array:
        model = model._replace(class_logits=anchor.class_logits, log_baseline=anchor.log_baseline)
        joint = marker_log_joint(
            counts, sizes, marker_genes, model, batch_labels, least_overexpression=least_overexpression
        )
        unlikely = jnp.square(jnp.log(jax.nn.softplus(model.excess)) / _EXCESS_SPREAD) / 2
        return (jnp.sum(marker_genes * unlikely) - jax.nn.logsumexp(joint, axis=-1).sum()) / len(counts)

    def step(state: tuple[MarkerModel, optax.OptState], _: None) -> tuple[tuple[MarkerModel, optax.OptState], None]:
        model, momenta = state
        slopes: Any = jax.grad(objective)(model)  # optax declares its trees without named tuples
        updates, momenta = optimizer.update(slopes, momenta)
        return (cast("MarkerModel", optax.apply_updates(cast("Any", model), updates)), momenta), None

    anchor = _moments(counts, sizes, marker_genes, start, least_overexpression)
    return lax.scan(step, (anchor, optimizer.init(cast("Any", anchor))), length=n_steps)[0][0]


def _moments(
    counts: Array, sizes: Array, marker_genes: Array, start: MarkerModel, least_overexpression: ScalarLike
) -> MarkerModel:
    """Return the model that follows from assigning cells by their mean standardized marker."""
    rates = counts / jnp.maximum(sizes, _LEAST_SIZE)[:, None]
    logs = jnp.log1p(rates)
    spread = logs.std(0)
    standardized = (logs - logs.mean(0)) / jnp.where(spread > 0, spread, 1.0)
    n_markers = marker_genes.sum(1)
    scores = standardized @ marker_genes.T / jnp.sqrt(jnp.maximum(n_markers, 1.0))
    shares = jax.nn.softmax(_START_SHARPNESS * scores, axis=1)
    mass = jnp.maximum(shares.sum(0), 1.0)
    of_class = (shares.T @ rates) / mass[:, None]
    elsewhere = 1 - marker_genes
    baseline = jnp.sum(elsewhere * mass[:, None] * of_class, axis=0) / jnp.maximum(elsewhere.T @ mass, 1.0)
    log_baseline = jnp.log(baseline + _LEAST_RATE)
    fold = jnp.log(of_class + _LEAST_RATE) - log_baseline - least_overexpression
    fold = jnp.maximum(fold, 0.1)
    return start._replace(
        class_logits=jnp.log(mass / mass.sum()),
        log_baseline=log_baseline,
        excess=fold + jnp.log(-jnp.expm1(-fold)),  # the inverse of softplus
    )
