"""The classifier of images: what it believes before and after training, sites without reads, and its derivatives."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sites_to_classify import require_that_it_corrects, require_that_it_learns, require_that_it_works_alone

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, ContractError, MissingRandomnessError
from diffbio.operators.variant.image_classifier import ImageClassifier, ImageClassifierConfig
from diffbio.operators.variant.pileup_image import PileupImage, PileupImageConfig

SMALL = {"columns": 5, "width": 8, "n_layers": 1}


def classifier(**config: Any) -> Pipeline:
    image = PileupImage(PileupImageConfig())
    return Pipeline(image, ImageClassifier(ImageClassifierConfig(**config), rngs=nnx.Rngs(0)))


def test_it_learns_genotypes_from_images_alone(certificate) -> None:
    require_that_it_learns(classifier(**SMALL), certificate, "ImageClassifier", most=0.4)


@pytest.mark.slow
def test_training_makes_better_what_a_model_believes(tmp_path: Path, certificate) -> None:
    train, held_out = require_that_it_corrects(classifier, tmp_path, certificate, "ImageClassifier")
    require_that_it_works_alone(classifier, train, held_out)


def test_before_training_it_believes_the_model() -> None:
    random = np.random.default_rng(0)
    data = {
        "pileup_image": random.random((20, 6, 9, 11)).astype(np.float32),
        "call_posteriors": random.dirichlet(np.full(3, 0.3), size=20).astype(np.float32),
    }
    operator = ImageClassifier(ImageClassifierConfig(**SMALL), rngs=nnx.Rngs(0))
    found = operator.apply(data, {}, None)[0]
    np.testing.assert_allclose(found["classifier_posteriors"], data["call_posteriors"], atol=0.1)
    assert (found["classifier_posteriors"].argmax(-1) == data["call_posteriors"].argmax(-1)).mean() > 0.9
    np.testing.assert_allclose(found["classifier_posteriors"].sum(-1), 1, atol=1e-5)


def test_the_candidate_column_counts_more_than_its_neighbours() -> None:
    """Position is kept: the same pixels one column aside give another result."""
    image = np.zeros((1, 6, 9, 11), np.float32)
    image[:, :, 4, :4] = 0.25
    operator = ImageClassifier(ImageClassifierConfig(columns=9, width=8), rngs=nnx.Rngs(0))
    here, aside = (
        operator.apply({"pileup_image": np.roll(image, shift, axis=2)}, {}, None)[0]["classifier_logits"]
        for shift in (0, 1)
    )
    assert float(jnp.abs(here - aside).max()) > 1e-5


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_sites_without_reads_are_finite(rows: int) -> None:
    operator = ImageClassifier(ImageClassifierConfig(**SMALL), rngs=nnx.Rngs(0))
    data = {"pileup_image": jnp.full((2, rows, 9, 11), 1e3), "image_mask": jnp.zeros((2, rows), bool)}

    def loss(operator: ImageClassifier, image: jax.Array) -> jax.Array:
        found = operator.apply({**data, "pileup_image": image}, {}, None)[0]
        return found["classifier_logits"].sum() + found["classifier_qualities"].sum()

    derive = nnx.jit(nnx.value_and_grad(loss, argnums=(0, 1)))
    value, (by_parameters, by_image) = derive(operator, data["pileup_image"])
    assert bool(jnp.isfinite(value))
    assert not np.asarray(by_image).any()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(by_parameters))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="odd number"):
        ImageClassifierConfig(columns=4)
    with pytest.raises(MissingRandomnessError):
        ImageClassifier(ImageClassifierConfig())
    operator = ImageClassifier(ImageClassifierConfig(**SMALL), rngs=nnx.Rngs(0))
    with pytest.raises(ContractError, match="the window has 3 columns"):
        operator.apply({"pileup_image": jnp.zeros((2, 3, 11))}, {}, None)
    with pytest.raises(ContractError, match="channels"):
        operator.apply({"pileup_image": jnp.zeros((2, 9, 7))}, {}, None)
    with pytest.raises(ContractError, match="genotypes"):
        operator.apply({"pileup_image": jnp.zeros((2, 9, 11)), "call_posteriors": jnp.full(2, 0.5)}, {}, None)
