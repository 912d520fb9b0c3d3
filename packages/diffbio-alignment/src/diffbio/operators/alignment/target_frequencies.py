"""The probabilities of aligned letters that a substitution matrix stands for.

Any matrix S of scores, with chances q of letters, is one of log-odds in some unit: the pairs of letters that it scores
best are those with the target frequencies p[a,b] = q[a] q[b] exp(lambda S[a,b]), where lambda > 0 makes them sum to 1.
If q is not given, there is one for which the letters of p have these same chances: q = exp(lambda S)^-1 1, whose sum
is 1 for the right lambda.

References:
    Karlin and Altschul, Methods for assessing the statistical significance of molecular sequence features by using
    general scoring schemes, PNAS 1990.
    Altschul, Amino acid substitution matrices from an information theoretic perspective, Journal of Molecular Biology
    1991.
    Yu, Wootton and Altschul, The compositional adjustment of amino acid substitution matrices, PNAS 2003.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffbio.core.errors import ConfigError

_STEPS = 100
_EXACT = 1e-10  # what the frequencies may miss 1 by


class TargetFrequencies(NamedTuple):
    """The probabilities behind a substitution matrix, float64.

    Attributes:
        pairs: Of two letters in an aligned pair (letters, letters); symmetric, of sum 1.
        background: Of letters (letters,), of sum 1.
        scale: lambda, nats per unit of the matrix.
    """

    pairs: Float[np.ndarray, "letters letters"]
    background: Float[np.ndarray, " letters"]
    scale: float

    @property
    def relative_entropy(self) -> float:
        """The mean log-odds of an aligned pair, in bits."""
        odds = self.pairs / np.outer(self.background, self.background)
        return float((self.pairs * np.log2(odds)).sum())


def target_frequencies(
    scores: Float[np.ndarray, "letters letters"], background: Float[np.ndarray, " letters"] | None = None
) -> TargetFrequencies:
    """Return the probabilities of aligned letters that a substitution matrix stands for.

    Args:
        scores: Symmetric, with a score above 0, and below 0 on average.
        background: Chances of the letters; by default those that the matrix implies.

    Returns:
        Frequencies; with the implied background, which is that of their own letters.

    Raises:
        ConfigError: No score is above 0, their mean is not below 0, or the matrix implies no background: it is
            singular, or so far rounded that a letter's chance would be below 0.

    References:
        BLAST's statistics: lambda without gaps.

    Example:
        >>> found = target_frequencies(np.where(np.eye(4) == 1, 5.0, -4.0))  # NUC.4.4
        >>> found.background.round(2).tolist(), round(float(np.diag(found.pairs).sum()), 2)
        ([0.25, 0.25, 0.25, 0.25], 0.65)
    """
    scores = np.asarray(scores, np.float64)
    if background is not None:
        q = np.asarray(background, np.float64) / np.sum(background)
        scale = _scale(scores, q)
    else:
        q, scale = _implied(scores)
    return TargetFrequencies(np.outer(q, q) * np.exp(scale * scores), q, scale)


def _scale(scores: np.ndarray, background: np.ndarray) -> float:
    """Return lambda by Newton's steps, from above: the sum is convex in it, so that none goes too far."""
    weights = np.outer(background, background)
    mean, best = (weights * scores).sum(), scores.max()
    if best <= 0 or mean >= 0:
        raise ConfigError(
            f"the best score is {best:g} and the mean score of letters by chance {mean:g}; a substitution matrix has a "
            "best score above 0 and a mean below 0"
        )
    scale = -np.log(weights[scores == best].sum()) / best
    for _ in range(_STEPS):
        terms = weights * np.exp(scale * scores)
        missed = terms.sum() - 1
        if abs(missed) < _EXACT:
            break
        scale -= missed / (terms * scores).sum()
    return float(scale)


def _implied(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the background that a matrix implies, and lambda, by Newton's steps."""
    ones = np.ones(len(scores))
    scale = _scale(scores, ones / len(scores))
    for _ in range(_STEPS):
        odds = np.exp(scale * scores)
        try:
            background = np.linalg.solve(odds, ones)
        except np.linalg.LinAlgError:
            break
        missed = background.sum() - 1
        if abs(missed) < _EXACT and background.min() > 0:
            return background, scale
        scale += float(missed / (background @ (odds * scores) @ background))
    raise ConfigError(
        "the substitution matrix implies no chances of letters that are all above 0; give them as background="
        "(target_frequencies), or name another matrix, such as BLOSUM62"
    )
