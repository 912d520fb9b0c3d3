"""What holding an operator to a law can say: violated, or not applicable; silence means kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

RTOL = 1e-4  # of float32 rounding that two orders of the same arithmetic may add up to


class LawViolation(AssertionError):  # noqa: N818 - the word that reports use
    """An operator breaks a law.

    Args:
        law: The name of the law.
        operator: The name of the operator's class.
        seen: What was observed.
        mend: What its author should do about it.
        key: The data key, parameter or configuration field concerned, if one is.

    Example:
        >>> print(LawViolation("keeps_float32", "Scaling", "became float64", "use x.dtype", "scaled"))
        keeps_float32 (Scaling, 'scaled'): became float64
          To mend it: use x.dtype
    """

    def __init__(self, law: str, operator: str, seen: str, mend: str, key: str | None = None) -> None:
        where = operator if key is None else f"{operator}, {key!r}"
        super().__init__(f"{law} ({where}): {seen}\n  To mend it: {mend}")
        self.law, self.operator, self.seen, self.mend, self.key = law, operator, seen, mend, key


class NotApplicable(Exception):  # noqa: N818 - no error
    """A law says nothing about this operator; the message says why."""


def deviation(expected: ArrayLike, actual: ArrayLike, *, rtol: float = RTOL, atol: float = 0.0) -> str | None:
    """Return how two arrays differ, in words, or `None` where they agree.

    Args:
        expected: Any shape and dtype.
        actual: The array to compare with it.
        rtol: Allowed difference where either holds floats, relative to the element and to the largest element of
            `expected`: where values of 1000 stand, cancellation may leave 0.01 in place of a zero.
        atol: Allowed absolute difference of floats, beside `rtol`.

    Example:
        >>> deviation(np.ones(3), np.array([1.0, 1.0, 1.5]))
        'differs by 0.5 at (2,): 1.5, not 1'
    """
    wanted, given = np.asarray(expected), np.asarray(actual)
    if wanted.shape != given.shape:
        return f"has shape {given.shape}, not {wanted.shape}"
    if not np.issubdtype(np.result_type(wanted, given), np.floating):
        unequal = wanted != given
        error = unequal.astype(float)
    else:
        wanted, given = wanted.astype(np.float64), given.astype(np.float64)
        finite = np.abs(wanted[np.isfinite(wanted)])
        allowed = atol + rtol * (np.abs(wanted) + finite.max(initial=0.0))
        with np.errstate(invalid="ignore"):
            error = np.abs(given - wanted)
            same = (given == wanted) | (np.isnan(given) & np.isnan(wanted))
            unequal = ~same & ~(error <= allowed)
    if not unequal.any():
        return None
    shown = np.where(unequal, np.nan_to_num(error, nan=np.inf), -1.0)
    place = np.unravel_index(np.argmax(shown), shown.shape)
    at = f" at {tuple(map(int, place))}" if place else ""
    return f"differs by {error[place]:.3g}{at}: {given[place]:.6g}, not {wanted[place]:.6g}"


def require_close(
    law: str,
    operator: str,
    expected: Mapping[str, ArrayLike],
    actual: Mapping[str, ArrayLike],
    *,
    seen: str,
    mend: str,
    atol: float = 0.0,
    rtol: float = RTOL,
) -> None:
    """Compare arrays by name.

    Args:
        law: The name of the law that wants them equal.
        operator: The name of the operator.
        expected: Named arrays.
        actual: Arrays under the same names; further ones are ignored.
        seen: Follows the deviation in the message: `under jit`.
        mend: What the author should do where they differ.
        atol: See `deviation`.
        rtol: See `deviation`.

    Raises:
        LawViolation: An array is missing or differs.
    """
    for key, array in expected.items():
        if key not in actual:
            raise LawViolation(law, operator, f"is missing {seen}", mend, key)
        difference = deviation(array, actual[key], rtol=rtol, atol=atol)
        if difference:
            raise LawViolation(law, operator, f"{difference} {seen}", mend, key)
