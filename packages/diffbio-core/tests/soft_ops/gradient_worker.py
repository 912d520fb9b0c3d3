"""Gradients of `soft_ops` against central finite differences, for each function, mode, method and variant.

A program, which `test_gradients.py` runs and judges: `JAX_ENABLE_X64=1 python gradient_worker.py FAMILY` prints one
line of JSON for each combination, with the errors of its derivatives. Without x64 it prints the gradients in float32.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from diffbio.core import soft_ops

STEP = 1e-6
N_OTHERS = 2  # further inputs, for the comparison of vmap with a loop
SOFT = ("smooth", "c0", "c1", "c2")
TWICE = ("smooth", "c2")  # modes in which a step has a continuous second derivative
RAMPS = ("smooth", "c1", "c2")  # likewise for what is made of the integral of a step
MASK = np.ones((2, 9), bool)
MASK[[0, 0, 1], [2, 5, 0]] = False
LABELS = ("function", "mode", "method", "variant")
VARIANTS = {"plain": {}, "where": {"where": MASK}, "robust": {"scale": "robust"}}

Draw = Callable[[np.random.Generator], np.ndarray]


class Method(NamedTuple):
    """One method of a function: the options that choose it, its modes, and those differentiated twice."""

    options: dict[str, Any]
    modes: tuple[str, ...] = SOFT
    twice: tuple[str, ...] = ()


class Combination(NamedTuple):
    """One way to call a function, from the inputs that it is differentiated in."""

    function: str
    mode: str
    method: str
    variant: str
    call: Callable[..., Any]
    inputs: dict[str, Draw]
    twice: bool = False

    def drawn(self, seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [draw(rng) for draw in self.inputs.values()]


def normal(*shape: int, scale: float = 1.0) -> Draw:
    return lambda rng: scale * rng.normal(size=shape)


def uniform(low: float, high: float, *shape: int) -> Draw:
    return lambda rng: rng.uniform(low, high, shape)


def near(value: Any) -> Draw:
    return lambda rng: np.asarray(value) + rng.uniform(-0.02, 0.02, np.shape(value))


def shares(*shape: int) -> Draw:
    return lambda rng: rng.dirichlet(np.ones(shape[-1]), shape[:-1])


X, TRUTH = normal(2, 9), uniform(0.1, 0.9, 2, 9)
PER_ROW, WIDE = near([[0.7], [0.5]]), near([[3.0], [2.0]])
SOFTSORT, NEURALSORT = {"softsort": Method({})}, {"neuralsort": Method({"method": "neuralsort"})}
SINKHORN = {"sinkhorn": Method({"method": "sinkhorn"}, ("smooth",))}


def combinations(
    function: str,
    inputs: dict[str, Draw],
    methods: dict[str, Method],
    variants: tuple[str, ...] = ("plain",),
    *rest: Any,
    **fixed: Any,
) -> Iterator[Combination]:
    """Yield a function in each of its methods, modes and variants.

    Args:
        function: Its name.
        inputs: What it is differentiated in, in the order of its positions; `softness`, by keyword, comes last.
        methods: By name.
        variants: Names in `VARIANTS`.
        *rest: Further positional arguments.
        **fixed: Further keyword arguments.
    """

    def called(options: dict) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            by_keyword = {"softness": given[-1]} if "softness" in inputs else {}
            return getattr(soft_ops, function)(*given[: len(inputs) - len(by_keyword)], *rest, **options, **by_keyword)

        return call

    for method, (chosen, modes, twice) in methods.items():
        for mode in modes:
            for variant in variants:
                options = fixed | chosen | VARIANTS[variant] | ({"mode": mode} if mode else {})
                yield Combination(function, mode, method, variant, called(options), inputs, mode in twice)


def elementwise() -> Iterator[Combination]:
    inputs = {"x": X, "softness": near(0.7)}
    for name in ("sigmoidal", "heaviside", "sign"):
        yield from combinations(name, inputs, {"": Method({}, twice=TWICE)}, ("plain", "where"))
    for name in ("softrelu", "relu", "abs"):
        yield from combinations(name, inputs, {"": Method({}, twice=RAMPS)}, ("plain", "where"))
    bounds = {"x": X, "a": near(-0.6), "b": near(0.8), "softness": near(0.7)}
    yield from combinations("clip", bounds, {"": Method({}, twice=RAMPS)}, ("plain", "where"))
    stairs = {"x": normal(2, 9, scale=1.5), "softness": near(0.2)}
    yield from combinations("round", stairs, {"": Method({}, twice=TWICE)}, ("plain", "where"))


def comparison() -> Iterator[Combination]:
    inputs = {"x": X, "y": normal(2, 9), "softness": near(0.7)}
    for name in ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"):
        yield from combinations(name, inputs, {"": Method({}, twice=TWICE)}, ("plain", "where"))
    yield from combinations("isclose", inputs, {"": Method({}, twice=TWICE)}, ("plain", "where"), rtol=0.05, atol=0.1)


def without_mode() -> Iterator[Combination]:
    """Yield what relaxes nothing itself: safe math, logic and selection."""
    once = {"": Method({}, ("",))}
    norms = {norm: Method({"norm": norm}, ("",)) for norm in ("product", "geometric_mean")}
    yield from combinations("sqrt", {"x": uniform(0.3, 2, 9)}, once)
    yield from combinations("log", {"x": uniform(0.3, 2, 9)}, once)
    yield from combinations("arcsin", {"x": uniform(-0.9, 0.9, 9)}, once)
    yield from combinations("arccos", {"x": uniform(-0.9, 0.9, 9)}, once)
    yield from combinations("div", {"x": normal(9), "y": uniform(-2, -0.3, 9)}, once)
    yield from combinations("norm", {"x": X}, once, ("plain", "where"), axis=-1)
    yield from combinations("logical_not", {"x": TRUTH}, once)
    for name in ("logical_and", "logical_or", "logical_xor"):
        yield from combinations(name, {"x": TRUTH, "y": TRUTH}, norms)
    for name in ("all", "any"):
        yield from combinations(name, {"x": TRUTH}, norms, ("plain", "where"), axis=-1)
    yield from combinations("where", {"condition": TRUTH, "x": X, "y": X}, once)
    yield from combinations("take_along_axis", {"x": X, "index": shares(2, 3, 9)}, once)
    yield from combinations("take", {"x": X, "index": shares(3, 9)}, once, axis=1)
    yield from combinations("choose", {"index": shares(5, 4), "choices": normal(4, 5)}, once)
    yield from combinations("dynamic_index_in_dim", {"x": X, "index": shares(9)}, once, axis=1)
    yield from combinations("dynamic_slice_in_dim", {"x": X, "start": shares(9)}, once, ("plain",), 4, axis=1)
    block = {"x": X, "row": shares(2), "column": shares(9)}
    yield Combination(
        "dynamic_slice", "", "", "plain", lambda x, *starts: soft_ops.dynamic_slice(x, starts, (1, 4)), block
    )


def extrema() -> Iterator[Combination]:
    inputs = {"x": X, "softness": PER_ROW}
    for name in ("argmax", "argmin"):
        methods = {"": Method({}, twice=TWICE), "log": Method({"log": True})}
        yield from combinations(name, inputs, methods, tuple(VARIANTS), axis=-1)
    for name in ("max", "min"):
        methods = {"logsumexp": Method({}, twice=RAMPS), "mean": Method({"method": "mean"}, twice=TWICE)}
        yield from combinations(name, inputs, methods, tuple(VARIANTS), axis=-1)
    for name in ("cumulative_max", "cumulative_min"):
        yield from combinations(name, inputs, {"": Method({})}, tuple(VARIANTS))


def sort() -> Iterator[Combination]:
    for name in ("sort", "argsort"):
        yield from combinations(name, {"x": X, "softness": PER_ROW}, SOFTSORT | SINKHORN, tuple(VARIANTS))
        yield from combinations(name, {"x": X, "softness": WIDE}, NEURALSORT, tuple(VARIANTS))
    logs = {"log": Method({"log": True})}
    yield from combinations("argsort", {"x": X, "softness": PER_ROW}, logs)
    # in inverse units: 1/3 and 1/2 is less than most distances between neighbours
    permutahedron = {"permutahedron": Method({"method": "permutahedron"}, ("smooth", "c0"))}
    yield from combinations("sort", {"x": X, "softness": WIDE}, permutahedron, tuple(VARIANTS))


def top_k() -> Iterator[Combination]:
    yield from combinations("top_k", {"x": X, "softness": PER_ROW}, SOFTSORT, tuple(VARIANTS), 4)
    yield from combinations("top_k", {"x": X, "softness": WIDE}, NEURALSORT, tuple(VARIANTS), 4)


def counts() -> Iterator[Combination]:
    """Yield what counts entries on one side: ranks and top-k membership."""
    inputs = {"x": X, "softness": PER_ROW}
    methods = {
        "prefix": Method({}, ("smooth",), ("smooth",)),
        "pairwise": Method({"method": "pairwise"}, twice=TWICE),
        "permutahedron": Method({"method": "permutahedron"}, ("smooth", "c0")),
    }
    yield from combinations("rank", inputs, methods, tuple(VARIANTS))
    real_k = {"x": X, "k": near([[3.4], [2.7]]), "softness": PER_ROW}
    yield from combinations("top_k_mask", real_k, {"": Method({}, twice=TWICE)}, tuple(VARIANTS))


def quantiles(prefix: str) -> Iterator[Combination]:
    threshold = {"threshold": Method({}, twice=TWICE)}
    softsort = {"softsort": Method({"method": "softsort"})}
    # quantile and percentile compute the same, so that what is compiled for one serves both
    for name, q in (("quantile", near([0.33, 0.8])), ("percentile", near([33.0, 80.0])), ("median", None)):
        inputs = {"x": X} | ({} if q is None else {"q": q})
        for methods, softness in ((threshold | softsort, PER_ROW), (NEURALSORT, WIDE)):
            given = {**inputs, "softness": softness}
            yield from combinations(prefix + name, given, methods, tuple(VARIANTS), axis=-1)


FAMILIES: dict[str, Callable[[], Iterator[Combination]]] = {
    "elementwise": elementwise,
    "comparison": comparison,
    "without mode": without_mode,
    "extrema": extrema,
    "sort": sort,
    "top_k": top_k,
    "counts": counts,
    "quantiles": lambda: quantiles(""),
    "argquantiles": lambda: quantiles("arg"),
}


def examined(combination: Combination) -> dict:
    """Return the errors of all derivatives of one combination, each in units of the largest."""
    drawn = [combination.drawn(seed) for seed in range(1 + N_OTHERS)]
    vectors = np.stack([ravel_pytree(inputs)[0] for inputs in drawn])
    start, unravel = vectors[0], ravel_pytree(drawn[0])[1]
    way = np.random.default_rng(2).normal(size=start.size)
    loss = weighted(combination.call, drawn[0])

    def flat(vector: Any) -> jax.Array:
        return loss(*unravel(vector))

    def derivatives(vector: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        value, forward = jax.linearize(flat, vector)
        return value, jax.linear_transpose(forward, vector)(jnp.ones_like(value))[0], forward(way)

    steps = STEP * np.eye(start.size)
    points = np.concatenate([vectors, start + steps, start - steps])
    values, gradients, tangents = map(np.asarray, jax.vmap(derivatives)(points))
    ahead, behind = (slice(at, at + start.size) for at in (len(vectors), len(vectors) + start.size))
    largest = np.abs(gradients[0]).max()
    got = dict(zip(combination.inputs, unravel(gradients[0]), strict=True))
    wanted = unravel((values[ahead] - values[behind]) / (2 * STEP))
    errors = {
        **{f"in {name}": off(got[name], one, 1e-3 * largest) for name, one in zip(got, wanted, strict=True)},
        "forward mode": off(tangents, gradients @ way, largest),
        "vmap": off(values[: len(vectors)], [flat(vector) for vector in vectors]),
    }
    if combination.variant == "plain" and combination.mode in ("", "smooth"):  # each takes long to compile
        errors["jit"] = off(jax.jit(flat)(start), values[0])
    if combination.twice:
        second = jax.grad(lambda vector: jax.grad(flat)(vector) @ way)(start)
        errors["second"] = off(second, (gradients[ahead] - gradients[behind]) @ way / (2 * STEP))
    return {"errors": errors, "gradient": listed(got)}


def weighted(call: Callable[..., Any], inputs: list) -> Callable[..., jax.Array]:
    """Return the sum of all results with fixed random weights; infinite results, as of log(0), do not count."""
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=result.shape) for result in jax.tree.leaves(jax.eval_shape(call, *inputs))]

    def loss(*inputs: Any) -> jax.Array:
        results = jax.tree.leaves(call(*inputs))
        finite = [jnp.where(jnp.isfinite(result), result, 0) for result in results]
        return sum((one * weight.astype(one.dtype)).sum() for one, weight in zip(finite, weights, strict=True))

    return loss


def off(got: Any, wanted: Any, floor: float = 0.0) -> float:
    """Return the largest error in units of the largest wanted number."""
    return float(np.abs(np.subtract(got, wanted)).max() / max(np.abs(wanted).max(), floor, 1e-30))


def listed(gradient: dict) -> dict:
    return {name: np.asarray(one, float).ravel().tolist() for name, one in gradient.items()}


def in_float32(combination: Combination) -> dict:
    """Return the gradients of one combination as they are without x64."""
    inputs = [jnp.asarray(one, jnp.float32) for one in combination.drawn(0)]
    gradient = jax.grad(weighted(combination.call, inputs), tuple(range(len(inputs))))(*inputs)
    return {"gradient": listed(dict(zip(combination.inputs, gradient, strict=True)))}


if __name__ == "__main__":
    for one in FAMILIES[sys.argv[1]]():
        if jax.config.jax_enable_x64 or one.mode in ("", "smooth"):
            found = (examined if jax.config.jax_enable_x64 else in_float32)(one)
            print(json.dumps({**dict(zip(LABELS, one, strict=False)), **found}), flush=True)
