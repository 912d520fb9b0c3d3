"""What a batch adds to an embedding, cluster by cluster: a ridge regression on indicators of the batches.

In cluster k, with weights r_ik, design rows d_i = [1, indicators of the batches of cell i] and embeddings z_i,

    w_k = argmin sum_i r_ik |z_i - d_i w|^2 + sum_b l_kb |w_b|^2
        = (D^T R_k D + L_k)^-1 D^T R_k Z

where the intercept, what all batches share, is not penalized. Cells without a batch inform the intercept alone. They
may be given as sums, too: so a query is regressed against a reference of which two moments per cluster are kept.

References:
    Korsunsky et al., Nature Methods 2019 (mixture of experts correction).
    Kang et al., Efficient and precise single-cell reference atlas mapping with Symphony, Nature Communications 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.core.errors import ContractError

_NO_MASS = 1e-6  # of one cell: below, a cluster has no mean in float32


def batch_sizes(n_batches: int | Sequence[int]) -> tuple[int, ...]:
    """Return the number of batches of each variable, for one number or several.

    Args:
        n_batches: Number of batches; of each variable, where there are several.

    Returns:
        A tuple.

    Example:
        >>> batch_sizes(3), batch_sizes((3, 2))
        ((3,), (3, 2))
    """
    return (n_batches,) if isinstance(n_batches, int) else tuple(n_batches)


def unit_length(x: Float[Array, "*cells features"]) -> Float[Array, "*cells features"]:
    """Return each row divided by its Euclidean length; a row of zeros stays zero.

    Args:
        x: Coordinates (*cells, features), of any magnitude.

    Returns:
        Directions (*cells, features).

    Example:
        >>> unit_length(jnp.array([[0.0, -4.0], [0.0, 0.0]])).tolist()
        [[0.0, -1.0], [0.0, 0.0]]
    """
    # a direction does not depend on the unit, so the unit needs no gradient, and no square of a tiny row is formed
    largest = jnp.abs(lax.stop_gradient(x)).max(-1, keepdims=True)
    relative = x / jnp.where(largest > 0, largest, 1.0)
    squared = jnp.square(relative).sum(-1, keepdims=True)
    return relative / jnp.sqrt(jnp.where(squared > 0, squared, 1.0))


def batch_indicators(batch_labels: Int[Array, "cells *variables"], n_batches: Sequence[int]) -> Float[Array, "cells b"]:
    """Return, for each batch of each variable, which cells are in it.

    Args:
        batch_labels: Codes from 0, one column per variable, or one axis where there is one variable. A cell with
            another code, by convention -1, is in no batch of that variable.
        n_batches: Number of batches of each variable.

    Returns:
        1 where a cell is in a batch, else 0; the batches of the first variable come first.

    Raises:
        ContractError: The number of columns is not that of the variables.

    Example:
        >>> batch_indicators(jnp.array([[0, 1], [1, -1]]), (2, 2)).tolist()
        [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    """
    columns = batch_labels.reshape(batch_labels.shape[0], -1)
    if columns.shape[1] != len(n_batches):
        raise ContractError(
            f"batch_labels of shape {batch_labels.shape} hold {columns.shape[1]} batch variables, and n_batches = "
            f"{tuple(n_batches)} describes {len(n_batches)}; give one column per variable"
        )
    return jnp.concatenate(
        [jax.nn.one_hot(columns[:, v], n, dtype=jnp.float32) for v, n in enumerate(n_batches)], axis=1
    )


def batch_effects(
    embeddings: Float[Array, "cells features"],
    assignments: Float[Array, "cells clusters"],
    indicators: Float[Array, "cells b"],
    ridge: Float[Array, "b clusters"],
    *,
    reference_mass: Float[Array, " clusters"] | None = None,
    reference_sums: Float[Array, "clusters features"] | None = None,
) -> Float[Array, "b clusters features"]:
    """Return what each batch adds to the embedding in each cluster, by ridge regression.

    Args:
        embeddings: Coordinates z (cells, features).
        assignments: Weights r (cells, clusters), at least 0.
        indicators: 1 where a cell is in a batch (cells, b).
        ridge: Penalty l (b, clusters), at least 0, in cells: a batch of so many cells is corrected by half.
        reference_mass: Sum of weights, by cluster, of further cells without a batch.
        reference_sums: Their weighted sum of embeddings, by cluster.

    Returns:
        Effects (b, clusters, features), in the unit of the embeddings; 0 in a cluster without cells.

    Example:
        >>> z = jnp.array([[0.0], [0.0], [1.0], [1.0]])
        >>> one_cluster, batches = jnp.ones((4, 1)), jnp.array([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2)
        >>> batch_effects(z, one_cluster, batches, jnp.full((2, 1), 1e-2)).round(1).ravel().tolist()
        [-0.5, 0.5]
    """
    design = jnp.pad(indicators, ((0, 0), (1, 0)), constant_values=1)
    width = design.shape[1]
    targets = jnp.concatenate([design, embeddings], axis=1)

    @jax.checkpoint  # else the gradient would keep an array cells x clusters for each batch
    def weighted_sums(column: Array) -> Array:
        return _product((assignments * column[:, None]).T, targets)

    sums = jnp.moveaxis(lax.map(weighted_sums, design.T), 1, 0)  # clusters, design, design + features
    gram, moments = sums[..., :width], sums[..., width:]
    if reference_mass is not None and reference_sums is not None:
        gram = gram.at[:, 0, 0].add(reference_mass)
        moments = moments.at[:, 0].add(reference_sums)
    mass = gram[:, :1, :1]
    occupied = mass > _NO_MASS
    # around the mean of the cluster, effects are differences and not small parts of large sums
    mean = moments[:, :1] / jnp.where(occupied, mass, 1.0)
    moments = jnp.where(occupied, moments - gram[..., :1] * mean, 0.0)
    penalty = jnp.pad(ridge.T, ((0, 0), (1, 0)))
    absent = jnp.diagonal(gram, axis1=1, axis2=2) + penalty <= 0
    gram = gram + (penalty + absent)[..., None] * jnp.eye(width, dtype=gram.dtype)
    gram = jnp.where(occupied, gram, jnp.eye(width, dtype=gram.dtype))
    return jnp.moveaxis(jnp.linalg.solve(gram, moments)[:, 1:], 1, 0)


def without_batch_effects(
    embeddings: Float[Array, "cells features"],
    assignments: Float[Array, "cells clusters"],
    indicators: Float[Array, "cells b"],
    effects: Float[Array, "b clusters features"],
) -> Float[Array, "cells features"]:
    """Return z_i - sum_k r_ik w_k,b(i): each cell without what its batches add in its clusters.

    Args:
        embeddings: Coordinates z (cells, features).
        assignments: Weights r (cells, clusters).
        indicators: 1 where a cell is in a batch (cells, b).
        effects: What each batch adds in each cluster, from `batch_effects`.

    Returns:
        Corrected coordinates; a cell without batches stays where it is.

    Example:
        >>> z, one_cluster, batches = jnp.array([[0.0], [1.0]]), jnp.ones((2, 1)), jnp.eye(2)
        >>> without_batch_effects(z, one_cluster, batches, jnp.array([[[-0.5]], [[0.5]]])).ravel().tolist()
        [0.5, 0.5]
    """

    @jax.checkpoint
    def taken_out(column: Array, effect: Array) -> Array:
        return _product(assignments * column[:, None], effect)

    def step(corrected: Array, batch: tuple[Array, Array]) -> tuple[Array, None]:
        return corrected - taken_out(*batch), None

    return lax.scan(step, embeddings, (indicators.T, effects))[0]


def _product(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=lax.Precision.HIGHEST)
