"""Library-size normalization: counts of cells sequenced to different depths, made comparable.

The hard-coded recipe divides each cell by its size factor f = library / target and takes log(x / f + 1). Here the
depth exponent e and the pseudocount c of that recipe are parameters:

    normalized = log(1 + x / (c * f^e)) = log(x / f^e + c) - log(c)

With e = 1 and c = 1 this is the classical recipe; e = 0 leaves depth in, and a smaller c stretches low counts. A zero
count stays zero at every e and c. Nothing is relaxed: the recipe is smooth as it is.

References:
    Wolf, Angerer and Theis, SCANPY, Genome Biology 2018 (`pp.normalize_total`, `pp.log1p`).
    Ahlmann-Eltze and Huber, Comparison of transformations for single-cell RNA-seq data, Nature Methods 2023
    (the pseudocount).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float, ScalarLike

from diffbio.core import Operator, OperatorConfig


@dataclass(frozen=True, kw_only=True)
class LibrarySizeNormalizationConfig(OperatorConfig):
    """What a cell is scaled to, and how strongly.

    Args:
        target_sum: Total count to which each cell is scaled, above 0.
        depth_exponent: Power of the size factor by which counts are divided, at least 0; starting value if
            learnable. 1 removes depth fully, 0 not at all.
        pseudocount: Normalized count at which the logarithm turns from linear to logarithmic, above 0; starting
            value if learnable.
        learnable: Whether training changes the exponent and the pseudocount.
    """

    target_sum: Annotated[float, Gt(0)] = 1e4
    depth_exponent: Annotated[float, Ge(0)] = 1.0
    pseudocount: Annotated[float, Gt(0)] = 1.0
    learnable: bool = False


class NormalizedCounts(NamedTuple):
    """Log-normalized expression and what each cell was divided by.

    Attributes:
        normalized: Natural logarithm of 1 + normalized count / pseudocount; at least 0.
        size_factors: What the cell's counts were divided by, above 0; 1 for a cell without counts.
    """

    normalized: Float[Array, "*cells genes"]
    size_factors: Float[Array, "*cells"]


def normalize_library_size(
    counts: Float[Array, "*cells genes"],
    *,
    target_sum: ScalarLike = 1e4,
    depth_exponent: ScalarLike = 1.0,
    pseudocount: ScalarLike = 1.0,
) -> NormalizedCounts:
    """Return log(1 + counts / (pseudocount * size_factors)), with size_factors = (library / target_sum)^exponent.

    Args:
        counts: Counts or abundances, at least 0, in any unit. A cell without counts stays zero.
        target_sum: Total to which each cell is scaled, above 0, in the unit of `counts`.
        depth_exponent: Power of the size factor; 1 removes depth fully.
        pseudocount: Above 0, in the unit of `counts`; 1 gives `log1p`.

    Returns:
        `normalized` (*cells, genes) and `size_factors` (*cells,).

    References:
        scanpy `pp.normalize_total(target_sum=...)` then `pp.log1p`, which the defaults equal.

    Example:
        >>> counts = jnp.array([[1.0, 3.0], [2.0, 6.0], [0.0, 0.0]])
        >>> jnp.expm1(normalize_library_size(counts, target_sum=4.0).normalized).round().tolist()
        [[1.0, 3.0], [1.0, 3.0], [0.0, 0.0]]
    """
    library = counts.sum(-1)
    relative_depth = jnp.where(library > 0, library, target_sum) / target_sum
    # A cell's fractions do not change when it is rescaled, so taking its largest count out as a constant
    # leaves value and gradient as they are, and no square of a tiny or huge library is formed.
    largest = jax.lax.stop_gradient(counts.max(-1, keepdims=True))
    scaled = counts / jnp.where(largest > 0, largest, 1.0)
    total = scaled.sum(-1, keepdims=True)
    fractions = scaled / jnp.where(total > 0, total, 1.0)
    remaining_depth = relative_depth ** (1.0 - depth_exponent)
    normalized = jnp.log1p(fractions * (target_sum / pseudocount * remaining_depth[..., None]))
    return NormalizedCounts(normalized, relative_depth**depth_exponent)


class LibrarySizeNormalization(Operator[LibrarySizeNormalizationConfig]):
    """Log-normalizes counts to a common library size, with a depth exponent and pseudocount that may be learned.

    Reads `counts` (*cells, genes); writes `normalized` (*cells, genes) and `size_factors` (*cells,). Acts on each
    cell alone. At the defaults it equals scanpy's `normalize_total(target_sum=1e4)` and `log1p`. A learned
    exponent is free; a learned pseudocount is stored as its logarithm and stays positive.

    Args:
        config: Target and starting values.
        rngs: Not used: nothing is drawn.

    Example:
        >>> operator = LibrarySizeNormalization(LibrarySizeNormalizationConfig(target_sum=4.0))
        >>> data, _, _ = operator.apply({"counts": jnp.array([[1.0, 3.0], [2.0, 6.0]])}, {}, None)
        >>> data["size_factors"].tolist()
        [1.0, 2.0]
    """

    def __init__(self, config: LibrarySizeNormalizationConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.depth_exponent = kind(jnp.float32(config.depth_exponent))
        self.log_pseudocount = kind(jnp.log(jnp.float32(config.pseudocount)))

    def compute(self, counts: Float[Array, "*cells genes"]) -> NormalizedCounts:
        """Return log-normalized expression and size factors."""
        return normalize_library_size(
            counts,
            target_sum=self.config.target_sum,
            depth_exponent=self.depth_exponent[...],
            pseudocount=jnp.exp(self.log_pseudocount[...]),
        )
