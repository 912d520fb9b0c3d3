"""Objectives of variant filters, from variants that are known to be true or false."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffbio.core.reading import read

_LEAST = 1e-6
"""Probability below which the loss does not rise: a true variant that was filtered costs 14 nats, and not infinity."""


def _labelled(loss: str, data: Mapping[str, Array]) -> tuple[Array, Array, Array]:
    """Return probabilities, labels and which variants count, as numbers."""
    passing, true = read(loss, data, "pass_probability", "true_variant")
    mask = data.get("variant_mask")
    counted = jnp.ones_like(passing) if mask is None else mask.astype(passing.dtype)
    return passing, true.astype(passing.dtype), counted


def filter_cross_entropy(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the mean cross-entropy, in nats, of passing with being true.

    Args:
        data: Holds `pass_probability` (*variants,), 0 to 1, and `true_variant` (*variants,), bool; optionally
            `variant_mask` (*variants,).

    Returns:
        A scalar, at least 0; 0 where there are no variants.

    Raises:
        MissingKeyError: One of the first two keys is missing.

    Example:
        >>> data = {"pass_probability": jnp.array([0.5, 0.5]), "true_variant": jnp.array([True, False])}
        >>> round(float(filter_cross_entropy(data)), 3)
        0.693
    """
    passing, true, counted = _labelled("filter_cross_entropy", data)
    costs = true * jnp.log(jnp.maximum(passing, _LEAST)) + (1 - true) * jnp.log(jnp.maximum(1 - passing, _LEAST))
    n_variants = counted.sum()
    return -(counted * costs).sum() / jnp.where(n_variants > 0, n_variants, 1.0)


def soft_f_beta_loss(data: Mapping[str, Array], *, beta: float = 1.0) -> Float[Array, ""]:
    """Return 1 - F_beta, with expected numbers of variants in place of whole ones.

    Args:
        data: As for `filter_cross_entropy`.
        beta: How many times more recall counts than precision, above 0.

    Returns:
        A scalar from 0 to 1: of hard decisions 1 less F_beta; 0 where no variant is true and none passes.

    Raises:
        MissingKeyError: `pass_probability` or `true_variant` is missing.

    Example:
        >>> data = {"pass_probability": jnp.array([1.0, 1.0, 0.0]), "true_variant": jnp.array([True, False, False])}
        >>> round(float(soft_f_beta_loss(data)), 3)  # precision 1/2, recall 1
        0.333
    """
    passing, true, counted = _labelled("soft_f_beta_loss", data)
    found = (counted * passing * true).sum()
    total = beta**2 * (counted * true).sum() + (counted * passing).sum()
    wrong = total - (1 + beta**2) * found
    return wrong / jnp.where(total > 0, total, 1.0)


class PrecisionRecall(NamedTuple):
    """The curve of scikit-learn's `precision_recall_curve`.

    Attributes:
        precision: Of each threshold, and 1 at the end (thresholds + 1,).
        recall: Likewise, and 0 at the end (thresholds + 1,).
        thresholds: All scores that there are, from the lowest; a variant passes that reaches one (thresholds,).
    """

    precision: Float[np.ndarray, " points"]
    recall: Float[np.ndarray, " points"]
    thresholds: Float[np.ndarray, " thresholds"]


def precision_recall(true: Bool[np.ndarray, " variants"], scores: Float[np.ndarray, " variants"]) -> PrecisionRecall:
    """Return precision and recall at each threshold of a score.

    Args:
        true: Which variants are true.
        scores: Higher ones pass first.

    Example:
        >>> curve = precision_recall(np.array([True, False, True]), np.array([0.9, 0.5, 0.4]))
        >>> curve.precision.round(2).tolist(), curve.recall.tolist()
        ([0.67, 0.5, 1.0, 1.0], [1.0, 0.5, 0.5, 0.0])
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True)[: len(ranked)])[::-1]  # of equal ones
    found = np.cumsum(true[order])[last]
    n_true = np.count_nonzero(true)
    recall = found / n_true if n_true else np.ones(len(last))
    return PrecisionRecall(np.append(found / (last + 1), 1.0), np.append(recall, 0.0), ranked[last])
