"""100,000 cells through a trainable pipeline, from memory and from disk, beside scanpy and scikit-learn.

Each way runs in a process of its own, whose whole CPU time and peak memory count: imports, reading, initialization
(which diffbio does on 20,000 of the cells, scanpy on all), one epoch in minibatches, the accuracy on held-out cells.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Child, Figure, publish, run_child

_CELLS, _GENES = 100_000, 2_000
_GIGABYTES = 4.0


@dataclass(frozen=True)
class _Way:
    """A way from counts to cell types: what its process cost, and what it reported."""

    child: Child
    report: dict[str, Any]

    @property
    def rate(self) -> float:
        """Cells per CPU second of the training epoch."""
        return self.report["cells"] / self.report["epoch"]["cpu_seconds"]


def main() -> None:
    """Simulate, run the three ways, and publish."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cells.h5ad")
        simulated = run_child("-m", "benchmarks.workers.counts", path, str(_CELLS), str(_GENES))
        memory = _run("with_diffbio", path, "memory")
        disk = _run("with_diffbio", path, "disk")
        scanpy = _run("with_scanpy", path)
    figures = [
        Figure("peak memory, file in memory", memory.child.peak_gigabytes, "GB", limit=_GIGABYTES),
        Figure("peak memory, file on disk", disk.child.peak_gigabytes, "GB", limit=_GIGABYTES),
        Figure("peak memory over scanpy's", _ratio(memory, scanpy, "peak_gigabytes"), "x"),
        Figure("CPU time of the whole run, file in memory, over scanpy's", _ratio(memory, scanpy, "cpu_seconds"), "x"),
        Figure("CPU time of the whole run, file on disk, over scanpy's", _ratio(disk, scanpy, "cpu_seconds"), "x"),
        Figure("training epoch, file in memory", memory.rate, "cells per CPU s"),
        Figure("training epoch, file on disk", disk.rate, "cells per CPU s"),
        Figure("accuracy on held-out cells", memory.report["accuracy"], ""),
        Figure("accuracy on held-out cells, scanpy and scikit-learn", scanpy.report["accuracy"], ""),
    ]
    details = {
        "cells": _CELLS,
        "genes": _GENES,
        "share_above_zero": float(simulated.output),
        "diffbio, file in memory": _details(memory),
        "diffbio, file on disk": _details(disk),
        "scanpy and scikit-learn": _details(scanpy),
    }
    publish("scale", figures, details)


def _run(program: str, *arguments: str) -> _Way:
    child = run_child("-m", f"benchmarks.workers.{program}", *arguments)
    return _Way(child, json.loads(child.output))


def _ratio(ours: _Way, theirs: _Way, field: str) -> float:
    return getattr(ours.child, field) / getattr(theirs.child, field)


def _details(way: _Way) -> dict[str, Any]:
    cpu, wall, peak, _ = way.child
    return {"cpu_seconds": cpu, "wall_seconds": wall, "peak_gigabytes": peak, **way.report}


if __name__ == "__main__":
    main()
