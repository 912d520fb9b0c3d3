"""Weights of duplicates: reads that are copies of one molecule count together as one.

Hard: reads that map to the same place, or where that is unknown have the same letters, are copies, and the best of them
is kept (Picard). With unique molecular identifiers (UMIs) they must also be of one molecule; see `molecules`. Relaxed,
with s_ij how far two reads are copies, q their summed qualities and w the weights that they had,

    weight_i = exp(q_i / tau_q) / (exp(q_i / tau_q) + sum over j != i of w_j s_ij exp(q_j / tau_q))

which without qualities is 1 / (expected number of copies). For reads that differ by d_ij letters

    s_ij = exp(-max(0, d_ij - allowed - 1/2) / tau)

As tau -> 0 these are the groups of copies; as tau_q -> 0 the best read of each has weight 1, the others 0.

References:
    Picard toolkit, MarkDuplicates, Broad Institute.
    Smith, Heger and Sudbery, UMI-tools: modeling sequencing errors in Unique Molecular Identifiers to improve
    quantification accuracy, Genome Research 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.alignment.semirings import NEVER
from diffbio.operators.preprocessing.molecules import beyond, mismatches, same_molecule

_LEAST = 1e-30  # guards logarithms
_LARGEST = 30.0  # a better score counts e^30-fold at most: less than what a read that is no copy counts below a copy


@dataclass(frozen=True, kw_only=True)
class DuplicateWeightingConfig(OperatorConfig):
    """Which reads are compared, and when they are copies.

    Args:
        n_mismatches: Letters by which copies may differ, where mapping positions are unknown.
        prefix_length: Without mapping positions, only reads that begin with the same letters, so many, are compared.
        max_group_size: Reads that are compared with each other; larger groups are cut into parts of this size.
        temperature: Softness tau of the similarity of letters, in mismatches.
        count_temperature: Softness of the comparison of UMIs' counts, in reads.
        quality_temperature: Softness tau_q of the choice of the best copy, in units of Phred; `None` to share the
            weight equally among copies.
    """

    n_mismatches: Annotated[int, Ge(0)] = 0
    prefix_length: Annotated[int, Ge(1)] = 16
    max_group_size: Annotated[int, Ge(1)] = 64
    temperature: Annotated[float, Gt(0)] = 0.1
    count_temperature: Annotated[float, Gt(0)] = 0.1
    quality_temperature: Annotated[float, Gt(0)] | None = None


class DuplicateWeights(NamedTuple):
    """How far each read counts.

    Attributes:
        duplicate_weights: Share of a read in its group of copies, from 0 to 1 (reads,); 0 for masked reads.
        read_weights: The weights that the reads had, times that share (reads,).
    """

    duplicate_weights: Float[Array, " reads"]
    read_weights: Float[Array, " reads"]


@partial(jax.jit, static_argnames=("prefix_length", "max_group_size"))
def duplicate_shares(
    reads: Float[Array, "reads positions letters"],
    lengths: Int[Array, " reads"],
    weights: Float[Array, " reads"],
    *,
    umis: Float[Array, "reads umi_positions letters"] | None = None,
    positions: Int[Array, " reads"] | None = None,
    scores: Float[Array, " reads"] | None = None,
    softness: ArrayLike,
    count_softness: ArrayLike = 0.1,
    n_mismatches: ArrayLike = 0,
    prefix_length: int = 16,
    max_group_size: int = 64,
) -> Float[Array, " reads"]:
    """Return the share of each read in its group of copies.

    Args:
        reads: Distributions over the letters; where `positions` are given they don't matter.
        lengths: How many positions of each read count.
        weights: With which each read counts as a copy of others, from 0 to 1; a read of weight 0 is nobody's copy.
        umis: Distributions over the letters of the UMIs; copies must have UMIs of one molecule.
        positions: A number for each place and strand to which a read may map; copies map to the same one.
        scores: In units of their softness: the best of copies is kept; by default all share the weight equally.
        softness: tau > 0, in mismatches.
        count_softness: Softness of the comparison of UMIs' counts, in reads.
        n_mismatches: Letters by which copies may differ, where `positions` are not given.
        prefix_length: Without `positions`, reads are compared that begin with the same letters, so many.
        max_group_size: Reads that are compared with each other.

    Returns:
        Shares (reads,) from 0 to 1. Reads are sorted by place or prefix, and each is compared with at most 2 x
        `max_group_size` others: time grows as reads x max_group_size (with UMIs, its square).

    Example:
        >>> reads = jnp.eye(4)[jnp.array([[0, 1, 2], [3, 3, 3], [0, 1, 2]])]
        >>> duplicate_shares(reads, jnp.full(3, 3), jnp.ones(3), softness=0.01).tolist()
        [0.5, 1.0, 0.5]
    """
    n_reads, n_positions = reads.shape[:2]
    within = jnp.arange(n_positions) < lengths[:, None]
    letters = reads * within[..., None]
    place = _hash(letters[:, :prefix_length]) if positions is None else positions
    content = _hash(letters if umis is None else umis)  # equal ones stay together in a group that is cut
    order = jnp.lexsort((content, place, weights <= 0))
    size = min(max_group_size, n_reads)
    group = _groups(place[order], size)
    n_blocks = -(-n_reads // size)
    padding = (n_blocks + 1) * size - n_reads
    ended = jnp.concatenate([letters, (~within)[..., None].astype(letters.dtype)], -1)  # beyond the end is a letter too

    def padded(values: Array) -> Array:
        return jnp.pad(values[order], [(0, padding)] + [(0, 0)] * (values.ndim - 1))

    given = (ended if positions is None else None, umis, scores)
    live, *columns = padded(weights), *(None if column is None else padded(column) for column in given)
    groups = jnp.pad(group, (0, padding), constant_values=-1)

    @jax.checkpoint
    def shares(block: Array) -> Array:
        rows = block * size + jnp.arange(2 * size)
        weight = live[rows]
        own, tags, score = (None if column is None else column[rows] for column in columns)
        together = groups[rows][:, None] == groups[rows][None, :]
        letters_apart = 0.0 if own is None else beyond(mismatches(own), n_mismatches) / softness
        log_similarity = jnp.where(together, -letters_apart, NEVER)
        if tags is not None:
            alike = same_molecule(tags, log_similarity, weight, softness=softness, count_softness=count_softness)
            log_similarity = jnp.where(together, log_similarity + jnp.log(jnp.maximum(alike, _LEAST)), NEVER)
        others = log_similarity + jnp.log(jnp.maximum(weight, _LEAST))
        if score is not None:
            others += jnp.minimum(score[None, :] - score[:, None], _LARGEST)
        others = jnp.where(jnp.eye(2 * size, dtype=bool), NEVER, others)
        return jax.nn.sigmoid(-jax.nn.logsumexp(others, axis=1))

    found = jax.lax.map(shares, jnp.arange(n_blocks))
    block = group // size
    return jnp.zeros(n_reads, found.dtype).at[order].set(found[block, jnp.arange(n_reads) - block * size])


class DuplicateWeighting(Operator[DuplicateWeightingConfig]):
    """Weighs reads so that all copies of a molecule count together as one.

    Reads `reads` (reads, positions, letters), distributions over the letters, and optionally `read_lengths` (reads,),
    `read_mask` (reads,), `read_weights` (reads,), `umis` (reads, umi_positions, letters), `positions` (reads,), a whole
    number for each place and strand to which a read may map, and `qualities` (reads, positions), which count if
    `quality_temperature` is given; writes `duplicate_weights` (reads,) and `read_weights` (reads,). With `positions`,
    copies are the reads of one place whatever their letters; without, those of the same letters. With `umis` they must
    also be of one molecule. No parameters.

    Args:
        config: Which reads are compared, and when they are copies.
        rngs: Not used.

    Example:
        >>> reads = jnp.eye(4)[jnp.array([[0, 1, 2], [3, 3, 3], [0, 1, 2]])]
        >>> DuplicateWeighting(DuplicateWeightingConfig()).apply({"reads": reads}, {}, None)[0]["read_weights"].tolist()
        [0.5, 1.0, 0.5]
    """

    def __init__(self, config: DuplicateWeightingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature)
        self.count_softness = Softness(config.count_temperature)
        best = config.quality_temperature
        self.quality_softness = None if best is None else Softness(best)

    def compute(
        self,
        reads: Float[Array, "reads positions letters"],
        *,
        read_lengths: Int[Array, " reads"] | None = None,
        read_mask: Bool[Array, " reads"] | None = None,
        read_weights: Float[Array, " reads"] | None = None,
        umis: Float[Array, "reads umi_positions letters"] | None = None,
        positions: Int[Array, " reads"] | None = None,
        qualities: Float[Array, "reads positions"] | None = None,
    ) -> DuplicateWeights:
        """Return the weight of each read."""
        config, (n_reads, n_positions) = self.config, reads.shape[:2]
        lengths = jnp.full(n_reads, n_positions) if read_lengths is None else read_lengths
        mask = jnp.ones(n_reads, reads.dtype) if read_mask is None else read_mask.astype(reads.dtype)
        weights = mask if read_weights is None else jnp.where(mask > 0, read_weights, 0)
        scores = None
        if qualities is not None and self.quality_softness is not None:
            within = jnp.arange(n_positions) < lengths[:, None]
            scores = jnp.where(within, qualities, 0).sum(1) / self.quality_softness()
        shares = mask * duplicate_shares(
            reads,
            lengths,
            weights,
            umis=umis,
            positions=positions,
            scores=scores,
            softness=self.softness(),
            count_softness=self.count_softness(),
            n_mismatches=config.n_mismatches,
            prefix_length=config.prefix_length,
            max_group_size=config.max_group_size,
        )
        return DuplicateWeights(shares, weights * shares)


def _hash(letters: Float[Array, "reads positions letters"]) -> Int[Array, " reads"]:
    """Return a number that is equal for equal letters; for different ones it seldom is, which costs a comparison."""
    codes = jnp.where(letters.max(-1) > 0, letters.argmax(-1) + 1, 0).astype(jnp.uint32)
    powers = jnp.cumprod(jnp.full(codes.shape[1], 2654435761, jnp.uint32))  # modulo 2^32
    return jax.lax.bitcast_convert_type((codes * powers).sum(1, dtype=jnp.uint32), jnp.int32)


def _groups(places: Int[Array, " reads"], size: int) -> Int[Array, " reads"]:
    """Return for each of the sorted reads where its group begins; groups larger than `size` are cut."""
    rank = jnp.arange(len(places))
    new = jnp.concatenate([jnp.ones(1, bool), places[1:] != places[:-1]])
    begin = jax.lax.cummax(jnp.where(new, rank, 0))
    return begin + (rank - begin) // size * size
