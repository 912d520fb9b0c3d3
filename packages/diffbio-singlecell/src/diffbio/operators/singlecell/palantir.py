"""Palantir: pseudotime and fate probabilities of cells from shortest paths among waypoints.

1. The slowest diffusion components up to the largest gap of eigenvalues, each scaled to [0, 1], are the space.
2. Waypoints are spread over each component by max-min sampling; the extreme cells of the components are among them.
3. Shortest paths on the graph of cells give the distance of each cell to each waypoint. Seen from a waypoint w, a cell
   is at t_w + d(cell, w) if it comes later than w, and at t_w - d(cell, w) if earlier. The pseudotime is the mean over
   the waypoints' views, weighted by a Gaussian of d, iterated from t = d(cell, start) until it rests.
4. Waypoints are joined to their neighbours by Gaussian affinities, without edges that go back in pseudotime by more
   than the cell's bandwidth: t_j < t_i - sigma_i. The walk along them ends in the terminal cells.
5. Fates of waypoints are carried to all cells by the weights of step 3.

Two decisions are relaxed, by one softness tau, in the unit of the scaled components: the sign of a view by
soft_ops.sign((t - t_w) / tau), the cut of an edge by sigmoid((t_j - t_i + sigma_i) / tau). As tau -> 0 both are
Palantir's. Shortest paths have exact gradients as they are (see `shortest_paths`). Which cells are neighbours,
waypoints and start is decided hard, and constant to the gradient; so is when the iteration rests.

References:
    Setty et al., Characterization of cell fate probabilities in single-cell data with Palantir, Nature Biotechnology
    2019; conventions as in palantir 1.4.
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
from diffbio.operators.singlecell.absorbing_chain import absorption_probabilities, entropy_of_fates
from diffbio.operators.singlecell.diffusion_components import (
    before_eigengap,
    diffusion_components,
    multiscale_space,
)
from diffbio.operators.singlecell.waypoints import max_min_waypoints, start_cell, walk_of_waypoints


@dataclass(frozen=True, kw_only=True)
class PalantirConfig(OperatorConfig):
    """Configuration of Palantir; the defaults are those of palantir.

    Args:
        early_cell: Row of a cell at the beginning of the process. The start is the extreme cell of the diffusion
            components that is nearest to it.
        terminal_cells: Rows of the cells where the fates end, one for each fate, in the order of the output;
            `find_terminal_cells` proposes some.
        n_neighbors: Size of a neighbourhood, the cell itself counted; at least 6 (palantir's `knn`).
        n_waypoints: Number of waypoints; where there are fewer cells, all are waypoints.
        n_components: Diffusion components to find, the constant one counted; those up to the gap are used.
        start_at_early_cell: Whether the early cell itself is the start.
        temperature: The softness tau, in the unit of the diffusion components scaled to [0, 1]; best well below the
            distance of neighbours, some 0.05.

    Raises:
        ConfigError: A value is out of range, or there are too few waypoints for start, extreme and terminal cells.
    """

    early_cell: Annotated[int, Ge(0)]
    terminal_cells: tuple[Annotated[int, Ge(0)], ...]
    n_neighbors: Annotated[int, Ge(6)] = 30
    n_waypoints: Annotated[int, Ge(1)] = 1200
    n_components: Annotated[int, Ge(3)] = 10
    start_at_early_cell: bool = False
    temperature: Annotated[float, Gt(0)] = 1e-3

    def __post_init__(self) -> None:
        """Check that there are terminal cells, and waypoints for them."""
        super().__post_init__()
        if not self.terminal_cells or len(set(self.terminal_cells)) < len(self.terminal_cells):
            raise ConfigError(
                f"PalantirConfig.terminal_cells is {self.terminal_cells!r}; it must name at least one cell, and none "
                "twice (diffbio.operators.singlecell.terminal_states.find_terminal_cells proposes some)"
            )
        least = 2 * self.n_components - 1 + len(self.terminal_cells)
        fewest = max(least, self.n_neighbors)
        if self.n_waypoints < fewest:
            raise ConfigError(
                f"PalantirConfig.n_waypoints is {self.n_waypoints}; it must be at least {fewest}: "
                f"a neighbourhood has {self.n_neighbors} cells, and {least} cells are the start, terminal or extreme"
            )


class Trajectory(NamedTuple):
    """Order and fates of the cells.

    Attributes:
        pseudotime: From 0 at the beginning to 1 at the latest cell (cells,).
        fate_probabilities: Chance to end at each terminal cell (cells, fates).
        fate_entropy: Entropy of the fates, in nats (cells,).
    """

    pseudotime: Float[Array, " cells"]
    fate_probabilities: Float[Array, "cells fates"]
    fate_entropy: Float[Array, " cells"]


@partial(jax.jit, static_argnames=("n_components", "n_neighbors"))
def palantir_space(
    embeddings: Float[Array, "cells features"], *, n_components: int = 10, n_neighbors: int = 30
) -> Float[Array, "cells components"]:
    """Return the diffusion components before the eigengap, each scaled to [0, 1]; the others are zero.

    Args:
        embeddings: Coordinates, such as principal components (cells, features).
        n_components: Components to find, the constant one counted.
        n_neighbors: Size of a neighbourhood, the cell itself counted.

    Returns:
        Coordinates (cells, n_components - 1).

    Raises:
        ContractError: There are too few cells.

    Example:
        >>> space = palantir_space(jnp.arange(40.0)[:, None], n_components=4, n_neighbors=6)
        >>> space.shape, bool(abs(space[:, 0].min()) < 1e-6), float(space[:, 0].max())
        ((40, 3), True, 1.0)
    """
    found = diffusion_components(embeddings, n_components=n_components, n_neighbors=n_neighbors)
    space = multiscale_space(found)
    lowest, highest = space.min(axis=0), space.max(axis=0)
    width = highest - lowest
    return jnp.where(before_eigengap(found.eigenvalues), (space - lowest) / jnp.where(width > 0, width, 1.0), 0.0)


@partial(jax.jit, static_argnames=("n_neighbors",))
def palantir(
    space: Float[Array, "cells components"],
    waypoints: Int[Array, " waypoints"],
    terminal_cells: Int[Array, " fates"],
    *,
    n_neighbors: int = 30,
    softness: ArrayLike = 1e-3,
) -> Trajectory:
    """Return pseudotime and fates of cells, given their space and the waypoints.

    Time grows as cells x neighbors x waypoints and waypoints^3, memory as cells x waypoints.

    Args:
        space: Scaled diffusion components (cells, components).
        waypoints: Distinct rows, of which the first is the start; terminal cells are among them (waypoints,).
        terminal_cells: Rows of the cells where fates end (fates,).
        n_neighbors: Size of a neighbourhood, the cell itself counted.
        softness: tau > 0, in the unit of the space.

    Returns:
        Pseudotime (cells,), fate probabilities (cells, fates) and their entropy (cells,).

    Raises:
        ContractError: There are too few cells or waypoints.

    Example:
        >>> space, cells = jnp.linspace(0, 1, 20)[:, None], jnp.arange(20)
        >>> found = palantir(space, cells, jnp.array([19]), n_neighbors=6)
        >>> found.pseudotime[jnp.array([0, 19])].tolist(), found.fate_probabilities.min().round(2).tolist()
        ([0.0, 1.0], 1.0)
    """
    views = walk_of_waypoints(space, waypoints, n_neighbors=n_neighbors, softness=softness)
    matches = waypoints[:, None] == terminal_cells
    labels = jnp.where(matches.any(axis=1), jnp.argmax(matches, axis=1), -1)
    fates = absorption_probabilities(views.moves, views.indices, labels, n_fates=terminal_cells.shape[0])
    probabilities = jnp.matmul(views.weights, fates, precision=lax.Precision.HIGHEST)
    return Trajectory(views.pseudotime, probabilities, entropy_of_fates(probabilities))


class Palantir(Operator[PalantirConfig]):
    """Order cells along a branching process, and say where each may end.

    Reads `embeddings` (cells, features), such as principal components; writes `pseudotime` (cells,),
    `fate_probabilities` (cells, fates) and `fate_entropy` (cells,). It has no parameters.

    Args:
        config: Early and terminal cells, neighbourhoods, waypoints, components, temperature.
        rngs: Not used: the sampling of waypoints starts at the start cell.

    Example:
        >>> line = jnp.arange(60.0)[:, None]
        >>> order = Palantir(PalantirConfig(early_cell=0, terminal_cells=(59,), n_neighbors=6, n_components=4))
        >>> data, _, _ = order.apply({"embeddings": line}, {}, None)
        >>> data["pseudotime"][jnp.array([5, 50, 30])].argsort().tolist(), data["fate_probabilities"].shape
        ([0, 2, 1], (60, 1))
    """

    def __init__(self, config: PalantirConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature)

    def compute(self, embeddings: Float[Array, "cells features"]) -> Trajectory:
        """Return pseudotime and fates."""
        config, n_cells = self.config, embeddings.shape[0]
        named = (config.early_cell, *config.terminal_cells)
        if max(named) >= n_cells:
            raise ContractError(f"cell {max(named)} is named, but there are {n_cells}; name rows up to {n_cells - 1}")
        sizes = {"n_components": config.n_components, "n_neighbors": config.n_neighbors}
        space = palantir_space(embeddings, **sizes)
        start = jnp.int32(config.early_cell) if config.start_at_early_cell else start_cell(space, config.early_cell)
        terminal = jnp.array(config.terminal_cells, jnp.int32)
        waypoints = max_min_waypoints(space, start, terminal, n_waypoints=min(config.n_waypoints, n_cells))
        return palantir(space, waypoints, terminal, n_neighbors=config.n_neighbors, softness=self.softness())
