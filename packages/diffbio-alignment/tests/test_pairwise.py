"""Smooth alignment as an operator: its limit, its masks, its derivatives, its training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from diffbio.core.errors import ConfigError, ContractError, DataError
from diffbio.io.sequence import DNA, encode
from diffbio.operators.alignment import (
    NeedlemanWunschConfig,
    SmithWatermanConfig,
    SmoothNeedlemanWunsch,
    SmoothSmithWaterman,
    substitution_matrix,
    substitution_scores,
)

OPTIONS = {"alphabet": DNA, "matrix": "NUC.4.4", "gap_open": 8.0, "gap_extend": 2.0}


def batch(queries: list[str], targets: list[str], size: int = 12) -> dict[str, np.ndarray]:
    query, target = encode(queries, DNA, size=size), encode(targets, DNA, size=size)
    return {
        "query": query.letters,
        "target": target.letters,
        "query_length": query.lengths,
        "target_length": target.lengths,
    }


def test_rows_and_columns_of_the_posterior_sum_to_at_most_one_and_padding_changes_nothing() -> None:
    aligner = SmoothSmithWaterman(SmithWatermanConfig(**OPTIONS, temperature=2.0))
    short, long = (aligner.apply(batch(["ACGTAC", "TTGA"], ["ACTAC", "TTGATT"], size), {}, None)[0] for size in (8, 12))
    posterior = np.asarray(short["alignment_posterior"])
    assert (posterior.sum(1) <= 1 + 1e-5).all()
    assert (posterior.sum(2) <= 1 + 1e-5).all()
    np.testing.assert_allclose(long["alignment_score"], short["alignment_score"], rtol=1e-6)
    np.testing.assert_allclose(long["alignment_posterior"][:, :8, :8], posterior, atol=1e-6)
    assert float(np.abs(long["alignment_posterior"][:, 8:]).max()) == 0


def test_the_gradient_of_the_score_is_the_posterior() -> None:
    aligner = SmoothNeedlemanWunsch(NeedlemanWunschConfig(**OPTIONS, temperature=3.0, learnable=True))
    data = batch(["ACGTAC"], ["ACTTAC"])

    graph, state = nnx.split(aligner)

    def score(state: nnx.State) -> jax.Array:
        return nnx.merge(graph, state).apply(data, {}, None)[0]["alignment_score"][0]

    slopes = jax.grad(score)(state)["substitution"][...]
    posterior = aligner.apply(data, {}, None)[0]["alignment_posterior"][0]
    pairs = jnp.einsum("ij,ia,jb->ab", posterior, data["query"][0], data["target"][0])
    np.testing.assert_allclose(slopes, (pairs + pairs.T) / 2, atol=1e-5)


def test_free_ends_are_those_of_a_query_within_a_target() -> None:
    free = ("target_begin", "target_end")
    within = SmoothNeedlemanWunsch(NeedlemanWunschConfig(**OPTIONS, temperature=0.01, free_ends=free))
    whole = SmoothNeedlemanWunsch(NeedlemanWunschConfig(**OPTIONS, temperature=0.01))
    data = batch(["CGT"], ["AACGTAA"])
    assert float(within.apply(data, {}, None)[0]["alignment_score"][0]) == pytest.approx(15, abs=0.1)
    assert float(whole.apply(data, {}, None)[0]["alignment_score"][0]) == pytest.approx(15 - 2 * 10, abs=0.1)


def test_training_learns_what_is_aligned() -> None:
    """Sequences in which A is always replaced by G: pairs of A and G, which cost more than gaps, learn to score."""
    random = np.random.default_rng(0)
    targets = ["".join(random.choice(list(DNA), 12)) for _ in range(16)]
    data = batch([target.replace("A", "G") for target in targets], targets)
    options = OPTIONS | {"gap_open": 1.5, "gap_extend": 1.0}  # cheaper than a mismatch, which costs 4
    aligner = SmoothNeedlemanWunsch(NeedlemanWunschConfig(**options, learnable=True))
    optimizer = nnx.Optimizer(aligner, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(aligner: SmoothNeedlemanWunsch, optimizer: nnx.Optimizer) -> jax.Array:
        def loss(aligner: SmoothNeedlemanWunsch) -> jax.Array:
            posterior = aligner.apply(data, {}, None)[0]["alignment_posterior"]
            return -jnp.log(jnp.diagonal(posterior, axis1=1, axis2=2) + 1e-6).mean()

        value, slopes = nnx.value_and_grad(loss)(aligner)
        optimizer.update(aligner, slopes)
        return value

    losses = [float(step(aligner, optimizer)) for _ in range(40)]
    learned = np.asarray(aligner.substitution[...])
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, A with G -4 -> {learned[0, 2]:.1f}, A with C {learned[0, 1]:.1f}")
    assert losses[-1] < 0.5 * losses[0]
    assert learned[0, 2] > learned[0, 1] + 1


def test_softness_does_not_recompile() -> None:
    traced = []

    @jax.jit
    def score(aligner_state, softness):
        traced.append(softness)
        aligner = nnx.merge(graph, aligner_state)
        aligner.softness.set(softness)
        return aligner.apply(data, {}, None)[0]["alignment_score"]

    data = batch(["ACGT"], ["AGT"])
    graph, state = nnx.split(SmoothSmithWaterman(SmithWatermanConfig(**OPTIONS)))
    scores = [float(score(state, softness)[0]) for softness in (0.1, 1.0, 10.0)]
    assert len(traced) == 1
    assert scores == sorted(scores)


def test_wrong_settings_and_sequences_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no substitution matrix 'BLOSUM63' \(did you mean 'BLOSUM62'"):
        SmoothSmithWaterman(SmithWatermanConfig(matrix="BLOSUM63"))
    with pytest.raises(ConfigError, match="has no scores for 'J'"):
        substitution_matrix("NUC.4.4", "ACGJ")
    with pytest.raises(ConfigError, match="name each end once"):
        NeedlemanWunschConfig(free_ends=("query_end", "query_end"))
    with pytest.raises(ContractError, match="distributions over 3 letters, and the matrix scores 4"):
        substitution_scores(jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.eye(4))
    with pytest.raises(DataError, match=r"sequence 1 has 'Ü' at position 2"):
        encode(["ACGT", "AÜ"], DNA)
    with pytest.raises(DataError, match="sequence 1 is empty"):
        encode(["ACGT", ""], DNA)
    with pytest.raises(DataError, match="sequence 0 has 4 letters, and there is room for 3"):
        encode(["ACGT"], DNA, size=3)
