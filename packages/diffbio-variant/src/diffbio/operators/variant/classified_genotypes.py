"""What classifiers of sites have in common: the columns that they see, and the genotypes that they correct."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.errors import ContractError
from diffbio.operators.variant.call_quality import phred_of_the_best

_LEAST = 1e-12  # of probabilities, so that their logarithms are finite


class ClassifiedGenotypes(NamedTuple):
    """What the classifier believes; genotypes by the number of copies of the variant.

    Attributes:
        classifier_logits: Before the softmax (*sites, genotypes).
        classifier_posteriors: Probabilities (*sites, genotypes).
        classifier_qualities: Phred-scaled probability that the most probable genotype is wrong (*sites,).
    """

    classifier_logits: Float[Array, "*sites genotypes"]
    classifier_posteriors: Float[Array, "*sites genotypes"]
    classifier_qualities: Float[Array, "*sites"]


def corrected_genotypes(
    corrections: Float[Array, "*sites genotypes"],
    call_posteriors: Float[Array, "*sites genotypes"] | None = None,
    *,
    softness: ArrayLike = 1.0,
) -> ClassifiedGenotypes:
    """Return what is believed after a network has corrected a model of the reads.

    Args:
        corrections: Added to the log-posteriors.
        call_posteriors: What the model believes; without one the corrections are the logits.
        softness: tau > 0.

    Returns:
        Logits, posteriors and qualities.

    Raises:
        ContractError: The model has another number of genotypes.

    Example:
        >>> corrected_genotypes(jnp.zeros(3), jnp.array([0.25, 0.5, 0.25])).classifier_posteriors.tolist()
        [0.25, 0.5, 0.25]
    """
    logits = corrections
    if call_posteriors is not None:
        if call_posteriors.shape[-1] != corrections.shape[-1]:
            raise ContractError(
                f"call_posteriors has {call_posteriors.shape[-1]} genotypes, and the classifier "
                f"{corrections.shape[-1]}; set n_genotypes in its configuration"
            )
        logits = logits + jnp.log(jnp.maximum(call_posteriors, _LEAST))
    soft = logits / softness
    return ClassifiedGenotypes(logits, jax.nn.softmax(soft, axis=-1), phred_of_the_best(soft))


def middle_columns(
    images: Float[Array, "*sites rows window channels"], n_columns: int
) -> Float[Array, "*sites rows columns channels"]:
    """Return the columns around the middle of a window.

    Args:
        images: Pixels.
        n_columns: How many columns, odd.

    Returns:
        The same pixels, of these columns alone.

    Raises:
        ContractError: The window has fewer.

    Example:
        >>> middle_columns(jnp.arange(5.0)[None, :, None], 3)[0, :, 0].tolist()
        [1.0, 2.0, 3.0]
    """
    window = images.shape[-2]
    if window < n_columns:
        raise ContractError(f"the window has {window} columns, and the classifier {n_columns}; set its columns")
    first = (window - n_columns) // 2
    return images[..., first : first + n_columns, :]
