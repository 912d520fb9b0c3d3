"""The conformance example of component selection."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.normalization.component_selection import ComponentSelection, ComponentSelectionConfig
from diffbio.testing import Example, Limit


def component_selection() -> Example:
    """Return nine cells of four components, not in order; the limit keeps the fewest that reach the coverage."""
    random = np.random.default_rng(0)
    embeddings = (random.normal(size=(9, 4)) * [1.0, 4.0, 0.5, 2.0]).astype(np.float32)
    operator = ComponentSelection(ComponentSelectionConfig(n_features=4, coverage=0.8, temperature=0.2))
    operator.initialize(jnp.asarray(embeddings))

    def sharpen(selection: ComponentSelection) -> ComponentSelection:
        selection.softness.set(1e-4)
        return selection

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        cells = np.asarray(data["embeddings"])
        order = np.argsort(-cells.var(0))
        explained = np.cumsum(cells.var(0)[order]) / cells.var(0).sum()
        gate = np.zeros(4, np.float32)
        gate[order[: int(np.searchsorted(explained, 0.8)) + 1]] = 1
        return {"component_gate": gate, "selected_embeddings": cells * gate}

    return Example(
        operator, {"embeddings": embeddings}, limit=Limit(sharpen, reference, atol=1e-5), symmetric=("cells",)
    )
