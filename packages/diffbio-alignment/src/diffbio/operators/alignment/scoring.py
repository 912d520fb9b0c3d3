"""What alignments are scored with, as parameters: a substitution matrix, gap costs and a softness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from annotated_types import Gt
from flax import nnx
from jaxtyping import Array, Float, Int, Scalar

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.alignment.ends import Ends
from diffbio.operators.alignment.soft_alignment import SoftAlignment, soft_alignment
from diffbio.operators.alignment.substitution import substitution_matrix, substitution_scores, symmetric


@dataclass(frozen=True, kw_only=True)
class ScoringConfig(OperatorConfig):
    """Scores of alignments.

    Args:
        alphabet: The letters, in the order of the sequences' last axis.
        matrix: Name of a substitution matrix, or path of its file; see `substitution_matrix`.
        gap_open: Cost of the first position of a gap, above 0.
        gap_extend: Cost of each further one, above 0.
        temperature: The softness tau, in the unit of the scores.
        learnable: Whether training changes the matrix and the gap costs.
    """

    alphabet: str = "ARNDCQEGHILKMFPSTWYV"
    matrix: str = "BLOSUM62"
    gap_open: Annotated[float, Gt(0)] = 11.0
    gap_extend: Annotated[float, Gt(0)] = 1.0
    temperature: Annotated[float, Gt(0)] = 1.0
    learnable: bool = False


class ScoredAlignment[C: ScoringConfig](Operator[C]):
    """An operator that aligns sequences by a substitution matrix and affine costs of gaps.

    Parameters, if learnable: `substitution` (letters, letters), whose symmetric part counts, `log_gap_open` and
    `log_gap_extend`, the logarithms of the costs.

    Args:
        config: Scores, costs and softness.
        rngs: Not used: the matrix is the one that the configuration names.
    """

    def __init__(self, config: C, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.substitution = kind(jnp.asarray(substitution_matrix(config.matrix, config.alphabet)))
        self.log_gap_open = kind(jnp.log(jnp.float32(config.gap_open)))
        self.log_gap_extend = kind(jnp.log(jnp.float32(config.gap_extend)))
        self.softness = Softness(config.temperature)

    def align(
        self,
        query: Float[Array, "query letters"],
        target: Float[Array, "target letters"],
        lengths: Int[Array, "2"],
        *,
        ends: Ends,
        band: int | None = None,
    ) -> SoftAlignment:
        """Return score and posterior of two sequences.

        Args:
            query: Distributions over the letters.
            target: Likewise.
            lengths: How many positions of each count.
            ends: Which ends are free.
            band: Largest difference of the positions of an aligned pair, or `None`.
        """
        return soft_alignment(
            self.position_scores(query, target),
            lengths,
            **self.gap_costs,
            softness=self.softness(),
            ends=ends,
            band=band,
        )

    def position_scores(
        self, query: Float[Array, "query letters"], target: Float[Array, "target letters"]
    ) -> Float[Array, "query target"]:
        """Return the score of each two positions."""
        return substitution_scores(query, target, symmetric(self.substitution[...]))

    @property
    def gap_costs(self) -> dict[str, Float[Scalar, ""]]:
        """The costs `gap_open` and `gap_extend`, as functions take them."""
        return {"gap_open": jnp.exp(self.log_gap_open[...]), "gap_extend": jnp.exp(self.log_gap_extend[...])}
