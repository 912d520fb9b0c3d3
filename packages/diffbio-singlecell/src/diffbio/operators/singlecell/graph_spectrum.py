"""The leading eigenvectors of a symmetric matrix on a graph of cells, with their gradients.

A block of vectors is filtered by a Chebyshev polynomial of the matrix, which stays within [-1, 1] on the unwanted part
of the spectrum and grows on the wanted part, made orthonormal, and rotated to the eigenvectors within the block, until
the residuals vanish. It needs products with the sparse matrix and arrays (cells, block), and no array cells x cells.

The derivative of eigenvector v_j by the matrix T is (l_j - T)^+ dT v_j. Within the computed block it is a sum over
1 / (l_j - l_i); outside, conjugate gradients solve with l_j - T, which is positive there. Where two eigenvalues
agree the eigenvectors are any basis of their space and have no derivative: that term is left out.

References:
    Zhou, Saad, Tiago and Chelikowsky, Self-consistent-field calculations using Chebyshev-filtered subspace iteration,
    Journal of Computational Physics 2006.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.conjugate_gradients import conjugate_gradients
from diffbio.operators.singlecell.neighbor_graph import symmetric_matmul

_CONTRAST = 1e3  # by how much a filter may amplify one wanted vector over another: float32 must keep both
_MAX_DEGREE = 60
_MAX_ROUNDS = 100
_ACCURACY = 16  # residual of eigenvectors, in units of the machine precision
_TIE = 100  # least gap of two eigenvalues that count as different, likewise


class Eigenpairs(NamedTuple):
    """Eigenvalues and eigenvectors, largest first.

    Attributes:
        values: Eigenvalues (pairs,), falling.
        vectors: Orthonormal columns (cells, pairs); the entry of largest magnitude is positive.
    """

    values: Float[Array, " pairs"]
    vectors: Float[Array, "cells pairs"]


@partial(jax.jit, static_argnames="n_pairs")
def leading_eigenpairs(
    shares: Float[Array, "cells neighbors"], indices: Int[Array, "cells neighbors"], n_pairs: int
) -> Eigenpairs:
    """Return the `n_pairs` largest eigenvalues of T = C + C^T and their eigenvectors.

    Args:
        shares: C (cells, neighbors), of a matrix with eigenvalues in [-1, 1], such as a normalized graph.
        indices: Columns (cells, neighbors).
        n_pairs: Between 1 and the number of cells.

    Returns:
        Values and vectors, differentiable by the shares as far as the eigenvalues are apart.

    Raises:
        ContractError: There are fewer cells than pairs.

    Example:
        >>> ring = jnp.stack([(jnp.arange(6) + 1) % 6], axis=1)
        >>> found = leading_eigenpairs(jnp.full((6, 1), 0.5), ring, 2)
        >>> [round(value, 3) for value in found.values.tolist()]
        [1.0, 0.5]
    """
    n_cells = shares.shape[0]
    if not 1 <= n_pairs <= n_cells:
        raise ContractError(
            f"{n_pairs} eigenvectors were asked for of a graph of {n_cells} cells; ask for 1 to {n_cells}, "
            "or give more cells"
        )
    values, vectors = _subspace_iteration(lax.stop_gradient(shares), indices, n_pairs)
    largest = jnp.take_along_axis(vectors, jnp.argmax(jnp.abs(vectors), axis=0)[None], axis=0)
    vectors = vectors * jnp.where(largest < 0, -1.0, 1.0)
    return _differentiable(shares, indices, values, vectors)


def _differentiable(shares: Array, indices: Array, values: Array, vectors: Array) -> Eigenpairs:
    """Return the same numbers with the derivatives of first-order perturbation."""
    fixed = lax.stop_gradient(shares)
    product = symmetric_matmul(shares, indices, vectors)
    change = product - lax.stop_gradient(product)  # zero, with the derivative dT v
    gaps = values[None, :] - values[:, None]
    apart = jnp.abs(gaps) > _TIE * jnp.finfo(values.dtype).eps
    rotation = (vectors.T @ change) * jnp.where(apart, 1 / jnp.where(apart, gaps, 1.0), 0.0)

    def outside(x: Array) -> Array:
        return x - vectors @ (vectors.T @ x)

    def resolvent(x: Array) -> Array:
        return outside(values * x - symmetric_matmul(fixed, indices, outside(x)))

    beyond = lax.custom_linear_solve(resolvent, outside(change), conjugate_gradients, symmetric=True)
    return Eigenpairs(values + jnp.sum(vectors * change, axis=0), vectors + vectors @ rotation + outside(beyond))


def _subspace_iteration(shares: Array, indices: Array, n_pairs: int) -> tuple[Array, Array]:
    """Return eigenvalues and eigenvectors by Chebyshev-filtered subspace iteration."""
    n_cells, dtype = shares.shape[0], shares.dtype
    width = min(n_cells, 2 * n_pairs + 8)
    tolerance = _ACCURACY * jnp.finfo(dtype).eps

    def multiply(x: Array) -> Array:
        return symmetric_matmul(shares, indices, x)

    def rotated(block: Array) -> tuple[Array, Array, Array]:
        block = jnp.linalg.qr(block)[0]
        product = multiply(block)
        values, rotation = jnp.linalg.eigh(block.T @ product)
        values, rotation = values[::-1], rotation[:, ::-1]
        vectors = block @ rotation
        residuals = product @ rotation - vectors * values
        return values, vectors, jnp.max(jnp.linalg.norm(residuals[:, :n_pairs], axis=0))

    def filtered(values: Array, vectors: Array) -> Array:
        cut = jnp.clip(values[-1], -0.9, 0.999)  # the unwanted part of the spectrum is from -1 to here
        middle, half = (cut - 1) / 2, (cut + 1) / 2
        growth = jnp.arccosh((jnp.maximum(values[0], 1.0) - middle) / half)
        degree = jnp.clip(jnp.log(_CONTRAST) / growth, 2, _MAX_DEGREE).astype(jnp.int32)

        def step(_: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
            before, now = pair
            return now, 2 / half * (multiply(now) - middle * now) - before

        first = (multiply(vectors) - middle * vectors) / half
        block = lax.fori_loop(1, degree, step, (vectors, first))[1]
        return block / jnp.linalg.norm(block, axis=0)

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        return (state[0] < _MAX_ROUNDS) & (state[3] > tolerance)

    def sharpen(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        return state[0] + 1, *rotated(filtered(state[1], state[2]))

    start = (jnp.int32(0), *rotated(_generic_block(n_cells, width, dtype)))
    _, values, vectors, _ = lax.while_loop(unfinished, sharpen, start)
    return values[:n_pairs], vectors[:, :n_pairs]


def _generic_block(n_cells: int, width: int, dtype: jnp.dtype) -> Float[Array, "cells width"]:
    """Return columns that no eigenvector is likely to be orthogonal to: multiples of the golden ratio, modulo 1."""
    rows, columns = jnp.arange(1, n_cells + 1, dtype=jnp.uint32), jnp.arange(1, width + 1, dtype=jnp.uint32)
    scrambled = rows[:, None] * (columns * jnp.uint32(2654435769))
    scrambled = (scrambled ^ (scrambled >> 15)) * jnp.uint32(2246822519)
    return (scrambled ^ (scrambled >> 13)).astype(dtype) / 4294967296.0 - 0.5
