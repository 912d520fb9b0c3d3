"""The genotype of a site by how well its reads fit the haplotypes without and with a variant.

With the score s_h of a read with haplotype h, in nats, and the probability m that the read belongs elsewhere, so that
it says nothing,

    P(read | g) = (1 - m) mean over h in g of exp(s_h) + m mean over all h of exp(s_h)

and the likelihood of a genotype is the product over reads. This is local realignment: how the mapper laid a read plays
no part, so that gaps are judged as letters are. With the prior, P(g | reads) ~ (P(g) L(g))^(1/tau): Bayes' rule at
tau = 1; as tau -> 0 the most probable genotype.

References:
    Albers et al., Dindel: accurate indel calls from short-read data, Genome Research 2011.
    Poplin et al., Scaling accurate genetic variant discovery to tens of thousands of samples, bioRxiv 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt, Lt
from flax import nnx
from jaxtyping import Array, Bool, Float

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.variant.base_weights import counting_bases
from diffbio.operators.variant.call_quality import phred_of_the_best


@dataclass(frozen=True, kw_only=True)
class HaplotypeGenotypingConfig(OperatorConfig):
    """The model of reads, and the prior.

    Args:
        ploidy: 1 or 2.
        unit: Nats of one unit of the scores, before training: 1, or log 2 for bits.
        misplaced: Probability that a read belongs elsewhere, beside that of its mapping quality.
        heterozygosity: Prior probability of a site to be heterozygous; that of a haploid one to have the variant.
        temperature: The softness tau of the posterior, above 0.
        learnable: Whether training changes the scale of the scores and the probability to be misplaced.
    """

    ploidy: Literal[1, 2] = 2
    unit: Annotated[float, Gt(0)] = 1.0
    misplaced: Annotated[float, Gt(0), Lt(1)] = 0.01
    heterozygosity: Annotated[float, Gt(0), Lt(0.5)] = 1e-3
    temperature: Annotated[float, Gt(0)] = 1.0
    learnable: bool = True


class CalledGenotypes(NamedTuple):
    """What is believed of each site; genotypes by the number of copies of the variant.

    Attributes:
        call_log_likelihoods: Natural logarithms (*sites, genotypes).
        call_posteriors: Probabilities (*sites, genotypes).
        call_qualities: Phred-scaled probability that the most probable genotype is wrong (*sites,).
        allele_depths: Expected number of reads of each haplotype (*sites, haplotypes).
    """

    call_log_likelihoods: Float[Array, "*sites genotypes"]
    call_posteriors: Float[Array, "*sites genotypes"]
    call_qualities: Float[Array, "*sites"]
    allele_depths: Float[Array, "*sites haplotypes"]


def haplotype_log_likelihoods(
    scores: Float[Array, "*sites reads haplotypes"],
    weights: Float[Array, "*sites reads"],
    misplaced: Float[Array, "*sites reads"],
    ploidy: int = 2,
) -> Float[Array, "*sites genotypes"]:
    """Return the log-likelihood of each genotype of each site.

    Args:
        scores: Log-probability of each read given the haplotype without and that with the variant, up to a number that
            both have in common.
        weights: With which each read counts.
        misplaced: Probability that a read belongs elsewhere.
        ploidy: 1 or 2.

    Returns:
        Natural logarithms, for 0 to `ploidy` copies of the variant.

    Example:
        >>> scores = jnp.array([[0.0, -9.0], [0.0, -9.0], [-9.0, 0.0], [-9.0, 0.0]])
        >>> haplotype_log_likelihoods(scores, jnp.ones(4), jnp.full(4, 0.01)).round(1).tolist()
        [-10.600000381469727, -2.799999952316284, -10.600000381469727]
    """
    copies = np.arange(ploidy + 1) / ploidy
    shares = jnp.asarray(np.stack([1 - copies, copies]), scores.dtype)  # of both haplotypes in each genotype
    fits = jax.nn.log_softmax(scores, axis=-1)  # what both have in common says nothing
    chances = jnp.exp(fits)
    elsewhere = misplaced[..., None]
    of_genotype = (1 - elsewhere) * (chances @ shares) + elsewhere * chances.mean(-1, keepdims=True)
    return (weights[..., None] * jnp.log(of_genotype)).sum(-2)


class HaplotypeGenotyping(Operator[HaplotypeGenotypingConfig]):
    """Tell the genotype of each site by the alignments of its reads with the haplotypes without and with a variant.

    Reads `alignment_score` (reads, 2), of each read with both haplotypes; optionally `read_mask` (reads,), the
    `read_weights` (reads,) of filters and `mapping_qualities` (reads,), Phred; writes `call_log_likelihoods` and
    `call_posteriors` (genotypes,), `call_qualities` (), Phred, and `allele_depths` (2,). In all of them axes of sites
    may come first. Parameters, if learnable: `log_score_scale`, of nats per unit of the scores, and `misplaced_logit`.

    Args:
        config: Ploidy, misplaced reads and prior.
        rngs: Not used: nothing is drawn.

    Example:
        >>> scores = jnp.array([[[20.0, 9.0], [18.0, 8.0], [7.0, 19.0], [9.0, 20.0]]])
        >>> genotyping = HaplotypeGenotyping(HaplotypeGenotypingConfig())
        >>> found = genotyping.apply({"alignment_score": scores}, {}, None)[0]
        >>> int(found["call_posteriors"][0].argmax()), found["allele_depths"].round(1).tolist()  # copies of the variant
        (1, [[2.0, 2.0]])
    """

    def __init__(self, config: HaplotypeGenotypingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.log_score_scale = kind(jnp.float32(math.log(config.unit)))
        self.misplaced_logit = kind(jnp.float32(math.log(config.misplaced / (1 - config.misplaced))))
        self.softness = Softness(config.temperature)

    def compute(
        self,
        alignment_score: Float[Array, "*sites reads haplotypes"],
        read_mask: Bool[Array, "*sites reads"] | None = None,
        read_weights: Float[Array, "*sites reads"] | None = None,
        mapping_qualities: Float[Array, "*sites reads"] | None = None,
    ) -> CalledGenotypes:
        """Return likelihoods, posteriors and what follows from them."""
        scores = jnp.exp(self.log_score_scale[...]) * alignment_score
        like = scores[..., :1]
        weights = counting_bases(like, read_mask=read_mask, read_weights=read_weights)[..., 0]
        misplaced = jnp.broadcast_to(jax.nn.sigmoid(self.misplaced_logit[...]), weights.shape)
        if mapping_qualities is not None:
            wrong = jnp.minimum(10 ** (-jnp.maximum(mapping_qualities, 0.0) / 10), 1.0)
            misplaced = misplaced + (1 - misplaced) * wrong
        log_likelihoods = haplotype_log_likelihoods(scores, weights, misplaced, self.config.ploidy)
        h = self.config.heterozygosity
        prior = (1 - h, h) if self.config.ploidy == 1 else (1 - 1.5 * h, h, h / 2)
        logits = (log_likelihoods + np.log(np.asarray(prior, np.float32))) / self.softness()
        depths = (weights[..., None] * jax.nn.softmax(scores, axis=-1)).sum(-2)
        return CalledGenotypes(log_likelihoods, jax.nn.softmax(logits, axis=-1), phred_of_the_best(logits), depths)
