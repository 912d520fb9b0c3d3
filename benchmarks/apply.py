"""What the checked contract of an operator costs: `apply` beside the pure function that it wraps."""

from __future__ import annotations

import statistics
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, jaxprs_in_params

from benchmarks.measure import Compilations, Figure, publish
from diffbio.core.registry import registry

_CPU_SECONDS = 1.0  # spent on each operator
_FEWEST_CALLS = 20


def main() -> None:
    """Measure every registered operator on its example, and publish."""
    costs = {name: _costs(found.declaration.load_example()) for name, found in registry().operators.items()}
    worst = max(costs, key=lambda name: costs[name]["added_milliseconds"])
    unequal = [name for name, cost in costs.items() if cost["equations_apply"] != cost["equations_compute"]]
    compiling = [name for name, cost in costs.items() if cost["compilations_per_call"]]
    figures = [
        Figure(
            f"eager `apply` above `compute` per call, the worst of {len(costs)} operators ({worst})",
            costs[worst]["added_milliseconds"],
            "CPU ms",
            limit=0.5,
        ),
        Figure("operators whose compiled `apply` has other equations than `compute`", len(unequal), "", limit=0),
        Figure(
            f"operators that compile anew at each eager call ({', '.join(compiling) or 'none'})",
            len(compiling),
            "",
            limit=0,
        ),
    ]
    publish("apply", figures, costs)


def _costs(example: Any) -> dict[str, float]:
    """Return the cost of eager calls and the equations under jit, of `apply` and of `compute`."""
    operator, key = example.operator, jax.random.key(0)
    drawn = {"key": key} if operator.contract.takes_key else {}
    data = {name: jnp.asarray(array) for name, array in example.data.items()}
    ports = [port for port in operator.contract.inputs if port.key in data]

    def apply(data: dict[str, jax.Array]) -> Any:
        result, _, _ = operator.apply(data, {}, None, **drawn)
        return {name: result[name] for name in operator.contract.writes}

    def compute(data: dict[str, jax.Array]) -> Any:
        return operator.compute(**{port.parameter: data[port.key] for port in ports}, **drawn)

    equations = [_equations(jax.make_jaxpr(call)(data).jaxpr) for call in (apply, compute)]
    jax.block_until_ready(apply(data))  # what is compiled once is no cost of a call
    with Compilations() as compilations:
        added, inside = _seconds_around_compute(operator, lambda: apply(data))
    return {
        "added_milliseconds": 1e3 * statistics.median(added),
        "compute_milliseconds": 1e3 * statistics.median(inside),
        "calls": len(added),
        "compilations_per_call": compilations.count() // len(added),
        "equations_apply": equations[0],
        "equations_compute": equations[1],
    }


def _seconds_around_compute(operator: Any, apply: Any) -> tuple[list[float], list[float]]:
    """Return CPU seconds of calls of `apply` outside and inside of `compute`.

    Both are taken from the same call: the difference of two calls would drown in the noise of a slow `compute`.
    """
    pure, added, inside = operator.compute, [], []

    def timed(**inputs: Any) -> Any:
        began = time.process_time()
        outputs = jax.block_until_ready(pure(**inputs))
        inside.append(time.process_time() - began)
        return outputs

    with mock.patch.object(operator, "compute", timed):
        while len(added) < _FEWEST_CALLS or sum(added) + sum(inside) < _CPU_SECONDS:
            began = time.process_time()
            jax.block_until_ready(apply())
            added.append(time.process_time() - began - inside[-1])
    return added, inside


def _equations(jaxpr: Jaxpr) -> int:
    """Return the number of equations, those of inner functions counted."""
    return sum(1 + sum(map(_equations, jaxprs_in_params(equation.params))) for equation in jaxpr.eqns)


if __name__ == "__main__":
    main()
