"""Principal components of a matrix too large to decompose: a randomized search, with sparse data left sparse.

A random start Y = A^T A G, with G Gaussian, holds mostly directions of large variance, and each further product with
A^T A more so. The Krylov space [G, A^T A G, (A^T A)^2 G, ...] of all of them holds the first components to an error
that falls exponentially with its depth; within it, the best k directions (Rayleigh and Ritz) are found exactly.
Centering is implicit: with A = X - 1 m^T,

    A Q = X Q - 1 (m^T Q)        A^T P = X^T P - m (1^T P)

so that X is touched by products only, and zeros stay unstored. Blocks are made orthonormal by QR before each
product, else all their columns would turn into the first component.

References:
    Halko, Martinsson and Tropp, Finding structure with randomness, SIAM Review 2011 (power iterations with QR).
    Musco and Musco, Randomized block Krylov methods, NeurIPS 2015 (keeping all the blocks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffbio.core.errors import ContractError
from diffbio.operators.normalization.pca import PrincipalComponents, require_rank, signed


class _Products(NamedTuple):
    """What the search needs of the centered matrix A, of `shape`.

    Attributes:
        shape: Cells and genes.
        mean: Mean of each gene.
        times: Q -> A Q.
        transposed_times: P -> A^T P.
    """

    shape: tuple[int, ...]
    mean: Array
    times: Callable[[Array], Array]
    transposed_times: Callable[[Array], Array]


def randomized_principal_components(
    x: Any, n_components: int, *, key: Array, n_oversamples: int = 10, n_iterations: int = 10
) -> PrincipalComponents:
    """Return the first principal components of `x`, dense or sparse, by a randomized block Krylov search.

    Args:
        x: Expression (cells, genes) in any unit: an array, a JAX `BCOO`, or a `scipy.sparse` matrix or array, which
            is multiplied on the host. Sparse data are never made dense; those of SciPy need no copy if they are
            float32.
        n_components: Between 1 and the smaller of cells and genes.
        key: Random key of the start.
        n_oversamples: Columns of a block beyond `n_components`, at least 0.
        n_iterations: Products with A^T A after the start, at least 0. Each adds a block; together they hold
            `n_iterations` + 1 blocks of `n_components` + `n_oversamples` columns, as long as cells and genes allow.

    Returns:
        As `principal_components`, to which it converges with `n_iterations`: the angle is small as soon as the
        variances beyond the block are well below that of the last component. A constant to differentiation.

    Raises:
        ContractError: A number is not in its range.

    References:
        scanpy `pp.pca` of a sparse matrix.

    Example:
        >>> from scipy.sparse import csr_array
        >>> x = csr_array(np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]], np.float32))
        >>> found = randomized_principal_components(x, 1, key=jax.random.key(0))
        >>> [round(abs(entry), 3) for entry in found.components[:, 0].tolist()]
        [0.6, 0.8]
    """
    require_rank(x.shape, n_components)
    if n_oversamples < 0 or n_iterations < 0:
        raise ContractError(
            f"n_oversamples is {n_oversamples} and n_iterations {n_iterations}; give numbers of at least 0"
        )
    products = _products_of(x)
    rank = min(products.shape)
    width = min(n_components + n_oversamples, rank)
    depth = min(n_iterations + 1, -(-rank // width))
    start = jax.random.normal(key, (products.shape[1], width), products.mean.dtype)
    basis = _krylov_basis(products, start, depth, rank)
    directions = basis @ _leading(products, basis, width)[:, :n_components]
    # In the space that is found, a decomposition without squares gives the components to full precision.
    triangular = jnp.linalg.qr(products.times(directions), mode="r")
    _, singular_values, rows = jnp.linalg.svd(triangular, full_matrices=False)
    components = signed(directions @ rows.T)
    variance = jnp.square(singular_values) / max(products.shape[0] - 1, 1)
    return PrincipalComponents(products.mean, components, variance)


def _products_of(x: Any) -> _Products:
    """Return the products with the centered matrix, for each kind of matrix."""
    from jax.experimental.sparse import BCOO  # here, as it takes half a second to import

    if isinstance(x, BCOO):
        x = jax.lax.stop_gradient(x)
        mean = x.T @ jnp.full(x.shape[0], 1 / x.shape[0], x.dtype)

        def multiplied(matrix: BCOO, columns: Array) -> Array:
            # one column at a time: a sparse product holds an array of nonzeros x columns
            return jax.lax.map(lambda column: matrix @ column, columns.T).T

        return _centered(x.shape, mean, lambda q: multiplied(x, q), lambda p: multiplied(x.T, p))
    if hasattr(x, "tocsr"):
        # SciPy multiplies by rows, so the transposed view of this needs no second copy
        rows = x.tocsr()
        rows = rows if np.issubdtype(rows.dtype, np.floating) else rows.astype(np.float32)
        mean = jnp.asarray(rows.sum(axis=0) / rows.shape[0], jnp.float32).ravel()
        return _centered(
            rows.shape, mean, lambda q: _on_host(rows @ np.asarray(q)), lambda p: _on_host(rows.T @ np.asarray(p))
        )
    dense = jax.lax.stop_gradient(jnp.asarray(x))
    mean = dense.mean(0)
    centered = dense - mean  # exact for a gene whose mean is far above its spread
    return _Products(centered.shape, mean, lambda q: centered @ q, lambda p: centered.T @ p)


def _on_host(product: np.ndarray) -> Array:
    return jnp.asarray(product, jnp.float32)


def _centered(
    shape: tuple[int, ...], mean: Array, times: Callable[[Array], Array], transposed_times: Callable[[Array], Array]
) -> _Products:
    """Return the products with X - 1 mean^T from those with X."""
    return _Products(
        shape,
        mean,
        lambda q: times(q) - mean @ q,
        lambda p: transposed_times(p) - mean[:, None] * p.sum(0),
    )


def _krylov_basis(products: _Products, start: Array, depth: int, rank: int) -> Array:
    """Return orthonormal columns, at most `rank`, that span all blocks."""
    blocks = [jnp.linalg.qr(products.transposed_times(products.times(start)))[0]]
    for _ in range(depth - 1):
        blocks.append(jnp.linalg.qr(products.transposed_times(products.times(blocks[-1])))[0])
    # Blocks overlap more and more. Householder's QR stays orthonormal all the same, whatever the rank.
    return jnp.linalg.qr(jnp.concatenate(blocks, axis=1)[:, :rank])[0]


def _leading(products: _Products, basis: Array, width: int) -> Array:
    """Return the directions of largest variance within the basis, in its coordinates, one per column."""
    blocks = [basis[:, first : first + width] for first in range(0, basis.shape[1], width)]
    # block by block, so that no array of cells x (all blocks) is formed
    gram = jnp.concatenate([basis.T @ products.transposed_times(products.times(block)) for block in blocks], axis=1)
    unit = jnp.maximum(jnp.max(jnp.abs(gram)), jnp.finfo(gram.dtype).tiny)
    return jnp.linalg.eigh((gram + gram.T) / (2 * unit))[1][:, ::-1]
