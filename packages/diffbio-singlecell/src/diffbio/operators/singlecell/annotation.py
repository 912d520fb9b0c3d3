"""Cell-type annotation: a trained classifier of cells, linear (logistic regression) or with hidden layers.

Hard: the cell type with the largest logit. Relaxed: softmax(logits / temperature), a distribution over cell types
that becomes one-hot at the largest logit as temperature -> 0. Without hidden layers, and trained with cross-entropy
and an L2 penalty on the weights, it is the multinomial logistic regression of CellTypist.

References:
    Dominguez Conde et al., Cross-tissue immune cell analysis (CellTypist), Science 2022.
    Hendrycks and Gimpel, Gaussian error linear units, 2016 (the nonlinearity of hidden layers).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float, ScalarLike

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs, soft_ops


@dataclass(frozen=True, kw_only=True)
class CellTypeClassifierConfig(OperatorConfig):
    """Sizes of the classifier, and how soft its decision is.

    Args:
        n_features: Number of features of a cell.
        n_classes: Number of cell types.
        hidden_sizes: Width of each hidden layer; empty for logistic regression.
        temperature: Softness of the decision, above 0, in units of the logits. 1 gives the probabilities that
            cross-entropy trains.
    """

    n_features: Annotated[int, Ge(1)]
    n_classes: Annotated[int, Ge(2)]
    hidden_sizes: tuple[Annotated[int, Ge(1)], ...] = ()
    temperature: Annotated[float, Gt(0)] = 1.0


class CellTypes(NamedTuple):
    """How strongly each cell looks like each cell type.

    Attributes:
        cell_type_logits: Any real number; what `cell_type_cross_entropy` reads.
        cell_type_probabilities: softmax(logits / temperature); each cell's sum to 1.
    """

    cell_type_logits: Float[Array, "*cells classes"]
    cell_type_probabilities: Float[Array, "*cells classes"]


def dense_layers(
    embeddings: Float[Array, "*cells features"],
    kernels: Iterable[Float[Array, "width_in width_out"]],
    biases: Iterable[Float[Array, " width_out"]],
) -> Float[Array, "*cells classes"]:
    """Return the output of affine layers with GELU between them; one layer is a linear map.

    Args:
        embeddings: Features of each cell (*cells, features).
        kernels: One matrix per layer; each takes the width that the last one gave.
        biases: One vector per layer, of the width that its layer gives.

    Returns:
        Logits (*cells, classes), for the width of the last layer.

    Example:
        >>> dense_layers(jnp.array([[1.0, 2.0]]), [jnp.eye(2)], [jnp.array([0.0, 1.0])]).tolist()
        [[1.0, 3.0]]
    """
    outputs = embeddings
    for depth, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        inputs = jax.nn.gelu(outputs) if depth else outputs
        outputs = inputs @ kernel + bias
    return outputs


def classify(logits: Float[Array, "*cells classes"], *, softness: ScalarLike = 1.0) -> Float[Array, "*cells classes"]:
    """Return softmax(logits / softness), which is one-hot at the largest logit as softness -> 0.

    Args:
        logits: One per class, any real numbers.
        softness: Above 0, in units of the logits.

    Returns:
        Probabilities of the shape of `logits`; tied classes share equally at every softness.

    Example:
        >>> classify(jnp.array([[0.0, 0.5, 0.2]]), softness=1e-3).tolist()
        [[0.0, 1.0, 0.0]]
    """
    return soft_ops.argmax(logits, axis=-1, softness=softness)


class CellTypeClassifier(Operator[CellTypeClassifierConfig]):
    """Gives each cell a distribution over cell types; trained on labelled cells.

    Reads `embeddings` (*cells, features); writes `cell_type_logits` and `cell_type_probabilities` (*cells, classes).
    Without hidden layers all weights start at zero, so that training, a convex problem, has one start and
    (with an L2 penalty) one end: the weights of scikit-learn's `LogisticRegression`. Hidden layers start at random.

    Args:
        config: Sizes and softness.
        rngs: Source of the starting weights, needed where there are hidden layers.

    Raises:
        MissingRandomnessError: There are hidden layers and `rngs` is missing.

    Example:
        >>> classifier = CellTypeClassifier(CellTypeClassifierConfig(n_features=2, n_classes=4))
        >>> data, _, _ = classifier.apply({"embeddings": jnp.ones((1, 2))}, {}, None)
        >>> data["cell_type_probabilities"].tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """

    def __init__(self, config: CellTypeClassifierConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        sizes = list(pairwise((config.n_features, *config.hidden_sizes, config.n_classes)))
        if config.hidden_sizes:
            rngs = require_rngs(self, rngs)
            draw = jax.nn.initializers.lecun_normal()
            kernels = [draw(rngs.params(), size) for size in sizes]
        else:
            kernels = [jnp.zeros(size) for size in sizes]
        self.kernels = nnx.List([nnx.Param(kernel) for kernel in kernels])
        self.biases = nnx.List([nnx.Param(jnp.zeros(width)) for _, width in sizes])
        self.softness = Softness(config.temperature)

    def compute(self, embeddings: Float[Array, "*cells features"]) -> CellTypes:
        """Return the logits and probabilities of the cell types."""
        logits = dense_layers(
            embeddings,
            [kernel[...] for kernel in self.kernels],
            [bias[...] for bias in self.biases],
        )
        return CellTypes(logits, classify(logits, softness=self.softness()))
