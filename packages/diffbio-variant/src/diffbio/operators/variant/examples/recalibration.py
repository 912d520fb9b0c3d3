"""The conformance example of recalibration; the limit is the table, looked up base by base."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.variant.examples.pileup import laid_reads
from diffbio.operators.variant.recalibration import BaseQualityRecalibration, BaseQualityRecalibrationConfig
from diffbio.testing import Example, Limit


def base_quality_recalibration() -> Example:
    """Return three windows of few reads of two read groups, and tables of random corrections."""
    random = np.random.default_rng(1)
    data = laid_reads()
    rows = data["reads"].shape[:2]
    data |= {
        "second_in_pair": random.random(rows) < 0.5,
        "read_groups": random.integers(-1, 2, size=rows).astype(np.int32),
        "read_offsets": random.integers(3, size=rows).astype(np.int32),
        "full_lengths": np.full(rows, 12, np.int32),
        "read_mask": np.ones(rows, bool),
    }
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(n_groups=2, max_cycle=10))
    for table in (operator.group_shift, operator.quality_delta, operator.cycle_delta, operator.context_delta):
        table[...] = jnp.asarray(random.normal(size=table.shape), jnp.float32)

    def reference_qualities(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        arrays = {name: np.asarray(values) for name, values in data.items()}
        shift, delta, of_cycle, of_context = (np.asarray(table) for table in operator.tables())
        found = np.zeros(arrays["qualities"].shape)
        for window, read, place in np.ndindex(found.shape):
            at, length = (window, read), arrays["read_lengths"][window, read]
            if place >= length:
                continue
            quality, group = int(arrays["qualities"][window, read, place]), max(0, arrays["read_groups"][at])
            letters, own, step = arrays["reads"][at].argmax(-1), arrays["read_offsets"][at] + place, -1
            cycle = own + 1
            if arrays["reverse_strand"][at]:
                letters, cycle, step = 3 - letters, arrays["full_lengths"][at] - own, 1
            better = quality + shift[group] + delta[group, quality]
            if cycle <= 10:
                better += of_cycle[group, quality, 10 + (-cycle if arrays["second_in_pair"][at] else cycle)]
            if 0 <= place + step < length:
                better += of_context[group, quality, letters[place + step], letters[place]]
            found[window, read, place] = better if quality >= 6 else quality
        return {"recalibrated_qualities": found}

    return Example(
        operator,
        data,
        limit=Limit(lambda operator: operator, reference_qualities, atol=1e-4),
        symmetric=("reads",),
        masks={"read_mask": "reads"},
    )
