"""Recalibration of base qualities (GATK's BQSR).

Hard: the quality of a base is looked up by what the sequencer reported, in which cycle, and after which letter:

    q = reported + shift[group] + delta[group, reported] + delta[group, reported, cycle]
        + delta[group, reported, letter before, letter]

Relaxed: all of these are parameters, a quality between two whole ones has the mean of what both give, in proportion to
how near they are, and so has a distribution over letters. At whole qualities and certain letters this is the table.

References:
    DePristo et al., A framework for variation discovery and genotyping using next-generation DNA sequencing data,
    Nature Genetics 2011.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig
from diffbio.core.errors import DataError
from diffbio.operators.variant.base_weights import counting_bases
from diffbio.operators.variant.mismatches import base_mismatches
from diffbio.operators.variant.recalibration_counts import (
    LARGEST_QUALITY,
    N_QUALITIES,
    Covariates,
    RecalibrationCounts,
    count_mismatches,
    covariates,
    neighbouring_qualities,
    table_places,
    with_one,
)
from diffbio.operators.variant.recalibration_fit import RecalibrationTables, fit_tables

_LEAST_QUALITY = 1.0  # Phred, of a base that is recalibrated, as in GATK


@dataclass(frozen=True, kw_only=True)
class BaseQualityRecalibrationConfig(OperatorConfig):
    """What is recalibrated.

    Args:
        n_groups: Read groups, each with its own tables; `read_groups` says which reads are of which.
        max_cycle: The largest machine cycle that has corrections, as GATK's `--maximum-cycle-value`.
        min_quality: Bases of a lower quality keep it, and do not count, as GATK's `--preserve-qscores-less-than`.
        prior_std: How far a quality may well be from that of the level above it in the hierarchy, where `initialize`
            weighs counts, Phred, above 0; GATK has 0.5.
        learnable: Whether training changes the tables.
    """

    n_groups: Annotated[int, Ge(1)] = 1
    max_cycle: Annotated[int, Ge(1)] = 500
    min_quality: Annotated[int, Ge(0), Le(LARGEST_QUALITY)] = 6
    prior_std: Annotated[float, Gt(0)] = 2.0
    learnable: bool = True


class RecalibratedQualities(NamedTuple):
    """Better qualities.

    Attributes:
        recalibrated_qualities: Phred, not rounded; 0 beyond the reads (*windows, reads, positions).
    """

    recalibrated_qualities: Float[Array, "*windows reads positions"]


def recalibrated(
    qualities: Float[Array, "*reads positions"],
    of_bases: Covariates,
    tables: RecalibrationTables,
    *,
    min_quality: int = 6,
) -> Float[Array, "*reads positions"]:
    """Return corrected qualities; time and memory grow as the number of bases.

    Args:
        qualities: Reported, Phred; what is below 0 or above 93 counts as these.
        of_bases: Cycles, dinucleotides and read groups.
        tables: Corrections. Of a cycle that the table has not, and of an unknown dinucleotide, there is none.
        min_quality: Bases of a lower quality keep it.

    Returns:
        Phred, from 1 to 93 where qualities are at least `min_quality`.

    Example:
        >>> tables = RecalibrationTables(*(jnp.zeros(shape) for shape in ((1,), (1, 94), (1, 94, 5), (1, 94, 4, 4))))
        >>> tables = tables._replace(group_shift=jnp.array([-3.0]))
        >>> of_bases = covariates(jnp.eye(4)[jnp.array([[0, 1]])])
        >>> recalibrated(jnp.array([[30.0, 2.0]]), of_bases, tables).tolist()
        [[27.0, 2.0]]
    """
    n_groups, _, n_cycles = tables.cycle_delta.shape
    lower, share = neighbouring_qualities(qualities)
    groups, columns = table_places(of_bases, n_groups, n_cycles // 2)
    of_quality = tables.group_shift[:, None] + tables.quality_delta + jnp.arange(N_QUALITIES, dtype=qualities.dtype)
    # one row for each quality, so that a base reads one stretch of memory
    rows = jnp.concatenate([of_quality[..., None], tables.context_delta.reshape(n_groups, N_QUALITIES, 16)], axis=-1)
    factors = with_one(of_bases.pairs)

    def of_whole(quality: Array) -> Array:
        of_cycle = tables.cycle_delta.at[groups, quality, columns].get(mode="fill", fill_value=0.0)
        corrected = (rows[groups, quality] * factors).sum(-1) + of_cycle
        corrected = jnp.clip(corrected, _LEAST_QUALITY, LARGEST_QUALITY)
        return jnp.where(quality >= min_quality, corrected, quality.astype(qualities.dtype))

    return (1 - share) * of_whole(lower) + share * of_whole(lower + 1)


_OF_COVARIATES = (
    "reverse_strand",
    "second_in_pair",
    "read_groups",
    "read_lengths",
    "read_offsets",
    "full_lengths",
    "read_mask",
)
_OF_COUNTS = ("base_positions", "reference", "known_variant", "own_columns", "base_weights", "read_weights")


@jax.jit(static_argnames=("n_groups", "max_cycle", "min_quality"))
def batch_counts(
    data: Mapping[str, Array], *, n_groups: int = 1, max_cycle: int = 500, min_quality: int = 6
) -> RecalibrationCounts:
    """Return how often bases of a batch of windows were compared with the reference, and how many differ.

    Args:
        data: What `BaseQualityRecalibration` reads, and `base_positions` (reads, positions), the column of each base,
            and `reference` (window, 4); optionally `known_variant` (window,), columns that are left out because
            individuals differ there, `own_columns` (window,), those that belong to the window, and `base_weights`
            (reads, positions) and `read_weights` (reads,) of trimmers and filters. Other keys are not looked at.
        n_groups: Number of read groups.
        max_cycle: The largest machine cycle.
        min_quality: Bases of a lower quality do not count.

    Example:
        >>> data = {"reads": jnp.eye(4)[jnp.array([[0, 1]])], "qualities": jnp.full((1, 2), 30.0)}
        >>> data |= {"base_positions": jnp.array([[0, 1]]), "reference": jnp.eye(4)[jnp.array([0, 0])]}
        >>> counts = batch_counts(data)
        >>> float(counts.observations.sum()), float(counts.errors[0, 30])
        (2.0, 1.0)
    """
    weights = counting_bases(
        data["qualities"], *(data.get(key) for key in ("read_lengths", "read_mask", "base_weights", "read_weights"))
    )
    found = base_mismatches(
        data["reads"],
        data["base_positions"],
        data["reference"],
        data.get("known_variant"),
        data.get("own_columns"),
    )
    of_bases = covariates(data["reads"], **{key: data.get(key) for key in _OF_COVARIATES})
    return count_mismatches(
        data["qualities"],
        weights * found.compared,
        weights * found.differing,
        of_bases,
        n_groups=n_groups,
        max_cycle=max_cycle,
        min_quality=min_quality,
    )


class BaseQualityRecalibration(Operator[BaseQualityRecalibrationConfig]):
    """Correct the qualities that a sequencer reports by how often its bases are wrong.

    Reads `reads` (reads, positions, 4), distributions over A, C, G, T, and `qualities` (reads, positions), Phred;
    optionally `reverse_strand` (reads,), `second_in_pair` (reads,), `read_groups` (reads,), `read_lengths` (reads,),
    `read_mask` (reads,), and of reads of which only a part is there `read_offsets` (reads,), how many bases come before
    it, and `full_lengths` (reads,), how many there are in all; writes `recalibrated_qualities` (reads, positions),
    Phred. In all of them axes of windows may come first. Parameters, if learnable: `group_shift` (groups,),
    `quality_delta` (groups, 94), `cycle_delta` (groups, 94, cycles) and `context_delta` (groups, 94, 4, 4), zeros until
    `initialize` fits them.

    Args:
        config: What is recalibrated.
        rngs: Not used: nothing is drawn.

    Example:
        >>> recalibration = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=150))
        >>> data = {"reads": jnp.eye(4)[jnp.array([[0, 1]])], "qualities": jnp.array([[30.0, 35.5]])}
        >>> recalibration.apply(data, {}, None)[0]["recalibrated_qualities"].tolist()
        [[30.0, 35.5]]
    """

    def __init__(self, config: BaseQualityRecalibrationConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        shape = config.n_groups, N_QUALITIES
        self.group_shift = kind(jnp.zeros(config.n_groups, jnp.float32))
        self.quality_delta = kind(jnp.zeros(shape, jnp.float32))
        self.cycle_delta = kind(jnp.zeros((*shape, 2 * config.max_cycle + 1), jnp.float32))
        self.context_delta = kind(jnp.zeros((*shape, 4, 4), jnp.float32))

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        reads: Float[Array, "*windows reads positions letters"],
        qualities: Float[Array, "*windows reads positions"],
        reverse_strand: Bool[Array, "*windows reads"] | None = None,
        second_in_pair: Bool[Array, "*windows reads"] | None = None,
        read_groups: Int[Array, "*windows reads"] | None = None,
        read_lengths: Int[Array, "*windows reads"] | None = None,
        read_offsets: Int[Array, "*windows reads"] | None = None,
        full_lengths: Int[Array, "*windows reads"] | None = None,
        read_mask: Bool[Array, "*windows reads"] | None = None,
    ) -> RecalibratedQualities:
        """Return the corrected qualities."""
        of_bases = covariates(
            reads,
            reverse_strand=reverse_strand,
            second_in_pair=second_in_pair,
            read_groups=read_groups,
            read_lengths=read_lengths,
            read_offsets=read_offsets,
            full_lengths=full_lengths,
            read_mask=read_mask,
        )
        better = recalibrated(qualities, of_bases, self.tables(), min_quality=self.config.min_quality)
        there = counting_bases(qualities, read_lengths, read_mask) > 0
        return RecalibratedQualities(jnp.where(there, better, 0.0))

    def tables(self) -> RecalibrationTables:
        """Return the corrections."""
        return RecalibrationTables(*(getattr(self, name)[...] for name in RecalibrationTables._fields))

    def initialize(
        self,
        reads: Float[Array, "*windows reads positions letters"],
        qualities: Float[Array, "*windows reads positions"],
        base_positions: Int[Array, "*windows reads positions"],
        reference: Float[Array, "*windows window letters"],
        **others: Array,
    ) -> None:
        """Fit the tables to the mismatches of some windows; see `batch_counts` for what else it reads.

        Those of many batches are `initialize_from_counts(total_counts(recalibration.counts(data) for data in ...))`.
        """
        named = {"reads": reads, "qualities": qualities, "base_positions": base_positions, "reference": reference}
        self.initialize_from_counts(self.counts({**others, **named}))

    def counts(self, data: Mapping[str, Array]) -> RecalibrationCounts:
        """Return the counts of a batch, as `batch_counts` with the sizes of this operator."""
        config = self.config
        arrays = {
            key: value for key, value in data.items() if key in ("reads", "qualities", *_OF_COVARIATES, *_OF_COUNTS)
        }
        return batch_counts(
            arrays, n_groups=config.n_groups, max_cycle=config.max_cycle, min_quality=config.min_quality
        )

    def initialize_from_counts(self, counts: RecalibrationCounts) -> None:
        """Fit the tables to counts.

        Raises:
            DataError: The counts are of other numbers of read groups or cycles than the tables.
        """
        if counts.cycle_errors.shape != self.cycle_delta.shape:
            raise DataError(
                f"the counts are of {counts.cycle_errors.shape} groups, qualities and cycles, and the tables of "
                f"{self.cycle_delta.shape}: count with the n_groups and max_cycle of the operator, by its `counts`"
            )
        for name, values in fit_tables(counts, prior_std=self.config.prior_std)._asdict().items():
            getattr(self, name)[...] = values
