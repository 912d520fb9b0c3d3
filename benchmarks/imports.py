"""CPU seconds that importing diffbio and listing its operators take, each in a fresh process."""

from __future__ import annotations

import subprocess

from benchmarks.measure import Figure, interleaved, publish, run_child

_SOFT_OPS = "from diffbio.core import soft_ops"
_JAX = "import jax"
_OPERATOR = "from diffbio.operators.singlecell import SoftKMeansClustering"
_OPERATOR_NEEDS = "import jax, flax.nnx, datarax.core.operator"
_LISTING = ("-m", "diffbio.cli", "operators")
_REPEATS = 5


def main() -> None:
    """Measure and publish."""
    commands = [*(("-c", code) for code in (_SOFT_OPS, _JAX, _OPERATOR, _OPERATOR_NEEDS)), _LISTING, ("-c", "")]
    for command in commands:
        run_child(*command)  # bytecode is written and files are read into the cache
    costs = interleaved([lambda command=command: run_child(*command).cpu_seconds for command in commands], _REPEATS)
    soft_ops, jax, operator, operator_needs, listing, _ = costs
    figures = [
        Figure("`from diffbio.core import soft_ops` above `import jax`", soft_ops - jax, "CPU s", limit=1.5),
        Figure("`diffbio operators`", listing, "CPU s", limit=0.5),
        Figure("modules of jax that `diffbio operators` imports", _jax_modules(), "", limit=0),
        Figure("importing an operator, over jax, flax and datarax alone", operator / operator_needs, "x", limit=1.5),
    ]
    names = [_SOFT_OPS, _JAX, _OPERATOR, _OPERATOR_NEEDS, "diffbio operators", "an empty program"]
    publish("imports", figures, {"cpu_seconds": dict(zip(names, costs, strict=True))})


def _jax_modules() -> int:
    """Return how many modules of jax the listing imports, as Python itself reports it."""
    lines = run_child("-X", "importtime", *_LISTING, errors=subprocess.STDOUT).output.splitlines()
    modules = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    return sum(module.split(".")[0] in ("jax", "jaxlib") for module in modules)


if __name__ == "__main__":
    main()
