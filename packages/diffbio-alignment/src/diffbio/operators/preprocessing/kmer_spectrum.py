"""The k-mer spectrum of reads: how often each word of k bases, or its reverse complement, was read.

Words are held as sorted numbers, two bits to a base, so that k up to 15 fits into 32 bits and a look-up is a binary
search. A word and its reverse complement are one, the one with the smaller number.

References:
    Liu, Schroeder and Schmidt, Musket: a multistage k-mer spectrum-based error corrector for Illumina sequence data,
    Bioinformatics 2013.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import soft_ops
from diffbio.core.errors import DataError

_NO_WORD = np.iinfo(np.int32).max
_UNSEEN = 0.5
"""Count of a word that is not in the spectrum: it has a logarithm, below that of any word seen."""


class Spectrum(NamedTuple):
    """Words and their counts.

    Attributes:
        words: Numbers of the words, sorted, the largest integer behind the last one (kmers,).
        log_counts: Natural logarithms of their counts (kmers,).
    """

    words: Int[Array, " kmers"]
    log_counts: Float[Array, " kmers"]


class Evidence(NamedTuple):
    """What the words that cover a base say of each letter in its place.

    Attributes:
        votes: How many of them are solid (positions, letters).
        covering: How many there are (positions,).
        left: Whether the word that ends at the base is solid (positions, letters).
        right: Whether the word that begins at the base is solid (positions, letters).
    """

    votes: Float[Array, "positions letters"]
    covering: Float[Array, " positions"]
    left: Float[Array, "positions letters"]
    right: Float[Array, "positions letters"]


def bases_of(
    read: Float[Array, "*reads positions letters"], weights: Float[Array, "*reads positions"]
) -> tuple[Int[Array, "*reads positions"], Bool[Array, "*reads positions"]]:
    """Return the likeliest letter of each base, 0 for A, and which bases are kept and not N.

    Args:
        read: Distributions over A, C, G, T (*reads, positions, 4).
        weights: With which each base is kept, 0 to 1 (*reads, positions).
    """
    return read.argmax(-1).astype(jnp.int32), (read.max(-1) > 0.5) & (weights > 0.5)


def counted_words(
    codes: Int[Array, "reads positions"], known: Bool[Array, "reads positions"], k: int, *, size: int
) -> Spectrum:
    """Return the spectrum of reads; words that were read only once are left out.

    Args:
        codes: Letters, 0 for A (reads, positions).
        known: Which bases count; a word needs all of its (reads, positions).
        k: Bases of a word, from 1 to 15 and at most the positions of a read.
        size: Room for words.

    Raises:
        DataError: Reads are shorter than words, or more words were read than there is room for.

    Example:
        >>> codes = jnp.array([[0, 1, 2], [0, 1, 2]])
        >>> spectrum = counted_words(codes, codes >= 0, 3, size=2)
        >>> int(spectrum.words[0]), round(float(jnp.exp(spectrum.log_counts[0])), 3)  # ACG, or CGT
        (6, 2.0)
    """
    if codes.shape[1] < k:
        raise DataError(f"reads of {codes.shape[1]} positions have no word of {k} bases; choose a smaller k")
    windows, whole = (np.lib.stride_tricks.sliding_window_view(np.asarray(x), k, axis=1) for x in (codes, known))
    forward = (windows.astype(np.int64) << 2 * np.arange(k - 1, -1, -1)).sum(-1)
    backward = ((3 - windows.astype(np.int64)) << 2 * np.arange(k)).sum(-1)
    words, counts = np.unique(np.minimum(forward, backward)[whole.all(-1)], return_counts=True)
    words, counts = words[counts > 1], counts[counts > 1]
    if len(words) > size:
        raise DataError(
            f"{len(words):,} words occur more than once in the reads, and there is room for {size:,}; raise n_kmers"
        )
    room = size - len(words)
    return Spectrum(
        jnp.asarray(np.pad(words, (0, room), constant_values=_NO_WORD), jnp.int32),
        jnp.asarray(np.pad(np.log(counts), (0, room)), jnp.float32),
    )


def no_words(size: int) -> Spectrum:
    """Return a spectrum without words, such as operators have before they have seen reads.

    Args:
        size: Room for words.
    """
    return Spectrum(jnp.full(size, _NO_WORD, jnp.int32), jnp.zeros(size))


def least_solid_count(spectrum: Spectrum) -> float:
    """Return the count from which on words are taken for solid: the valley between errors and the genome.

    Args:
        spectrum: Counts of words.

    Returns:
        The first count, from 2 on, that no more words have than the next one; at most 1000.

    Example:
        >>> counts = np.repeat([2, 3, 4, 5, 6], [9, 4, 1, 3, 8])
        >>> least_solid_count(Spectrum(jnp.arange(25), jnp.log(jnp.asarray(counts))))
        4.0
    """
    real = np.asarray(spectrum.words) != _NO_WORD
    counts = np.rint(np.exp(np.asarray(spectrum.log_counts, np.float64)))[real].astype(int)
    histogram = np.bincount(np.minimum(counts, 1001), minlength=1002)
    valley = np.flatnonzero(histogram[2:1001] <= histogram[3:1002])
    return float(valley[0] + 2)


def log_counts_of(spectrum: Spectrum, words: Int[Array, "..."]) -> Float[Array, "..."]:
    """Return the log counts of words, log 0.5 for those that are not in the spectrum.

    Args:
        spectrum: Counts of words.
        words: Numbers of any shape.
    """
    place = jnp.minimum(jnp.searchsorted(spectrum.words, words), len(spectrum.words) - 1)
    unseen = jnp.log(jnp.asarray(_UNSEEN, spectrum.log_counts.dtype))
    return jnp.where(spectrum.words[place] == words, spectrum.log_counts[place], unseen)


def evidence(
    codes: Int[Array, " positions"],
    known: Bool[Array, " positions"],
    spectrum: Spectrum,
    log_threshold: ArrayLike,
    *,
    k: int,
    softness: ArrayLike,
) -> Evidence:
    """Return what the words that cover each base say of each of the four letters in its place.

    Args:
        codes: Letters, 0 for A (positions,).
        known: Which bases count; a word needs all of its but the one in question (positions,).
        spectrum: Counts of words.
        log_threshold: Natural logarithm of the count from which on a word is solid.
        k: Bases of a word.
        softness: Of that comparison, above 0, in units of the logarithm.

    Returns:
        Votes and number of words; time as positions x 4 k look-ups.
    """
    n_positions = len(codes)
    offsets = jnp.arange(k)
    places = jnp.clip(jnp.arange(n_positions)[:, None] + offsets, 0, n_positions - 1)
    forward = (codes[places] << 2 * (k - 1 - offsets)).sum(-1, dtype=jnp.int32)
    backward = ((3 - codes[places]) << 2 * offsets).sum(-1, dtype=jnp.int32)
    unknown = (~known[places]).sum(-1)
    letters = jnp.arange(4, dtype=jnp.int32)

    def look_up(offset: Array) -> tuple[Array, Array]:
        begin = jnp.arange(n_positions) - offset
        at = jnp.clip(begin, 0, n_positions - 1)
        inside = (begin >= 0) & (begin + k <= n_positions) & (unknown[at] == ~known)
        change = letters - codes[:, None]
        words = jnp.minimum(
            forward[at][:, None] + (change << 2 * (k - 1 - offset)), backward[at][:, None] - (change << 2 * offset)
        )
        solid = soft_ops.greater(log_counts_of(spectrum, words), log_threshold, softness=softness)
        return solid * inside[:, None], inside.astype(solid.dtype)

    def add(total: tuple[Array, Array], offset: Array) -> tuple[tuple[Array, Array], None]:
        solid, inside = look_up(offset)
        return (total[0] + solid, total[1] + inside), None

    zeros = jnp.zeros((n_positions, 4), spectrum.log_counts.dtype)
    (votes, covering), _ = lax.scan(jax.checkpoint(add), (zeros, zeros[:, 0]), offsets)
    return Evidence(votes, covering, look_up(jnp.asarray(k - 1))[0], look_up(jnp.asarray(0))[0])
