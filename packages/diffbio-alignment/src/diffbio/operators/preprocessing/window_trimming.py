"""Trimming of reads by the mean quality of sliding windows (`fastp --cut_front`, `--cut_tail`, `--cut_right`).

Hard: from the 5' end, the first window whose mean quality reaches the threshold; what is before its last base is
dropped, and nothing where it is the first window of the read. From the 3' end likewise. To the right, the first window
whose mean is below the threshold; what follows from the first bad base in it on is dropped. Relaxed, windows pass
independently with

    P(first = i) = v_i g_i prod_{j < i} (1 - v_j g_j)        g_i = sigmoid((mean_i - threshold) / tau)

where v is the probability that all of a window, and the base behind it, is kept so far. As tau -> 0 this is the hard
rule. As in fastp, the last window that would fit is not looked at, the N at the cut ends go too, of a read no longer
than a window nothing is kept, and of one without a good window nothing from the 5' end, but one base from the 3' end.

References:
    Chen, Zhou, Chen and Gu, fastp: an ultra-fast all-in-one FASTQ preprocessor, Bioinformatics 2018.
    Bolger, Lohse and Usadel, Trimmomatic: a flexible trimmer for Illumina sequence data, Bioinformatics 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.preprocessing.kept_bases import (
    HALF_A_UNIT,
    certainty,
    first_from,
    first_true,
    kept_from,
    kept_until,
    starting_weights,
    windowed_mean,
)
from diffbio.operators.preprocessing.quality_trimming import TrimmedBases


@dataclass(frozen=True, kw_only=True)
class WindowTrimmingConfig(OperatorConfig):
    """Thresholds of the windows.

    Args:
        front: Mean quality of the first window that is kept from the 5' end on, Phred; `None` leaves that end.
        tail: The same from the 3' end.
        right: Mean quality below which a window ends the read, Phred; `None` for none.
        window_size: Bases of a window.
        temperature: The softness tau, Phred, above 0.
        learnable: Whether training changes the thresholds.

    Raises:
        ConfigError: There is no threshold, or both `tail` and `right`, which both find the end.
    """

    front: float | None = None
    tail: float | None = None
    right: float | None = None
    window_size: Annotated[int, Ge(1)] = 4
    temperature: Annotated[float, Gt(0)] = 1.0
    learnable: bool = False

    def __post_init__(self) -> None:
        """Check each field, then that there is a threshold, and one at most for the end."""
        super().__post_init__()
        if self.front is None and self.tail is None and self.right is None:
            raise ConfigError("WindowTrimmingConfig has no threshold; give front, tail or right")
        if self.tail is not None and self.right is not None:
            raise ConfigError(
                f"WindowTrimmingConfig has tail={self.tail} and right={self.right}, which both find the end; give one"
            )


def windows_kept(
    qualities: Float[Array, "*reads positions"],
    weights: Float[Array, "*reads positions"],
    unknown: Float[Array, "*reads positions"],
    threshold: ArrayLike,
    *,
    window_size: int,
    end: Literal["front", "tail", "right"],
    softness: ArrayLike,
) -> Float[Array, "*reads positions"]:
    """Return the probability that each base stays when a read is trimmed by windows from the 5' end on.

    Args:
        qualities: Phred (*reads, positions).
        weights: With which each base has been kept so far, 0 to 1; 0 beyond the end (*reads, positions).
        unknown: Probability that a base is N (*reads, positions).
        threshold: Mean quality, Phred.
        window_size: Bases of a window.
        end: `front` drops what is before the first good window, `right` what is behind the first bad one; `tail` is
            `front` for a read turned round, but of one without a good window it keeps the last base.
        softness: tau > 0, Phred.

    Returns:
        Probabilities (*reads, positions), to multiply the weights by.

    Raises:
        ContractError: There are no more positions than a window has.

    References:
        In the limit fastp's.

    Example:
        >>> qualities, options = jnp.array([2.0, 2.0, 30.0, 30.0, 2.0, 2.0]), {"window_size": 2, "softness": 0.01}
        >>> windows_kept(qualities, jnp.ones(6), jnp.zeros(6), 20.0, end="front", **options).round(2).tolist()
        [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    """
    if qualities.shape[-1] <= window_size:
        raise ContractError(
            f"reads have {qualities.shape[-1]} positions and a window {window_size}; use smaller windows or pad reads"
        )
    whole = weights[..., :-window_size] * weights[..., window_size:]
    means = windowed_mean(qualities[..., :-1], window_size) + HALF_A_UNIT / window_size
    good = soft_ops.greater(means, threshold, softness=softness)
    found = whole * (1 - good if end == "right" else good)
    at = first_true(found)
    begins, missing = first_true(whole), jnp.zeros_like(weights[..., :window_size])
    if end == "right":
        over = soft_ops.greater(qualities + HALF_A_UNIT, threshold, softness=softness)
        stop = first_from(jnp.concatenate([at, missing], -1), over)
        return kept_until(stop) * begins.sum(-1, keepdims=True)
    at_once = found * jnp.concatenate(
        [jnp.ones_like(whole[..., :1]), jnp.cumprod(1 - whole, axis=-1)[..., :-1]], axis=-1
    )
    moved = jnp.concatenate([missing[..., 1:], at - at_once, missing[..., :1]], -1)
    begin = jnp.concatenate([at_once, missing], -1) + moved
    if end == "tail":
        last = jnp.flip(first_true(jnp.flip(weights, -1)), -1)
        begin = begin + last * (begins - at).sum(-1, keepdims=True)
    return kept_from(first_from(begin, unknown))


class WindowTrimming(Operator[WindowTrimmingConfig]):
    """Drops the ends of reads, or all from the first bad window on, by the mean quality of windows.

    Reads `qualities` (*reads, positions), Phred, and optionally `reads` (*reads, positions, letters), so that N at the
    cut ends go, `read_lengths` (*reads,) and the `base_weights` (*reads, positions) of earlier trimmers; writes
    `base_weights`. Parameters, if learnable: the thresholds `front`, `tail` and `right`.

    Args:
        config: Thresholds and size of the windows.
        rngs: Not used: nothing is drawn.

    Example:
        >>> trimmer = WindowTrimming(WindowTrimmingConfig(right=20.0, window_size=2, temperature=0.01))
        >>> data, _, _ = trimmer.apply({"qualities": jnp.array([[30.0, 31.0, 25.0, 2.0, 2.0, 2.0]])}, {}, None)
        >>> data["base_weights"].round(2).tolist()
        [[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, config: WindowTrimmingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.front = None if config.front is None else kind(jnp.float32(config.front))
        self.tail = None if config.tail is None else kind(jnp.float32(config.tail))
        self.right = None if config.right is None else kind(jnp.float32(config.right))
        self.softness = Softness(config.temperature)

    def compute(
        self,
        qualities: Float[Array, "*reads positions"],
        reads: Float[Array, "*reads positions letters"] | None = None,
        read_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
    ) -> TrimmedBases:
        """Return the weights of the bases; the end is sought in what is kept of the front."""
        weights = starting_weights(qualities, read_lengths, base_weights)
        unknown = jnp.zeros_like(qualities) if reads is None else 1 - certainty(reads)
        inputs = (qualities, weights, unknown)
        if self.front is not None:
            weights = weights * self._kept(inputs, self.front, "front")
        if self.right is not None:
            weights = weights * self._kept((qualities, weights, unknown), self.right, "right")
        if self.tail is not None:
            turned = tuple(jnp.flip(values, -1) for values in (qualities, weights, unknown))
            weights = weights * jnp.flip(self._kept(turned, self.tail, "tail"), -1)
        return TrimmedBases(weights)

    def _kept(
        self, inputs: tuple[Array, ...], threshold: nnx.Variable, end: Literal["front", "tail", "right"]
    ) -> Array:
        qualities, weights, unknown = inputs
        return windows_kept(
            qualities,
            weights,
            unknown,
            threshold[...],
            window_size=self.config.window_size,
            end=end,
            softness=self.softness(),
        )
