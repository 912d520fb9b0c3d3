"""The classifier of images: what it believes before and after training, sites without reads, and its derivatives."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sites_to_classify import Sites, cost_of_model, cost_of_prior, costs, random_sites, simulated_sites, trained

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, ContractError, MissingRandomnessError
from diffbio.operators.variant.image_classifier import ImageClassifier, ImageClassifierConfig
from diffbio.operators.variant.pileup_image import PileupImage, PileupImageConfig

SMALL = {"columns": 5, "width": 8, "n_layers": 1}


def classifier(**config: Any) -> Pipeline:
    image = PileupImage(PileupImageConfig())
    return Pipeline(image, ImageClassifier(ImageClassifierConfig(**config), rngs=nnx.Rngs(0)))


def test_it_learns_genotypes_from_images_alone(certificate) -> None:
    train, held_out = random_sites(384), random_sites(256, seed=1)
    found = trained(classifier(**SMALL), train, steps=120)
    value, prior = costs(found, held_out), cost_of_prior(train, held_out)
    certificate(
        operator="ImageClassifier", reference="the shares of the genotypes",
        data="256 random sites of 4 to 10 reads, after 120 steps on 384 others",
        quantity="cross-entropy, share of the reference's", value=value / prior, bar="<= 0.4",
    )  # fmt: skip
    assert value < 0.4 * prior


@pytest.mark.slow
def test_training_makes_better_what_a_model_believes(tmp_path: Path, certificate) -> None:
    train, held_out = simulated_sites(tmp_path, range(100, 112)), simulated_sites(tmp_path, range(8))
    value, model = costs(trained(classifier(), train, steps=100, rate=3e-3), held_out), cost_of_model(held_out)
    certificate(
        operator="ImageClassifier", reference="HaplotypeGenotyping, not trained",
        data=f"{len(held_out['genotype'])} candidates of 8 simulated genomes, depth 10, after 100 steps on 12 others",
        quantity="cross-entropy, share of the reference's", value=value / model, bar="<= 0.97",
    )  # fmt: skip
    assert value < 0.97 * model
    alone: list[Sites] = [{k: a for k, a in part.items() if k != "call_posteriors"} for part in (train, held_out)]
    assert costs(trained(classifier(), alone[0], steps=150, rate=3e-3), alone[1]) < 0.4 * cost_of_prior(*alone)


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
