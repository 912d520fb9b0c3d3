"""Which reads are copies of one molecule, by unique molecular identifiers (UMIs) with errors: the directional network.

Hard: the UMIs of reads that may be copies are nodes, and an edge leads from a to b if they differ by one letter and
n_a >= 2 n_b - 1 reads have them. The most frequent UMI and all that it reaches are one molecule, then the most frequent
of the rest, and so on. Relaxed, for letters p that differ by d_ij = 1/2 sum |p_i - p_j|^2,

    same_ij = exp(-max(0, d_ij - 1/2) / tau)    near_ij = exp(-max(0, d_ij - 3/2) / tau)    n_i = sum_j w_j same_ij
    edge_ij = max(same_ij, near_ij sigmoid((n_i - 2 n_j + 3/2) / tau_n))                    reach_ij: the best path
    P(i began with v) = reach_vi prod_u (1 - reach_ui sigmoid((n_u - n_v - 1/2) / tau_n))

and two reads are alike as the cosine of their distributions P. As both softnesses -> 0 these are the molecules.

References:
    Smith, Heger and Sudbery, UMI-tools: modeling sequencing errors in Unique Molecular Identifiers to improve
    quantification accuracy, Genome Research 2017.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import soft_ops

_SQUARINGS = 4  # of the network: paths of up to 16 edges, and counts double along all but those of single reads
_LEAST = 1e-30  # guards logarithms and roots


def mismatches(letters: Float[Array, "reads positions letters"]) -> Float[Array, "reads reads"]:
    """Return by how many letters each two sequences differ.

    Args:
        letters: Distributions over the letters.

    Returns:
        Half the squared distance of the distributions, summed over the positions: the Hamming distance of sequences
        whose letters are certain, 0 for equal ones however uncertain.

    Example:
        >>> mismatches(jnp.eye(4)[jnp.array([[0, 1, 2], [0, 1, 3]])]).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    flat = letters.reshape(len(letters), -1)
    squares = (flat**2).sum(1)
    products = jnp.matmul(flat, flat.T, precision="highest")  # d is a small difference of large numbers
    return jnp.maximum((squares[:, None] + squares[None, :]) / 2 - products, 0)


def same_molecule(
    umis: Float[Array, "reads positions letters"],
    log_similarity: Float[Array, "reads reads"],
    weights: Float[Array, " reads"],
    *,
    softness: ArrayLike,
    count_softness: ArrayLike,
) -> Float[Array, "reads reads"]:
    """Return how far each two reads are copies of one molecule, by the directional network of their UMIs.

    Args:
        umis: Distributions over the letters of the UMIs.
        log_similarity: Of the reads beside their UMIs: 0 for those that may be copies, very negative for others.
        weights: With which each read counts.
        softness: tau > 0, in mismatches.
        count_softness: Above 0, in reads.

    Returns:
        Similarities from 0 to 1. In the limit 1 if both reads have UMIs of one cluster of the directional method, else
        0; where a UMI may come from two molecules with equally many reads, it is shared by both. Time and memory grow
        with the third power of the number of reads.

    References:
        Smith, Heger and Sudbery, UMI-tools, Genome Research 2017.

    Example:
        >>> umis = jnp.eye(4)[jnp.array([[0, 0], [0, 0], [0, 0], [0, 1], [2, 2]])]  # AA three times, AC, GG
        >>> alike = same_molecule(umis, jnp.zeros((5, 5)), jnp.ones(5), softness=0.01, count_softness=0.01)
        >>> alike.round(2)[3].tolist()
        [1.0, 1.0, 1.0, 1.0, 0.0]
    """
    distance = mismatches(umis)
    equal, near = (jnp.exp(log_similarity - beyond(distance, allowed) / softness) for allowed in (0, 1))
    counts = equal @ weights
    least = 2 * counts[None, :] - 1.5  # counts are integers in the limit
    larger = soft_ops.greater(counts[:, None], least, softness=count_softness)
    edges = jnp.maximum(equal, near * larger) * weights[:, None]
    edges = jnp.where(jnp.eye(len(umis), dtype=bool), 1.0, edges)

    def joined(reach: Array, _: None) -> tuple[Array, None]:
        return (reach[:, :, None] * reach[None, :, :]).max(1), None

    reach, _ = jax.lax.scan(joined, edges, None, length=_SQUARINGS)
    before = soft_ops.greater(counts[:, None], counts[None, :] + 0.5, softness=count_softness)
    none_before = jnp.log(jnp.maximum(1 - before[:, :, None] * reach[:, None, :], _LEAST)).sum(0)
    origin = reach * jnp.exp(none_before)  # (first read, read)
    origin = origin / jnp.sqrt(jnp.maximum((origin**2).sum(0), _LEAST))
    return origin.T @ origin


def beyond(distance: Array, allowed: ArrayLike) -> Array:
    """Return the mismatches beyond the allowed ones; half a mismatch is none.

    Example:
        >>> beyond(jnp.array([0.2, 1.0, 3.0]), 1).tolist()
        [0.0, 0.0, 1.5]
    """
    return jnp.maximum(distance - allowed - 0.5, 0)
