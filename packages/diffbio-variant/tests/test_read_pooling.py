"""The classifier of sets of reads: order, weights and absence of reads, and what training makes of it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from sites_to_classify import (
    Sites,
    random_sites,
    require_that_it_corrects,
    require_that_it_learns,
    require_that_it_works_alone,
)

from diffbio.core.errors import ConfigError, ContractError, MissingRandomnessError
from diffbio.operators.variant.read_pooling import (
    ReadPoolingClassifier,
    ReadPoolingClassifierConfig,
    nearness_to_ends,
    pooled_reads,
)

SMALL = {"columns": 3, "read_sizes": (16, 8), "hidden_sizes": (16,)}
_NOT_OF_READS = ("reference", "haplotypes", "haplotype_lengths", "genotype")


def classifier(**config: Any) -> ReadPoolingClassifier:
    return ReadPoolingClassifier(ReadPoolingClassifierConfig(**config), rngs=nnx.Rngs(0))


def logits_of(operator: ReadPoolingClassifier, data: Sites) -> np.ndarray:
    return np.asarray(jax.jit(lambda data: operator.apply(data, {}, None)[0]["classifier_logits"])(data))


def test_it_learns_genotypes_from_reads_alone(certificate) -> None:
    require_that_it_learns(classifier(**SMALL), certificate, "ReadPoolingClassifier", most=0.3)


@pytest.mark.slow
def test_training_makes_better_what_a_model_believes(tmp_path: Path, certificate) -> None:
    train, held_out = require_that_it_corrects(classifier, tmp_path, certificate, "ReadPoolingClassifier")
    require_that_it_works_alone(classifier, train, held_out)


def test_order_and_absent_rows_play_no_part() -> None:
    operator, data = classifier(**SMALL), random_sites(6)
    expected, order = logits_of(operator, data), np.random.default_rng(0).permutation(10)
    turned = {key: array if key in _NOT_OF_READS else array[:, order] for key, array in data.items()}
    np.testing.assert_allclose(logits_of(operator, turned), expected, atol=1e-5)
    weighted = {key: array for key, array in data.items() if key != "read_mask"}
    weighted["read_weights"] = data["read_mask"].astype(np.float32)
    np.testing.assert_allclose(logits_of(operator, weighted), expected, atol=1e-5)  # a weight of 0 is no read


@pytest.mark.parametrize("n_reads", [0, 3])
def test_sites_without_reads_are_finite(n_reads: int) -> None:
    operator = classifier(**SMALL)
    data = {k: a if k in _NOT_OF_READS else a[:, :n_reads] for k, a in random_sites(2).items()}
    data["read_mask"] = np.zeros((2, n_reads), bool)

    def loss(operator: ReadPoolingClassifier, qualities: jax.Array) -> jax.Array:
        found = operator.apply({**data, "qualities": qualities}, {}, None)[0]
        return found["classifier_logits"].sum() + found["classifier_qualities"].sum()

    derive = nnx.jit(nnx.value_and_grad(loss, argnums=(0, 1)))
    value, (by_parameters, by_quality) = derive(operator, data["qualities"])
    assert bool(jnp.isfinite(value))
    assert not np.asarray(by_quality).any()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(by_parameters))


def test_the_maximum_tends_to_the_hard_one_whatever_the_number_of_reads() -> None:
    codes = jnp.asarray(np.random.default_rng(0).normal(size=(3, 9, 4)), jnp.float32)
    mask = jnp.arange(9) < jnp.array([[9], [4], [0]])
    weights = mask.astype(jnp.float32)
    pooled = pooled_reads(codes, weights, softness=1e-5)
    kept = np.where(mask[..., None], codes, 0)
    np.testing.assert_allclose(pooled[:, :4], kept.sum(1) / np.maximum(mask.sum(1), 1)[:, None], atol=1e-6)
    np.testing.assert_allclose(pooled[:, 4:], kept.max(1).clip(0), atol=1e-6)
    twice = [jnp.concatenate([array, array], axis=1) for array in (codes, weights)]
    np.testing.assert_allclose(pooled_reads(twice[0], twice[1], softness=1e-5), pooled, atol=1e-6)

    @jax.jit
    def pooled_where_there_are_reads(codes: jax.Array, weights: jax.Array) -> jax.Array:
        return pooled_reads(codes, jnp.where(mask, weights, 0.0), softness=0.5)

    check_grads(pooled_where_there_are_reads, (codes, 0.7 * weights), 1, modes=("rev",), atol=1e-2, rtol=1e-2)


def test_nearness_to_ends_is_that_of_the_base_at_the_site() -> None:
    columns = jnp.asarray(np.arange(30) + np.array([[0], [-20], [40]]))
    lengths = jnp.array([30, 20, 30])
    weights = (jnp.arange(30) < lengths[:, None]).astype(jnp.float32)
    near = nearness_to_ends(weights, columns, lengths, site=5)
    np.testing.assert_allclose(near, [[10 / 15, 10 / 34], [0, 0], [0, 0]], atol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="odd number"):
        ReadPoolingClassifierConfig(columns=4)
    with pytest.raises(ConfigError, match="read_sizes is empty"):
        ReadPoolingClassifierConfig(read_sizes=())
    with pytest.raises(MissingRandomnessError):
        ReadPoolingClassifier(ReadPoolingClassifierConfig())
    with pytest.raises(ContractError, match="the window has 11 columns"):
        logits_of(classifier(columns=13), random_sites(2))
    with pytest.raises(ContractError, match="genotypes"):
        logits_of(classifier(**SMALL), {**random_sites(2), "call_posteriors": np.full((2, 2), 0.5, np.float32)})
