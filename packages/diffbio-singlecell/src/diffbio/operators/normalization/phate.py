"""PHATE: a map in which distances are differences of information between the walks of cells.

Neighbours at distance d have the affinity exp(-(d / sigma_i)^decay), sigma_i being the distance of cell i to its k-th
neighbour. Made symmetric, with ones on the diagonal and rows divided by their sums, it is a diffusion operator P. The
potential of a cell is -log of its row of P^t; t is the knee of the von Neumann entropy of P^t. The Euclidean
distances between potentials are laid out by metric multidimensional scaling.

The softness is tau = 1 / decay. As tau -> 0 the affinity becomes the hard k-nearest-neighbour graph: 1 for neighbours
nearer than the k-th, 0 beyond (and 1 / e for the k-th itself, which lies on the boundary at every tau). The time t is
an integer and constant to the gradient, like the choice of neighbours.

References:
    Moon et al., Visualizing structure and transitions in high-dimensional biological data, Nature Biotechnology 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.normalization.landmarks import landmark_transitions, landmarks
from diffbio.operators.normalization.metric_mds import metric_mds
from diffbio.operators.normalization.von_neumann import knee, von_neumann_entropy
from diffbio.operators.singlecell.imputation import alpha_decay
from diffbio.operators.singlecell.neighbors import Neighbors, nearest_neighbors

_WEAKEST = 1e-4  # a weaker affinity counts as none
_LEAST = 1e-7  # probability that is added before the logarithm
_BITS = 7  # of a time that is found


@dataclass(frozen=True, kw_only=True)
class PHATEConfig(OperatorConfig):
    """Settings of PHATE, those of its authors.

    Args:
        n_components: Dimensions of the map.
        n_neighbors: The neighbour whose distance is the bandwidth, the cell itself not counted (`knn`).
        max_neighbors: Neighbours that have any affinity, at least `n_neighbors`; `None` means twenty times as many.
            Where there are fewer cells, all count.
        decay: How sharply the affinity falls at the bandwidth; its inverse is the softness.
        diffusion_time: Steps t of the walk; `None` finds the knee of the entropy at each call.
        n_landmarks: Where there are more cells, they are gathered in so many groups.
        max_iterations: Most steps of multidimensional scaling.

    Raises:
        ConfigError: A value is out of range.
    """

    n_components: Annotated[int, Ge(1)] = 2
    n_neighbors: Annotated[int, Ge(1)] = 5
    max_neighbors: Annotated[int, Ge(1)] | None = None
    decay: Annotated[float, Gt(0)] = 40.0
    diffusion_time: Annotated[int, Ge(1)] | None = None
    n_landmarks: Annotated[int, Ge(3)] = 2000
    max_iterations: Annotated[int, Ge(1)] = 1000

    def __post_init__(self) -> None:
        """Check that the bandwidth lies within the neighbours."""
        super().__post_init__()
        if self.max_neighbors is not None and self.max_neighbors < self.n_neighbors:
            raise ConfigError(
                f"PHATEConfig.max_neighbors is {self.max_neighbors}; it must be at least n_neighbors, "
                f"which is {self.n_neighbors}"
            )


class PHATELayout(NamedTuple):
    """The map of PHATE.

    Attributes:
        phate: Centred coordinates along their principal axes, in nats.
    """

    phate: Float[Array, "cells components"]


def decayed_affinities(neighbors: Neighbors, n_neighbors: int, *, decay: ArrayLike) -> Float[Array, "cells neighbors"]:
    """Return the affinities exp(-(d / sigma)^decay) to the neighbours; those below 1e-4 are 0.

    Args:
        neighbors: Neighbours of each cell, nearest first (cells, neighbors).
        n_neighbors: Which neighbour sets the bandwidth sigma, from 1.
        decay: Above 0.

    Example:
        >>> neighbors = Neighbors(jnp.array([[1, 2]]), jnp.array([[1.0, 2.0]]))
        >>> jnp.log(decayed_affinities(neighbors, 2, decay=2.0)).round(3).tolist()
        [[-0.25, -1.0]]
    """
    affinities = alpha_decay(neighbors.distances, n_neighbors, decay=decay)
    return jnp.where(affinities >= _WEAKEST, affinities, 0.0)


def diffusion_operator(
    affinities: Float[Array, "cells neighbors"], indices: Int[Array, "cells neighbors"]
) -> Float[Array, "cells cells"]:
    """Return the row-stochastic matrix of (K + K^T) / 2 with ones on the diagonal, as a dense array.

    Args:
        affinities: Entries of K, at least 0 (cells, neighbors).
        indices: Their columns (cells, neighbors).

    Example:
        >>> diffusion_operator(jnp.ones((2, 1)), jnp.array([[1], [0]])).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    n_cells = len(indices)
    rows = jnp.arange(n_cells)[:, None]
    directed = jnp.zeros((n_cells, n_cells), affinities.dtype).at[rows, indices].add(affinities / 2)
    symmetric = directed + directed.T + jnp.eye(n_cells, dtype=affinities.dtype)
    return symmetric / symmetric.sum(axis=1, keepdims=True)


def log_potential(operator: Float[Array, "states states"], time: Int[Array, ""] | int) -> Float[Array, "states states"]:
    """Return -log(P^time + 1e-7).

    Args:
        operator: Row-stochastic P (states, states).
        time: Power, at least 0; below 128 if traced.

    Example:
        >>> jnp.exp(-log_potential(jnp.full((2, 2), 0.5), 3)).round(3).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """

    def double(state: tuple[Array, Array], bit: Array) -> tuple[tuple[Array, Array], None]:
        power, square = state
        power = jnp.where((time >> bit) & 1 == 1, power @ square, power)
        return (power, square @ square), None

    n_bits = time.bit_length() if isinstance(time, int) else _BITS
    start = (jnp.eye(len(operator), dtype=operator.dtype), operator)
    (power, _), _ = lax.scan(double, start, jnp.arange(n_bits))
    return -jnp.log(power + _LEAST)


def row_distances(rows: Float[Array, "states features"]) -> Float[Array, "states states"]:
    """Return the Euclidean distances between all rows, from their differences: 0 between equal ones.

    Args:
        rows: Coordinates (states, features).

    Example:
        >>> row_distances(jnp.array([[0.0, 0.0], [3.0, 4.0]])).tolist()
        [[0.0, 5.0], [5.0, 0.0]]
    """

    @jax.checkpoint  # else the gradient would keep an array states x states x features
    def from_one(row: Array) -> Array:
        squared = jnp.sum((rows - row) ** 2, axis=1)
        apart = squared > 0
        return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)

    return lax.map(from_one, rows)


@partial(
    jax.jit,
    static_argnames=(
        "n_components",
        "n_neighbors",
        "max_neighbors",
        "diffusion_time",
        "n_landmarks",
        "max_iterations",
    ),
)
def phate(
    embeddings: Float[Array, "cells features"],
    n_components: int = 2,
    *,
    n_neighbors: int = 5,
    max_neighbors: int | None = None,
    decay: ArrayLike = 40.0,
    diffusion_time: int | None = None,
    n_landmarks: int = 2000,
    max_iterations: int = 1000,
) -> PHATELayout:
    """Return the map of PHATE.

    Args:
        embeddings: Coordinates (cells, features), such as 100 principal components; their unit does not matter.
        n_components: Dimensions of the map.
        n_neighbors: The neighbour whose distance is the bandwidth.
        max_neighbors: Neighbours that have any affinity; `None` means twenty times `n_neighbors`.
        decay: Sharpness of the affinity, above 0.
        diffusion_time: Steps of the walk; `None` finds the knee of the entropy.
        n_landmarks: Where there are more cells, they are gathered in so many groups.
        max_iterations: Most steps of multidimensional scaling.

    Returns:
        Coordinates (cells, n_components). With m the smaller of cells and landmarks, time grows as m^3 beside the
        search of neighbours, memory as m^2 + cells x m where there are landmarks.

    Raises:
        ContractError: There are no more than `n_neighbors` cells.

    Example:
        >>> line = jnp.arange(12.0)[:, None]
        >>> order = phate(line, 1, n_neighbors=2).phate[:, 0]
        >>> bool((jnp.diff(order) > 0).all() | (jnp.diff(order) < 0).all())
        True
    """
    n_cells = len(embeddings)
    if n_neighbors >= n_cells:
        raise ContractError(
            f"the bandwidth is the distance to neighbour {n_neighbors}, but there are {n_cells} cells; "
            f"lower n_neighbors to at most {n_cells - 1}, or give more cells"
        )
    neighbors = nearest_neighbors(embeddings, min(max_neighbors or 20 * n_neighbors, n_cells - 1))
    affinities = decayed_affinities(neighbors, n_neighbors, decay=decay)
    if n_cells > n_landmarks:
        groups = landmarks(embeddings, n_landmarks)
        operator, membership = landmark_transitions(affinities, neighbors.indices, groups, n_landmarks)
    else:
        operator, membership = diffusion_operator(affinities, neighbors.indices), None
    time = knee(von_neumann_entropy(operator)) if diffusion_time is None else diffusion_time
    layout = metric_mds(row_distances(log_potential(operator, time)), n_components, max_iterations=max_iterations)
    return PHATELayout(layout if membership is None else membership @ layout)


class PHATE(Operator[PHATEConfig]):
    """Maps cells by the differences between their random walks.

    Reads `embeddings` (cells, features); writes `phate` (cells, components). It has no parameters; `softness`, the
    inverse of the decay, may be annealed.

    Args:
        config: Neighbourhood, diffusion time, landmarks.
        rngs: Not used.

    Example:
        >>> mapper = PHATE(PHATEConfig(n_neighbors=2))
        >>> mapper.apply({"embeddings": jnp.arange(12.0)[:, None]}, {}, None)[0]["phate"].shape
        (12, 2)
    """

    def __init__(self, config: PHATEConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(1.0 / config.decay)

    def compute(self, embeddings: Float[Array, "cells features"]) -> PHATELayout:
        """Return the map of the cells."""
        config = self.config
        return phate(
            embeddings,
            config.n_components,
            n_neighbors=config.n_neighbors,
            max_neighbors=config.max_neighbors,
            decay=1.0 / self.softness(),
            diffusion_time=config.diffusion_time,
            n_landmarks=config.n_landmarks,
            max_iterations=config.max_iterations,
        )
