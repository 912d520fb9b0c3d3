"""TF-IDF and latent semantic indexing: from sparse counts of accessible peaks to embeddings.

A cell is read as a document and a peak as a word. The term frequency is a peak's share of the cell's counts, the
inverse document frequency is cells / counts of the peak, so that peaks that are open everywhere weigh little:

    tf = scale * counts / total of the cell,    idf = cells / total of the peak

    log_tf_log_idf   log(1 + tf) * log(1 + idf)
    log_tfidf        log(1 + tf * idf)
    tf_log_idf       tf * log(1 + idf)

and the embeddings are the coordinates along the singular vectors of that matrix, without centering. The idf and the
singular vectors are those of the cells that the operator was initialized on. Nothing is relaxed: all of it is smooth.

References:
    Cusanovich et al., A single-cell atlas of in vivo mammalian chromatin accessibility, Cell 2018.
    Stuart et al., Single-cell chromatin state analysis with Signac, Nature Methods 2021 (`RunTFIDF`, `RunSVD`).
    Deerwester et al., Indexing by latent semantic analysis, Journal of the American Society for Information Science
    1990.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, ScalarLike

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.core.errors import ConfigError, ContractError

_NO_DIRECTION = 1e-6  # of the largest coordinates: a component along which cells spread less is rounding

Weighting = Literal["log_tf_log_idf", "log_tfidf", "tf_log_idf"]


@dataclass(frozen=True, kw_only=True)
class TfidfLsiConfig(OperatorConfig):
    """How peaks are weighted, and the sizes of the projection.

    Args:
        n_peaks: Number of peaks (or genes, or bins).
        n_components: Number of components that are kept; with the first dropped, at most `n_peaks` - 1.
        weighting: Where logarithms are taken, see the module; the default is muon's, `log_tfidf` is Signac's.
        scale_factor: What term frequencies are multiplied by, above 0.
        drop_first: Whether to leave out the first component, which mostly follows the depth of cells.
        standardize: Whether each embedding has mean 0 and standard deviation 1 over the cells of `initialize`;
            otherwise these cells have unit length along each component.
        learnable: Whether training changes the components.
    """

    n_peaks: Annotated[int, Ge(1)]
    n_components: Annotated[int, Ge(1)] = 50
    weighting: Weighting = "log_tf_log_idf"
    scale_factor: Annotated[float, Gt(0)] = 1e4
    drop_first: bool = False
    standardize: bool = True
    learnable: bool = False

    def __post_init__(self) -> None:
        """Check each field, then that there are no more components than peaks."""
        super().__post_init__()
        if self.n_components + self.drop_first > self.n_peaks:
            raise ConfigError(
                f"TfidfLsiConfig.n_components is {self.n_components}{' beside a dropped one' * self.drop_first}, more "
                f"than the {self.n_peaks} peaks of n_peaks; choose n_components <= {self.n_peaks - self.drop_first}"
            )


class LsiEmbeddings(NamedTuple):
    """Weighted counts, and cells in the space of their singular vectors.

    Attributes:
        tfidf: At least 0; 0 where the count is 0.
        embeddings: Coordinates along each component.
    """

    tfidf: Float[Array, "*cells peaks"]
    embeddings: Float[Array, "*cells components"]


def inverse_document_frequency(counts: Float[Array, "cells peaks"]) -> Float[Array, " peaks"]:
    """Return the number of cells over the counts of each peak.

    Args:
        counts: Counts or presence (0 or 1), at least 0.

    Returns:
        Above 0; 0 for a peak without counts, which then weighs nothing.

    Example:
        >>> inverse_document_frequency(jnp.array([[1.0, 0.0], [3.0, 0.0]])).tolist()
        [0.5, 0.0]
    """
    totals = counts.sum(0)
    open_somewhere = totals > 0
    return jnp.where(open_somewhere, counts.shape[0] / jnp.where(open_somewhere, totals, 1.0), 0.0)


def tf_idf(
    counts: Float[Array, "*cells peaks"],
    idf: Float[Array, " peaks"],
    *,
    weighting: Weighting = "log_tf_log_idf",
    scale_factor: ScalarLike = 1e4,
) -> Float[Array, "*cells peaks"]:
    """Return counts weighted by how rare their peak is.

    Args:
        counts: Counts or presence, at least 0.
        idf: Inverse document frequency of each peak, from `inverse_document_frequency`.
        weighting: Where logarithms are taken.
        scale_factor: What term frequencies are multiplied by, above 0.

    Returns:
        The shape of `counts`, at least 0; a cell without counts is all 0.

    References:
        muon `atac.pp.tfidf`; Signac `RunTFIDF`, whose methods 3, 1 and 2 are the three weightings in their order.

    Example:
        >>> weighted = tf_idf(jnp.array([[1.0, 3.0], [0.0, 0.0]]), jnp.array([3.0, 1.0]), scale_factor=4.0)
        >>> [[round(weight, 2) for weight in cell] for cell in weighted.tolist()]
        [[0.96, 0.96], [0.0, 0.0]]
    """
    # shares do not change when a cell is rescaled; taking its largest count out keeps their gradient in float32
    largest = jax.lax.stop_gradient(counts.max(-1, keepdims=True))
    scaled = counts / jnp.where(largest > 0, largest, 1.0)
    total = scaled.sum(-1, keepdims=True)
    frequencies = scaled / jnp.where(total > 0, total, 1.0) * scale_factor
    if weighting == "log_tfidf":
        return jnp.log1p(frequencies * idf)
    return (jnp.log1p(frequencies) if weighting == "log_tf_log_idf" else frequencies) * jnp.log1p(idf)


def singular_vectors(matrix: ArrayLike, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first right singular vectors of a matrix with many zeros, and the singular values.

    Runs on the host in float64, by Lanczos iterations on the sparse matrix unless nearly all vectors are wanted.

    Args:
        matrix: (cells, peaks), any real numbers; it is not centered.
        n_components: Between 1 and the smaller of cells and peaks.

    Returns:
        Orthonormal columns (peaks, n_components), the entry of largest magnitude of each positive, and singular values
        (n_components,), descending; float32.

    Raises:
        ContractError: `n_components` is not in its range.

    References:
        muon `atac.tl.lsi`; scipy `sparse.linalg.svds`.

    Example:
        >>> vectors, values = singular_vectors(np.array([[3.0, 0.0], [0.0, -2.0]]), 2)
        >>> vectors.tolist(), values.tolist()
        ([[1.0, 0.0], [0.0, 1.0]], [3.0, 2.0])
    """
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    dense = np.asarray(matrix, np.float64)
    smaller = min(dense.shape)
    if not 1 <= n_components <= smaller:
        raise ContractError(
            f"n_components is {n_components}; {dense.shape[0]} cells of {dense.shape[1]} peaks have between 1 and "
            f"{smaller} singular vectors: give more cells or ask for fewer components"
        )
    if 2 * n_components < smaller:
        # the first singular vector of a matrix without negative entries has none: this start is not orthogonal to it
        found = svds(csr_array(dense), k=n_components, v0=np.ones(smaller))
        _, values, rows = cast("tuple[np.ndarray, np.ndarray, np.ndarray]", found)
    else:
        _, values, rows = np.linalg.svd(dense, full_matrices=False)
    order = np.argsort(-values)[:n_components]
    rows = rows[order]
    signs = np.where(rows.max(1) >= -rows.min(1), 1.0, -1.0)
    return (rows.T * signs).astype(np.float32), values[order].astype(np.float32)


class TfidfLsi(Operator[TfidfLsiConfig]):
    """Weights counts by TF-IDF and projects cells on the singular vectors, as for chromatin accessibility.

    Reads `counts` (*cells, peaks); writes `tfidf` (*cells, peaks) and `embeddings` (*cells, components). After
    `initialize` on the same cells it equals muon's `atac.pp.tfidf` and `atac.tl.lsi` up to the sign of each component;
    new cells are weighted and projected as the old. Before, every peak weighs log 2 and directions are random.

    Args:
        config: Weighting and sizes.
        rngs: Source of the random starting directions.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> counts = jnp.array([[4.0, 0.0, 1.0], [3.0, 1.0, 0.0], [0.0, 3.0, 2.0]])
        >>> operator = TfidfLsi(TfidfLsiConfig(n_peaks=3, n_components=2), rngs=nnx.Rngs(0))
        >>> operator.initialize(counts)
        >>> operator.apply({"counts": counts}, {}, None)[0]["embeddings"].shape
        (3, 2)
    """

    def __init__(self, config: TfidfLsiConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        drawn = jax.random.normal(rngs.params(), (config.n_peaks, config.n_components))
        self.components = kind(jnp.linalg.qr(drawn)[0])
        self.idf = nnx.Variable(jnp.ones(config.n_peaks))
        self.center = nnx.Variable(jnp.zeros(config.n_components))
        self.spread = nnx.Variable(jnp.ones(config.n_components))

    def compute(self, counts: Float[Array, "*cells peaks"]) -> LsiEmbeddings:
        """Return the weighted counts and the coordinates of each cell."""
        tfidf = self._weighted(counts)
        return LsiEmbeddings(tfidf, (tfidf @ self.components[...] - self.center[...]) / self.spread[...])

    def initialize(self, counts: Float[Array, "cells peaks"]) -> None:
        """Set the inverse document frequencies, the components, and what makes the embeddings of these cells standard.

        Raises:
            ContractError: There are fewer cells than components.
        """
        self.idf[...] = inverse_document_frequency(counts)
        tfidf = self._weighted(counts)
        dropped = int(self.config.drop_first)
        components, values = singular_vectors(tfidf, self.config.n_components + dropped)
        self.components[...] = components[:, dropped:]
        if self.config.standardize:
            coordinates = tfidf @ self.components[...]
            self.center[...] = coordinates.mean(0)
            spread = coordinates.std(0)
        else:
            self.center[...] = jnp.zeros(self.config.n_components)
            spread = jnp.asarray(values[dropped:])
        rounding = _NO_DIRECTION * float(values[0]) / math.sqrt(counts.shape[0])
        self.spread[...] = jnp.where(spread > rounding, spread, 1.0)

    def _weighted(self, counts: Float[Array, "*cells peaks"]) -> Float[Array, "*cells peaks"]:
        return tf_idf(counts, self.idf[...], weighting=self.config.weighting, scale_factor=self.config.scale_factor)
