"""Trimming of adapters (cutadapt), which are found with mismatches, indels and partly at the end of a read.

Hard: of all alignments of the adapter with the read that have at most error_rate times the aligned adapter bases as
errors and at least min_overlap of these, the one with the best score (match 1, mismatch -1, indel -2); an occurrence
that begins more than half an adapter further to the left counts more than a better one. The read is cut where the
adapter begins. Relaxed, with the soft best alignment that begins at each base s (`adapter_recurrence`),

    a_s = w_s sigmoid((error_rate counted_s - errors_s) / tau) sigmoid((overlap_s - min_overlap + 1/2) / tau)
    b_s = a_s times the product of 1 - a_t sigmoid((score_t - score_s) / tau) over the t near s
    P(adapter begins at s) = b_s prod_{t < s} (1 - b_t)

where a is that the alignment is accepted, b that it also is the best one near itself, and P that it is the first of
these; w is the weight with which the base has been kept so far. A base is kept with the probability that the adapter
begins behind it. Of several adapters that wins which no other beats, likewise. As tau -> 0 this is the hard rule. A 5'
adapter is the same in the read turned round.

References:
    Martin, Cutadapt removes adapter sequences from high-throughput sequencing reads, EMBnet.journal 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.errors import ConfigError, DataError
from diffbio.io.sequence.alphabets import DNA, encode
from diffbio.operators.preprocessing.adapter_recurrence import Adapter, Occurrences, adapter_occurrences
from diffbio.operators.preprocessing.kept_bases import HALF_A_UNIT, first_true, kept_until, starting_weights

_ROUNDING = 0.005
"""Errors may be exactly as many as allowed: so far above that they count as allowed, however the product is rounded."""

_HARDLY_ANY = 1e-18
"""Probability of an adapter below which its score does not matter, nor can the square of it be divided by."""

_LEFTMOST = 0.1
"""What the last position costs beside the score, so that of equally good alignments the first is the best."""


@dataclass(frozen=True, kw_only=True)
class AdapterTrimmingConfig(OperatorConfig):
    """Adapters, and how well they must match.

    Args:
        adapters: Sequences of A, C, G, T and IUPAC codes, of which the best one in each read is trimmed.
        end: `three_prime`: the adapter and what follows goes; `five_prime`: the adapter and what comes before it.
        error_rate: Errors per aligned adapter base, below 1; N in the adapter does not count.
        min_overlap: Aligned adapter bases.
        indels: Whether bases may be missing in the read, or be there in excess.
        temperature: The softness tau, in units of the score, which are bases, above 0.

    Raises:
        ConfigError: There is no adapter, or one has a letter that is none.
    """

    adapters: tuple[str, ...]
    end: Literal["three_prime", "five_prime"] = "three_prime"
    error_rate: Annotated[float, Ge(0), Lt(1)] = 0.1
    min_overlap: Annotated[int, Ge(1)] = 3
    indels: bool = True
    temperature: Annotated[float, Gt(0)] = 0.25

    def __post_init__(self) -> None:
        """Check each field, then that the adapters are sequences."""
        super().__post_init__()
        if not self.adapters:
            raise ConfigError("AdapterTrimmingConfig.adapters is empty; give a sequence, such as 'AGATCGGAAGAGC'")
        try:
            encode(self.adapters, DNA)
        except DataError as error:
            raise ConfigError(f"AdapterTrimmingConfig.adapters: {error}") from error


class AdaptersTrimmed(NamedTuple):
    """How far each base is kept, and whether there was an adapter.

    Attributes:
        base_weights: From 0 to 1 (*reads, positions).
        adapter_found: Probability (*reads,).
    """

    base_weights: Float[Array, "*reads positions"]
    adapter_found: Float[Array, "*reads"]


class AdapterPlace(NamedTuple):
    """Where an adapter begins in a read.

    Attributes:
        begin: Probability that it begins at each position (positions,); the rest is that there is none.
        score: Mean score of what is found, in bases ().
    """

    begin: Float[Array, " positions"]
    score: Float[Array, ""]


def adapter_place(
    found: Occurrences,
    weights: Float[Array, " positions"],
    size: Int[Array, ""],
    *,
    error_rate: ArrayLike,
    min_overlap: ArrayLike,
    n_near: int,
    softness: ArrayLike,
    leftmost: bool = True,
) -> AdapterPlace:
    """Return where an adapter begins, by its best alignments from each position on.

    Args:
        found: Alignments, by `adapter_occurrences`.
        weights: With which each base is kept (positions,).
        size: Number of adapter bases.
        error_rate: Errors per aligned adapter base.
        min_overlap: Aligned adapter bases; at most `size` is asked for.
        n_near: Largest half of an adapter: how far competition may reach.
        softness: tau > 0, in bases.
        leftmost: Whether the first of several occurrences counts. If not, the last does, and is beaten by a longer one
            that is anywhere before it.

    Returns:
        Distribution over the positions, and score.

    Example:
        >>> matches = jnp.array([0.0, 4.0, 0.0, 3.0])
        >>> found = Occurrences(score=matches, errors=jnp.zeros(4), counted=matches, overlap=matches)
        >>> options = {"error_rate": 0.1, "min_overlap": 3, "n_near": 1, "softness": 0.01}
        >>> adapter_place(found, jnp.ones(4), jnp.array(4), **options).begin.round(2).tolist()
        [0.0, 1.0, 0.0, 0.0]
    """
    n_positions = len(weights)
    allowed = (error_rate * found.counted - found.errors + _ROUNDING) / softness
    long = (found.overlap - jnp.minimum(min_overlap, size) + HALF_A_UNIT) / softness
    accepted = weights * jax.nn.sigmoid(allowed) * jax.nn.sigmoid(long)
    further = jnp.arange(n_positions, dtype=weights.dtype) * (_LEFTMOST / n_positions)
    score = found.score + (-further if leftmost else further)

    reach = n_near if leftmost else n_positions - 1
    rivals = [jnp.pad(values, reach) for values in (accepted, score, found.overlap)]

    def compete(unbeaten: Array, at: Array) -> tuple[Array, None]:
        there, other, overlap = (lax.dynamic_slice_in_dim(values, at + reach, n_positions) for values in rivals)
        beats = there * jax.nn.sigmoid((other - score) / softness)
        near = (jnp.abs(at) <= size // 2) & (at != 0)
        if leftmost:
            return unbeaten * jnp.where(near, 1 - beats, 1.0), None
        longer = jnp.where(at < 0, jax.nn.sigmoid((overlap - found.overlap - HALF_A_UNIT) / softness), 0.0)
        return unbeaten * jnp.where(at == 0, 1.0, 1 - beats * jnp.where(near, 1.0, longer)), None

    unbeaten, _ = lax.scan(compete, jnp.ones_like(score), jnp.arange(-reach, reach + 1))
    best = accepted * unbeaten
    begin = first_true(best) if leftmost else jnp.flip(first_true(jnp.flip(best, -1)), -1)
    total = begin.sum()
    some = total > _HARDLY_ANY
    return AdapterPlace(begin, jnp.where(some, (begin * found.score).sum() / jnp.where(some, total, 1.0), 0.0))


@partial(jax.jit, static_argnames=("indels", "leftmost"))
def adapters_kept(
    read: Float[Array, "positions letters"],
    weights: Float[Array, " positions"],
    adapters: Adapter,
    *,
    error_rate: ArrayLike,
    min_overlap: ArrayLike,
    softness: ArrayLike,
    indels: bool = True,
    leftmost: bool = True,
) -> AdaptersTrimmed:
    """Return the probability that each base of a read is before the best of several adapters.

    Args:
        read: Distributions over the letters (positions, letters).
        weights: With which each base is kept so far, 0 to 1; 0 beyond the end (positions,).
        adapters: What is sought, each array with a leading axis (adapters, ...).
        error_rate: Errors per aligned adapter base.
        min_overlap: Aligned adapter bases.
        softness: tau > 0, in bases.
        indels: Whether bases may be missing in the read, or be there in excess.
        leftmost: Whether the first of several occurrences counts, or the last.

    Returns:
        Probabilities, to multiply the weights by (positions,), and that of any adapter (). Time and memory of gradients
        grow as adapters x (positions + bases) x bases.

    References:
        In the limit `cutadapt -a`.

    Example:
        >>> adapters = adapter_arrays(("ACG",))
        >>> read = jnp.eye(4)[jnp.array([3, 3, 0, 1, 2, 3])]  # TTACGT
        >>> options = {"error_rate": 0.1, "min_overlap": 3, "softness": 0.01}
        >>> adapters_kept(read, jnp.ones(6), adapters, **options).base_weights.round(2).tolist()
        [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    softness = jnp.asarray(softness, read.dtype)

    def place(adapter: Adapter) -> AdapterPlace:
        found = adapter_occurrences(read, weights, adapter, indels=indels, softness=softness)
        return adapter_place(
            found,
            weights,
            adapter.size,
            error_rate=error_rate,
            min_overlap=min_overlap,
            n_near=adapters.letters.shape[1] // 2,
            softness=softness,
            leftmost=leftmost,
        )

    places = jax.vmap(place)(adapters)
    each = places.begin.sum(-1)
    earlier = jnp.arange(len(each), dtype=read.dtype) * (_LEFTMOST / len(each))
    score = places.score - earlier
    beats = each * jax.nn.sigmoid((score - score[:, None]) / softness) * (1 - jnp.eye(len(each), dtype=read.dtype))
    begin = ((1 - beats).prod(1)[:, None] * places.begin).sum(0)
    return AdaptersTrimmed(kept_until(begin), begin.sum())


def adapter_arrays(adapters: tuple[str, ...], *, reverse: bool = False) -> Adapter:
    """Return adapters as arrays, side by side.

    Args:
        adapters: Sequences of A, C, G, T and IUPAC codes.
        reverse: Whether from their last base to the first, as 5' adapters are sought.

    Example:
        >>> adapter_arrays(("AN", "C")).counted.tolist()
        [[1.0, 0.0], [1.0, 0.0]]
    """
    encoded = encode([adapter[::-1] if reverse else adapter for adapter in adapters], DNA)
    letters = (encoded.letters > 0).astype(np.float32)
    counted = (letters.any(-1) & ~letters.all(-1)).astype(np.float32)
    return Adapter(jnp.asarray(letters), jnp.asarray(counted), jnp.asarray(encoded.lengths))


class AdapterTrimming(Operator[AdapterTrimmingConfig]):
    """Drops adapters, and what is behind (or before) them.

    Reads `reads` (*reads, positions, letters), distributions over A, C, G, T, and optionally `read_lengths` (*reads,)
    and the `base_weights` (*reads, positions) of earlier trimmers; writes `base_weights` and `adapter_found` (*reads,).

    Args:
        config: Adapters, and how well they must match.
        rngs: Not used: nothing is drawn.

    Example:
        >>> trimmer = AdapterTrimming(AdapterTrimmingConfig(adapters=("AGATCGG",), temperature=0.01))
        >>> data, _, _ = trimmer.apply({"reads": encode(["TTCAGATC"], DNA).letters}, {}, None)
        >>> data["base_weights"].round(2).tolist()
        [[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, config: AdapterTrimmingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        arrays = adapter_arrays(config.adapters, reverse=config.end == "five_prime")
        self.letters, self.counted, self.sizes = (nnx.Variable(array) for array in arrays)
        self.softness = Softness(config.temperature)

    def compute(
        self,
        reads: Float[Array, "*reads positions letters"],
        read_lengths: Int[Array, "*reads"] | None = None,
        base_weights: Float[Array, "*reads positions"] | None = None,
    ) -> AdaptersTrimmed:
        """Return the weights of the bases, and how likely each read has an adapter."""
        config, leftmost = self.config, self.config.end == "three_prime"
        weights = starting_weights(reads[..., 0], read_lengths, base_weights)
        inputs = (reads, weights) if leftmost else (jnp.flip(reads, -2), jnp.flip(weights, -1))
        trim = partial(
            adapters_kept,
            adapters=Adapter(self.letters[...], self.counted[...], self.sizes[...]),
            error_rate=config.error_rate,
            min_overlap=config.min_overlap,
            softness=self.softness(),
            indels=config.indels,
            leftmost=leftmost,
        )
        for _ in weights.shape[:-1]:
            trim = jax.vmap(trim)
        kept, found = trim(*inputs)
        return AdaptersTrimmed(weights * (kept if leftmost else jnp.flip(kept, -1)), found)
