"""What base qualities are recalibrated by: counts of mismatches for each quality, machine cycle and dinucleotide.

A mismatch to the reference at a position that is no known variant counts as an error of the sequencer. Counts of
several batches are added, which is exact.

References:
    DePristo et al., A framework for variation discovery and genotyping using next-generation DNA sequencing data,
    Nature Genetics 2011.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffbio.core.errors import DataError
from diffbio.operators.variant.base_weights import counting_bases

N_QUALITIES = 94
"""Phred 0 to 93, the largest that a SAM file can hold."""

LARGEST_QUALITY = N_QUALITIES - 1


class RecalibrationCounts(NamedTuple):
    """How many bases were compared with the reference, and how many differ.

    Attributes:
        observations: By reported quality (groups, qualities).
        errors: Likewise.
        cycle_observations: By reported quality and machine cycle, from -max_cycle (the last one of a second read in its
            pair) to max_cycle (groups, qualities, cycles).
        cycle_errors: Likewise.
        context_observations: By reported quality, the letter before in the direction of sequencing, and the letter
            itself (groups, qualities, 4, 4).
        context_errors: Likewise.
    """

    observations: Float[Array, "groups qualities"]
    errors: Float[Array, "groups qualities"]
    cycle_observations: Float[Array, "groups qualities cycles"]
    cycle_errors: Float[Array, "groups qualities cycles"]
    context_observations: Float[Array, "groups qualities letters letters"]
    context_errors: Float[Array, "groups qualities letters letters"]


def machine_cycles(
    n_positions: int,
    reverse_strand: Bool[Array, "*reads"],
    *,
    read_lengths: Int[Array, "*reads"] | None = None,
    second_in_pair: Bool[Array, "*reads"] | None = None,
    read_offsets: Int[Array, "*reads"] | None = None,
    full_lengths: Int[Array, "*reads"] | None = None,
) -> Int[Array, "*reads positions"]:
    """Return in which cycle of the sequencer each base was read: 1, 2, ...; -1, -2, ... of second reads in their pairs.

    Args:
        n_positions: Of the arrays.
        reverse_strand: Which reads are reversed, so that their last base was read first.
        read_lengths: How many bases of each read there are; all positions by default.
        second_in_pair: Which reads are the second of their pair; none by default.
        read_offsets: How many bases of the whole read come before those that there are; 0 by default.
        full_lengths: How many bases the whole read has; by default it ends with those that there are.

    Example:
        >>> machine_cycles(3, jnp.array([False, True]), full_lengths=jnp.array([3, 5])).tolist()
        [[1, 2, 3], [5, 4, 3]]
    """
    present = jnp.full(reverse_strand.shape, n_positions) if read_lengths is None else read_lengths
    first = jnp.zeros(reverse_strand.shape, jnp.int32) if read_offsets is None else read_offsets
    last = first + present if full_lengths is None else full_lengths
    place = first[..., None] + jnp.arange(n_positions)
    cycles = jnp.where(reverse_strand[..., None], last[..., None] - place, place + 1)
    return cycles if second_in_pair is None else jnp.where(second_in_pair[..., None], -cycles, cycles)


def dinucleotides(
    reads: Float[Array, "*reads positions letters"], reverse_strand: Bool[Array, "*reads"]
) -> Float[Array, "*reads positions letters letters"]:
    """Return which letter was read before each base (axis -2), and which it is (axis -1), as the sequencer saw them.

    Args:
        reads: Distributions over A, C, G, T, in the direction of the reference; zeros for an unknown letter and beyond
            the end of the read.
        reverse_strand: Which reads are reversed: their letters are complemented, and the one before is the next.

    Returns:
        Joint distributions; zeros where one of both is unknown, as for the first base of a read.

    Example:
        >>> pairs = dinucleotides(jnp.eye(4)[jnp.array([[0, 1, 1]])], jnp.array([True]))  # ACC, read as GGT
        >>> ["ACGT"[pair.sum(1).argmax()] + "ACGT"[pair.sum(0).argmax()] for pair in pairs[0, :2]]
        ['GT', 'GG']
    """
    end = [(0, 0)] * (reads.ndim - 2)
    before = jnp.pad(reads[..., :-1, :], [*end, (1, 0), (0, 0)])
    after = jnp.pad(reads[..., 1:, :], [*end, (0, 1), (0, 0)])
    reverse = reverse_strand[..., None, None]
    previous = jnp.where(reverse, after[..., ::-1], before)  # A, C, G, T backwards are the complements
    own = jnp.where(reverse, reads[..., ::-1], reads)
    return previous[..., :, None] * own[..., None, :]


class Covariates(NamedTuple):
    """What the error of a base may depend on, beside its reported quality.

    Attributes:
        cycles: Of the sequencer, as `machine_cycles` (*reads, positions).
        pairs: As `dinucleotides` (*reads, positions, 4, 4).
        read_groups: Number of the group of each read (*reads,).
    """

    cycles: Int[Array, "*reads positions"]
    pairs: Float[Array, "*reads positions letters letters"]
    read_groups: Int[Array, "*reads"]


def covariates(
    reads: Float[Array, "*reads positions letters"],
    *,
    reverse_strand: Bool[Array, "*reads"] | None = None,
    second_in_pair: Bool[Array, "*reads"] | None = None,
    read_groups: Int[Array, "*reads"] | None = None,
    read_lengths: Int[Array, "*reads"] | None = None,
    read_offsets: Int[Array, "*reads"] | None = None,
    full_lengths: Int[Array, "*reads"] | None = None,
    read_mask: Bool[Array, "*reads"] | None = None,
) -> Covariates:
    """Return the covariates of all bases.

    Args:
        reads: Distributions over A, C, G, T; zeros for an unknown letter.
        reverse_strand: Which reads are reversed; none by default.
        second_in_pair: Which reads are the second of their pair; none by default.
        read_groups: Number of the group of each read; 0 by default.
        read_lengths: How many bases of each read there are; all positions by default.
        read_offsets: How many bases of the whole read come before these; 0 by default.
        full_lengths: How many bases the whole read has; by default it ends with these.
        read_mask: Which rows hold a read; all by default.
    """
    *rows, n_positions, _ = reads.shape
    reverse = jnp.zeros(rows, bool) if reverse_strand is None else reverse_strand
    there = counting_bases(reads[..., 0], read_lengths, read_mask) > 0
    return Covariates(
        machine_cycles(
            n_positions,
            reverse,
            read_lengths=read_lengths,
            second_in_pair=second_in_pair,
            read_offsets=read_offsets,
            full_lengths=full_lengths,
        ),
        dinucleotides(jnp.where(there[..., None], reads, 0.0), reverse),
        jnp.zeros(rows, jnp.int32) if read_groups is None else read_groups,
    )


def neighbouring_qualities(
    qualities: Float[Array, "*bases"],
) -> tuple[Int[Array, "*bases"], Float[Array, "*bases"]]:
    """Return the whole quality at or below each quality, and how far it is on the way to the next, 0 to 1.

    Example:
        >>> lower, share = neighbouring_qualities(jnp.array([20.0, 20.25, 93.0, 200.0]))
        >>> lower.tolist(), share.tolist()
        ([20, 20, 92, 92], [0.0, 0.25, 1.0, 1.0])
    """
    lower = jnp.clip(jnp.floor(qualities), 0, LARGEST_QUALITY - 1)
    return lower.astype(jnp.int32), jnp.clip(qualities - lower, 0.0, 1.0)


def count_mismatches(
    qualities: Float[Array, "*reads positions"],
    compared: Float[Array, "*reads positions"],
    differing: Float[Array, "*reads positions"],
    of_bases: Covariates,
    *,
    n_groups: int = 1,
    max_cycle: int = 500,
    min_quality: int = 6,
) -> RecalibrationCounts:
    """Return the counts of a batch of reads; time and memory grow as the number of bases.

    Args:
        qualities: Reported, Phred. A quality between two whole ones counts for both in proportion.
        compared: With which weight each base counts.
        differing: Of this, how much is an error.
        of_bases: Cycles, dinucleotides and read groups.
        n_groups: Number of read groups; reads of others count for the first.
        max_cycle: The largest cycle; bases of later ones count by quality and dinucleotide alone.
        min_quality: Bases of a lower quality do not count.

    Example:
        >>> ones, wrong = jnp.ones((1, 2)), jnp.array([[0.0, 1.0]])
        >>> counts = count_mismatches(30 * ones, ones, wrong, covariates(jnp.ones((1, 2, 4)) / 4), max_cycle=2)
        >>> counts.observations[0, 30].tolist(), counts.cycle_errors[0, 30].tolist()
        (2.0, [0.0, 0.0, 0.0, 0.0, 1.0])
    """
    lower, share = neighbouring_qualities(qualities)
    groups, columns = table_places(of_bases, n_groups, max_cycle)
    n_cycles = 2 * max_cycle + 1
    by_cycle = jnp.zeros((n_groups, N_QUALITIES, n_cycles, 2), qualities.dtype)
    by_rest = jnp.zeros((n_groups, N_QUALITIES, 17, 2), qualities.dtype)
    factors = with_one(of_bases.pairs)
    for quality, part in ((lower, 1 - share), (lower + 1, share)):
        counts = jnp.where(quality >= min_quality, part, 0.0)[..., None] * jnp.stack([compared, differing], axis=-1)
        by_cycle = by_cycle.at[groups, quality, columns].add(counts, mode="drop")
        by_rest = by_rest.at[groups, quality].add(factors[..., None] * counts[..., None, :])
    by_context = by_rest[:, :, 1:].reshape(n_groups, N_QUALITIES, 4, 4, 2)
    parts = (by_rest[:, :, 0], by_cycle, by_context)
    return RecalibrationCounts(*(part[..., kind] for part in parts for kind in (0, 1)))


def table_places(
    of_bases: Covariates, n_groups: int, max_cycle: int
) -> tuple[Int[Array, "*reads 1"], Int[Array, "*reads positions"]]:
    """Return rows and columns of the tables by read group and cycle; a column behind the last where there is none."""
    groups, cycles = of_bases.read_groups, of_bases.cycles
    groups = jnp.where((groups >= 0) & (groups < n_groups), groups, 0)
    return groups[..., None], jnp.where(jnp.abs(cycles) <= max_cycle, cycles + max_cycle, 2 * max_cycle + 1)


def with_one(pairs: Float[Array, "*bases letters letters"]) -> Float[Array, "*bases 17"]:
    """Return the factors of a row of tables: 1 for the quality, then those of the dinucleotides."""
    flat = pairs.reshape(*pairs.shape[:-2], 16)
    return jnp.concatenate([jnp.ones_like(flat[..., :1]), flat], axis=-1)


def total_counts(counts: Iterable[RecalibrationCounts]) -> RecalibrationCounts:
    """Return the sum of the counts of several batches, as NumPy arrays in float64, which loses none of 10^15 bases.

    Raises:
        DataError: There are none.

    Example:
        >>> total_counts(count_batch(batch) for batch in batches).observations.sum()  # doctest: +SKIP
        2500000.0
    """
    total = None
    for of_batch in counts:
        values = [np.asarray(array, np.float64) for array in of_batch]
        total = values if total is None else [before + value for before, value in zip(total, values, strict=True)]
    if total is None:
        raise DataError("there are no counts to be added; give those of at least one batch")
    return RecalibrationCounts(*total)  # type: ignore[arg-type]  # NumPy arrays for JAX ones
