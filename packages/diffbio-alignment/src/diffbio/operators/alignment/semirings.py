"""Semirings: what "plus" and "times" mean in a recurrence, and with it what the recurrence computes.

| semiring | plus, times | the recurrence gives |
|---|---|---|
| `LOG` | log-sum-exp, + | log of the sum over all alignments of exp(score) |
| `MAX` | max, + | the best score |
| `COUNT` | +, x | how many alignments there are, if every weight is 1 |

References:
    Goodman, Semiring parsing, Computational Linguistics 1999.
    Mensch and Blondel, Differentiable dynamic programming for structured prediction and attention, ICML 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NEVER = -1e30
"""Log-weight of what must not be: finite, so that differences of two of them have no NaN, and far below any score."""


class Semiring(NamedTuple):
    """Two operations and their neutral elements.

    Attributes:
        plus: Joins alternatives.
        times: Joins what happens together.
        zero: Neutral for `plus`.
        one: Neutral for `times`.
        total: `plus` over all entries of an array.
    """

    plus: Callable[[Array, Array], Array]
    times: Callable[[Array, Array], Array]
    zero: float
    one: float
    total: Callable[[Array], Array]


def log_add(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log(exp(x) + exp(y)) of finite numbers; one exponential and one logarithm.

    Example:
        >>> round(float(log_add(jnp.log(2.0), jnp.log(3.0)) - jnp.log(5.0)), 6)
        0.0
    """
    return jnp.maximum(x, y) + jnp.log(1 + jnp.exp(-jnp.abs(x - y)))


LOG = Semiring(log_add, jnp.add, NEVER, 0.0, jax.nn.logsumexp)
MAX = Semiring(jnp.maximum, jnp.add, NEVER, 0.0, jnp.max)
COUNT = Semiring(jnp.add, jnp.multiply, 0.0, 1.0, jnp.sum)
