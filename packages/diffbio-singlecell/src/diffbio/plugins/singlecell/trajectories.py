"""Declarations: where cells come from and where they go."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="Palantir",
        target="diffbio.operators.singlecell.palantir:Palantir",
        summary="Pseudotime and fate probabilities from shortest paths among waypoints.",
        reads=("embeddings",),
        writes=("pseudotime", "fate_probabilities", "fate_entropy"),
        example="diffbio.operators.singlecell.examples.palantir:palantir",
    ),
    OperatorDeclaration(
        name="FateProbabilities",
        target="diffbio.operators.singlecell.absorbing_chain:FateProbabilities",
        summary="Where a random walk on the graph of cells ends.",
        reads=("transition_weights", "neighbor_indices", "terminal_labels"),
        writes=("fate_probabilities", "fate_entropy"),
        example="diffbio.operators.singlecell.examples.absorbing_chain:fate_probabilities",
    ),
    OperatorDeclaration(
        name="OptimalTransportTrajectory",
        target="diffbio.operators.singlecell.optimal_transport:OptimalTransportTrajectory",
        summary="Couples the cells of two times by optimal transport, with growth.",
        reads=("source_embeddings", "target_embeddings", "growth_rates"),
        writes=("transport_plan", "growth", "descendants"),
        example="diffbio.operators.singlecell.examples.optimal_transport:optimal_transport_trajectory",
    ),
)
