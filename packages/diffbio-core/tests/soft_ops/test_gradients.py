"""Gradients of every function, mode and method: finite differences in float64, and float32 beside float64."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import gradient_worker
import numpy as np
import pytest

TOLERANCE = defaultdict(lambda: 1e-5, {"forward mode": 1e-9, "vmap": 1e-9, "jit": 1e-9, "float32": 1e-3})
LEAST = 1e-3  # of a gradient that is not 0 in all modes
NOT_OPTIMIZED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def printed(family, *, x64):
    """Return what the program prints; compiling takes nearly all of its time, so that optimizing is left out."""
    env = os.environ | {"JAX_ENABLE_X64": str(int(x64)), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": NOT_OPTIMIZED}
    command = [sys.executable, str(Path(gradient_worker.__file__)), family]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {" ".join(line[label] for label in gradient_worker.LABELS): line for line in lines}


def families():
    """The longest are slow; their derivatives are also looked at in the tests of each function."""
    slow = ("sort", "quantiles", "argquantiles", "extrema", "without mode", "counts", "top_k", "elementwise")
    marks = {family: pytest.mark.slow if family in slow else () for family in gradient_worker.FAMILIES}
    return [pytest.param(family, marks=mark) for family, mark in marks.items()]


@pytest.mark.parametrize("family", families())
def test_derivatives_are_right(family):
    in_float64, in_float32 = printed(family, x64=True), printed(family, x64=False)
    assert len(in_float64) == len(list(gradient_worker.FAMILIES[family]()))
    worst, largest, wrong = defaultdict(list), defaultdict(float), []
    for name, found in in_float64.items():
        if found["mode"] in ("", "smooth"):
            found["errors"]["float32"] = off(in_float32[name]["gradient"], found["gradient"])
        for check, error in found["errors"].items():
            if not error <= TOLERANCE[check]:  # NaN is wrong too
                wrong.append(f"{name}: {check} off by {error:.1e}")
        worst[found["function"]].append(max(e for check, e in found["errors"].items() if check != "float32"))
        for of, gradient in found["gradient"].items():
            key = found["function"], found["method"], of
            largest[key] = max(largest[key], np.abs(gradient).max())
    for function, errors in worst.items():
        print(f"{function}: {max(errors):.1e} ({len(errors)} combinations)")
    wrong += [f"no gradient: {' '.join(key)}" for key, magnitude in largest.items() if magnitude < LEAST]
    assert not wrong, "\n".join(wrong)


def off(got, wanted):
    """Return the largest error in any input, in units of the largest entry of its gradient."""
    floor = 1e-3 * max(np.abs(gradient).max() for gradient in wanted.values())
    return max(gradient_worker.off(got[of], wanted[of], floor) for of in wanted)
