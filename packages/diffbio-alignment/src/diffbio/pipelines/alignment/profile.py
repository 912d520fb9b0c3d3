"""Profiles that are learned, and alignment to a profile: many sequences in time that grows with their number.

The heaviest path of each sequence says which residue is which node; residues of insert states and of the flanks stand
between the nodes' columns, and are not aligned with each other.

References:
    HMMER's hmmalign; Krogh et al., Hidden Markov models in computational biology, Journal of Molecular Biology 1994.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Int

from diffbio.core import Pipeline
from diffbio.io.sequence.alignments import aligned_rows
from diffbio.io.sequence.alphabets import PROTEIN
from diffbio.losses.alignment import profile_surprise
from diffbio.operators.alignment.plan7 import path_weights
from diffbio.operators.alignment.profile_hmm import ProfileHMM, ProfileHMMConfig
from diffbio.operators.alignment.profile_partition import BestPath, best_profile_path
from diffbio.pipelines.alignment.padding import padded
from diffbio.training import ArrayDataset, fit


def learn_profile(
    sequences: Sequence[str],
    *,
    key: jax.Array,
    alphabet: str = PROTEIN,
    steps: int = 60,
    learning_rate: float = 0.1,
    progress: bool = True,
) -> ProfileHMM:
    """Return a profile that expects unaligned sequences as well as it can, by maximum likelihood.

    It has as many nodes as their median length and starts from the sequence nearest to that.

    Args:
        sequences: Members of one family, each of one domain.
        key: Random key of training.
        alphabet: The letters.
        steps: Steps of Adam, each on all sequences.
        learning_rate: Of Adam.
        progress: Show a progress bar, where there is a terminal.

    Raises:
        DataError: A sequence is empty, or has a letter that is not of the alphabet.
    """
    data = padded(sequences, alphabet)
    n_nodes = max(2, int(np.median(data["sequence_length"])))
    profile = ProfileHMM(ProfileHMMConfig(n_nodes=n_nodes, alphabet=alphabet, multihit=False))
    profile.initialize(**{name: jnp.asarray(array) for name, array in data.items()})
    fitted = fit(
        Pipeline(profile),
        ArrayDataset(data),
        profile_surprise,
        optimizer=optax.adam(learning_rate),
        epochs=steps,
        key=key,
        progress=progress,
    )
    return cast("ProfileHMM", fitted.pipeline.steps[0])


def align_to_profile(profile: ProfileHMM, sequences: Sequence[str]) -> list[str]:
    """Return sequences as the rows of an alignment, in which each node of a profile has a column.

    Args:
        profile: With `multihit=False`: a residue is then in one place.
        sequences: Letters, each of one domain, perhaps with more at its ends.

    Returns:
        Rows of one length, with `-` in gaps.

    Raises:
        DataError: A sequence is empty, or has a letter that is not of the alphabet.

    Example:
        >>> from diffbio.io.sequence import encode
        >>> config = ProfileHMMConfig(n_nodes=6, alphabet="ACGT", multihit=False, local=False)
        >>> profile = ProfileHMM(config)
        >>> profile.initialize(sequences=encode(["ACGTAC"], "ACGT").letters)
        >>> align_to_profile(profile, ["ACGTAC", "TACGAC"])
        ['-ACGTAC', 'TACG-AC']
    """
    data = padded(sequences, profile.config.alphabet)
    found = _best_paths(nnx.split(profile), {name: jnp.asarray(array) for name, array in data.items()})
    return aligned_rows(sequences, _columns(np.asarray(found.node), data["sequence_length"], profile.config.n_nodes))


@jax.jit
def _best_paths(profile: tuple[nnx.GraphDef, nnx.State], data: dict[str, Array]) -> BestPath:
    """Return the heaviest path of each sequence."""
    model: ProfileHMM = nnx.merge(*profile)

    def best(of_one: tuple[Array, Array]) -> BestPath:
        letters, length = of_one
        weights = path_weights(
            model.core(),
            letters,
            length,
            frequencies=model.frequencies[...],
            local=model.config.local,
            multihit=model.config.multihit,
        )
        return best_profile_path(weights, length)

    return jax.lax.map(best, (data["sequences"], data["sequence_length"]))


def _columns(
    nodes: Int[np.ndarray, "sequences positions"], lengths: Int[np.ndarray, " sequences"], n_nodes: int
) -> Int[np.ndarray, "sequences positions"]:
    """Return the column of each residue; behind each node is room for as many as any sequence has there."""
    counts = np.arange(nodes.shape[1]) < lengths[:, None]
    last = np.maximum.accumulate(nodes, axis=1)
    over = np.maximum.accumulate(nodes[:, ::-1], axis=1)[:, ::-1] == 0  # the flank behind the domain
    last = np.where(over, n_nodes, last)
    new = counts & (nodes > 0) & (np.diff(last, axis=1, prepend=0) > 0)  # the first residue of a node is its match
    place = np.cumsum(counts, axis=1)
    begun = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    behind = np.where(counts, place - begun, 0)  # 0 for a match, else the number among the residues behind it
    room = np.zeros(n_nodes + 1, np.int64)
    np.maximum.at(room, last, behind)
    start = np.concatenate([[0], np.cumsum(room[:-1] + 1)])  # the column of each node, less one
    return start[last] + behind - 1
