"""Where bases differ from the reference that they are laid against.

Reads are laid against windows of the reference; any number of axes before those of the reads are windows.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffbio.operators.variant.base_weights import over_windows


class BaseMismatches(NamedTuple):
    """Which bases can be compared with the reference, and how far they differ.

    Attributes:
        compared: 1 where base and reference are both known, less where they are uncertain (*windows, reads, positions).
        differing: Probability that both are known and differ, at most `compared` (*windows, reads, positions).
    """

    compared: Float[Array, "*windows reads positions"]
    differing: Float[Array, "*windows reads positions"]


def base_mismatches(
    reads: Float[Array, "*windows reads positions letters"],
    base_positions: Int[Array, "*windows reads positions"],
    reference: Float[Array, "*windows window letters"],
    known_variant: Bool[Array, "*windows window"] | None = None,
    own_columns: Bool[Array, "*windows window"] | None = None,
) -> BaseMismatches:
    """Return which bases differ from the reference.

    Args:
        reads: Distributions over A, C, G, T; zeros for an unknown letter.
        base_positions: Column of each base; bases outside of the window are not compared.
        reference: Likewise distributions.
        known_variant: Columns that are left out, because individuals differ there; none by default.
        own_columns: Columns that belong to the window and not to the margin that it shares with its neighbours; all
            by default.

    Example:
        >>> reads, columns = jnp.eye(4)[jnp.array([[0, 1, 2]])], jnp.array([[0, 1, -1]])
        >>> found = base_mismatches(reads, columns, jnp.eye(4)[:1].repeat(2, 0))  # ACG, the first two against AA
        >>> found.compared.tolist(), found.differing.tolist()
        ([[1.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]])
    """
    counted = jnp.asarray(reference)
    for columns, wanted in ((known_variant, False), (own_columns, True)):
        if columns is not None:
            counted = jnp.where((columns == wanted)[..., None], counted, 0.0)
    return over_windows(_of_window, reads.ndim - 3)(reads, base_positions, counted)


def _of_window(reads: Array, base_positions: Array, reference: Array) -> BaseMismatches:
    """Return the mismatches of one window."""
    window = reference.shape[0]
    rows = jnp.where((base_positions >= 0) & (base_positions < window), base_positions, window)
    expected = reference.at[rows].get(mode="fill", fill_value=0.0)
    compared = reads.sum(-1) * expected.sum(-1)
    return BaseMismatches(compared, jnp.maximum(compared - (reads * expected).sum(-1), 0.0))
