"""Losses of multiple alignments: what is lost of the pairs, and of the columns, of a reference.

Both are the usual scores, with the weight of a residue in a column in place of its column:

    pairs    1 - mean over pairs of residues in one reference column of sum_c W[s,i,c] W[t,j,c]
    columns  1 - mean over reference columns of sum_c product over its residues of W[s,i,c]

With weights of 0 and 1 they are 1 less the sum-of-pairs score and the column score.

References:
    Thompson, Plewniak and Poch, A comprehensive comparison of multiple sequence alignment programs, Nucleic Acids
    Research 1999: both scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.core.reading import read

_LEAST_WEIGHT = 1e-12


def sum_of_pairs(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the expected share of pairs of residues, aligned in a reference, that are not in one column.

    Args:
        data: Holds `column_weights` W (sequences, positions, columns), which sum to at most 1 over the columns, and
            `reference_columns` (sequences, positions), the column of each residue in the reference; below 0 for
            residues that it doesn't align, and for padding.

    Returns:
        A scalar from 0 to 1; 0 if the reference aligns nothing.

    Raises:
        MissingKeyError: One of the two keys is missing.

    Example:
        >>> weights = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.0, 1.0]]])
        >>> data = {"column_weights": weights, "reference_columns": jnp.array([[0, 1], [0, 1]])}
        >>> float(sum_of_pairs(data))
        0.25
    """
    weights, reference = read("sum_of_pairs", data, "column_weights", "reference_columns")

    def add(sums: tuple[Array, Array, Array], sequence: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        """Count the pairs of one sequence's residues with those of all before it."""
        of_columns, members, right = sums
        columns, of_residues = _known(*sequence, of_columns.shape[0])
        right = right + (of_columns.at[columns].get(mode="fill", fill_value=0) * of_residues).sum()
        members = members.at[columns].add(1, mode="drop")
        return (of_columns.at[columns].add(of_residues, mode="drop"), members, right), None

    n_columns = _reference_size(reference)
    start = jnp.zeros((n_columns, weights.shape[-1]), weights.dtype), jnp.zeros(n_columns, jnp.int32)
    (_, members, right), _ = lax.scan(add, (*start, jnp.zeros((), weights.dtype)), (reference, weights))
    pairs = (members * (members - 1) // 2).sum()
    return jnp.where(pairs > 0, 1 - right / jnp.maximum(pairs, 1), 0.0)


def column_score(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the expected share of reference columns, of two residues or more, that are not whole in one column.

    Args:
        data: Holds `column_weights` W (sequences, positions, columns), which sum to at most 1 over the columns, and
            `reference_columns` (sequences, positions), as for `sum_of_pairs`.

    Returns:
        A scalar from 0 to 1; 0 if the reference aligns nothing.

    Raises:
        MissingKeyError: One of the two keys is missing.

    Example:
        >>> weights = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.0, 1.0]]])
        >>> data = {"column_weights": weights, "reference_columns": jnp.array([[0, 1], [0, 1]])}
        >>> round(float(column_score(data)), 2)
        0.25
    """
    weights, reference = read("column_score", data, "column_weights", "reference_columns")

    def multiply(sums: tuple[Array, Array], sequence: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        log_products, members = sums
        columns, of_residues = _known(*sequence, log_products.shape[0])
        logs = jnp.log(jnp.maximum(of_residues, _LEAST_WEIGHT))
        return (log_products.at[columns].add(logs, mode="drop"), members.at[columns].add(1, mode="drop")), None

    n_columns = _reference_size(reference)
    start = jnp.zeros((n_columns, weights.shape[-1]), weights.dtype), jnp.zeros(n_columns, jnp.int32)
    (log_products, members), _ = lax.scan(multiply, start, (reference, weights))
    counts = members > 1
    whole = jnp.where(counts, jnp.exp(log_products).sum(-1), 0.0)
    return jnp.where(counts.any(), 1 - whole.sum() / jnp.maximum(counts.sum(), 1), 0.0)


def _reference_size(reference: Int[Array, "sequences positions"]) -> int:
    """Return room for the columns of any reference: no two residues of a sequence share one, gaps take the rest."""
    return 4 * reference.shape[1]


def _known(columns: Array, weights: Array, n_columns: int) -> tuple[Array, Array]:
    """Return the columns of residues, those that are not aligned beyond the last one, and their weights."""
    return jnp.where(columns < 0, n_columns, columns), jnp.where((columns < 0)[:, None], 0.0, weights)
