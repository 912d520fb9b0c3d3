"""The loss of cell-type annotation: cross-entropy over the labelled cells."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffbio.core.errors import ContractError
from diffbio.core.reading import read


def cell_type_cross_entropy(data: Mapping[str, Array], *, balanced: bool = False) -> Float[Array, ""]:
    """Return the mean negative log-probability of each labelled cell's own type, in nats.

    Args:
        data: Holds `cell_type_logits` (cells, classes), real numbers, and `labels` (cells,), integers from 0 to
            classes - 1. A cell with another label, by convention -1, is unlabelled and does not count.
        balanced: Whether each cell type among the labels counts the same, instead of each cell.

    Returns:
        A scalar, at least 0; 0 where no cell is labelled.

    Raises:
        MissingKeyError: `cell_type_logits` or `labels` is missing.
        ContractError: There is not one label per cell.

    Example:
        >>> data = {"cell_type_logits": jnp.zeros((3, 4)), "labels": jnp.array([2, 0, -1])}
        >>> bool(jnp.allclose(cell_type_cross_entropy(data), jnp.log(4)))
        True
    """
    logits, labels = read("cell_type_cross_entropy", data, "cell_type_logits", "labels")
    if labels.shape != logits.shape[:-1]:
        raise ContractError(
            f"cell_type_cross_entropy: labels have shape {labels.shape} and cell_type_logits {logits.shape}; "
            "give one integer label per cell, (cells,) for (cells, classes)"
        )
    n_classes = logits.shape[-1]
    labelled = (labels >= 0) & (labels < n_classes)
    known = jnp.where(labelled, labels, 0)
    weights = labelled.astype(logits.dtype)
    if balanced:
        cells_of_type = jax.ops.segment_sum(weights, known, num_segments=n_classes)
        weights = weights / jnp.maximum(cells_of_type[known], 1)
    surprise = optax.softmax_cross_entropy_with_integer_labels(logits, known)
    return (weights * surprise).sum() / jnp.maximum(weights.sum(), 1)
