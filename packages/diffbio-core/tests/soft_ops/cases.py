"""All functions of soft_ops that relax something, with their modes, methods and limits: what several tests run through.

Every case works along the last axis of `x`, rows in front; a second argument (y, q, k, bounds) is fixed.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from diffbio.core import soft_ops

FAMILIES = {
    "safe math": "sqrt log arcsin arccos div norm",
    "elementwise": "sigmoidal softrelu heaviside sign abs relu clip round",
    "comparison": "greater greater_equal less less_equal equal not_equal isclose",
    "logical": "logical_not logical_and logical_or logical_xor all any",
    "selection": "where take_along_axis take choose dynamic_index_in_dim dynamic_slice_in_dim dynamic_slice",
    "ordering": "argmax argmin max min argsort sort rank top_k top_k_mask",
    "quantile": "argquantile quantile argmedian median argpercentile percentile",
    "straight-through": "st grad_replace abs_st argmax_st argmedian_st argmin_st argpercentile_st argquantile_st "
    "argsort_st clip_st equal_st greater_equal_st greater_st heaviside_st isclose_st less_equal_st less_st max_st "
    "median_st min_st not_equal_st percentile_st quantile_st rank_st relu_st round_st sign_st sort_st top_k_mask_st "
    "top_k_st",
}
"""The names of the 79 primitives."""

SOFT_MODES = ("smooth", "c0", "c1", "c2")
A, B, ATOL, K, Q, P = -0.55, 0.45, 0.25, 3, 0.3, 80.0
"""The fixed arguments: bounds of clip, tolerance of isclose, k of top-k, q of quantile and p of percentile."""


class Case(NamedTuple):
    """One function, along the last axis.

    Attributes:
        name: Of the function; the two results of `top_k` are "top_k" and "top_k indices".
        soft: Takes (x, softness, mode, method=None, **options), options being keyword arguments of the function, or
            `form`, a suffix of its name: "_st" calls the straight-through form instead.
        limit: Of x; what soft modes give as softness -> 0, in numpy: at ties as documented.
        hard: Of x; what mode hard gives, from jnp, lax or scipy.
        methods: The soft modes of each method; {None: ...} if there is no choice.
        distances: Of x; the distances between what is decided upon, which the softness must be far below.
        result: "entries" (one per entry of x), "value" (one per row) or "places" (one per place of an order).
        index: Whether each result is a distribution over the entries of the row.
    """

    name: str
    soft: Callable[..., jax.Array]
    limit: Callable[[np.ndarray], Any]
    hard: Callable[[Any], Any]
    methods: dict[str | None, tuple[str, ...]]
    distances: Callable[[np.ndarray], np.ndarray]
    result: str
    index: bool = False

    @property
    def competing(self) -> bool:
        """Whether the entries of a row are compared with each other, and not each with its threshold."""
        return self.distances is _pairs

    def combinations(self) -> Iterator[tuple[str, str | None]]:
        """Yield each soft mode with each method that has it."""
        for method, modes in self.methods.items():
            yield from ((mode, method) for mode in modes)


def other(x):
    """Return the y that comparisons compare `x` with."""
    return jnp.roll(jnp.asarray(x), 1, axis=-1)


def softness_far_below(case: Case, x: np.ndarray) -> float:
    """Return 1e-6 of the smallest distance that is not 0."""
    distances = np.abs(case.distances(np.asarray(x, np.float64)))
    return 1e-6 * float(np.min(distances, where=distances > 0, initial=1.0))


def _soft(name: str, *fixed: Any, **more: Any) -> Callable[..., Any]:
    def soft(x, softness, mode, method=None, form="", **options):
        chosen = {} if method is None else {"method": method}
        function = getattr(soft_ops, name + form)
        return function(x, *fixed, softness=softness, mode=mode, **chosen, **more, **options)

    return soft


def _compared(name: str) -> Callable[..., Any]:
    more = {"rtol": 0.0, "atol": ATOL} if name == "isclose" else {}

    def soft(x, softness, mode, method=None, form="", **options):
        assert method is None
        return getattr(soft_ops, name + form)(x, other(x), softness=softness, mode=mode, **more, **options)

    return soft


def _pairs(x: np.ndarray) -> np.ndarray:
    return x[..., :, None] - x[..., None, :]


def _row_share(x: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """Return for each picked value the distribution over the entries equal to it."""
    equal = (x[..., None, :] == picked[..., :, None]).astype(float)
    return equal / equal.sum(-1, keepdims=True)


def _between(q: float, n: int) -> tuple[int, int, float]:
    """Return the two places next to a quantile and the share of the second."""
    place = q * (n - 1)
    return int(place), min(int(place) + 1, n - 1), place - int(place)


def _quantile_share(x: np.ndarray, q: float) -> np.ndarray:
    low, high, share = _between(q, x.shape[-1])
    pair = _row_share(x, np.sort(x, axis=-1)[..., [low, high]])
    return (1 - share) * pair[..., 0, :] + share * pair[..., 1, :]


def _hard_quantile_share(x: Any, q: float) -> Any:
    """Return the weights of the two entries next to the quantile, each the first that equals it."""
    low, high, share = _between(q, x.shape[-1])
    ascending = jnp.sort(x, axis=-1)
    first, second = (_one_hot(jnp.argmax(x == ascending[..., at, None], axis=-1), x) for at in (low, high))
    return (1 - share) * first + share * second


def _membership(x: np.ndarray) -> np.ndarray:
    pivot = np.sort(x, axis=-1)[..., -K, None]
    room = (K - (x > pivot).sum(-1, keepdims=True)) / (x == pivot).sum(-1, keepdims=True)
    return (x > pivot) + (x == pivot) * room


def _first_k(x: Any) -> Any:
    return _one_hot(jax.lax.top_k(x, K)[1], x).sum(-2)


def _one_hot(index: Any, x: Any) -> Any:
    return jax.nn.one_hot(index, x.shape[-1])


def _entry_case(name: str, hard: Callable, distances: Callable, limit: Callable | None = None, *fixed: Any) -> Case:
    return Case(name, _soft(name, *fixed), limit or hard, hard, {None: SOFT_MODES}, distances, "entries")


def _comparison_case(name: str, hard: Callable, at_tie: float, atol: float = 0.0) -> Case:
    def truth(x):
        return hard(x, other(x)).astype(float)

    def limit(x):
        return np.where(x == np.asarray(other(x)), at_tie, truth(x))

    def distances(x):
        return np.abs(x - np.roll(x, 1, axis=-1)) - atol

    return Case(name, _compared(name), limit, truth, {None: SOFT_MODES}, distances, "entries")


def _extreme_index_case(name: str, extreme: Callable, hard: Callable) -> Case:
    def limit(x):
        return _row_share(x, extreme(x, axis=-1, keepdims=True))[..., 0, :]

    def one_hot(x):
        return _one_hot(hard(x, axis=-1), x)

    return Case(name, _soft(name, -1), limit, one_hot, _NO_CHOICE, _pairs, "value", index=True)


def _heaviside(x):
    return jnp.heaviside(x, 0.5)


def _stairs(x: np.ndarray) -> np.ndarray:
    return np.where(x % 1 == 0.5, x, np.round(x))


_BY_ROW = {"softsort": SOFT_MODES, "neuralsort": SOFT_MODES}
_ARGSORT = {**_BY_ROW, "sinkhorn": ("smooth",)}
_SORT = {**_ARGSORT, "permutahedron": ("smooth", "c0")}
_RANK = {"prefix": ("smooth",), "pairwise": SOFT_MODES, "permutahedron": ("smooth", "c0")}
_EXTREME = {"logsumexp": SOFT_MODES, "mean": SOFT_MODES}
_QUANTILE = {"threshold": SOFT_MODES, **_BY_ROW}
_NO_CHOICE = {None: SOFT_MODES}


def _quantile_cases(value: str, share: float, *fixed: float) -> list[Case]:
    def hard(x):
        return jnp.quantile(x, share, axis=-1)

    def limit(x):
        return _quantile_share(x, share)

    def hard_share(x):
        return _hard_quantile_share(x, share)

    index = f"arg{value}"
    return [
        Case(index, _soft(index, *fixed, axis=-1), limit, hard_share, _QUANTILE, _pairs, "value", index=True),
        Case(value, _soft(value, *fixed, axis=-1), hard, hard, _QUANTILE, _pairs, "value"),
    ]


def _descending(x: np.ndarray) -> np.ndarray:
    return -np.sort(-x, axis=-1)


def _top_k(part: int) -> Callable[..., Any]:
    whole = _soft("top_k", K)
    return lambda *args, **options: whole(*args, **options)[part]


CASES = [
    _entry_case("sigmoidal", _heaviside, lambda x: x),
    _entry_case("softrelu", jax.nn.relu, lambda x: x),
    _entry_case("heaviside", _heaviside, lambda x: x),
    _entry_case("sign", jnp.sign, lambda x: x),
    _entry_case("abs", jnp.abs, lambda x: x),
    _entry_case("relu", jax.nn.relu, lambda x: x),
    _entry_case("clip", lambda x: jnp.clip(x, A, B), lambda x: np.stack([x - A, x - B]), None, A, B),
    _entry_case("round", jnp.round, lambda x: x % 1 - 0.5, _stairs),
    _comparison_case("greater", jnp.greater, 0.5),
    _comparison_case("greater_equal", jnp.greater_equal, 0.5),
    _comparison_case("less", jnp.less, 0.5),
    _comparison_case("less_equal", jnp.less_equal, 0.5),
    _comparison_case("equal", jnp.equal, 1.0),
    _comparison_case("not_equal", jnp.not_equal, 0.0),
    _comparison_case("isclose", lambda x, y: jnp.isclose(x, y, rtol=0.0, atol=ATOL), 1.0, ATOL),
    _extreme_index_case("argmax", np.max, jnp.argmax),
    _extreme_index_case("argmin", np.min, jnp.argmin),
    Case("max", _soft("max", -1), lambda x: x.max(-1), lambda x: jnp.max(x, axis=-1), _EXTREME, _pairs, "value"),
    Case("min", _soft("min", -1), lambda x: x.min(-1), lambda x: jnp.min(x, axis=-1), _EXTREME, _pairs, "value"),
    Case(
        "argsort",
        _soft("argsort"),
        lambda x: _row_share(x, np.sort(x, axis=-1)),
        lambda x: _one_hot(jnp.argsort(x, axis=-1), x),
        _ARGSORT,
        _pairs,
        "places",
        index=True,
    ),
    Case("sort", _soft("sort"), lambda x: np.sort(x, axis=-1), lambda x: jnp.sort(x, axis=-1), _SORT, _pairs, "places"),
    Case(
        "rank",
        _soft("rank"),
        lambda x: scipy.stats.rankdata(x, axis=-1),
        lambda x: scipy.stats.rankdata(x, axis=-1),
        _RANK,
        _pairs,
        "entries",
    ),
    Case(
        "top_k",
        _top_k(0),
        lambda x: _descending(x)[..., :K],
        lambda x: jax.lax.top_k(x, K)[0],
        _BY_ROW,
        _pairs,
        "places",
    ),
    Case(
        "top_k indices",
        _top_k(1),
        lambda x: _row_share(x, _descending(x)[..., :K]),
        lambda x: _one_hot(jax.lax.top_k(x, K)[1], x),
        _BY_ROW,
        _pairs,
        "places",
        index=True,
    ),
    Case("top_k_mask", _soft("top_k_mask", K), _membership, _first_k, _NO_CHOICE, _pairs, "entries"),
    *_quantile_cases("quantile", Q, Q),
    *_quantile_cases("median", 0.5),
    *_quantile_cases("percentile", P / 100, P),
    Case(
        "cumulative_max",
        _soft("cumulative_max"),
        lambda x: np.maximum.accumulate(x, axis=-1),
        lambda x: jax.lax.cummax(x, axis=x.ndim - 1),
        _NO_CHOICE,
        _pairs,
        "entries",
    ),
    Case(
        "cumulative_min",
        _soft("cumulative_min"),
        lambda x: np.minimum.accumulate(x, axis=-1),
        lambda x: jax.lax.cummin(x, axis=x.ndim - 1),
        _NO_CHOICE,
        _pairs,
        "entries",
    ),
]
