"""The conformance example of the cell-type classifier."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.singlecell.annotation import CellTypeClassifier, CellTypeClassifierConfig
from diffbio.testing import Example, Limit

_KERNEL = np.array([[1.2, -0.7, 0.1], [-0.3, 0.8, -0.9]], np.float32)
_BIAS = np.array([0.1, -0.2, 0.05], np.float32)


def cell_type_classifier() -> Example:
    """Return a linear classifier of five cells in two dimensions, with weights as training might leave them."""
    config = CellTypeClassifierConfig(n_features=2, n_classes=3)
    classifier = CellTypeClassifier(config, rngs=nnx.Rngs(0))
    classifier.kernels[0][...] = _KERNEL
    classifier.biases[0][...] = _BIAS
    embeddings = np.array([[0.7, -1.0], [1.5, 0.3], [-0.8, 1.1], [-1.9, -0.4], [0.2, 2.0]], np.float32)
    return Example(
        classifier,
        {"embeddings": embeddings},
        limit=Limit(_sharpened, _largest_logit, atol=1e-5),
        symmetric=("cells",),
    )


def _sharpened(classifier: CellTypeClassifier) -> CellTypeClassifier:
    classifier.softness.set(1e-3)
    return classifier


def _largest_logit(data: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    logits = np.asarray(data["embeddings"]) @ _KERNEL + _BIAS
    one_hot = np.eye(logits.shape[1], dtype=np.float32)[logits.argmax(1)]
    return {"cell_type_logits": logits, "cell_type_probabilities": one_hot}
