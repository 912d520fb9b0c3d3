"""Diffusion maps: the coordinates in which cells are far apart that a random walker among them rarely joins.

Affinities between neighbours, Gaussian or those of UMAP, are divided by the densities of both cells, which leaves the
geometry of the cells and takes out how they were sampled:

    K_ij = W_ij / (d_i d_j)^alpha,    T = D^-1/2 K D^-1/2,    D the row sums of K.

The coordinates are the leading eigenvectors of T, the first of which is trivial. Eigenvectors are computed on the
sparse graph, and have gradients as far as their eigenvalues are apart. Nothing but the choice of neighbours is hard.

References:
    Coifman and Lafon, Diffusion maps, Applied and Computational Harmonic Analysis 2006.
    Haghverdi, Buettner and Theis, Diffusion maps for high-dimensional single-cell analysis, Bioinformatics 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig
from diffbio.core.errors import ContractError
from diffbio.operators.normalization.fuzzy_graph import join
from diffbio.operators.singlecell.graph_spectrum import leading_eigenpairs
from diffbio.operators.singlecell.neighbor_graph import mutual_weights, symmetric_shares, symmetric_sums
from diffbio.operators.singlecell.neighbors import nearest_neighbors
from diffbio.operators.singlecell.pseudotime import gaussian_affinities

Kernel = Literal["umap", "gauss"]


@dataclass(frozen=True, kw_only=True)
class DiffusionMapConfig(OperatorConfig):
    """Settings of a diffusion map; the defaults are those of `sc.pp.neighbors` and `sc.tl.diffmap`.

    Args:
        n_components: Eigenvectors, the trivial first one counted.
        n_neighbors: Cells of a neighbourhood, the cell itself counted.
        kernel: Affinities: `umap`, the fuzzy graph; `gauss`, Gaussian with a bandwidth for each cell.
        density_exponent: alpha, how far the density of cells is taken out: 1 fully, 0 not at all.
    """

    n_components: Annotated[int, Ge(1)] = 15
    n_neighbors: Annotated[int, Ge(3)] = 15
    kernel: Kernel = "umap"
    density_exponent: Annotated[float, Ge(0)] = 1.0


class DiffusionComponents(NamedTuple):
    """Eigenvectors and eigenvalues of a random walk among the cells.

    Attributes:
        diffusion_map: Orthonormal columns, the first trivial; the entry of largest magnitude is positive.
        diffusion_eigenvalues: In [-1, 1], falling; 1 for the first.
    """

    diffusion_map: Float[Array, "cells components"]
    diffusion_eigenvalues: Float[Array, " components"]


def random_walk(
    shares: Float[Array, "cells others"], indices: Int[Array, "cells others"], *, density_exponent: float | Array = 1.0
) -> Float[Array, "cells others"]:
    """Return the symmetric transition matrix T of a graph, in shares.

    Args:
        shares: Affinities C, at least 0, with W = C + C^T (cells, others).
        indices: Columns (cells, others).
        density_exponent: alpha; 0 is the walk on the graph as it is.

    Returns:
        T in shares (cells, others); its largest eigenvalue is 1. The row of a cell without edges is 0.

    Example:
        >>> walk = random_walk(jnp.full((2, 1), 0.5), jnp.array([[1], [0]]))
        >>> symmetric_sums(walk, jnp.array([[1], [0]])).tolist()
        [1.0, 1.0]
    """

    def balanced(shares: Array, exponent: float | Array) -> Array:
        degrees = symmetric_sums(shares, indices)
        logarithms = jnp.log(jnp.where(degrees > 0, degrees, 1.0))
        return shares * jnp.exp(-exponent * (logarithms[:, None] + logarithms[indices]))

    return balanced(balanced(shares, density_exponent), 0.5)


@partial(jax.jit, static_argnames=("n_components", "n_neighbors", "kernel"))
def diffusion_map(
    embeddings: Float[Array, "cells features"],
    n_components: int = 15,
    *,
    n_neighbors: int = 15,
    kernel: Kernel = "umap",
    density_exponent: float | Array = 1.0,
) -> DiffusionComponents:
    """Return the leading eigenvectors of the random walk on the graph of nearest neighbours.

    Args:
        embeddings: Coordinates (cells, features); their unit does not matter.
        n_components: Eigenvectors, the trivial first one counted; at most the number of cells.
        n_neighbors: Cells of a neighbourhood, the cell itself counted.
        kernel: `umap` or `gauss`.
        density_exponent: How far the density of cells is taken out.

    Returns:
        Eigenvectors (cells, n_components) and eigenvalues (n_components,). Time grows as cells^2 x features for the
        exact search, and as cells x neighbors x components for each product; memory is linear in the cells.

    Raises:
        ContractError: There are fewer cells than components or than a neighbourhood has.

    References:
        scanpy `tl.diffmap` after `pp.neighbors(method="umap")` or `"gauss"`, up to signs.

    Example:
        >>> arc = jnp.linspace(0.0, 3.0, 40) ** 1.2
        >>> cells = jnp.stack([jnp.cos(arc), jnp.sin(arc)], axis=1)
        >>> order = diffusion_map(cells, 2, n_neighbors=6).diffusion_map[::8, 1]
        >>> bool((jnp.diff(order) > 0).all() | (jnp.diff(order) < 0).all())
        True
    """
    n_cells = len(embeddings)
    if n_components > n_cells:
        raise ContractError(
            f"{n_components} diffusion components were asked for of {n_cells} cells; ask for at most {n_cells}, "
            "or give more cells"
        )
    neighbors = nearest_neighbors(embeddings, n_neighbors - 1)
    if kernel == "umap":
        indices, shares = join(neighbors)
    else:
        indices, weights = neighbors.indices, gaussian_affinities(neighbors)
        shares = symmetric_shares(weights, mutual_weights(weights, indices)[1], indices)
    walk = random_walk(shares, indices, density_exponent=density_exponent)
    values, vectors = leading_eigenpairs(walk, indices, n_components)
    return DiffusionComponents(vectors, values)


class DiffusionMap(Operator[DiffusionMapConfig]):
    """Gives cells the coordinates of a diffusion map.

    Reads `embeddings` (cells, features); writes `diffusion_map` (cells, components) and `diffusion_eigenvalues`
    (components,). It has no parameters.

    Args:
        config: Components, neighbourhood, kernel.
        rngs: Not used.

    Example:
        >>> mapper = DiffusionMap(DiffusionMapConfig(n_components=3, n_neighbors=4))
        >>> data, _, _ = mapper.apply({"embeddings": jnp.arange(20.0)[:, None]}, {}, None)
        >>> round(float(data["diffusion_eigenvalues"][0]), 4)
        1.0
    """

    def compute(self, embeddings: Float[Array, "cells features"]) -> DiffusionComponents:
        """Return the diffusion components of the cells."""
        config = self.config
        return diffusion_map(
            embeddings,
            config.n_components,
            n_neighbors=config.n_neighbors,
            kernel=config.kernel,
            density_exponent=config.density_exponent,
        )
