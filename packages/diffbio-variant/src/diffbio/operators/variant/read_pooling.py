"""Classifier of sets of reads: each read is encoded on its own, and the order of the reads plays no part.

Encoded are the pixels of a read around the site, as `pileup_image` draws them, and how near the site is to its ends.
Over the reads, with their weights w, the codes are pooled by their mean and soft maximum. Beside it each read gives
evidence of its own, which adds up as log-likelihoods do. All is added to the log-posterior of a model, if there is one,
so that before training the classifier believes it:

    logits = log P(genotype | reads) + sum of w evidence(code) + network(mean, max)        P = softmax(logits / tau)

Hard: the genotype of the largest logit, and the maximum itself, which are the limits as both softnesses -> 0.

References:
    Zaheer et al., Deep sets, NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs, soft_ops
from diffbio.core.errors import ConfigError
from diffbio.operators.variant.base_weights import counting_bases
from diffbio.operators.variant.classified_genotypes import ClassifiedGenotypes, corrected_genotypes, middle_columns
from diffbio.operators.variant.pileup_image import CHANNELS, draw_reads

_NEAR = 10.0  # bases from the end of a read, at which it is half as near
_BESIDE = 1 + 3
_LEAST = 1e-12  # of weights, so that their logarithms are finite
_FIRST_CORRECTION = 0.01  # before training: small, but not 0, so that all layers learn


@dataclass(frozen=True, kw_only=True)
class ReadPoolingClassifierConfig(OperatorConfig):
    """The network.

    Args:
        n_genotypes: 3 if diploid, 2 if haploid.
        columns: How many columns around the middle of the window are seen, odd.
        read_sizes: Width of each layer that encodes a read; the last is that of its code.
        hidden_sizes: Width of each hidden layer after pooling.
        support_temperature: The softness of a read's support, in the unit of the alignment scores, above 0.
        pooling_temperature: The softness of the maximum over reads, in that of the codes, whose scale is 1, above 0.
        temperature: The softness tau of the posterior, above 0.

    Raises:
        ConfigError: The number of columns is even, or no layer encodes reads.
    """

    n_genotypes: Annotated[int, Ge(2)] = 3
    columns: Annotated[int, Ge(1)] = 11
    read_sizes: tuple[Annotated[int, Ge(1)], ...] = (32, 16)
    hidden_sizes: tuple[Annotated[int, Ge(1)], ...] = (32,)
    support_temperature: Annotated[float, Gt(0)] = 1.0
    pooling_temperature: Annotated[float, Gt(0)] = 0.1
    temperature: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        """Check each field, then that there are a middle column and a code."""
        super().__post_init__()
        if self.columns % 2 == 0:
            raise ConfigError(f"ReadPoolingClassifierConfig.columns is {self.columns}; give an odd number")
        if not self.read_sizes:
            raise ConfigError("ReadPoolingClassifierConfig.read_sizes is empty; give the width of at least one layer")


def nearness_to_ends(
    weights: Float[Array, "*sites reads positions"],
    base_positions: Real[Array, "*sites reads positions"],
    read_lengths: Int[Array, "*sites reads"] | None = None,
    *,
    site: int,
) -> Float[Array, "*sites reads ends"]:
    """Return how near the base at a column is to the begin and the end of its read.

    Args:
        weights: With which each base counts.
        base_positions: Column of each base.
        read_lengths: How many bases each read has; all by default.
        site: The column.

    Returns:
        10 / (10 + distance) times the weight; 0 for a read that has no base there.

    Example:
        >>> nearness_to_ends(jnp.ones((2, 11)), jnp.arange(22).reshape(2, 11), site=10).tolist()
        [[0.5, 1.0], [0.0, 0.0]]
    """
    n_positions = weights.shape[-1]
    here = jnp.where(jnp.floor(base_positions) == site, weights, 0.0)
    from_begin = jnp.arange(n_positions)
    ends = n_positions if read_lengths is None else read_lengths[..., None]
    distances = (jnp.broadcast_to(from_begin, here.shape), jnp.maximum(ends - 1 - from_begin, 0))
    return jnp.stack([(here * _NEAR / (_NEAR + distance)).sum(-1) for distance in distances], axis=-1)


def pooled_reads(
    codes: Float[Array, "*sites reads features"], weights: Float[Array, "*sites reads"], *, softness: ArrayLike
) -> Float[Array, "*sites pooled"]:
    """Return mean and soft maximum of the codes over reads; 0 is always among those of the maximum.

    Args:
        codes: Of each read.
        weights: With which each read counts, 0 to 1; 0 where there is none.
        softness: tau > 0 of the maximum: the mean, weighted by w exp(code / tau).

    Returns:
        The mean, then the maximum; 0 without reads.

    Example:
        >>> pooled_reads(jnp.array([[1.0], [3.0]]), jnp.ones(2), softness=0.01).tolist()
        [2.0, 3.0]
    """
    mean = (weights[..., None] * codes).sum(-2) / jnp.maximum(weights.sum(-1, keepdims=True), 1.0)
    # not log-sum-exp, which grows with the number of reads
    raised = codes + softness * jnp.log(jnp.maximum(weights, _LEAST))[..., None]
    with_none = jnp.concatenate([raised, jnp.zeros_like(mean)[..., None, :]], axis=-2)
    counts = jnp.concatenate([weights > 0, jnp.ones((*weights.shape[:-1], 1), bool)], axis=-1)
    shares = soft_ops.argmax(with_none, axis=-2, softness=softness, where=counts[..., None])
    largest = (shares[..., :-1] * codes.swapaxes(-1, -2)).sum(-1)
    return jnp.concatenate([mean, largest], axis=-1)


class ReadPoolingClassifier(Operator[ReadPoolingClassifierConfig]):
    """Tell the genotype of each site by its reads as a set.

    Reads `reads` (reads, positions, 4), distributions over A, C, G, T, `qualities` (reads, positions), Phred,
    `base_positions` (reads, positions), the column of each base, and `reference` (window, 4), with the site in the
    middle; optionally `alignment_score` (reads, 2), or `haplotypes` (2, haplotype, 4) with `haplotype_lengths` (2,),
    which tell whether a read supports the variant, `insertions` and `deletions` (reads, positions),
    `mapping_qualities` (reads,), Phred, `reverse_strand`, `read_lengths` and `read_mask` (reads,), the `base_weights`
    (reads, positions) and `read_weights` (reads,) of trimmers and filters, `call_posteriors` (genotypes,), what a model
    of the reads believes, and `variant_kind` (3,); writes `classifier_logits` and `classifier_posteriors` (genotypes,)
    and `classifier_qualities` (), Phred. In all of them axes of sites may come first. Parameters: those of `encoder`,
    `evidence` and `head`. Trained with `genotype_cross_entropy`.

    Args:
        config: Sizes and softness.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.
        ContractError: The window has fewer columns than the classifier, or the model has other genotypes.

    Example:
        >>> classifier = ReadPoolingClassifier(ReadPoolingClassifierConfig(columns=1), rngs=nnx.Rngs(0))
        >>> data = {"reads": jnp.eye(4)[None, :1], "qualities": jnp.full((1, 1), 30.0)}
        >>> data |= {"base_positions": jnp.zeros((1, 1)), "reference": jnp.eye(4)[:1]}
        >>> data["call_posteriors"] = jnp.array([0.1, 0.8, 0.1])
        >>> int(classifier.apply(data, {}, None)[0]["classifier_posteriors"].argmax())
        1
    """

    def __init__(self, config: ReadPoolingClassifierConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        of_reads = config.columns * len(CHANNELS) + 2, *config.read_sizes
        pooled = 2 * of_reads[-1] + _BESIDE, *config.hidden_sizes, config.n_genotypes
        self.encoder = nnx.List([nnx.Linear(*sizes, rngs=rngs) for sizes in pairwise(of_reads)])
        self.evidence = nnx.Linear(of_reads[-1], config.n_genotypes, rngs=rngs)
        self.head = nnx.List([nnx.Linear(*sizes, rngs=rngs) for sizes in pairwise(pooled)])
        for last in (self.evidence, self.head[-1]):
            last.kernel[...] = _FIRST_CORRECTION * last.kernel[...]
        self.support_softness = Softness(config.support_temperature)
        self.pooling_softness = Softness(config.pooling_temperature)
        self.softness = Softness(config.temperature)

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        reads: Float[Array, "*sites reads positions letters"],
        qualities: Float[Array, "*sites reads positions"],
        base_positions: Real[Array, "*sites reads positions"],
        reference: Float[Array, "*sites window letters"],
        alignment_score: Float[Array, "*sites reads haplotypes"] | None = None,
        haplotypes: Float[Array, "*sites haplotypes haplotype letters"] | None = None,
        haplotype_lengths: Int[Array, "*sites haplotypes"] | None = None,
        insertions: Int[Array, "*sites reads positions"] | None = None,
        deletions: Int[Array, "*sites reads positions"] | None = None,
        mapping_qualities: Float[Array, "*sites reads"] | None = None,
        reverse_strand: Bool[Array, "*sites reads"] | None = None,
        read_lengths: Int[Array, "*sites reads"] | None = None,
        read_mask: Bool[Array, "*sites reads"] | None = None,
        base_weights: Float[Array, "*sites reads positions"] | None = None,
        read_weights: Float[Array, "*sites reads"] | None = None,
        call_posteriors: Float[Array, "*sites genotypes"] | None = None,
        variant_kind: Float[Array, "*sites kinds"] | None = None,
    ) -> ClassifiedGenotypes:
        """Return logits, posteriors and qualities."""
        weights = counting_bases(qualities, read_lengths, read_mask, base_weights, read_weights)
        pixels = draw_reads(
            reads, qualities, base_positions, reference, alignment_score, haplotypes, haplotype_lengths, insertions,
            deletions, mapping_qualities, reverse_strand, weights, softness=self.support_softness(),
        )  # fmt: skip
        seen = middle_columns(pixels, self.config.columns)
        ends = nearness_to_ends(weights, base_positions, read_lengths, site=(reference.shape[-2] - 1) // 2)
        flat = seen.reshape(*ends.shape[:-1], self.config.columns * len(CHANNELS))
        codes = jnp.concatenate([flat, ends], axis=-1)
        for layer in self.encoder:
            codes = jax.nn.gelu(layer(codes))
        of_read = counting_bases(qualities[..., :1], read_mask=read_mask, read_weights=read_weights)[..., 0]
        pooled = pooled_reads(codes, of_read, softness=self.pooling_softness())
        kind = jnp.zeros((*of_read.shape[:-1], 3), codes.dtype) if variant_kind is None else variant_kind
        outputs = jnp.concatenate([pooled, jnp.log1p(of_read.sum(-1, keepdims=True)), kind], axis=-1)
        for number, layer in enumerate(self.head):
            outputs = layer(jax.nn.gelu(outputs) if number else outputs)
        evidence = (of_read[..., None] * self.evidence(codes)).sum(-2)
        return corrected_genotypes(outputs + evidence, call_posteriors, softness=self.softness())
