"""Genotype likelihoods: how well each genotype explains the bases that reads show at a position.

A base with the error probability e is read from allele a with the probability 1 - e if it shows a, and e / 3 if it
shows another letter; from a diploid genotype, with the mean of both. Errors of one kind are not independent: of the
bases of one position that show the same letter on the same strand, the k-th best (from 0) counts with the weight
(1 - eta) theta^k + eta where it is an error, as in samtools, and fully where it is none. Hence

    log L(g) = sum over bases of w (s + (1 - s) f_k) log P(base | g)

with the weight w of the base, and s = 1 where it shows a letter of g. With a distribution over letters in place of a
base, P and s are means over it. With prior P(g) by the reference, P(g | bases) ~ (P(g) L(g))^(1/tau): Bayes' rule at
tau = 1; as tau -> 0 the most probable genotype.

References:
    Li, Ruan and Durbin, Mapping short DNA sequencing reads and calling variants using mapping quality scores, Genome
    Research 2008 (dependent errors).
    Li, A statistical framework for SNP calling, mutation discovery, association mapping and population genetical
    parameter estimation from sequencing data, Bioinformatics 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt, Le, Lt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.variant.base_weights import counting_bases, over_windows
from diffbio.operators.variant.call_quality import phred_of_the_best

_N_LETTERS = 4
_LEAST_SHARE_OF_A_DEPENDENT_ERROR = 0.03
"""eta: what even the last of many equal errors counts."""

_LEAST_QUALITY, _LARGEST_QUALITY = 4.0, 63.0  # Phred; what is beyond counts as these, as in samtools


def genotype_alleles(ploidy: int) -> Int[np.ndarray, "genotypes ploidy"]:
    """Return the letters of each genotype, in the order of VCF: AA, AC, CC, AG, CG, GG, AT ... if diploid.

    Example:
        >>> ["".join("ACGT"[letter] for letter in genotype) for genotype in genotype_alleles(2)]
        ['AA', 'AC', 'CC', 'AG', 'CG', 'GG', 'AT', 'CT', 'GT', 'TT']
    """
    if ploidy == 1:
        return np.arange(_N_LETTERS)[:, None]
    return np.array([(first, second) for second in range(_N_LETTERS) for first in range(second + 1)])


@dataclass(frozen=True, kw_only=True)
class GenotypeLikelihoodConfig(OperatorConfig):
    """The model of errors, and the prior.

    Args:
        ploidy: 1 or 2.
        dependence: theta, how much of an equal error each further one counts; 1: errors are independent; samtools has
            0.83.
        heterozygosity: Prior probability of a position to be heterozygous; that of a haploid one to differ.
        temperature: The softness tau of the posterior, above 0.
        learnable: Whether training changes the error terms and the dependence.
    """

    ploidy: Literal[1, 2] = 2
    dependence: Annotated[float, Gt(0), Le(1)] = 0.83
    heterozygosity: Annotated[float, Gt(0), Lt(0.5)] = 1e-3
    temperature: Annotated[float, Gt(0)] = 1.0
    learnable: bool = True


class Genotypes(NamedTuple):
    """What is believed of each position of a window; genotypes in the order of `genotype_alleles`.

    Attributes:
        genotype_log_likelihoods: Natural logarithms (*windows, window, genotypes).
        genotype_posteriors: Probabilities (*windows, window, genotypes).
        genotype_qualities: Phred-scaled probability that the most probable genotype is wrong (*windows, window).
        variant_probability: Probability that the genotype is not that of the reference (*windows, window).
        allele_dosage: Expected number of each letter (*windows, window, 4).
    """

    genotype_log_likelihoods: Float[Array, "*windows window genotypes"]
    genotype_posteriors: Float[Array, "*windows window genotypes"]
    genotype_qualities: Float[Array, "*windows window"]
    variant_probability: Float[Array, "*windows window"]
    allele_dosage: Float[Array, "*windows window letters"]


def genotype_log_likelihoods(
    reads: Float[Array, "reads positions letters"],
    error_logits: Float[Array, "reads positions"],
    weights: Float[Array, "reads positions"],
    base_positions: Int[Array, "reads positions"],
    reverse_strand: Bool[Array, " reads"],
    *,
    window: int,
    ploidy: int = 2,
    dependence: ArrayLike = 1.0,
) -> Float[Array, "window genotypes"]:
    """Return the log-likelihood of each genotype at each position of a window.

    Args:
        reads: Distributions over A, C, G, T; a base of zeros says nothing.
        error_logits: log(e / (1 - e)) of the probability that the base is wrong.
        weights: With which each base counts.
        base_positions: Column of each base; outside of the window, of none.
        reverse_strand: Which reads are reversed.
        window: Number of positions.
        ploidy: 1 or 2.
        dependence: How much of an equal error each further one counts, above 0, up to 1.

    Returns:
        Natural logarithms, 0 where no base counts. Time as n log n in the number of bases n; no derivative through the
        order of the bases.

    Example:
        >>> reads, logits = jnp.eye(4)[jnp.array([[0], [1]])], jnp.log(jnp.full((2, 1), 0.01 / 0.99))
        >>> ones, columns, forward = jnp.ones((2, 1)), jnp.zeros((2, 1), int), jnp.zeros(2, bool)
        >>> found = genotype_log_likelihoods(reads, logits, ones, columns, forward, window=1)[0]  # an A and a C
        >>> "".join("ACGT"[letter] for letter in genotype_alleles(2)[found.argmax()])
        'AC'
    """
    alleles = genotype_alleles(ploidy)
    error = jax.nn.sigmoid(error_logits)[..., None]
    known = reads.sum(-1, keepdims=True)
    of_allele = reads * (1 - error) + (known - reads) * error / 3
    of_genotype = of_allele[..., alleles].mean(-1)
    shown = jnp.clip(reads @ _holds(alleles), 0.0, 1.0)
    equal = _equal_before(reads, error_logits, weights, base_positions, reverse_strand, window)
    share = dependence**equal * (1 - _LEAST_SHARE_OF_A_DEPENDENT_ERROR) + _LEAST_SHARE_OF_A_DEPENDENT_ERROR
    counted = weights[..., None] * (shown + (1 - shown) * share[..., None])
    says = jnp.where(known > 0, counted * jnp.log(jnp.maximum(of_genotype, 1e-30)), 0.0)
    rows = jnp.where((base_positions >= 0) & (base_positions < window), base_positions, window)
    return jnp.zeros((window, len(alleles)), reads.dtype).at[rows].add(says, mode="drop")


def _holds(alleles: np.ndarray) -> Float[Array, "letters genotypes"]:
    """Return which genotypes hold which letters."""
    return jnp.asarray((alleles[None] == np.arange(_N_LETTERS)[:, None, None]).any(-1), jnp.float32)


def _equal_before(  # noqa: PLR0917 - what makes bases equal
    reads: Array, error_logits: Array, weights: Array, base_positions: Array, reverse_strand: Array, window: int
) -> Float[Array, "reads positions"]:
    """Return how many better bases there are of the same column, letter and strand; no derivative."""
    reads, error_logits, weights = map(lax.stop_gradient, (reads, error_logits, weights))
    counts = (weights > 0) & (reads.sum(-1) > 0) & (base_positions >= 0) & (base_positions < window)
    strand = jnp.broadcast_to(reverse_strand[:, None], base_positions.shape)
    kind = (base_positions * _N_LETTERS + reads.argmax(-1)) * 2 + strand
    kind = jnp.where(counts, kind, window * _N_LETTERS * 2).ravel()
    order = jnp.lexsort((error_logits.ravel(), kind))
    place = jnp.arange(len(order))
    begins = jnp.concatenate([jnp.ones(1, bool), jnp.diff(kind[order]) != 0])
    first = lax.cummax(jnp.where(begins, place, 0))
    return jnp.zeros(len(order), reads.dtype).at[order].set((place - first).astype(reads.dtype)).reshape(weights.shape)


def genotype_prior(
    reference: Float[Array, "*windows window letters"], heterozygosity: float, ploidy: int
) -> Float[Array, "*windows window genotypes"]:
    """Return the prior probability of each genotype, by the letter of the reference; even where that is unknown.

    Of diploid genotypes one allele differs from the reference with the probability h (heterozygosity), both do with
    h / 2; all genotypes of one kind are equally probable.

    Example:
        >>> (1000 * genotype_prior(jnp.eye(4)[:1], 0.003, 1)).round().tolist()
        [[997.0, 1.0, 1.0, 1.0]]
    """
    alleles = genotype_alleles(ploidy)
    differing = (alleles[None] != np.arange(_N_LETTERS)[:, None, None]).sum(-1)  # (letters, genotypes)
    chances = np.array([1 - heterozygosity * (1.5 if ploidy == 2 else 1.0), heterozygosity, heterozygosity / 2])
    kinds = np.stack([(differing == number).sum(1, keepdims=True) for number in range(3)])
    table = np.choose(differing, chances[:, None, None] / np.maximum(kinds, 1))
    unknown = jnp.clip(1 - reference.sum(-1, keepdims=True), 0.0, 1.0)
    return reference @ jnp.asarray(table, reference.dtype) + unknown / len(alleles)


class GenotypeLikelihood(Operator[GenotypeLikelihoodConfig]):
    """Tell which genotype each position of a window has.

    Reads `reads` (reads, positions, 4), distributions over A, C, G, T, `qualities` (reads, positions), Phred,
    `base_positions` (reads, positions), the column of each base, and `reference` (window, 4); optionally
    `recalibrated_qualities` (reads, positions), which then count instead, `mapping_qualities` (reads,), which no
    base's quality exceeds, `reverse_strand` (reads,), `read_lengths` (reads,), `read_mask` (reads,), and the
    `base_weights` (reads, positions) and `read_weights` (reads,) of trimmers and filters; writes
    `genotype_log_likelihoods` and `genotype_posteriors` (window, genotypes), `genotype_qualities` (window,), Phred,
    `variant_probability` (window,) and `allele_dosage` (window, 4). In all of them axes of windows may come first.
    Parameters, if learnable: `error_scale` and `error_offset`, which act on the logit of the error probability, and
    `dependence_logit`.

    Args:
        config: Ploidy, errors and prior.
        rngs: Not used: nothing is drawn.

    Example:
        >>> data = {"reads": jnp.eye(4)[jnp.array([[0], [2]] * 5)], "qualities": jnp.full((10, 1), 30.0)}
        >>> data |= {"base_positions": jnp.zeros((10, 1), int), "reference": jnp.eye(4)[:1]}
        >>> found = GenotypeLikelihood(GenotypeLikelihoodConfig()).apply(data, {}, None)[0]  # five A, five G
        >>> found["allele_dosage"].round(2).tolist(), round(float(found["variant_probability"][0]), 3)
        ([[1.0, 0.0, 1.0, 0.0]], 1.0)
    """

    def __init__(self, config: GenotypeLikelihoodConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.error_scale, self.error_offset = kind(jnp.float32(1.0)), kind(jnp.float32(0.0))
        certain = min(config.dependence, 1 - 1e-6)
        self.dependence_logit = kind(jnp.float32(np.log(certain / (1 - certain))))
        self.softness = Softness(config.temperature)

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        reads: Float[Array, "*windows reads positions letters"],
        qualities: Float[Array, "*windows reads positions"],
        base_positions: Int[Array, "*windows reads positions"],
        reference: Float[Array, "*windows window letters"],
        recalibrated_qualities: Float[Array, "*windows reads positions"] | None = None,
        mapping_qualities: Float[Array, "*windows reads"] | None = None,
        reverse_strand: Bool[Array, "*windows reads"] | None = None,
        read_lengths: Int[Array, "*windows reads"] | None = None,
        read_mask: Bool[Array, "*windows reads"] | None = None,
        base_weights: Float[Array, "*windows reads positions"] | None = None,
        read_weights: Float[Array, "*windows reads"] | None = None,
    ) -> Genotypes:
        """Return likelihoods, posteriors and what follows from them."""
        quality = qualities if recalibrated_qualities is None else recalibrated_qualities
        if mapping_qualities is not None:
            quality = jnp.minimum(quality, mapping_qualities[..., None])
        error = 10 ** (-jnp.clip(quality, _LEAST_QUALITY, _LARGEST_QUALITY) / 10)
        logits = self.error_scale[...] * (jnp.log(error) - jnp.log1p(-error)) + self.error_offset[...]
        find = partial(genotype_log_likelihoods, window=reference.shape[-2], ploidy=self.config.ploidy)
        log_likelihoods = over_windows(
            partial(find, dependence=jax.nn.sigmoid(self.dependence_logit[...])), reads.ndim - 3
        )(
            reads,
            logits,
            counting_bases(qualities, read_lengths, read_mask, base_weights, read_weights),
            base_positions,
            jnp.zeros(reads.shape[:-2], bool) if reverse_strand is None else reverse_strand,
        )
        return self._believed(log_likelihoods, reference)

    def _believed(self, log_likelihoods: Array, reference: Array) -> Genotypes:
        """Return posteriors by Bayes' rule, and what follows from them."""
        ploidy = self.config.ploidy
        alleles = genotype_alleles(ploidy)
        prior = genotype_prior(reference, self.config.heterozygosity, ploidy)
        logits = (jnp.log(prior) + log_likelihoods) / self.softness()
        posteriors = jax.nn.softmax(logits, axis=-1)
        same = np.flatnonzero((alleles == alleles[:, :1]).all(1))  # the genotypes of one letter, in its order
        of_reference = (posteriors[..., same] * reference).sum(-1)
        dosage = (alleles[:, :, None] == np.arange(_N_LETTERS)).sum(1)
        return Genotypes(
            log_likelihoods,
            posteriors,
            phred_of_the_best(logits),
            jnp.where(reference.sum(-1) > 0, 1 - of_reference, 0.0),
            posteriors @ jnp.asarray(dosage, posteriors.dtype),
        )
