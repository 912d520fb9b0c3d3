"""Reads beside haplotypes: letters by their qualities, pairs, and genotypes beside a written-out model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core import OperatorConfig
from diffbio.operators.variant.haplotype_genotypes import (
    HaplotypeGenotyping,
    HaplotypeGenotypingConfig,
    haplotype_log_likelihoods,
)
from diffbio.operators.variant.haplotype_pairs import ReadHaplotypePairing, believed_letters


def test_letters_are_as_certain_as_their_qualities_say() -> None:
    reads = jnp.concatenate([jnp.eye(4)[:2], jnp.zeros((1, 4))])
    letters = believed_letters(reads, jnp.array([20.0, 0.0, 40.0]), jnp.array([1.0, 1.0, 1.0]))
    np.testing.assert_allclose(letters[0], [0.99, 0.01 / 3, 0.01 / 3, 0.01 / 3], atol=1e-6)
    np.testing.assert_allclose(letters[1:], np.full((2, 4), 0.25), atol=1e-6)  # quality 0, and N, say nothing
    half = believed_letters(reads, jnp.array([20.0, 0.0, 40.0]), jnp.full(3, 0.5))
    np.testing.assert_allclose(half[0], 0.5 * letters[0] + 0.125, atol=1e-6)


def test_each_read_stands_beside_each_haplotype(certificate) -> None:
    random = np.random.default_rng(0)
    data = {
        "reads": np.eye(4, dtype=np.float32)[random.integers(4, size=(2, 3, 5))],
        "qualities": np.full((2, 3, 5), 93, np.float32),
        "haplotypes": np.eye(4, dtype=np.float32)[random.integers(4, size=(2, 2, 7))],
        "haplotype_lengths": np.array([[7, 6], [5, 7]], np.int32),
        "read_lengths": np.array([[5, 4, 0], [3, 5, 5]], np.int32),
    }
    pairs = ReadHaplotypePairing(OperatorConfig()).apply(data, {}, None)[0]
    certificate(
        operator="ReadHaplotypePairing",
        reference="the reads themselves",
        data="two sites of three random reads, quality 93",
        quantity="probability of a letter, largest difference",
        value=float(np.abs(pairs["query"] - data["reads"][:, :, None]).max()),
        bar="<= 1e-6",
    )
    for site, read, haplotype in np.ndindex(2, 3, 2):
        np.testing.assert_allclose(pairs["query"][site, read, haplotype], data["reads"][site, read], atol=1e-6)
        np.testing.assert_array_equal(pairs["target"][site, read, haplotype], data["haplotypes"][site, haplotype])
        assert pairs["query_length"][site, read, haplotype] == max(data["read_lengths"][site, read], 1)
        assert pairs["target_length"][site, read, haplotype] == data["haplotype_lengths"][site, haplotype]


@pytest.mark.parametrize("ploidy", [1, 2])
def test_genotypes_are_those_of_the_model(certificate, ploidy: int) -> None:
    random = np.random.default_rng(0)
    scores = random.normal(scale=8.0, size=(50, 12, 2))
    mapping = random.integers(0, 61, size=(50, 12))
    present = random.random((50, 12)) < 0.8
    data = {
        "alignment_score": np.asarray(scores, np.float32),
        "mapping_qualities": np.asarray(mapping, np.float32),
        "read_mask": present,
    }
    found = HaplotypeGenotyping(HaplotypeGenotypingConfig(ploidy=ploidy)).apply(data, {}, None)[0]
    chances = np.exp(scores)
    elsewhere = 0.01 + 0.99 * 10 ** (-mapping / 10)
    worst = 0.0
    for copies in range(ploidy + 1):
        share = copies / ploidy
        of_genotype = (1 - share) * chances[..., 0] + share * chances[..., 1]
        chance = (1 - elsewhere) * of_genotype + elsewhere * chances.mean(-1)
        expected = np.where(present, np.log(chance / chances.sum(-1)), 0).sum(-1)
        worst = max(worst, np.abs(found["call_log_likelihoods"][:, copies] - expected).max() / np.log(10))
    certificate(
        operator="HaplotypeGenotyping",
        reference="the model written out in float64",
        data="50 sites of 12 random reads",
        quantity=f"log10 likelihood, ploidy {ploidy}, largest difference",
        value=float(worst),
        bar="<= 1e-4",
    )
    assert worst <= 1e-4
    np.testing.assert_allclose(found["call_posteriors"].sum(-1), 1, atol=1e-5)


def test_sites_without_reads_keep_the_prior_and_have_no_derivative_that_is_not_a_number() -> None:
    data = {"alignment_score": jnp.zeros((2, 3, 2)), "read_mask": np.zeros((2, 3), bool)}
    found = HaplotypeGenotyping(HaplotypeGenotypingConfig()).apply(data, {}, None)[0]
    np.testing.assert_allclose(found["call_posteriors"][0], [1 - 1.5e-3, 1e-3, 5e-4], atol=1e-6)
    assert not found["allele_depths"].any()
    huge = jnp.array([[1e4, -1e4], [-1e30, -1e30]])
    slope = jax.grad(lambda scores: haplotype_log_likelihoods(scores, jnp.ones(2), jnp.full(2, 0.01)).sum())(huge)
    assert np.isfinite(slope).all()


def test_derivatives_are_those_of_finite_differences() -> None:
    random = np.random.default_rng(1)
    scores = jnp.asarray(random.normal(scale=2.0, size=(6, 2)), jnp.float32)
    misplaced = jnp.asarray(random.random(6) * 0.3, jnp.float32)

    def one(scores: jax.Array, weights: jax.Array, misplaced: jax.Array) -> jax.Array:
        return haplotype_log_likelihoods(scores, weights, misplaced)[1]

    check_grads(one, (scores, jnp.full(6, 0.7), misplaced), 1, modes=["rev"], rtol=2e-2, atol=2e-2)
