"""Declarations: cells of several batches in one space."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="Harmony",
        target="diffbio.operators.singlecell.harmony:Harmony",
        summary="Takes batch effects out of an embedding by soft clusters and ridge regression (Harmony).",
        reads=("embeddings", "batch_labels"),
        writes=("corrected_embeddings", "harmony_assignments"),
        example="diffbio.operators.singlecell.examples.harmony:harmony",
    ),
)
