"""Classifier of pileups: a multilayer perceptron that corrects the genotype that a model of reads believes in.

Seen are the columns around a site: for each, which share of its reads shows each letter, an insertion, a deletion, by
strand, and the letter of the reference; then how many reads there are, the kind of the variant, and the share of reads
of each haplotype. The result is added to the log-posterior of a model, if there is one, so that before training the
classifier believes it:

    logits = log P(genotype | reads) + network(columns)        P = softmax(logits / tau)

Hard: the genotype of the largest logit, which is the limit as tau -> 0.

References:
    Luo et al., A multi-task convolutional deep neural network for variant calling in single molecule sequencing,
    Nature Communications 2019: genotypes from the pileup around a site.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs
from diffbio.core.errors import ConfigError
from diffbio.operators.variant.classified_genotypes import ClassifiedGenotypes, corrected_genotypes, middle_columns

_PER_COLUMN = 2 * 7 + 4
_BESIDE = 2 + 3 + 2
_FIRST_CORRECTION = 0.01  # before training: small, but not 0, so that all layers learn


@dataclass(frozen=True, kw_only=True)
class PileupClassifierConfig(OperatorConfig):
    """The network.

    Args:
        n_genotypes: 3 if diploid, 2 if haploid.
        columns: How many columns around the middle of the window are seen, odd.
        hidden_sizes: Width of each hidden layer.
        temperature: The softness tau, above 0.

    Raises:
        ConfigError: The number of columns is even.
    """

    n_genotypes: Annotated[int, Ge(2)] = 3
    columns: Annotated[int, Ge(1)] = 11
    hidden_sizes: tuple[Annotated[int, Ge(1)], ...] = (32, 32)
    temperature: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        """Check each field, then that there is a middle column."""
        super().__post_init__()
        if self.columns % 2 == 0:
            raise ConfigError(f"PileupClassifierConfig.columns is {self.columns}; give an odd number, with a middle")


def column_features(
    base_counts: Float[Array, "*sites window strands letters"],
    gap_counts: Float[Array, "*sites window strands gaps"],
    reference: Float[Array, "*sites window letters"],
) -> Float[Array, "*sites window features"]:
    """Return the shares of reads that show each letter and gap in each column, by strand, and the reference's letter.

    Args:
        base_counts: Of each letter.
        gap_counts: Of insertions, deletions that begin, and lacking positions.
        reference: Distributions over A, C, G, T.

    Returns:
        Numbers from 0 to 1; 0 where there are no reads.

    Example:
        >>> column_features(jnp.ones((1, 2, 4)), jnp.zeros((1, 2, 3)), jnp.eye(4)[:1])[0, :4].tolist()
        [0.125, 0.125, 0.125, 0.125]
    """
    shown = jnp.concatenate([base_counts, gap_counts], axis=-1)
    depth = base_counts.sum((-2, -1)) + gap_counts[..., -1].sum(-1)
    shares = shown / jnp.maximum(depth, 1.0)[..., None, None]
    return jnp.concatenate([shares.reshape(*shares.shape[:-2], -1), reference], axis=-1)


class PileupClassifier(Operator[PileupClassifierConfig]):
    """Correct the genotype of each site by the pileup around it.

    Reads `base_counts` (window, 2, 4), `insertion_counts`, `deletion_counts` and `deleted_counts` (window, 2) of a
    pileup, and `reference` (window, 4), with the site in the middle; optionally `call_posteriors` (genotypes,), what a
    model of the reads believes, `allele_depths` (2,) and `variant_kind` (3,); writes `classifier_logits` and
    `classifier_posteriors` (genotypes,) and `classifier_qualities` (), Phred. In all of them axes of sites may come
    first. Parameters: `kernels` and `biases`. Trained with `genotype_cross_entropy`.

    Args:
        config: Sizes and softness.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.
        ContractError: The window has fewer columns than the classifier, or the model has other genotypes.

    Example:
        >>> classifier = PileupClassifier(PileupClassifierConfig(columns=1), rngs=nnx.Rngs(0))
        >>> data = {"base_counts": jnp.ones((1, 2, 4)), "reference": jnp.eye(4)[:1]}
        >>> data |= {f"{gap}_counts": jnp.zeros((1, 2)) for gap in ("insertion", "deletion", "deleted")}
        >>> data["call_posteriors"] = jnp.array([0.1, 0.8, 0.1])
        >>> int(classifier.apply(data, {}, None)[0]["classifier_posteriors"].argmax())
        1
    """

    def __init__(self, config: PileupClassifierConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        widths = (config.columns * _PER_COLUMN + _BESIDE, *config.hidden_sizes, config.n_genotypes)
        draw = jax.nn.initializers.lecun_normal()
        kernels = [draw(rngs.params(), size) for size in pairwise(widths)]
        kernels[-1] = _FIRST_CORRECTION * kernels[-1]
        self.kernels = nnx.List([nnx.Param(kernel) for kernel in kernels])
        self.biases = nnx.List([nnx.Param(jnp.zeros(width)) for width in widths[1:]])
        self.softness = Softness(config.temperature)

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        base_counts: Float[Array, "*sites window strands letters"],
        insertion_counts: Float[Array, "*sites window strands"],
        deletion_counts: Float[Array, "*sites window strands"],
        deleted_counts: Float[Array, "*sites window strands"],
        reference: Float[Array, "*sites window letters"],
        call_posteriors: Float[Array, "*sites genotypes"] | None = None,
        allele_depths: Float[Array, "*sites haplotypes"] | None = None,
        variant_kind: Float[Array, "*sites kinds"] | None = None,
    ) -> ClassifiedGenotypes:
        """Return logits, posteriors and qualities."""
        gaps = jnp.stack([insertion_counts, deletion_counts, deleted_counts], axis=-1)
        columns = middle_columns(column_features(base_counts, gaps, reference), self.config.columns)
        sites = columns.shape[:-2]
        depth = base_counts.sum((-2, -1)).mean(-1, keepdims=True)
        kind = jnp.zeros((*sites, 3), columns.dtype) if variant_kind is None else variant_kind
        alleles = jnp.zeros((*sites, 2), columns.dtype) if allele_depths is None else allele_depths
        share = alleles / jnp.maximum(alleles.sum(-1, keepdims=True), 1.0)
        beside = jnp.concatenate([jnp.log1p(depth), jnp.log1p(alleles.sum(-1, keepdims=True)), kind, share], axis=-1)
        outputs = jnp.concatenate([columns.reshape(*sites, -1), beside], axis=-1)
        for number, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            outputs = (jax.nn.gelu(outputs) if number else outputs) @ kernel[...] + bias[...]
        return corrected_genotypes(outputs, call_posteriors, softness=self.softness())
