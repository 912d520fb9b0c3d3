"""A pytest plugin, `-p diffbio.testing.compiled`: lets go of compiled programs in long runs of tests.

Every program that JAX compiles holds several maps of memory until it is forgotten. Linux grants a process 65,530
(`vm.max_map_count`); a run of some thousand tests that compile gets there, upon which the process dies without a word.
"""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

MOST_MAPS = 30_000
"""Maps of memory beyond which compiled programs are forgotten."""

INTERVAL = 20
"""Tests from one count of the maps to the next: counting takes some milliseconds."""

_MAPS = Path("/proc/self/maps")
_RUN = pytest.StashKey[int]()


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Forget all compiled programs if the process holds many maps of memory."""
    run = item.config.stash[_RUN] = item.config.stash.get(_RUN, 0) + 1
    if run % INTERVAL or not _MAPS.exists():
        return
    with _MAPS.open("rb") as maps:
        if sum(1 for _ in maps) > MOST_MAPS:
            jax.clear_caches()
