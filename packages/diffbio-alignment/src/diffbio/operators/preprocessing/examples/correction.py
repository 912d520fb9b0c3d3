"""The conformance examples of error correction: reads of a short genome, some with an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.preprocessing.error_correction import KmerErrorCorrection, KmerErrorCorrectionConfig
from diffbio.operators.preprocessing.learned_correction import LearnedErrorCorrection, LearnedErrorCorrectionConfig
from diffbio.testing import Example, Limit

_K, _SOLID, _GAIN = 5, 3.0, 2.0


def kmer_error_correction() -> Example:
    """Return six reads of 14 bases, three of them with an error, all letters somewhat uncertain."""
    config = KmerErrorCorrectionConfig(
        k=_K,
        n_kmers=64,
        min_count=_SOLID,
        min_gain=_GAIN,
        rounds=2,
        temperature=1.0,
        count_temperature=0.5,
        learnable=True,
    )
    operator = KmerErrorCorrection(config)
    reads = _reads()
    operator.initialize(reads["all"])

    def sharpen(operator: Any) -> Any:
        operator.softness.set(1e-3)
        operator.count_softness.set(1e-3)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        codes = np.asarray(reads["all"]).argmax(-1)
        words = [_canonical(read[i : i + _K]) for read in codes for i in range(len(read) - _K + 1)]
        solid = {word for word in words if words.count(word) >= _SOLID}
        fixed = [_corrected(read, solid) for read in np.asarray(data["reads"]).argmax(-1)]
        return {"corrected_reads": np.eye(4, dtype=np.float32)[np.stack(fixed)]}

    return Example(operator, {"reads": reads["some"]}, limit=Limit(sharpen, reference, atol=1e-4))


def learned_error_correction() -> Example:
    """Return the same reads, with qualities, before training."""
    config = LearnedErrorCorrectionConfig(k=_K, n_kmers=64, n_hidden=8, count_temperature=0.5)
    operator = LearnedErrorCorrection(config, rngs=nnx.Rngs(0))
    reads = _reads()
    operator.initialize(reads["all"])
    qualities = np.random.default_rng(1).uniform(5, 38, (6, 14)).astype(np.float32)
    return Example(
        operator,
        {"reads": reads["some"], "qualities": qualities},
        exempt={"limit_is_hard_reference": "relaxes no hard algorithm"},
    )


def _reads() -> dict[str, jnp.ndarray]:
    random = np.random.default_rng(3)
    genome = random.integers(0, 4, 20)
    starts = np.repeat([0, 2, 4, 6], 4)
    codes = genome[starts[:, None] + np.arange(14)]
    some = codes[[0, 5, 9, 14, 3, 12]].copy()
    for read, place in ((0, 6), (1, 3), (2, 10)):
        some[read, place] = (some[read, place] + 1 + read) % 4
    noise = random.dirichlet(np.ones(4), some.shape)
    letters = (0.97 * np.eye(4)[some] + 0.03 * noise).astype(np.float32)
    both = np.concatenate([np.eye(4, dtype=np.float32)[codes], letters])
    return {"all": jnp.asarray(both), "some": jnp.asarray(letters)}


def _canonical(word: np.ndarray) -> tuple[int, ...]:
    return min(tuple(word.tolist()), tuple((3 - word[::-1]).tolist()))


def _corrected(read: np.ndarray, solid: set[tuple[int, ...]]) -> np.ndarray:
    """Return a read corrected base by base, by the words as they were before the round."""
    for strict in (True, False):
        before, read = read, read.copy()
        for place in range(len(read)):
            starts = range(max(0, place - _K + 1), min(place, len(read) - _K) + 1)
            votes = np.zeros(4)
            for letter in range(4):
                changed = before.copy()
                changed[place] = letter
                votes[letter] = sum(_canonical(changed[i : i + _K]) in solid for i in starts)
            best = int(votes.argmax())
            enough = votes[best] - votes[before[place]] >= _GAIN
            if enough and (not strict or votes[best] == len(starts)):
                read[place] = best
    return read
