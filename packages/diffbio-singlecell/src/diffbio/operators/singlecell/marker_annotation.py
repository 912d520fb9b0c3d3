"""Cell types from known marker genes, without labelled cells (CellAssign).

Hard: the type of the largest posterior probability. Relaxed, with s_i the size factor of a cell, b_g a baseline, rho_tg
whether gene g marks type t, and delta_tg >= delta_min the log fold of a marker,

    y_ig | t ~ NB(mean s_i exp(b_g + rho_tg delta_tg + batch effect), dispersion phi_g)
    a_it = softmax_t((log pi_t + sum_g log p(y_ig | t)) / tau)

At tau = 1 the assignments are posterior probabilities, as tau -> 0 one-hot. A type without markers is 'other': cells
that express no marker more than the baseline. Parameters start from the cells of
large mean marker, and are found by gradient descent on the log-likelihood.

References:
    Zhang et al., Probabilistic cell-type assignment of single-cell RNA-seq for tumor microenvironment profiling,
    Nature Methods 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.core.errors import DataError
from diffbio.operators.singlecell.marker_model import MarkerModel, fit_marker_model, marker_log_joint


@dataclass(frozen=True, kw_only=True)
class MarkerAnnotationConfig(OperatorConfig):
    """Sizes, the least overexpression and how the model is fitted.

    Args:
        n_genes: Number of genes.
        n_classes: Number of cell types, 'other' among them.
        n_batches: Number of batches, each with a log fold per gene; 1 for none.
        least_overexpression: Log fold of a marker in its type, at least, in nats; log 2 by default.
        temperature: Softness of the assignments, in nats; 1 for posterior probabilities.
        n_steps: Steps of Adam in `initialize`.
        learning_rate: Of these.
    """

    n_genes: Annotated[int, Ge(1)]
    n_classes: Annotated[int, Ge(2)]
    n_batches: Annotated[int, Ge(1)] = 1
    least_overexpression: Annotated[float, Ge(0)] = 0.693
    temperature: Annotated[float, Gt(0)] = 1.0
    n_steps: Annotated[int, Ge(0)] = 100
    learning_rate: Annotated[float, Gt(0)] = 0.05


class MarkerAnnotations(NamedTuple):
    """Types of cells by their markers.

    Attributes:
        cell_type_logits: Log of prior times likelihood of each type, in nats (*cells, classes).
        cell_type_probabilities: A distribution over the types (*cells, classes).
        cell_type_log_likelihood: Log-likelihood of each cell, in nats (*cells,).
    """

    cell_type_logits: Float[Array, "*cells classes"]
    cell_type_probabilities: Float[Array, "*cells classes"]
    cell_type_log_likelihood: Float[Array, "*cells"]


class MarkerAnnotation(Operator[MarkerAnnotationConfig]):
    """Annotates cells by known marker genes, with a negative binomial mixture.

    Reads `counts` (*cells, genes), raw, and where they are there `size_factors` (*cells,), in any unit, else total
    counts take their place, and `batch_labels` (*cells,); writes `cell_type_logits`, `cell_type_probabilities` (*cells,
    classes) and `cell_type_log_likelihood` (*cells,), whose negative mean is the loss. `initialize` takes the markers
    from the key `marker_genes` (classes, genes), a table of 0 and 1, and fits the model. The markers are stored.

    Args:
        config: Sizes, least overexpression, fitting.
        rngs: Not used: nothing is drawn.

    Example:
        >>> annotation = MarkerAnnotation(MarkerAnnotationConfig(n_genes=3, n_classes=2))
        >>> counts = jnp.array([[8.0, 1.0, 5.0], [9.0, 0.0, 4.0], [1.0, 7.0, 5.0], [0.0, 9.0, 6.0]])
        >>> annotation.initialize(counts, jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        >>> annotation.apply({"counts": counts}, {}, None)[0]["cell_type_probabilities"].argmax(1).tolist()
        [0, 0, 1, 1]
    """

    def __init__(self, config: MarkerAnnotationConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        shape = (config.n_classes, config.n_genes)
        self.class_logits = nnx.Param(jnp.zeros(config.n_classes))
        self.log_baseline = nnx.Param(jnp.zeros(config.n_genes))
        self.excess = nnx.Param(jnp.zeros(shape))
        self.log_inverse_dispersion = nnx.Param(jnp.zeros(config.n_genes))
        batches = (config.n_batches, config.n_genes)
        self.batch_effects = nnx.Param(jnp.zeros(batches)) if config.n_batches > 1 else None
        self.marker_genes = nnx.Variable(jnp.zeros(shape))
        self.mean_size = nnx.Variable(jnp.float32(1.0))
        self.softness = Softness(config.temperature)

    @property
    def model(self) -> MarkerModel:
        """The parameters as they are now."""
        return MarkerModel(
            self.class_logits[...],
            self.log_baseline[...],
            self.excess[...],
            self.log_inverse_dispersion[...],
            None if self.batch_effects is None else self.batch_effects[...],
        )

    def initialize(
        self,
        counts: Float[Array, "cells genes"],
        marker_genes: Float[Array, "classes genes"],
        size_factors: Float[Array, " cells"] | None = None,
        batch_labels: Int[Array, " cells"] | None = None,
    ) -> None:
        """Store the markers, and fit the model to the cells; see `fit_marker_model`.

        Args:
            counts: Raw counts (cells, genes).
            marker_genes: 1 where the type has the marker, else 0 (classes, genes); a row of zeros is 'other'.
            size_factors: Size of each cell, in any unit (cells,).
            batch_labels: Code of the batch of each cell (cells,).

        Raises:
            DataError: `marker_genes` has another shape or entries than 0 and 1, or two types have the same markers.
        """
        config = self.config
        markers = jnp.asarray(marker_genes, jnp.float32)
        _require_markers(markers, self.marker_genes[...].shape)
        sizes = counts.sum(1) if size_factors is None else size_factors
        self.marker_genes[...] = markers
        self.mean_size[...] = jnp.where(sizes.mean() > 0, sizes.mean(), 1.0)
        fitted = fit_marker_model(
            counts,
            sizes / self.mean_size[...],
            markers,
            self.model,
            batch_labels,
            least_overexpression=config.least_overexpression,
            n_steps=config.n_steps,
            learning_rate=config.learning_rate,
        )
        self.class_logits[...], self.log_baseline[...] = fitted.class_logits, fitted.log_baseline
        self.excess[...], self.log_inverse_dispersion[...] = fitted.excess, fitted.log_inverse_dispersion
        if self.batch_effects is not None:
            self.batch_effects[...] = fitted.batch_effects

    def compute(
        self,
        counts: Float[Array, "*cells genes"],
        size_factors: Float[Array, "*cells"] | None = None,
        batch_labels: Int[Array, "*cells"] | None = None,
    ) -> MarkerAnnotations:
        """Return types of the cells."""
        joint = marker_log_joint(
            counts,
            (counts.sum(-1) if size_factors is None else size_factors) / self.mean_size[...],
            self.marker_genes[...],
            self.model,
            batch_labels,
            least_overexpression=self.config.least_overexpression,
        )
        shares = soft_ops.argmax(joint, axis=-1, softness=self.softness())
        return MarkerAnnotations(joint, shares, jax.nn.logsumexp(joint, axis=-1))


def _require_markers(markers: Array, shape: tuple[int, ...]) -> None:
    """Check that the table of markers has this shape, and tells all types apart."""
    if markers.shape != shape:
        raise DataError(f"marker_genes has shape {markers.shape}; the operator is built for {shape}, (classes, genes)")
    if not jnp.isin(markers, jnp.array([0.0, 1.0])).all():
        raise DataError("marker_genes holds other numbers than 0 and 1; give 1 where the type has the marker, else 0")
    same = (markers[:, None] == markers).all(-1) & ~jnp.eye(len(markers), dtype=bool)
    if same.any():
        first, second = jnp.argwhere(same)[0].tolist()
        raise DataError(
            f"types {first} and {second} of marker_genes have the same {int(markers[first].sum())} markers, so no cell "
            "can be told apart; give them other markers, or join them"
        )
