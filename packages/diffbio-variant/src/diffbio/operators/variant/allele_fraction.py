"""B-allele fractions of heterozygous sites, and whether the two alleles of a bin are in balance.

Hard: sites are called heterozygous where that is the most likely genotype, and the B-allele fractions of a bin's
heterozygous sites, mirrored at 1/2, are averaged. Relaxed: a site has the weight

    P(heterozygous) = softmax over genotypes g of (log prior(g) + log Binomial(counts; fraction of g)) / tau

With tau = 1 this is the posterior. As tau -> 0 it is 1 for the most likely genotype.

A mean of mirrored fractions lies above 1/2 even in balance, the more the fewer reads there are. So the fraction f of
the major allele is also found by the likelihood of a bin's counts, where either allele of a site may be the major one:

    L(f) = product over sites of (Binomial(alt; f) + Binomial(alt; 1 - f)) / 2

References:
    Staaf et al., Segmentation-based detection of allelic imbalance and loss-of-heterozygosity in cancer cells using
    whole genome SNP arrays, Genome Biology 2008: mirrored fractions.
    Li, A statistical framework for SNP calling, mutation discovery, association mapping and population genetical
    parameter estimation from sequencing data, Bioinformatics 2011: likelihoods of genotypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.errors import ContractError

_FRACTIONS = 32
"""How many fractions of the major allele, from 1/2 to 1, are tried."""


@dataclass(frozen=True, kw_only=True)
class AlleleFractionConfig(OperatorConfig):
    """What is expected of sites and bins, before training.

    Args:
        n_bins: Of the genome.
        error_rate: Share of the reads of a homozygous site that show the other allele.
        heterozygous_prior: Probability that a site is heterozygous; those of known variants often are.
        imbalance_prior: Probability that a bin has more of one allele.
        temperature: The softness tau of genotypes; with 1 their weights are posteriors.
    """

    n_bins: Annotated[int, Ge(1)]
    error_rate: Annotated[float, Gt(0), Lt(0.5)] = 0.01
    heterozygous_prior: Annotated[float, Gt(0), Lt(1)] = 0.3
    imbalance_prior: Annotated[float, Gt(0), Lt(1)] = 0.1
    temperature: Annotated[float, Gt(0)] = 1.0


class AlleleFractions(NamedTuple):
    """Alleles of sites and bins.

    Attributes:
        heterozygous_probability: Of each site (sites,); 0 where masked or without reads.
        mirrored_baf: Mean of the mirrored fractions of a bin's sites, by that weight (bins,); 1/2 without sites.
        imbalance_probability: That a bin has more of one allele (bins,).
        baf: Fraction of the major allele, the mean of its posterior (bins,), 1/2 in balance.
        baf_mask: Which bins have at least half a heterozygous site (bins,); no gradient.
    """

    heterozygous_probability: Float[Array, " sites"]
    mirrored_baf: Float[Array, " bins"]
    imbalance_probability: Float[Array, " bins"]
    baf: Float[Array, " bins"]
    baf_mask: Bool[Array, " bins"]


def heterozygous_probability(
    ref_counts: Float[Array, " sites"],
    alt_counts: Float[Array, " sites"],
    *,
    error_rate: ArrayLike,
    prior: ArrayLike,
    softness: ArrayLike = 1.0,
) -> Float[Array, " sites"]:
    """Return the probability that sites are heterozygous.

    Args:
        ref_counts: Reads with the reference allele, at least 0.
        alt_counts: Reads with the other.
        error_rate: Share of the reads of a homozygous site with the other allele, in (0, 1/2).
        prior: Probability that a site is heterozygous, in (0, 1); both homozygous genotypes share the rest.
        softness: tau > 0.

    References:
        Li, Bioinformatics 2011.

    Example:
        >>> counts = jnp.array([30.0, 14.0, 1.0]), jnp.array([0.0, 16.0, 29.0])
        >>> [round(p, 3) for p in heterozygous_probability(*counts, error_rate=0.01, prior=0.3).tolist()]
        [0.0, 1.0, 0.0]
    """
    error, known = (jnp.asarray(chance, ref_counts.dtype) for chance in (error_rate, prior))
    fraction = jnp.stack([error, jnp.full_like(error, 0.5), 1 - error])
    priors = jnp.log(jnp.stack([(1 - known) / 2, known, (1 - known) / 2]))
    likelihood = alt_counts[:, None] * jnp.log(fraction) + ref_counts[:, None] * jnp.log1p(-fraction)
    return jax.nn.softmax((likelihood + priors) / softness, axis=-1)[:, 1]


def allele_fractions(
    ref_counts: Float[Array, " sites"],
    alt_counts: Float[Array, " sites"],
    site_bin: Int[Array, " sites"],
    weight: Float[Array, " sites"],
    *,
    n_bins: int,
    imbalance_prior: ArrayLike,
) -> AlleleFractions:
    """Return the mirrored fractions of bins, and whether their alleles are in balance.

    Args:
        ref_counts: Reads with the reference allele, at least 0.
        alt_counts: Reads with the other.
        site_bin: The bin of each site; sites of no bin have a number out of range.
        weight: How much a site counts, such as the probability that it is heterozygous; sites without reads don't.
        n_bins: How many bins there are.
        imbalance_prior: Probability that a bin has more of one allele; then all fractions are as likely.

    Returns:
        Of bins and sites. Time and memory grow as 32 x (sites + bins).

    References:
        Staaf et al., Genome Biology 2008.

    Example:
        >>> ref, alt = jnp.array([15.0, 17.0, 30.0, 11.0]), jnp.array([15.0, 14.0, 10.0, 29.0])
        >>> found = allele_fractions(ref, alt, jnp.array([0, 0, 1, 1]), jnp.ones(4), n_bins=2, imbalance_prior=0.1)
        >>> [round(p, 2) for p in found.imbalance_probability.tolist()], [round(f, 2) for f in found.baf.tolist()]
        ([0.02, 0.99], [0.5, 0.73])
    """
    dtype = ref_counts.dtype
    depth = ref_counts + alt_counts
    weight = jnp.where(depth > 0, weight, 0.0)
    in_bin = jnp.where((site_bin >= 0) & (site_bin < n_bins), site_bin, n_bins)

    def per_bin(values: Array) -> Array:
        return jax.ops.segment_sum(values, in_bin, n_bins + 1)[:n_bins]

    mirrored = 0.5 + jnp.abs(alt_counts / jnp.where(depth > 0, depth, 1.0) - 0.5)
    count, total = per_bin(weight), per_bin(weight * (mirrored - 0.5))
    mean = 0.5 + jnp.where(count > 0, total / jnp.where(count > 0, count, 1.0), 0.0)
    major = 0.5 + (jnp.arange(_FRACTIONS, dtype=dtype) + 0.5) / (2 * _FRACTIONS)
    first = alt_counts[:, None] * jnp.log(2 * major) + ref_counts[:, None] * jnp.log(2 - 2 * major)
    second = ref_counts[:, None] * jnp.log(2 * major) + alt_counts[:, None] * jnp.log(2 - 2 * major)
    odds = per_bin(weight[:, None] * (jnp.logaddexp(first, second) - math.log(2)))  # against balance, of each fraction
    evidence = jax.nn.logsumexp(odds, axis=-1) - math.log(_FRACTIONS)
    prior = jnp.asarray(imbalance_prior, dtype)
    imbalance = jax.nn.sigmoid(evidence + jnp.log(prior) - jnp.log1p(-prior))
    fraction = jax.nn.softmax(odds, axis=-1) @ major
    return AlleleFractions(weight, mean, imbalance, 0.5 + imbalance * (fraction - 0.5), count >= 0.5)


class AlleleFraction(Operator[AlleleFractionConfig]):
    """Find heterozygous sites, the fractions of their alleles in bins, and bins out of balance.

    Reads `ref_counts` and `alt_counts` (sites,), reads with either allele, `site_bin` (sites,), the bin of each site,
    and optionally `site_mask` (sites,), which sites count, and `normal_ref_counts` and `normal_alt_counts` (sites,) of
    a matched normal sample, from which heterozygous sites are then taken; writes `heterozygous_probability` (sites,),
    `mirrored_baf`, `imbalance_probability`, `baf` and `baf_mask` (bins,). Parameters are logits: `error_logit`,
    `heterozygous_logit` and `imbalance_logit` ().

    Args:
        config: Number of bins, rates and priors.
        rngs: Not used: nothing is drawn.

    Example:
        >>> data = {"ref_counts": jnp.array([15.0, 17.0, 30.0]), "alt_counts": jnp.array([15.0, 14.0, 0.0])}
        >>> data["site_bin"] = jnp.array([0, 0, 1])
        >>> found = AlleleFraction(AlleleFractionConfig(n_bins=2)).apply(data, {}, None)[0]
        >>> found["baf_mask"].tolist()  # the second bin has no heterozygous site
        [True, False]
    """

    def __init__(self, config: AlleleFractionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        chances = (2 * config.error_rate, config.heterozygous_prior, config.imbalance_prior)
        self.error_logit, self.heterozygous_logit, self.imbalance_logit = (
            nnx.Param(jnp.float32(math.log(chance / (1 - chance)))) for chance in chances
        )
        self.softness = Softness(config.temperature)

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        ref_counts: Float[Array, " sites"],
        alt_counts: Float[Array, " sites"],
        site_bin: Int[Array, " sites"],
        site_mask: Bool[Array, " sites"] | None = None,
        normal_ref_counts: Float[Array, " sites"] | None = None,
        normal_alt_counts: Float[Array, " sites"] | None = None,
    ) -> AlleleFractions:
        """Return the alleles of sites and bins."""
        if (normal_ref_counts is None) != (normal_alt_counts is None):
            raise ContractError(
                "AlleleFraction has one of normal_ref_counts and normal_alt_counts; give both or neither"
            )
        ref, alt = _counted(ref_counts, site_mask), _counted(alt_counts, site_mask)
        normal_ref = ref if normal_ref_counts is None else _counted(normal_ref_counts, site_mask)
        normal_alt = alt if normal_alt_counts is None else _counted(normal_alt_counts, site_mask)
        weight = heterozygous_probability(
            normal_ref,
            normal_alt,
            error_rate=0.5 * jax.nn.sigmoid(self.error_logit[...]),
            prior=jax.nn.sigmoid(self.heterozygous_logit[...]),
            softness=self.softness(),
        )
        return allele_fractions(
            ref,
            alt,
            site_bin,
            jnp.where(normal_ref + normal_alt > 0, weight, 0.0),
            n_bins=self.config.n_bins,
            imbalance_prior=jax.nn.sigmoid(self.imbalance_logit[...]),
        )


def _counted(counts: Float[Array, " sites"], site_mask: Bool[Array, " sites"] | None) -> Float[Array, " sites"]:
    """Return counts with zeros where sites don't count."""
    return counts if site_mask is None else jnp.where(site_mask, counts, 0.0)
