"""The conformance example of annotation by markers."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.singlecell.marker_annotation import MarkerAnnotation, MarkerAnnotationConfig
from diffbio.testing import Example, Limit


def marker_annotation() -> Example:
    """Return nine cells of two batches, two types and 'other'; the limit is the largest of SciPy's likelihoods."""
    random = np.random.default_rng(0)
    markers = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], np.float32)
    types, batches = np.arange(9) % 3, (np.arange(9) % 2).astype(np.int32)
    sizes = random.uniform(0.5, 2.0, 9).astype(np.float32)
    counts = random.poisson(3 * sizes[:, None] * np.where(markers[types], 4, 1)).astype(np.float32)
    config = MarkerAnnotationConfig(
        n_genes=5, n_classes=3, n_batches=2, least_overexpression=0.5, temperature=2.0, n_steps=30, learning_rate=0.1
    )
    operator = MarkerAnnotation(config)
    operator.initialize(jnp.asarray(counts), jnp.asarray(markers), jnp.asarray(sizes), jnp.asarray(batches))
    logits, baseline, excess, dispersion, effects = (np.asarray(leaf, np.float64) for leaf in operator.model)
    mean_size = float(operator.mean_size[...])

    def sharpen(annotation: MarkerAnnotation) -> MarkerAnnotation:
        annotation.softness.set(1e-4)
        return annotation

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        from scipy.special import log_softmax, logsumexp
        from scipy.stats import nbinom

        sizes = np.asarray(data["size_factors"])[:, None, None] / mean_size
        batch = (effects - effects.mean(axis=0))[np.asarray(data["batch_labels"])][:, None]
        mean = sizes * np.exp(baseline + batch + markers * (0.5 + np.log1p(np.exp(excess))))
        inverse_dispersion = np.exp(dispersion)
        chances = inverse_dispersion / (inverse_dispersion + mean)
        joint = nbinom.logpmf(np.asarray(data["counts"])[:, None], inverse_dispersion, chances).sum(axis=-1)
        joint = joint + log_softmax(logits)
        return {
            "cell_type_logits": joint,
            "cell_type_probabilities": np.eye(3)[joint.argmax(axis=1)],
            "cell_type_log_likelihood": np.asarray(logsumexp(joint, axis=1)),
        }

    data = {"counts": counts, "size_factors": sizes, "batch_labels": batches, "marker_genes": markers}
    return Example(operator, data, limit=Limit(sharpen, reference, atol=1e-3), symmetric=("cells",))
