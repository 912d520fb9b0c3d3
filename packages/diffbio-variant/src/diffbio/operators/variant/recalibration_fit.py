"""Tables of corrections of base qualities, from counts of mismatches.

In the hierarchy of GATK there is a correction of the read group, one of each reported quality beside it, and for each
quality one of each cycle and one of each dinucleotide beside both. Each is the posterior mode of a quality, given the
counts and a normal prior around the quality of the level above.

References:
    DePristo et al., A framework for variation discovery and genotyping using next-generation DNA sequencing data,
    Nature Genetics 2011.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffbio.operators.variant.recalibration_counts import LARGEST_QUALITY, N_QUALITIES, RecalibrationCounts

_NATS_PER_PHRED = math.log(10) / 10
_LEAST_QUALITY = 1e-3  # Phred; at 0 no base is right, and the logarithm of that has no end


class RecalibrationTables(NamedTuple):
    """What is added to reported qualities, Phred.

    Attributes:
        group_shift: Of each read group (groups,).
        quality_delta: Of each reported quality, beside that (groups, qualities).
        cycle_delta: Of each machine cycle, beside both (groups, qualities, cycles).
        context_delta: Of each dinucleotide, likewise (groups, qualities, 4, 4).
    """

    group_shift: Float[Array, " groups"]
    quality_delta: Float[Array, "groups qualities"]
    cycle_delta: Float[Array, "groups qualities cycles"]
    context_delta: Float[Array, "groups qualities letters letters"]


def posterior_quality(
    observations: Float[np.ndarray, "*bins"],
    errors: Float[np.ndarray, "*bins"],
    prior: Float[np.ndarray, "*bins"],
    prior_std: float,
) -> Float[np.ndarray, "*bins"]:
    """Return the most probable quality of bases, given how many of them are wrong and what is believed before.

    The errors are binomial, after one more error and two more observations; the prior is normal around a quality.

    Args:
        observations: Bases.
        errors: Wrong ones among them.
        prior: Phred.
        prior_std: Its standard deviation, Phred, above 0.

    Returns:
        Phred, from nearly 0 to 93; that of the prior where there are no observations. Exact to 1e-6, by bisection.

    Example:
        >>> posterior_quality(np.array([0.0, 1e6]), np.array([0.0, 1e4]), np.array([30.0, 30.0]), 2.0).round(2).tolist()
        [30.0, 20.0]
    """
    wrong, right = errors + 1.0, observations - errors + 1.0
    low, high = np.full(wrong.shape, _LEAST_QUALITY), np.full(wrong.shape, float(LARGEST_QUALITY))
    for _ in range(30):
        middle = (low + high) / 2
        odds = 1 / np.expm1(_NATS_PER_PHRED * middle)
        slope = _NATS_PER_PHRED * (right * odds - wrong) - (middle - prior) / prior_std**2
        low, high = np.where(slope > 0, middle, low), np.where(slope > 0, high, middle)
    return np.where(observations > 0, (low + high) / 2, prior)


class EmpiricalQualities(NamedTuple):
    """Qualities by counts, Phred, each given those before it.

    Attributes:
        reported: What the qualities of each read group promise on average, by their error probabilities (groups,).
        group: Of each read group (groups,).
        quality: Of each reported quality (groups, qualities).
        cycle: Of each cycle (groups, qualities, cycles).
        context: Of each dinucleotide (groups, qualities, 4, 4).
    """

    reported: Float[np.ndarray, " groups"]
    group: Float[np.ndarray, " groups"]
    quality: Float[np.ndarray, "groups qualities"]
    cycle: Float[np.ndarray, "groups qualities cycles"]
    context: Float[np.ndarray, "groups qualities letters letters"]


def empirical_qualities(counts: RecalibrationCounts, prior_std: float) -> EmpiricalQualities:
    """Return the qualities that counts speak for; where there are none, those of the level above.

    Args:
        counts: Of any number of batches.
        prior_std: How far a quality may well be from that of the level above, Phred.
    """
    seen, wrong, of_cycle, wrong_of_cycle, of_pair, wrong_of_pair = (np.asarray(array, np.float64) for array in counts)
    n_bases, whole = seen.sum(1), np.arange(N_QUALITIES)
    mean_error = (seen * 10.0 ** (-whole / 10)).sum(1) / np.maximum(n_bases, 1e-30)
    reported = -10 * np.log10(np.where(n_bases > 0, mean_error, 1.0))
    group = posterior_quality(n_bases, wrong.sum(1), reported, prior_std)
    shifted = np.clip(whole + (group - reported)[:, None], 1, LARGEST_QUALITY)
    quality = posterior_quality(seen, wrong, shifted, prior_std)
    cycle = posterior_quality(of_cycle, wrong_of_cycle, quality[..., None], prior_std)
    context = posterior_quality(of_pair, wrong_of_pair, quality[..., None, None], prior_std)
    return EmpiricalQualities(reported, group, quality, cycle, context)


def fit_tables(counts: RecalibrationCounts, *, prior_std: float = 2.0) -> RecalibrationTables:
    """Return the corrections that counts speak for.

    Args:
        counts: Of any number of batches.
        prior_std: How far a quality may well be from that of the level above, Phred; GATK has 0.5.

    Returns:
        Corrections; 0 where there are no counts.

    Example:
        >>> of_cycles, of_contexts = np.zeros((1, 94, 3)), np.zeros((1, 94, 4, 4))
        >>> bases, wrong = 1e6 * (np.arange(94) == 30)[None], 1e4 * (np.arange(94) == 30)[None]
        >>> counts = RecalibrationCounts(bases, wrong, of_cycles, of_cycles, of_contexts, of_contexts)
        >>> round(float(fit_tables(counts).group_shift[0]), 2)  # Q30 that is Q20
        -10.0
    """
    found = empirical_qualities(counts, prior_std)
    shift = found.group - found.reported
    seen = np.asarray(counts.observations) > 0
    deltas = (
        shift,
        np.where(seen, found.quality - np.arange(N_QUALITIES) - shift[:, None], 0.0),
        found.cycle - found.quality[..., None],
        found.context - found.quality[..., None, None],
    )
    return RecalibrationTables(*(jnp.asarray(delta, jnp.float32) for delta in deltas))
