"""The classifier of pileups: its features, what it believes before and after training, and sites without reads."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sites_to_classify import arrays_of, require_that_it_corrects, require_that_it_learns

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, ContractError, MissingRandomnessError
from diffbio.operators.variant.examples.pileup_classifier import pileup_classifier as example
from diffbio.operators.variant.pileup import Pileup, PileupConfig
from diffbio.operators.variant.pileup_classifier import PileupClassifier, PileupClassifierConfig, column_features

SMALL = {"columns": 1, "hidden_sizes": (16, 16)}


def classifier(**config: Any) -> Pipeline:
    classifier = PileupClassifier(PileupClassifierConfig(**config), rngs=nnx.Rngs(0))
    return Pipeline(Pileup(PileupConfig(min_base_quality=5.0)), classifier)


def test_it_learns_genotypes_from_pileups_alone(certificate) -> None:
    require_that_it_learns(classifier(**SMALL), certificate, "PileupClassifier", most=0.6, steps=150)


@pytest.mark.slow
def test_training_makes_better_what_a_model_believes(tmp_path: Path, certificate) -> None:
    require_that_it_corrects(classifier, tmp_path, certificate, "PileupClassifier")


def test_features_are_shares_of_the_depth() -> None:
    counts = jnp.zeros((2, 2, 4)).at[0, 0, 1].set(3.0).at[0, 1, 2].set(1.0)
    gaps = jnp.zeros((2, 2, 3)).at[0, 1, 2].set(4.0).at[0, 0, 0].set(2.0)  # deleted in 4 reads, inserted after it in 2
    features = column_features(counts, gaps, jnp.eye(4)[:2])
    expected = np.zeros((2, 18))
    expected[0, [1, 6, 8, 13]] = 3 / 8, 1 / 8, 2 / 8, 4 / 8  # letters of both strands, then gaps of both
    shown = np.concatenate([counts, gaps], axis=-1)[0].reshape(-1) / 8
    np.testing.assert_allclose(features[0, :14], shown)
    np.testing.assert_allclose(features[1, :14], 0)
    np.testing.assert_allclose(features[:, 14:], np.eye(4)[:2])


def test_before_training_it_believes_the_model() -> None:
    data = arrays_of(example())
    found = example().operator.apply(data, {}, None)[0]
    np.testing.assert_allclose(found["classifier_posteriors"], data["call_posteriors"], atol=0.05)
    best = np.asarray(found["classifier_posteriors"]).max(-1)
    np.testing.assert_allclose(found["classifier_qualities"], -10 * np.log10(1 - best), rtol=1e-3)


def test_it_sees_the_columns_around_the_middle_alone() -> None:
    operator, data = example().operator, arrays_of(example())
    expected = operator.apply(data, {}, None)[0]["classifier_logits"]
    beyond = {**data, "deletion_counts": data["deletion_counts"].copy()}
    beyond["deletion_counts"][:, [0, -1]] = 9  # 3 of 5 columns are seen
    np.testing.assert_array_equal(operator.apply(beyond, {}, None)[0]["classifier_logits"], expected)
    beyond["deletion_counts"][:, 1] = 9
    assert (operator.apply(beyond, {}, None)[0]["classifier_logits"] != expected).any()


@pytest.mark.parametrize("believed", [None, (1.0, 0.0, 0.0)])
def test_sites_without_reads_are_finite(believed: tuple[float, ...] | None) -> None:
    operator = PileupClassifier(PileupClassifierConfig(**SMALL), rngs=nnx.Rngs(0))
    data = {"reference": jnp.zeros((3, 4))} | {f"{gap}_counts": jnp.zeros((3, 2)) for gap in (
        "insertion", "deletion", "deleted"
    )}  # fmt: skip
    if believed is not None:
        data["call_posteriors"] = jnp.array(believed)

    def loss(operator: PileupClassifier, counts: jax.Array) -> jax.Array:
        found = operator.apply({**data, "base_counts": counts}, {}, None)[0]
        return found["classifier_logits"].sum() + found["classifier_qualities"].sum()

    value, gradients = nnx.jit(nnx.value_and_grad(loss, argnums=(0, 1)))(operator, jnp.zeros((3, 2, 4)))
    assert bool(jnp.isfinite(value))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="odd number"):
        PileupClassifierConfig(columns=4)
    with pytest.raises(MissingRandomnessError):
        PileupClassifier(PileupClassifierConfig())
    data = arrays_of(example())
    with pytest.raises(ContractError, match="the window has 5 columns"):
        PileupClassifier(PileupClassifierConfig(columns=7), rngs=nnx.Rngs(0)).apply(data, {}, None)
    with pytest.raises(ContractError, match="call_posteriors has 3 genotypes"):
        PileupClassifier(PileupClassifierConfig(columns=3, n_genotypes=2), rngs=nnx.Rngs(0)).compute(
            *(jnp.asarray(data[name]) for name in list(data)[:6])
        )
