"""Multiple alignment: posteriors of all pairs, consistency, and a progressive alignment along a guide tree.

Hard: columns that hold as many pairs of residues as possible that belong together. Relaxed: the columns are chosen from
the posteriors of pairwise alignments with a softness tau, from end to end and local ones,

    P(i ~ j) = sqrt((P_global(i ~ j)^2 + P_local(i ~ j)^2) / 2)

as some sequences are fragments of others, or share a domain only; and a residue is in a column with the weight

    W[s,i,c] ~ sum over sequences t of P(s_i ~ t_j), j the residue of t in column c

which is smooth in scores and gap costs. As tau -> 0 the posteriors are those of the best pairwise alignments, 0.71 for
pairs that only one of the two has; where all alignments agree with each other, W is 1 on their columns, and elsewhere
it shows who disagrees.

References:
    Do, Mahabhashyam, Brudno and Batzoglou, ProbCons: probabilistic consistency-based multiple sequence alignment,
    Genome Research 2005.
    Liu, Schmidt and Maskell, MSAProbs: multiple sequence alignment based on pair hidden Markov models and partition
    function posterior probabilities, Bioinformatics 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from jax import lax
from jaxtyping import Array, Float, Int, Scalar

from diffbio.core.errors import ContractError
from diffbio.core.soft_ops import sqrt
from diffbio.operators.alignment.consistency import consistent, pairwise_posteriors
from diffbio.operators.alignment.ends import GLOBAL, LOCAL
from diffbio.operators.alignment.guide_tree import average_linkage
from diffbio.operators.alignment.progressive import Columns, progressive_alignment
from diffbio.operators.alignment.scoring import ScoredAlignment, ScoringConfig
from diffbio.operators.alignment.sparse_posteriors import Posteriors


@dataclass(frozen=True, kw_only=True)
class ProgressiveMSAConfig(ScoringConfig):
    """Scores of pairwise alignments, and how a multiple one follows from them.

    Args:
        n_columns: Room for columns of the alignment; at least as many as there are positions.
        alphabet: The letters, in the order of the sequences' last axis.
        matrix: Name of a substitution matrix, or path of its file; see `substitution_matrix`. `PFAM4` and the costs
            that belong to it were learned from four families.
        gap_open: Cost of the first position of a gap, above 0.
        gap_extend: Cost of each further one, above 0.
        temperature: The softness tau, in the unit of the scores; 2 / ln 2, by default, takes scores in half bits as log
            odds.
        learnable: Whether training changes the matrix and the gap costs.
        consistency_rounds: How often third sequences are asked.
        refinement_rounds: How often the alignment is parted at each branch of the tree, and aligned again.
    """

    n_columns: Annotated[int, Ge(1)]
    matrix: str = "PFAM4"
    gap_open: Annotated[float, Gt(0)] = 14.4
    gap_extend: Annotated[float, Gt(0)] = 2.1
    temperature: Annotated[float, Gt(0)] = 2.885
    consistency_rounds: Annotated[int, Ge(0)] = 2
    refinement_rounds: Annotated[int, Ge(0)] = 2


class SoftMSA(NamedTuple):
    """An alignment of many sequences.

    Attributes:
        alignment_columns: The column of each residue; -1 beyond the lengths. No derivative.
        column_weights: How strongly a residue is in each column; sums to 1 over the columns.
        alignment_profile: Expected number of each letter in each column, per sequence.
        pair_accuracy: Expected share of the aligned pairs of residues that belong together, by these posteriors.
    """

    alignment_columns: Int[Array, "sequences positions"]
    column_weights: Float[Array, "sequences positions columns"]
    alignment_profile: Float[Array, "columns letters"]
    pair_accuracy: Float[Scalar, ""]


def multiple_alignment(
    letters: Float[Array, "sequences positions letters"],
    lengths: Int[Array, " sequences"],
    posteriors: Posteriors,
    *,
    n_columns: int,
    consistency_rounds: int = 2,
    refinement_rounds: int = 2,
) -> SoftMSA:
    """Return the alignment of many sequences that follows from the posteriors of pairs.

    Args:
        letters: Distributions over an alphabet.
        lengths: How many positions count.
        posteriors: The pairs of positions that are likely, by `pairwise_posteriors` or `sparse_posteriors`.
        n_columns: Room for columns.
        consistency_rounds: How often third sequences are asked.
        refinement_rounds: How often the alignment is parted at each branch of the tree, and aligned again.

    Returns:
        Columns, weights, profile and accuracy; NaN in place of all weights if there are too few columns.

    Example:
        >>> from diffbio.operators.alignment.sparse_posteriors import sparse_posteriors
        >>> letters, lengths = jnp.ones((2, 1, 4)) / 4, jnp.array([1, 1])
        >>> aligned = multiple_alignment(letters, lengths, sparse_posteriors(jnp.ones((2, 2, 1, 1))), n_columns=2)
        >>> aligned.alignment_columns.tolist(), aligned.column_weights.tolist()
        ([[0], [0]], [[[1.0, 0.0]], [[1.0, 0.0]]])
    """
    believed = consistent(posteriors, consistency_rounds)
    fixed = lax.stop_gradient(believed)
    similarity = fixed.value.sum((2, 3)) / jnp.maximum(jnp.minimum(lengths[:, None], lengths), 1)
    joins = average_linkage(similarity)
    columns = progressive_alignment(fixed, lengths, joins, n_columns, refinement_rounds=refinement_rounds)
    within = jnp.arange(letters.shape[1]) < lengths[:, None]
    weights, accuracy = _support(believed, columns, within, n_columns)
    enough = jnp.where(columns.n_needed > n_columns, jnp.nan, 1.0)
    return SoftMSA(
        jnp.where(within, columns.column, -1),
        weights * enough,
        jnp.einsum("spc,spl->cl", weights, letters) / letters.shape[0] * enough,
        accuracy * enough,
    )


def _support(posteriors: Posteriors, columns: Columns, within: Array, n_columns: int) -> tuple[Array, Array]:
    """Return the weight of each column for each residue, and the expected share of right pairs."""
    n_sequences, n_positions = within.shape

    sequence, residue = jnp.arange(n_sequences)[:, None, None], jnp.arange(n_positions)[:, None]

    def add(weights: Array, of_sequence: tuple[Array, Posteriors]) -> tuple[Array, None]:
        """Add what one sequence says of all residues."""
        column, partners = of_sequence
        return weights.at[sequence, residue, column[partners.position]].add(partners.value, mode="drop"), None

    start = jnp.zeros((n_sequences, n_positions, n_columns), posteriors.value.dtype)
    of_others = jax.tree.map(lambda every: jnp.swapaxes(every, 0, 1), posteriors)
    votes, _ = lax.scan(add, start, (columns.column, of_others))
    own = jnp.minimum(columns.column, n_columns - 1)[..., None]
    members = jnp.zeros(n_columns, votes.dtype).at[columns.column].add(1.0, mode="drop")
    others = jnp.take_along_axis(votes, own, axis=-1)[..., 0] - 1  # the residue itself is no pair
    right = jnp.where(within, others, 0.0).sum()
    accuracy = right / jnp.maximum((members * (members - 1)).sum(), 1)
    weights = votes / jnp.where(within, votes.sum(-1), 1.0)[..., None]
    return jnp.where(within[..., None], weights, 0.0), accuracy


class SoftProgressiveMSA(ScoredAlignment[ProgressiveMSAConfig]):
    """Align many sequences.

    Reads `sequences` (sequences, positions, letters), distributions over the letters, and optionally `sequence_length`
    (sequences,), how many positions count; writes `alignment_columns` and `column_weights` (sequences, positions) and
    (sequences, positions, columns), `alignment_profile` (columns, letters) and `pair_accuracy` (). Parameters, if
    learnable: `substitution` (letters, letters), whose symmetric part counts, and the logarithms of the gap costs.

    Args:
        config: Scores, gap costs and room for columns.
        rngs: Not used: the matrix is the one that the configuration names.

    Example:
        >>> config = ProgressiveMSAConfig(n_columns=4, alphabet="ACGT", matrix="NUC.4.4", gap_open=6.0)
        >>> sequences = jnp.eye(4)[jnp.array([[0, 1, 3, 3], [0, 1, 2, 3]])]
        >>> data = {"sequences": sequences, "sequence_length": jnp.array([3, 4])}  # ACT and ACGT
        >>> SoftProgressiveMSA(config).apply(data, {}, None)[0]["alignment_columns"].tolist()
        [[0, 1, 3, -1], [0, 1, 2, 3]]
    """

    def compute(
        self,
        sequences: Float[Array, "sequences positions letters"],
        sequence_length: Int[Array, " sequences"] | None = None,
    ) -> SoftMSA:
        """Return the alignment of all sequences."""
        n_sequences, n_positions, _ = sequences.shape
        if n_positions > self.config.n_columns:
            raise ContractError(
                f"sequences have {n_positions} positions, and there is room for {self.config.n_columns} columns; give "
                f"a larger ProgressiveMSAConfig.n_columns, such as {3 * n_positions // 2}"
            )
        lengths = jnp.full(n_sequences, n_positions) if sequence_length is None else sequence_length

        return multiple_alignment(
            sequences,
            lengths,
            self.posteriors(sequences, lengths),
            n_columns=self.config.n_columns,
            consistency_rounds=0,  # they have been asked
            refinement_rounds=self.config.refinement_rounds,
        )

    def posteriors(
        self, sequences: Float[Array, "sequences positions letters"], lengths: Int[Array, " sequences"]
    ) -> Posteriors:
        """Return the posteriors of all pairs, after third sequences have been asked.

        Of each two sequences it is the root mean square of the global and the local one. What only one of them has is
        kept, and outlives a mean; rows can sum to 1.41, if both are sure of different pairs.

        Args:
            sequences: Distributions over the letters.
            lengths: How many positions count.
        """

        def align(x: Array, y: Array, pair: Array) -> Array:
            whole, part = (self.align(x, y, pair, ends=ends).alignment_posterior for ends in (GLOBAL, LOCAL))
            return sqrt((whole**2 + part**2) / 2)

        return consistent(pairwise_posteriors(sequences, lengths, align), self.config.consistency_rounds)
