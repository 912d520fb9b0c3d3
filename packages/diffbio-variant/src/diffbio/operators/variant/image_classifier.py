"""Classifier of pileup images: a convolutional network that sees the reads over a site as DeepVariant does.

Residual layers, x + convolution(gelu(norm(x))) over rows and columns, with layer norm of the channels of each pixel, so
that nothing is shared between sites; rows without a read are 0 before each. Read out are the pixels of the candidate's
column, and those of all columns, each by their mean over rows, and the number of rows. Beside it each row gives
evidence by its pixel of the candidate's column, which adds up as log-likelihoods do. All is added to the log-posterior
of a model, if there is one, so that before training the classifier believes it:

    logits = log P(genotype | reads) + sum of evidence(pixel) + network(means)        P = softmax(logits / tau)

Hard: the genotype of the largest logit, which is the limit as tau -> 0.

References:
    Poplin et al., A universal SNP and small-indel variant caller using deep neural networks, Nature Biotechnology 2018.
    He et al., Identity mappings in deep residual networks, ECCV 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Bool, Float

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs
from diffbio.core.errors import ConfigError
from diffbio.operators.variant.classified_genotypes import ClassifiedGenotypes, corrected_genotypes, middle_columns

_KERNEL = 3, 3
_BESIDE = 1 + 3
_FIRST_CORRECTION = 0.01  # before training: small, but not 0, so that all layers learn


@dataclass(frozen=True, kw_only=True)
class ImageClassifierConfig(OperatorConfig):
    """The network.

    Args:
        n_channels: Of the images, those of `PileupImage`.
        n_genotypes: 3 if diploid, 2 if haploid.
        columns: How many columns around the middle of the window are seen, odd.
        width: Channels of the hidden layers.
        n_layers: Residual layers; each sees one column further to both sides.
        temperature: The softness tau, above 0.

    Raises:
        ConfigError: The number of columns is even.
    """

    n_channels: Annotated[int, Ge(1)] = 11
    n_genotypes: Annotated[int, Ge(2)] = 3
    columns: Annotated[int, Ge(1)] = 21
    width: Annotated[int, Ge(1)] = 16
    n_layers: Annotated[int, Ge(0)] = 3
    temperature: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        """Check each field, then that there is a middle column."""
        super().__post_init__()
        if self.columns % 2 == 0:
            raise ConfigError(f"ImageClassifierConfig.columns is {self.columns}; give an odd number, with a middle")


class ImageClassifier(Operator[ImageClassifierConfig]):
    """Tell the genotype of each site by the image of its reads.

    Reads `pileup_image` (rows, window, channels), with the site in the middle; optionally `image_mask` (rows,), which
    rows count, `call_posteriors` (genotypes,), what a model of the reads believes, and `variant_kind` (3,); writes
    `classifier_logits` and `classifier_posteriors` (genotypes,) and `classifier_qualities` (), Phred. In all of them
    axes of sites may come first. Parameters: those of `convolutions`, `norms`, `evidence`, `hidden` and `output`.
    Trained with `genotype_cross_entropy`.

    Args:
        config: Sizes and softness.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.
        ContractError: The window has fewer columns than the classifier, or the model has other genotypes.

    Example:
        >>> classifier = ImageClassifier(ImageClassifierConfig(columns=5), rngs=nnx.Rngs(0))
        >>> data = {"pileup_image": jnp.ones((4, 9, 11)), "call_posteriors": jnp.array([0.1, 0.8, 0.1])}
        >>> int(classifier.apply(data, {}, None)[0]["classifier_posteriors"].argmax())
        1
    """

    def __init__(self, config: ImageClassifierConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        widths = config.n_channels, *(config.n_layers + 1) * (config.width,)
        self.convolutions = nnx.List([nnx.Conv(*sizes, _KERNEL, rngs=rngs) for sizes in pairwise(widths)])
        # the fast variance is a difference of squares, which loses that of nearly equal channels
        self.norms = nnx.List([nnx.LayerNorm(width, use_fast_variance=False, rngs=rngs) for width in widths[1:]])
        self.hidden = nnx.Linear(2 * config.width + _BESIDE, 2 * config.width, rngs=rngs)
        self.output = nnx.Linear(2 * config.width, config.n_genotypes, rngs=rngs)
        self.evidence = nnx.Linear(config.width, config.n_genotypes, rngs=rngs)
        for last in (self.evidence, self.output):
            last.kernel[...] = _FIRST_CORRECTION * last.kernel[...]
        self.softness = Softness(config.temperature)

    def compute(
        self,
        pileup_image: Float[Array, "*sites rows window channels"],
        image_mask: Bool[Array, "*sites rows"] | None = None,
        call_posteriors: Float[Array, "*sites genotypes"] | None = None,
        variant_kind: Float[Array, "*sites kinds"] | None = None,
    ) -> ClassifiedGenotypes:
        """Return logits, posteriors and qualities."""
        pixels = middle_columns(pileup_image, self.config.columns)
        mask = jnp.ones(pixels.shape[:-2], bool) if image_mask is None else image_mask
        shown = mask[..., None, None]
        hidden = self.convolutions[0](jnp.where(shown, pixels, 0.0))
        for convolution, norm in zip(list(self.convolutions)[1:], list(self.norms)[:-1], strict=True):
            hidden = hidden + convolution(jnp.where(shown, jax.nn.gelu(norm(hidden)), 0.0))
        hidden = jnp.where(shown, jax.nn.gelu(self.norms[-1](hidden)), 0.0)
        n_rows = mask.sum(-1, keepdims=True).astype(hidden.dtype)
        of_columns = hidden.sum(-3) / jnp.maximum(n_rows, 1.0)[..., None]
        kind = jnp.zeros((*mask.shape[:-1], 3), hidden.dtype) if variant_kind is None else variant_kind
        middle = self.config.columns // 2
        seen = jnp.concatenate([of_columns[..., middle, :], of_columns.mean(-2), jnp.log1p(n_rows), kind], axis=-1)
        evidence = jnp.where(mask[..., None], self.evidence(hidden[..., middle, :]), 0.0).sum(-2)
        corrections = self.output(jax.nn.gelu(self.hidden(seen)))
        return corrected_genotypes(corrections + evidence, call_posteriors, softness=self.softness())
