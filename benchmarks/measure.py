"""What all benchmarks share: CPU time, child processes, and the file that a result is written to.

This module imports nothing heavy: a process that measures the memory of its children must be small itself, because
the peak that the system reports for a child begins with the memory of the process that started it.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

RESULTS = Path(__file__).parent / "results"

_PACKAGES = ("diffbio-core", "diffbio-singlecell", "jax", "flax", "datarax", "optax", "numpy", "scipy", "anndata")
_ALTERNATIVES = ("scanpy", "scikit-learn", "softjax")
_BYTES_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        what: What was measured, in words.
        value: The number.
        unit: Its unit; "x" for a ratio.
        limit: The bar: the largest value that is good enough; `None` where there is none.
    """

    what: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def met(self) -> bool:
        """Whether the bar is met; true where there is none."""
        return self.limit is None or self.value <= self.limit


class Child(NamedTuple):
    """What a child process cost, all of its threads counted, and what it printed."""

    cpu_seconds: float
    wall_seconds: float
    peak_gigabytes: float
    output: str


def run_child(*arguments: str, errors: int | None = None) -> Child:
    """Run Python with these arguments and wait for it.

    Args:
        *arguments: What follows `python` on the command line.
        errors: Where its standard error goes, as in `subprocess.Popen`.

    Raises:
        RuntimeError: It failed.
    """
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {process.returncode}:\n{output}")
    return Child(
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        wall_seconds=time.perf_counter() - began,
        peak_gigabytes=usage.ru_maxrss * _BYTES_OF_MAXRSS / 1e9,
        output=output,
    )


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of one call, all threads of the process counted."""
    began = time.process_time()
    call()
    return time.process_time() - began


def interleaved(calls: Sequence[Callable[[], float]], repeats: int) -> list[float]:
    """Return the median of what each call measures; the calls take turns, so that load falls on all alike."""
    rounds = [[call() for call in calls] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def on_one_core() -> None:
    """Keep this process and its children to one core; to be called before anything is loaded that has threads.

    Threads that wait in a busy loop, as those of BLAS do, count as CPU time, and the more of it the busier the
    machine is. With one core from the start there are none.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


class Compilations:
    """Counts what XLA compiles while it is entered, by the name of the compiled function."""

    def __init__(self) -> None:
        self._compiled: list[str] = []

    def __enter__(self) -> Self:
        """Begin to count."""
        import jax  # not at the top: a process that measures children stays small

        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop counting."""
        import jax

        jax.monitoring.unregister_event_duration_listener(self._listen)

    def count(self, function: str | None = None) -> int:
        """Return how many compilations there were, of all functions or of one."""
        return sum(function in (None, name) for name in self._compiled)

    def _listen(self, event: str, _: float, **details: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self._compiled.append(str(details["fun_name"]))


def publish(name: str, figures: Sequence[Figure], details: Any = None) -> None:
    """Write the result of a benchmark to `results/<name>.json`.

    Args:
        name: The benchmark.
        figures: The numbers that it is about.
        details: Whatever else was measured, as JSON.
    """
    result = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": _machine(),
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
        "details": details,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(_rounded(result), indent=2) + "\n")


def _machine() -> dict[str, Any]:
    """Return what a reader needs to judge the numbers, and nothing that tells whose machine it is."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gigabytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "load_average": os.getloadavg()[1],
        "python": platform.python_version(),
        "versions": {package: version(package) for package in (*_PACKAGES, *_ALTERNATIVES)},
    }


def _rounded(value: Any) -> Any:
    """Return a JSON value with its floats at four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
