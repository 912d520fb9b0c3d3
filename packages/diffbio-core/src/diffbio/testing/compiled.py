"""A pytest plugin, `-p diffbio.testing.compiled`: lets go of compiled programs in long runs of tests.

Every program that JAX compiles holds several maps of memory until it is forgotten. Linux grants a process 65,530
(`vm.max_map_count`); a run of some thousand tests that compile gets there, upon which the process dies without a word.
"""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

MOST_MAPS = 20_000
"""Maps of memory beyond which compiled programs are forgotten; one file of tests may add some ten thousand."""

_MAPS = Path("/proc/self/maps")


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forget all compiled programs between two files if the process holds many maps of memory."""
    if nextitem is None or nextitem.path == item.path or not _MAPS.exists():
        return
    with _MAPS.open("rb") as maps:
        if sum(1 for _ in maps) > MOST_MAPS:
            jax.clear_caches()
