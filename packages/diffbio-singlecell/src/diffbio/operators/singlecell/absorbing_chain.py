"""Fate probabilities: where a random walk on the graph of cells ends.

A walker at cell i moves to cell j with probability T_ij, until it enters a terminal state, a set of cells that it
never leaves. With Q the moves between other cells and R_if the chance to step into terminal state f, the probability B
that a walk ends in f is, summed over walks of all lengths,

    B = (I - Q)^-1 R

Nothing is relaxed: it is smooth as it is, in T. To keep it solvable where some cells can't reach any terminal state,
the walker is lost with a chance of 1e-9 at each step, and B is that of walkers that are not lost. The gradient solves
the transposed system.

References:
    Kemeny and Snell, Finite Markov chains, 1960 (absorbing chains).
    Setty et al., Nature Biotechnology 2019 (Palantir); Lange et al., CellRank, Nature Methods 2022 (on cells).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jax import lax
from jax.scipy.linalg import lu_factor, lu_solve
from jax.scipy.sparse.linalg import gmres
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig
from diffbio.operators.singlecell.neighbor_graph import neighbor_matmul

_LOSS = 1e-9  # chance that the walker is lost at a step
_FACTORED_LOSS = 1e-6  # the same in the matrix that is factorized: less would be rounded away there in float32
_REFINEMENTS = 10  # steps that make up for the difference
_LEAST = 1e-3  # share of walks that must end for their fates to be told from rounding
_RESIDUAL = 1e-6  # relative, at which GMRES stops
_RESTART = 60  # steps of GMRES between restarts
_RESTARTS = 50

Solver = Literal["direct", "gmres"]


@dataclass(frozen=True, kw_only=True)
class FateProbabilitiesConfig(OperatorConfig):
    """Configuration of fate probabilities.

    Args:
        n_fates: Number of terminal states.
        solver: `"direct"` factorizes a matrix cells x cells: exact, for up to some 10,000 cells. `"gmres"` needs
            memory linear in cells, and suits graphs that are directed towards the terminal states; walks that wander
            for more than some thousand steps it does not resolve.
    """

    n_fates: Annotated[int, Ge(1)]
    solver: Solver = "direct"


class Fates(NamedTuple):
    """Where the walk from each cell ends.

    Attributes:
        fate_probabilities: Chance to end in each terminal state (cells, fates); rows sum to 1, but to 0 for cells from
            which no walk ends.
        fate_entropy: Entropy of the probabilities, in nats: 0 for a cell with one fate, log(fates) for one that may
            become anything (cells,).
    """

    fate_probabilities: Float[Array, "cells fates"]
    fate_entropy: Float[Array, " cells"]


@partial(jax.jit, static_argnames=("n_fates", "solver"))
def absorption_probabilities(
    weights: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    terminal_labels: Int[Array, " cells"],
    *,
    n_fates: int,
    solver: Solver = "direct",
) -> Float[Array, "cells fates"]:
    """Return the probabilities that a walk from each cell ends in each terminal state.

    Args:
        weights: Non-negative weights of the moves to each cell's neighbours, in any unit (cells, neighbors). Each row
            is divided by its sum; from a cell without any weight the walk goes nowhere.
        indices: Rows of the neighbours (cells, neighbors).
        terminal_labels: For the cells of a terminal state its number, from 0; -1 for all other cells (cells,).
        n_fates: Number of terminal states.
        solver: `"direct"`, in time cells^3 and memory cells^2; or `"gmres"`, in time cells x neighbors x steps and
            memory cells x (neighbors + 60).

    Returns:
        Probabilities (cells, fates), 1 for a terminal cell's own state. Rows sum to 1, or to less, down to 0, where
        fewer than one walk in a thousand ends within about a million steps.

    References:
        Kemeny and Snell, Finite Markov chains, theorem 3.3.7.

    Example:
        >>> indices = jnp.array([[0, 0], [0, 2], [1, 3], [3, 3]])  # the gambler's ruin
        >>> labels = jnp.array([0, -1, -1, 1])
        >>> fates = absorption_probabilities(jnp.ones((4, 2)), indices, labels, n_fates=2)
        >>> [round(share, 2) for share in fates[1].tolist()]
        [0.67, 0.33]
    """
    weights = jnp.asarray(weights)
    ended = (terminal_labels >= 0)[:, None]
    ends = jax.nn.one_hot(terminal_labels, n_fates, dtype=weights.dtype)
    moves, losses = _moves(jnp.where(ended, 0.0, weights), indices)

    def balance(values: Array) -> Array:
        """Return (I - Q) values, by differences: their rounding does not grow with the length of the walks."""

        def add(total: Array, column: tuple[Array, Array]) -> tuple[Array, None]:
            move, cells = column
            return total + move[:, None] * (values - jnp.where(ended[cells], 0.0, values[cells])), None

        start = jnp.where(ended, 1.0, losses) * values
        return lax.scan(add, start, (moves.T, indices.T))[0]

    entering = neighbor_matmul(moves, indices, ends)
    solve, solve_transposed = _by_factors(moves, indices, ended) if solver == "direct" else (_by_gmres, _by_gmres)
    reached = lax.custom_linear_solve(balance, entering, solve, solve_transposed)
    kept = jnp.maximum(reached, 0.0)
    kept = kept / jnp.maximum(kept.sum(axis=1, keepdims=True), _LEAST)
    return jnp.where(ended, ends, kept)


def entropy_of_fates(probabilities: Float[Array, "cells fates"]) -> Float[Array, " cells"]:
    """Return the entropy of each cell's fates, after its probabilities are scaled to a sum of 1.

    Args:
        probabilities: Non-negative (cells, fates).

    Returns:
        Entropies in nats, from 0 to log(fates); 0 for a cell without any fate.

    Example:
        >>> [round(entropy, 3) for entropy in entropy_of_fates(jnp.array([[0.5, 0.5], [0.9, 0.1]])).tolist()]
        [0.693, 0.325]
    """
    total = probabilities.sum(axis=1, keepdims=True)
    shares = probabilities / jnp.where(total > 0, total, 1.0)
    # a share that rounding hides has the slope of the least one that it does not: -log(0) has none
    logs = jnp.log(jnp.maximum(shares, jnp.finfo(shares.dtype).eps))
    return -jnp.sum(shares * logs, axis=1)


def _moves(weights: Array, indices: Array) -> tuple[Float[Array, "cells neighbors"], Float[Array, "cells 1"]]:
    """Return the probabilities of the moves to other cells, given that the walker moves, and those of its loss."""
    largest = lax.stop_gradient(jnp.max(weights, axis=1, keepdims=True))
    scaled = weights / jnp.where(largest > 0, largest, 1.0)
    total = scaled.sum(axis=1, keepdims=True)
    shares = (1 - _LOSS) * scaled / jnp.where(total > 0, total, 1.0)
    # moves that stay are divided out, so that a lazy walk is as easy to solve as a brisk one
    shares = jnp.where(indices == jnp.arange(weights.shape[0])[:, None], 0.0, shares)
    leaving = shares.sum(axis=1, keepdims=True) + _LOSS
    return shares / leaving, _LOSS / leaving


def _by_factors(moves: Array, indices: Array, ended: Array) -> tuple[Callable, Callable]:
    """Return solvers of the system and of its transpose, by one factorization and refinement."""
    moves = lax.stop_gradient(jnp.where(ended[indices][..., 0], 0.0, moves))
    rows = jnp.arange(moves.shape[0])[:, None]
    factors = lu_factor(jnp.eye(moves.shape[0], dtype=moves.dtype).at[rows, indices].add((_FACTORED_LOSS - 1) * moves))

    def solve(product: Callable, right: Array, trans: int = 0) -> Array:
        def refine(found: Array, _: None) -> tuple[Array, None]:
            return found + lu_solve(factors, right - product(found), trans), None

        return lax.scan(refine, jnp.zeros_like(right), length=1 + _REFINEMENTS)[0]

    return solve, partial(solve, trans=1)


def _by_gmres(product: Callable, right: Array) -> Float[Array, "cells fates"]:
    """Solve for all fates together by restarted GMRES."""
    restart = min(_RESTART, right.size)
    # the batched method fails where it finds the solution before the restart
    options = {"restart": restart, "maxiter": _RESTARTS, "solve_method": "incremental"}
    return gmres(product, right, tol=_RESIDUAL, **options)[0]


class FateProbabilities(Operator[FateProbabilitiesConfig]):
    """Say in which terminal states the walks from each cell end, and how open its fate is.

    Reads `transition_weights` and `neighbor_indices`, both (cells, neighbors): non-negative weights of the moves to
    each cell's neighbours, as from a graph directed by pseudotime or velocity; and `terminal_labels` (cells,), the
    number of the terminal state for its cells, -1 for others. Writes `fate_probabilities` (cells, fates) and
    `fate_entropy` (cells,). It has no parameters.

    Args:
        config: Number of terminal states, solver.
        rngs: Not used.

    Example:
        >>> chain = {"neighbor_indices": jnp.array([[0, 0], [0, 2], [1, 3], [3, 3]])}
        >>> chain |= {"transition_weights": jnp.ones((4, 2)), "terminal_labels": jnp.array([0, -1, -1, 1])}
        >>> data, _, _ = FateProbabilities(FateProbabilitiesConfig(n_fates=2)).apply(chain, {}, None)
        >>> [round(share, 2) for share in data["fate_probabilities"][:, 0].tolist()]
        [1.0, 0.67, 0.33, 0.0]
    """

    def compute(
        self,
        transition_weights: Float[Array, "cells neighbors"],
        neighbor_indices: Int[Array, "cells neighbors"],
        terminal_labels: Int[Array, " cells"],
    ) -> Fates:
        """Return fate probabilities and their entropy."""
        probabilities = absorption_probabilities(
            transition_weights,
            neighbor_indices,
            terminal_labels,
            n_fates=self.config.n_fates,
            solver=self.config.solver,
        )
        return Fates(probabilities, entropy_of_fates(probabilities))
