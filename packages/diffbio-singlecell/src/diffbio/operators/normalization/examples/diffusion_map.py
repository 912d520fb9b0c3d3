"""The conformance example of the diffusion map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.normalization.diffusion_map import DiffusionMap, DiffusionMapConfig
from diffbio.operators.singlecell.examples.bent_line import bent_line, gaussian_walk
from diffbio.testing import Example, Limit


def diffusion_map() -> Example:
    """Return a bent line of cells; the reference is a dense eigendecomposition in NumPy.

    Only the choice of neighbours is hard and nothing is softened, so there is nothing to sharpen.
    """
    embeddings = bent_line()
    config = DiffusionMapConfig(n_components=3, n_neighbors=6, kernel="gauss")

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        values, vectors = np.linalg.eigh(gaussian_walk(data["embeddings"], n_neighbors=6))
        vectors = vectors[:, :-4:-1]
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), range(3)])
        return {"diffusion_map": vectors * signs, "diffusion_eigenvalues": values[:-4:-1]}

    return Example(
        DiffusionMap(config),
        {"embeddings": embeddings},
        limit=Limit(lambda same: same, reference, atol=1e-4),
        symmetric=("cells", "features"),
    )
