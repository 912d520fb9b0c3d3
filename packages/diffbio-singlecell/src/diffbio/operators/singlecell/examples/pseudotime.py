"""The conformance example of diffusion pseudotime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.singlecell.examples.bent_line import bent_line, gaussian_walk
from diffbio.operators.singlecell.pseudotime import DiffusionPseudotime, DiffusionPseudotimeConfig
from diffbio.testing import Example, Limit


def diffusion_pseudotime() -> Example:
    """Return a bent line of cells; the reference sums over eigenvectors what the operator solves for.

    Only the choice of neighbours is hard and nothing is softened, so there is nothing to sharpen. The root is a row
    number of the configuration, so cells can't be permuted without it.
    """
    embeddings = bent_line()
    operator = DiffusionPseudotime(DiffusionPseudotimeConfig(n_neighbors=6, root_cell=2))

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        eigenvalues, states = np.linalg.eigh(gaussian_walk(data["embeddings"], n_neighbors=6))
        weights = np.append(eigenvalues[:-1] / (1 - eigenvalues[:-1]), 1.0)  # the last state is stationary
        distances = np.linalg.norm((states - states[2]) * weights, axis=1)
        return {"pseudotime": distances / distances.max()}

    return Example(operator, {"embeddings": embeddings}, limit=Limit(lambda same: same, reference, atol=1e-3))
