"""Plan 7, the model of HMMER: a profile of match, insert and delete states, between flanks.

Its probabilities are those of a core of nodes k = 1..n, each with a match, an insert and a delete state. A search adds
what is around it: entry at any node with

    p(B -> M_k) = occupancy_k / sum over j of occupancy_j (n - j + 1)

and exit after any (local), or entry and exit at the ends only (glocal: what the path deletes before its first match
is folded into its entry); one pass through the core, or on average two (multihit); and flanks, whose residues have the
null model's letters and whose mean length is that of the sequence, less what the core takes. All weights are
logarithms of odds against the null model: letters of the background, in a sequence of L residues with p(one more) =
L / (L + 1).

References:
    Eddy, A probabilistic model of local sequence alignment that simplifies statistical significance estimation, PLoS
    Computational Biology 2008.
    Eddy, Accelerated profile HMM searches, PLoS Computational Biology 2011.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.profile_scan import Emissions, Moves, PathWeights, Transitions
from diffbio.operators.alignment.semirings import NEVER

_LEAST = 1e-30  # probability: its logarithm is finite, and below any that counts
_SWISS_PROT = {
    "A": 0.0787945, "C": 0.0151600, "D": 0.0535222, "E": 0.0668298, "F": 0.0397062, "G": 0.0695071, "H": 0.0229198,
    "I": 0.0590092, "K": 0.0594422, "L": 0.0963728, "M": 0.0237718, "N": 0.0414386, "P": 0.0482904, "Q": 0.0395639,
    "R": 0.0540978, "S": 0.0683364, "T": 0.0540687, "V": 0.0673417, "W": 0.0114135, "Y": 0.0304133,
}  # fmt: skip


class Plan7(NamedTuple):
    """The core of a profile HMM: logarithms of probabilities.

    Attributes:
        match: Of the letters of each match state.
        from_match: From a node's match state to the next match state, to its own insert state, and to the next delete
            state; row 0 is from the core's begin, row k from node k. From the last node all go to the end.
        from_insert: To the next match state, and to itself; from node 1 on.
        from_delete: To the next match state, and to the next delete state; from node 1 on.
        insert: Of the letters of the insert states from node 1 on; None for the background's, as HMMER searches. The
            last node has none.
    """

    match: Float[Array, "nodes letters"]
    from_match: Float[Array, "nodes 3"]
    from_insert: Float[Array, "inner 2"]
    from_delete: Float[Array, "inner 2"]
    insert: Float[Array, "inner letters"] | None = None


def background(alphabet: str) -> Float[np.ndarray, " letters"]:
    """Return the null model's frequencies: those of Swiss-Prot for amino acids, else all equal.

    Args:
        alphabet: The letters.

    References:
        HMMER's, of Swiss-Prot 50.8.

    Example:
        >>> background("ACGT").tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    if set(alphabet) == set(_SWISS_PROT):
        return np.array([_SWISS_PROT[letter] for letter in alphabet], np.float32)
    return np.full(len(alphabet), 1 / len(alphabet), np.float32)


def plan7_with_gaps(match: Float[Array, "nodes letters"], *, gap_open: float = 0.02, gap_extend: float = 0.4) -> Plan7:
    """Return a core of given letters with the same gaps everywhere, as a search with a single sequence begins.

    Args:
        match: Probabilities of the letters of each match state.
        gap_open: Probability of an insertion, and of a deletion, after a match state; below 1/2.
        gap_extend: Probability of each further residue or node of it, below 1.

    References:
        The defaults are phmmer's.

    Example:
        >>> [round(p, 2) for p in jnp.exp(plan7_with_gaps(jnp.eye(4)).from_match[0]).tolist()]
        [0.96, 0.02, 0.02]
    """
    n_nodes = match.shape[0]

    def repeated(count: int, *probabilities: float) -> Array:
        return jnp.tile(jnp.log(jnp.asarray(probabilities, match.dtype)), (count, 1))

    return Plan7(
        jnp.log(jnp.maximum(match, _LEAST)),
        repeated(n_nodes, 1 - 2 * gap_open, gap_open, gap_open),
        repeated(n_nodes - 1, 1 - gap_extend, gap_extend),
        repeated(n_nodes - 1, 1 - gap_extend, gap_extend),
    )


def path_weights(
    core: Plan7,
    letters: Float[Array, "positions letters"],
    length: Int[Scalar, ""],
    *,
    frequencies: Float[Array, " letters"],
    local: bool = True,
    multihit: bool = True,
) -> PathWeights:
    """Return the log-odds of all that a path may do on a sequence.

    Args:
        core: Of the profile.
        letters: A distribution p over the letters for each position; its odds are sum_a p_a e_a / f_a, those of an
            uncertain observation (p is what the background f becomes by it). HMMER takes the mean of the logarithms
            instead for the letters X, B, Z and J.
        length: How many positions count, the first ones.
        frequencies: The null model's f, above 0.
        local: Whether a path may enter at any node and leave after any.
        multihit: Whether it may pass through the core more than once.

    Returns:
        Log-odds in nats, all but those of the sequence's length; see `null_length`.

    Example:
        >>> core = plan7_with_gaps(jnp.eye(4))
        >>> weights = path_weights(core, jnp.eye(4), jnp.array(4), frequencies=jnp.full(4, 0.25))
        >>> round(float(jnp.exp(weights.moves.move)), 3), jnp.exp(weights.emissions.match[0]).round(2).tolist()
        (0.429, [4.0, 0.0, 0.0, 0.0])
    """
    n_nodes, dtype = core.match.shape[0], core.match.dtype
    residues = length.astype(dtype)
    moved = 3.0 if multihit else 2.0  # flanks that a path has on average
    never = jnp.full(n_nodes, NEVER, dtype)
    half, certain = jnp.log(jnp.asarray(0.5, dtype)), jnp.zeros((), dtype)
    moves = Moves(
        transitions=Transitions(
            *(_from_node(column) for column in jnp.moveaxis(core.from_match[1:], 1, 0)),
            *(_from_node(column) for column in jnp.moveaxis(core.from_insert, 1, 0)),
            *(_from_node(column) for column in jnp.moveaxis(core.from_delete, 1, 0)),
        ),
        begin=_local_entry(core) if local else _glocal_entry(core),
        exit=jnp.zeros_like(never) if local else never.at[-1].set(0.0),
        loop=jnp.log(jnp.maximum(residues, 1.0) / (residues + moved)),
        move=jnp.log(moved / (residues + moved)),
        again=half if multihit else never[0],
        stop=half if multihit else certain,
    )
    counted = jnp.arange(letters.shape[0])[:, None] < length
    seen = jnp.where(counted, letters, frequencies)  # whatever stands in the padding
    match = _log_odds(seen, core.match, frequencies)
    if core.insert is None:
        return PathWeights(moves, Emissions(match, jnp.zeros_like(match)))
    insert = _log_odds(seen, core.insert, frequencies)
    return PathWeights(moves, Emissions(match, jnp.pad(insert, ((0, 0), (0, 1)))))


def null_length(length: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return the log-probability, in nats, that the null model gives to a sequence's length.

    Args:
        length: Residues.

    Example:
        >>> round(float(jnp.exp(null_length(jnp.array(1)))), 6)
        0.25
    """
    residues = jnp.asarray(length, jnp.float32)
    return -residues * jnp.log1p(1 / jnp.maximum(residues, 1.0)) - jnp.log1p(residues)


def _from_node(column: Array) -> Array:
    """Return a column of transitions from node 1 on, with nothing after the last node."""
    return jnp.pad(column, (0, 1), constant_values=NEVER)


def _log_odds(letters: Array, states: Array, frequencies: Array) -> Float[Array, "positions states"]:
    odds = jnp.matmul(letters, (jnp.exp(states) / frequencies).T, precision=lax.Precision.HIGHEST)
    return jnp.log(jnp.maximum(odds, _LEAST))


def _local_entry(core: Plan7) -> Float[Array, " nodes"]:
    """Return log p(B -> M_k): all parts of the core are equally likely, as far as paths visit its match states."""
    n_nodes = core.match.shape[0]
    deleted, returned = jnp.exp(core.from_match[:, 2]), jnp.exp(core.from_delete[:, 0])

    def step(occupancy: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        following = occupancy * (1 - at[0]) + (1 - occupancy) * at[1]
        return following, following

    first = 1 - deleted[0]
    _, others = lax.scan(step, first, (deleted[1:], returned))
    visited = jnp.log(jnp.maximum(jnp.concatenate([first[None], others]), _LEAST))
    lengths = jnp.log(jnp.arange(n_nodes, 0, -1).astype(visited.dtype))
    return visited - jax.nn.logsumexp(visited + lengths)


def _glocal_entry(core: Plan7) -> Float[Array, " nodes"]:
    """Return log p(B -> M_k): of deleting all nodes before k, and not k itself."""
    until = core.from_match[0, 2] + jnp.cumsum(
        jnp.concatenate([jnp.zeros(1, core.match.dtype), core.from_delete[:, 1]])
    )
    first = jnp.logaddexp(core.from_match[0, 0], core.from_match[0, 1])
    return jnp.concatenate([first[None], until[:-1] + core.from_delete[:, 0]])
