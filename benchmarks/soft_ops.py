"""CPU time and memory of soft_ops, value and gradient, beside SoftJAX: growth with n, compilation, softness.

SoftJAX offers several methods for most functions, and the figures compare with the fastest. A method that is many
times slower than another at one size is not run at larger ones, nor one that needs more than 2 seconds or 2 GB there;
compiling `sorting_network` takes 2 to 10 seconds. SoftJAX standardizes its input, as it does by default; both have
softness 0.1. Its methods `ot` and `smooth_sort` are left out: they solve an optimization problem per call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import softjax

from benchmarks.growth import draw_growth
from benchmarks.measure import RESULTS, Compilations, Figure, cpu_seconds, interleaved, on_one_core, publish
from diffbio.core import soft_ops

SIZES = (128, 1024, 16_384, 131_072, 1_048_576)
BAR_SIZE = 16_384
K = 50
SOFTNESS = 0.1
REPEATS = 7
_SECONDS_PER_MEASUREMENT = 0.02
_SLOW = 1.0  # seconds; noise evens out within a longer call, which is not repeated
_NOISE = 0.15  # of an exponent of growth between two sizes

mpl.use("agg")


class Rival(NamedTuple):
    """A method of SoftJAX, and the largest n at which it is run."""

    call: Callable[..., Any]
    most: int


class Run(NamedTuple):
    """A compiled function: what measures the CPU seconds of one call, and what XLA allocates for it."""

    seconds: Callable[[], float]
    temporary_bytes: int


class Task(NamedTuple):
    """A function of soft_ops in its variants, the first of which is the default, and what it is compared with."""

    ours: dict[str, Callable[..., Any]]
    theirs: dict[str, Rival]
    ratio_limit: float | None = None
    milliseconds_limit: float | None = None
    sizes: tuple[int, ...] = SIZES


def _with_modes(function: Callable[..., Any], **methods: dict[str, str]) -> dict[str, Callable[..., Any]]:
    modes = {mode: partial(function, softness=SOFTNESS, mode=mode) for mode in ("smooth", "c0", "c1", "c2")}
    return modes | {name: partial(function, softness=SOFTNESS, **options) for name, options in methods.items()}


def _soft(function: Callable[..., Any], method: str, most: int, **options: Any) -> Rival:
    return Rival(partial(function, softness=SOFTNESS, method=method, **options), most)


def _order(function: Callable[..., Any], network: int) -> dict[str, Rival]:
    return {
        "fast_soft_sort": _soft(function, "fast_soft_sort", 131_072),
        "fast_soft_sort, c0": _soft(function, "fast_soft_sort", 131_072, mode="c0"),
        "softsort": _soft(function, "softsort", 1024),
        "neuralsort": _soft(function, "neuralsort", 1024),
        "sorting_network": _soft(function, "sorting_network", network),
    }


def _quantile(function: Callable[..., Any]) -> dict[str, Rival]:
    return {
        "softsort": _soft(function, "softsort", SIZES[-1]),
        "fast_soft_sort": _soft(function, "fast_soft_sort", 16_384),
        "neuralsort": _soft(function, "neuralsort", 1024),
        "sorting_network": _soft(function, "sorting_network", 16_384),
    }


def _index(function: Callable[..., Any], most: int, **more: int) -> dict[str, Rival]:
    methods = {"softsort": most, "neuralsort": 1024, "sorting_network": 128} | more
    return {method: _soft(function, method, largest) for method, largest in methods.items()}


_TOP_K_METHODS = {"softsort": SIZES[-1], "fast_soft_sort": 16_384, "neuralsort": 1024, "sorting_network": 16_384}
_KL, _L2 = {"method": "permutahedron", "mode": "smooth"}, {"method": "permutahedron", "mode": "c0"}
TASKS = {
    "sort": Task(
        _with_modes(soft_ops.sort, **{"permutahedron, KL": _KL, "permutahedron, L2": _L2}),
        _order(softjax.sort, 131_072),
        ratio_limit=1.0,
        milliseconds_limit=6.0,
    ),
    "rank": Task(
        _with_modes(soft_ops.rank, **{"permutahedron, KL": _KL, "permutahedron, L2": _L2}),
        _order(softjax.rank, 128),
        ratio_limit=1.0,
        milliseconds_limit=20.0,
    ),
    "median": Task(_with_modes(soft_ops.median), _quantile(softjax.median), 0.5, 3.0),
    "quantile": Task(
        {name: partial(call, q=0.95) for name, call in _with_modes(soft_ops.quantile).items()},
        {name: Rival(partial(rival.call, q=0.95), rival.most) for name, rival in _quantile(softjax.quantile).items()},
        ratio_limit=0.5,
    ),
    "top_k": Task(
        {name: lambda x, call=call: call(x, K).values for name, call in _with_modes(soft_ops.top_k).items()},
        {
            method: Rival(lambda x, method=method: softjax.top_k(x, K, softness=SOFTNESS, method=method)[0], most)
            for method, most in _TOP_K_METHODS.items()
        },
        ratio_limit=0.5,
    ),
    "top_k_mask": Task(
        {name: partial(call, k=K) for name, call in _with_modes(soft_ops.top_k_mask).items()}, {}, None, 2.0
    ),
    "max": Task(_with_modes(soft_ops.max), _index(softjax.max, SIZES[-1], fast_soft_sort=1024)),
    "argmax": Task(_with_modes(soft_ops.argmax), _index(softjax.argmax, SIZES[-1])),
    "argsort": Task(_with_modes(soft_ops.argsort), _index(softjax.argsort, 1024), sizes=(128, 1024)),
}


def main() -> None:
    """Measure every function, publish and draw."""
    rows = {name: [_measured(task, n) for n in task.sizes] for name, task in TASKS.items()}
    batched = {name: _batched(task) for name, task in TASKS.items() if name != "argsort"}
    compiled = {name: _compile_seconds(task) for name, task in TASKS.items()}
    figures = list(_figures(rows, batched, compiled))
    details = {"rows": rows, "batched 64 x 1000": batched, "compile_cpu_seconds": compiled}
    publish("soft_ops", figures, details)
    draw_growth(rows, RESULTS / "soft_ops.png")


def value_and_gradient(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled value and gradient of the sum of squares of the result."""
    return jax.jit(jax.value_and_grad(lambda x: jnp.sum(call(x) ** 2)))


def _measured(task: Task, n: int) -> dict[str, Any]:
    """Return CPU seconds and bytes of each variant at one size, and of each method of SoftJAX that can do it."""
    x = _normals(n)
    names = [name for name in task.ours if n <= BAR_SIZE or name in ("smooth", "permutahedron, L2")]
    ours = {name: _run(task.ours[name], x) for name in names}
    theirs = {name: _run(rival.call, x) for name, rival in task.theirs.items() if n <= rival.most}
    seconds = interleaved([run.seconds for run in (*ours.values(), *theirs.values())], REPEATS)
    return {
        "n": n,
        "soft_ops": dict(zip(ours, seconds, strict=False)),
        "softjax": dict(zip(theirs, seconds[len(ours) :], strict=True)),
        "temporary_bytes": {
            "soft_ops": {name: run.temporary_bytes for name, run in ours.items()},
            "softjax": {name: run.temporary_bytes for name, run in theirs.items()},
        },
    }


def _batched(task: Task) -> dict[str, float]:
    """Return the CPU seconds on 64 rows of 1,000, of the default and of SoftJAX's methods that are not quadratic."""
    x = _normals(64, 1000)
    calls = {"soft_ops": task.ours["smooth"]}
    calls |= {name: rival.call for name, rival in task.theirs.items() if rival.most >= BAR_SIZE}
    runs = [_run(jax.vmap(call), x) for call in calls.values()]
    return dict(zip(calls, interleaved([run.seconds for run in runs], REPEATS), strict=True))


def _run(call: Callable[..., Any], x: jax.Array) -> Run:
    """Return what measures the value and gradient of a function: the mean of as many calls as take a while."""
    run = value_and_gradient(call)
    jax.block_until_ready(run(x))
    once = cpu_seconds(lambda: jax.block_until_ready(run(x)))
    times = max(1, min(200, math.ceil(_SECONDS_PER_MEASUREMENT / max(once, 1e-6))))

    def seconds() -> float:
        return cpu_seconds(lambda: [jax.block_until_ready(run(x)) for _ in range(times)]) / times

    memory = run.lower(x).compile().memory_analysis()  # of the program that is there: nothing is compiled again
    return Run(seconds if once < _SLOW else lambda: once, memory.temp_size_in_bytes)


def _compile_seconds(task: Task) -> float:
    """Return the CPU seconds from the function to its first result, less those of a second one."""
    jax.clear_caches()
    jax.block_until_ready(value_and_gradient(jnp.cumsum)(_normals(8)))  # what a process pays once
    x = _normals(min(BAR_SIZE, task.sizes[-1]))
    run = value_and_gradient(task.ours["smooth"])
    first, second = (cpu_seconds(lambda: jax.block_until_ready(run(x))) for _ in range(2))
    return first - second


def _recompilations() -> int:
    """Return how many programs are compiled when the softness of compiled functions changes."""
    x = _normals(128)
    arguments = {"quantile": (0.95,), "top_k": (K,), "top_k_mask": (K,)}

    def squares(x: jax.Array, softness: float, name: str) -> jax.Array:
        result = getattr(soft_ops, name)(x, *arguments.get(name, ()), softness=softness)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(result))

    runs = [jax.jit(jax.value_and_grad(partial(squares, name=name))) for name in TASKS]
    for run in runs:
        jax.block_until_ready(run(x, 0.1))
    with Compilations() as compilations:
        for run in runs:
            jax.block_until_ready(run(x, 0.2))
    return compilations.count()


def _figures(rows: dict, batched: dict, compiled: dict) -> Iterator[Figure]:
    at_bar = {name: row for name, found in rows.items() for row in found if row["n"] == BAR_SIZE}
    for name, row in at_bar.items():
        task, ours = TASKS[name], row["soft_ops"]["smooth"]
        if row["softjax"]:
            method = min(row["softjax"], key=row["softjax"].get)
            what = f"{name}, value and gradient at n = {BAR_SIZE:,}, over SoftJAX ({method})"
            yield Figure(what, ours / row["softjax"][method], "x", limit=task.ratio_limit)
        if task.milliseconds_limit:
            what = f"{name}, value and gradient at n = {BAR_SIZE:,}"
            yield Figure(what, 1e3 * ours, "CPU ms", limit=task.milliseconds_limit)
    for name, found in batched.items():
        rivals = [seconds for method, seconds in found.items() if method != "soft_ops"]
        if rivals:
            yield Figure(f"{name} of 64 x 1,000, over SoftJAX's best", found["soft_ops"] / min(rivals), "x")
    slowest = max(compiled, key=compiled.get)
    yield Figure(f"compilation of value and gradient, the worst ({slowest})", compiled[slowest], "CPU s", limit=2.0)
    first, last = BAR_SIZE, SIZES[-1]
    linearithmic = math.log(last * math.log(last) / (first * math.log(first))) / math.log(last / first)
    growth = {
        name: math.log(found[-1]["soft_ops"]["smooth"] / at_bar[name]["soft_ops"]["smooth"]) / math.log(last / first)
        for name, found in rows.items()
        if name in at_bar
    }
    steepest = max(growth, key=growth.get)
    what = f"exponent of time from n = {first:,} to {last:,}, the worst ({steepest}); n log n is {linearithmic:.2f}"
    yield Figure(what, growth[steepest], "", limit=linearithmic + _NOISE)
    memory = {name: {row["n"]: row["temporary_bytes"]["soft_ops"]["smooth"] for row in rows[name]} for name in growth}
    slopes = {name: math.log(found[last] / found[first]) / math.log(last / first) for name, found in memory.items()}
    steepest = max(slopes, key=slopes.get)
    yield Figure(
        f"exponent of temporary memory over the same range, the worst ({steepest})", slopes[steepest], "", 1.05
    )
    hungriest = max(memory, key=lambda name: memory[name][last])
    what = f"temporary memory per entry at n = {last:,}, the most ({hungriest})"
    yield Figure(what, memory[hungriest][last] / last, "bytes")
    yield Figure("compilations when a softness changes", _recompilations(), "", limit=0)
    yield Figure("largest relative difference to SoftJAX at softness 1e-6", _difference_in_the_limit(), "", limit=1e-5)


def _difference_in_the_limit() -> float:
    """Return how far both are apart where both are hard, relative to the largest value of each result, at least 1."""
    x, options = _normals(200), {"softness": 1e-6}
    pairs = [
        (soft_ops.sort(x, **options), softjax.sort(x, method="softsort", **options)),
        (soft_ops.rank(x, **options), softjax.rank(x, method="softsort", descending=False, **options)),
        (soft_ops.median(x, **options), softjax.median(x, method="softsort", **options)),
        (soft_ops.quantile(x, 0.3, **options), softjax.quantile(x, 0.3, method="softsort", **options)),
        (soft_ops.top_k(x, 5, **options).values, softjax.top_k(x, 5, method="softsort", **options)[0]),
        (soft_ops.max(x, **options), softjax.max(x, method="softsort", **options)),
        (soft_ops.argmax(x, **options), softjax.argmax(x, method="softsort", **options)),
    ]
    return max(
        float(jnp.max(jnp.abs(ours - theirs)) / jnp.maximum(1, jnp.max(jnp.abs(theirs)))) for ours, theirs in pairs
    )


def _normals(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


if __name__ == "__main__":
    on_one_core()
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s")
