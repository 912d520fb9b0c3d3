"""Majority voting: cells take the type that most cells of their cluster have, as in CellTypist.

Hard: each cell votes for its most probable type, and a cluster of an over-clustering takes the type of most votes.
Relaxed, with p_i the probabilities of a cell, s_ik its share in cluster k,

    v_i = softmax(log p_i / tau)                          the vote of a cell
    f_k = sum_i s_ik v_i / sum_i s_ik                     shares of the votes in a cluster
    voted_i = sum_k s_ik softmax(f_k / tau_m)             the majority's type

At tau = 1 cells vote with their probabilities; as tau, tau_m -> 0 voted is one-hot at CellTypist's majority. A cell
is unassigned whose largest probability is below a threshold, and heterogeneous if the majority of its cluster is too
small, both by sigmoids of width tau_t.

References:
    Dominguez Conde et al., Cross-tissue immune cell analysis reveals tissue-specific features in humans, Science 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops

_LEAST_PROBABILITY = 1e-20  # keeps the logarithm of zero, and its derivative, finite


@dataclass(frozen=True, kw_only=True)
class MajorityVoteConfig(OperatorConfig):
    """How soft votes and majorities are, and what is left without a name.

    Args:
        min_probability: Below it a cell is unassigned; CellTypist's `p_thres`.
        min_share: Share of the votes below which a majority gives no name; CellTypist's `min_prop`.
        temperature: Softness of a cell's vote, in nats; 1 for its probabilities.
        majority_temperature: Softness of the majority, in units of a share.
        threshold_temperature: Softness of both thresholds, in units of a probability.
    """

    min_probability: Annotated[float, Ge(0), Le(1)] = 0.5
    min_share: Annotated[float, Ge(0), Le(1)] = 0.0
    temperature: Annotated[float, Gt(0)] = 0.5
    majority_temperature: Annotated[float, Gt(0)] = 0.05
    threshold_temperature: Annotated[float, Gt(0)] = 0.02


class Votes(NamedTuple):
    """Types by majority, and who has none.

    Attributes:
        voted_probabilities: A distribution over the types for each cell (cells, classes).
        unassigned: How far the cell's own largest probability is below the threshold, from 0 to 1 (cells,).
        heterogeneous: How far its cluster lacks a majority, from 0 to 1 (cells,).
    """

    voted_probabilities: Float[Array, "cells classes"]
    unassigned: Float[Array, " cells"]
    heterogeneous: Float[Array, " cells"]


def cluster_votes(
    cell_type_probabilities: Float[Array, "cells classes"],
    cluster_assignments: Float[Array, "cells clusters"],
    *,
    softness: ArrayLike,
) -> Float[Array, "clusters classes"]:
    """Return the shares of the votes for each type in each cluster.

    Args:
        cell_type_probabilities: At least 0; rows sum to 1 (cells, classes).
        cluster_assignments: Share of each cell in each cluster, from 0 to 1 (cells, clusters).
        softness: tau > 0, in nats: votes are softmax(log p / tau).

    Returns:
        Shares (clusters, classes); rows sum to 1, but are 0 for a cluster without cells.

    References:
        CellTypist, Science 2022.

    Example:
        >>> probabilities = jnp.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
        >>> [round(share, 2) for share in cluster_votes(probabilities, jnp.ones((3, 1)), softness=0.01)[0].tolist()]
        [0.67, 0.33]
    """
    scores = jnp.log(jnp.maximum(cell_type_probabilities, _LEAST_PROBABILITY))
    votes = soft_ops.argmax(scores, axis=-1, softness=softness)
    sizes = cluster_assignments.sum(0)[:, None]
    counted = jnp.matmul(cluster_assignments.T, votes, precision=lax.Precision.HIGHEST)
    return jnp.where(sizes > 0, counted / jnp.where(sizes > 0, sizes, 1.0), 0.0)


class MajorityVote(Operator[MajorityVoteConfig]):
    """Gives each cell the type of the majority of its cluster.

    Reads `cell_type_probabilities` (cells, classes) and `cluster_assignments` (cells, clusters), best of more clusters
    than types; writes `voted_probabilities` (cells, classes), `unassigned` and `heterogeneous` (cells,). It has no
    parameters; gradients reach the classifier and the clustering.

    Args:
        config: Thresholds and softnesses.
        rngs: Not used: nothing is drawn.

    Example:
        >>> vote = MajorityVote(MajorityVoteConfig())
        >>> data = {
        ...     "cell_type_probabilities": jnp.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]),
        ...     "cluster_assignments": jnp.ones((3, 1)),
        ... }
        >>> vote.apply(data, {}, None)[0]["voted_probabilities"].argmax(1).tolist()
        [0, 0, 0]
    """

    def __init__(self, config: MajorityVoteConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature)
        self.majority_softness = Softness(config.majority_temperature)
        self.threshold_softness = Softness(config.threshold_temperature)

    def compute(
        self,
        cell_type_probabilities: Float[Array, "cells classes"],
        cluster_assignments: Float[Array, "cells clusters"],
    ) -> Votes:
        """Return types by majority, and who has none."""
        config, width = self.config, self.threshold_softness()
        shares = cluster_votes(cell_type_probabilities, cluster_assignments, softness=self.softness())
        majorities = soft_ops.argmax(shares, axis=-1, softness=self.majority_softness())
        voted = jnp.matmul(cluster_assignments, majorities, precision=lax.Precision.HIGHEST)
        agreement = jnp.matmul(cluster_assignments, shares.max(1), precision=lax.Precision.HIGHEST)
        return Votes(
            voted,
            soft_ops.less(cell_type_probabilities.max(1), config.min_probability, softness=width),
            soft_ops.less(agreement, config.min_share, softness=width),
        )
