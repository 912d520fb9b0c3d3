"""The log of the sum over all paths of a profile HMM, with what a path does on average; and the best path.

For Z = sum over paths of exp(weight of the path), d log Z / d weight is how often a path does the thing that has this
weight, on average. One pass forward and one back find log Z and these counts, which are its derivative; their own
derivative is symmetric (the second derivative of log Z), so that its product with a cotangent is a directional
derivative: no derivative keeps a tape. In the semiring of the maximum the same two passes find the best path (Viterbi).

References:
    Durbin, Eddy, Krogh and Mitchison, Biological sequence analysis, 1998, chapters 3 and 5.
    Mensch and Blondel, Differentiable dynamic programming for structured prediction and attention, ICML 2018.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.profile_scan import BEST, PathWeights, backward, forward
from diffbio.operators.alignment.semirings import LOG

STATES = "NMIJC"
"""The states that emit residues: the flank before the profile, its match and insert states, the flanks between two
passes and after the last."""


class PathSum(NamedTuple):
    """What the paths of a profile HMM come to.

    Attributes:
        log_sum: log of the sum of exp(weight) over all paths, in nats; about `NEVER` without a residue.
        counts: How often a path does each thing, on average.
    """

    log_sum: Float[Scalar, ""]
    counts: PathWeights


class BestPath(NamedTuple):
    """The heaviest path of a profile HMM.

    Attributes:
        weight: In nats.
        state: Of each residue, the place of its letter in `STATES`.
        node: That of a residue in a match or insert state, counted from 1; else 0.
    """

    weight: Float[Scalar, ""]
    state: Int[Array, " positions"]
    node: Int[Array, " positions"]


@jax.custom_vjp
def path_sum(weights: PathWeights, length: Int[Scalar, ""]) -> PathSum:
    """Return the log of the sum over all paths, and what a path does on average.

    Args:
        weights: Log-weights, in nats; `NEVER` for what must not be.
        length: How many residues count, the first ones.

    Returns:
        `log_sum` (), and `counts`, shaped as the weights; those of residues beyond the length are 0. Time grows as
        positions x nodes, and so does the memory of the counts; what the way back keeps grows as the square root of the
        positions.

    Example:
        >>> from diffbio.operators.alignment.plan7 import path_weights, plan7_with_gaps
        >>> core = plan7_with_gaps(jnp.eye(4)[jnp.array([0, 1, 3])])  # the profile ACT
        >>> weights = path_weights(core, jnp.eye(4), jnp.array(4), frequencies=jnp.full(4, 0.25))
        >>> path_sum(weights, jnp.array(4)).counts.emissions.match.round(1).argmax(0).tolist()  # on ACGT
        [0, 1, 3]
    """
    return _path_sum(weights, length)


def best_profile_path(weights: PathWeights, length: Int[Scalar, ""]) -> BestPath:
    """Return the heaviest path; where several are, one of them.

    Args:
        weights: Log-weights, in nats.
        length: How many residues count, the first ones.

    Returns:
        Weight, and state and node of each residue; no derivatives reach the latter two. Nodes between two successive
        ones of a pass are deleted.

    References:
        Viterbi, Error bounds for convolutional codes and an asymptotically optimum decoding algorithm, 1967.

    Example:
        >>> from diffbio.operators.alignment.plan7 import path_weights, plan7_with_gaps
        >>> core = plan7_with_gaps(jnp.eye(4)[jnp.array([1, 2])])  # the profile CG
        >>> weights = path_weights(core, jnp.eye(4), jnp.array(4), frequencies=jnp.full(4, 0.25))
        >>> path = best_profile_path(weights, jnp.array(4))  # on ACGT
        >>> "".join(STATES[state] for state in path.state), path.node.tolist()
        ('NMMC', [0, 1, 2, 0])
    """
    weight, rows = forward(weights, length, BEST)
    match, insert = backward(weights, length, BEST, rows).emissions
    matched, inserted = match.sum(1) > 0.5, insert.sum(1) > 0.5
    passed = matched | inserted
    started = jnp.cumsum(passed) > 0
    ends = jnp.cumsum(passed[::-1])[::-1] == 0
    flank = jnp.where(started, jnp.where(ends, STATES.index("C"), STATES.index("J")), STATES.index("N"))
    state = jnp.where(matched, STATES.index("M"), jnp.where(inserted, STATES.index("I"), flank))
    node = jnp.where(passed, jnp.argmax(match + insert, axis=1) + 1, 0)
    return BestPath(weight, state, node)


def _path_sum(weights: PathWeights, length: Array) -> PathSum:
    log_sum, rows = forward(weights, length, LOG)
    return PathSum(log_sum, backward(weights, length, LOG, rows))


def _forward(weights: PathWeights, length: Array) -> tuple[PathSum, tuple[PathWeights, Array, PathWeights]]:
    weights, length = jax.tree.map(lambda leaf: leaf.value, (weights, length))
    found = _path_sum(weights, length)
    return found, (weights, length, found.counts)


def _backward(saved: tuple[PathWeights, Array, PathWeights], cotangent: PathSum) -> tuple[PathWeights, None]:
    weights, length, counts = saved
    slopes = jax.tree.map(jnp.zeros_like, counts)
    if not _is_symbolic(cotangent.log_sum):
        slopes = jax.tree.map(lambda count: cotangent.log_sum * count, counts)
    if not all(map(_is_symbolic, jax.tree.leaves(cotangent.counts, is_leaf=_is_symbolic))):
        direction = jax.tree.map(
            lambda given, weight: jnp.zeros_like(weight) if _is_symbolic(given) else given,
            cotangent.counts,
            weights,
            is_leaf=_is_symbolic,
        )
        _, change = jax.jvp(lambda given: _path_sum(given, length).counts, (weights,), (direction,))
        slopes = jax.tree.map(jnp.add, slopes, change)
    return slopes, None


def _is_symbolic(leaf: object) -> bool:
    return isinstance(leaf, SymbolicZero)


path_sum.defvjp(_forward, _backward, symbolic_zeros=True)
