"""The conformance example of library-size normalization."""

from __future__ import annotations

from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.operators.normalization.library_size import LibrarySizeNormalization, LibrarySizeNormalizationConfig
from diffbio.testing import Example


def library_size_normalization() -> Example:
    """Return seven cells of unlike depth; exponent and pseudocount are trained."""
    config = LibrarySizeNormalizationConfig(target_sum=20.0, depth_exponent=0.9, pseudocount=0.5, learnable=True)
    return Example(
        LibrarySizeNormalization(config),
        {"counts": COUNTS},
        symmetric=("cells", "genes"),
        exempt=RELAXES_NOTHING,
    )
