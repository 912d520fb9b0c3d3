"""Base qualities that promise too much: the loss of the caller finds it out, through realignment and genotypes.

Reads are simulated in which bases after a G are wrong far more often than they say, as the sequencer sees them, so that
the errors at a site are of one strand. Needs diffbio-alignment (trimming, the pair HMM) and diffbio-variant (all else).

    pytest -m slow -s tests/cross_domain/test_recalibration_through_the_caller.py    # prints the figures
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from diffbio.core import Pipeline
from diffbio.training import ArrayDataset, fit, prepare, transform

pytest.importorskip("diffbio.operators.alignment", reason="needs diffbio-alignment")
pytest.importorskip("diffbio.operators.variant", reason="needs diffbio-variant")

from diffbio.losses.variant import genotype_cross_entropy
from diffbio.operators.variant.recalibration_fit import RecalibrationTables
from diffbio.pipelines.variant import recipes
from diffbio.pipelines.variant.simulation import simulate_reads
from diffbio.pipelines.variant.sites import read_sites

BIAS, G = 15.0, "ACGT".index("G")
SITES = 600  # of training and of the held-out samples, so that all seeds share their compiled programs
TABLES = "recalibration"
_RATES = {"tables": optax.adam(0.2), "others": optax.adam(5e-3)}  # tables are in Phred
OPTIMIZER = optax.partition(
    _RATES, lambda weights: {stage: "tables" if stage == TABLES else "others" for stage in weights}
)


class Scores(NamedTuple):
    """Of a pipeline on samples that it has not seen.

    Attributes:
        loss: Mean cross-entropy of the genotypes, nats.
        accuracy: Share of the sites with the right genotype.
        f1: Of the sites called as variants.
        after_g: Quality beyond the true one of bases after a G, mean, Phred.
        others: Likewise, of all other bases.
    """

    loss: float
    accuracy: float
    f1: float
    after_g: float
    others: float


def sampled(folder, seeds, *, size):
    """Return the sites of some samples, each with a genome, variants and reads of its own."""
    parts = []
    for seed in seeds:
        files = simulate_reads(
            folder / str(seed), seed=seed, size=size, depth=10.0, variant_rate=4e-3, mean_quality=30.0,
            quality_bias=BIAS, biased_after="G",
        )  # fmt: skip
        sites = read_sites(
            files.reads, reference=files.reference, truth=files.truth, flank=10, longest_gap=6, max_reads=16
        )
        parts.append(sites.take(np.arange(len(sites))))
    return {key: np.concatenate([part[key] for part in parts])[:SITES] for key in parts[0]}


def read_after_g(data):
    """Return which bases the sequencer read after a G."""
    seen = np.pad(data["reads"], ((0, 0), (0, 0), (1, 1), (0, 0)))
    before, behind = seen[:, :, :-2, G], seen[:, :, 2:, 3 - G]  # of reversed reads the next one, complemented
    return np.where(data["reverse_strand"][..., None], behind, before) > 0


def scored(pipeline: Pipeline, data) -> Scores:
    wanted = ("recalibrated_qualities", "classifier_logits")
    found = transform(pipeline, ArrayDataset(data), keys=wanted, batch_size=60)
    copies, true, stated = found["classifier_logits"].argmax(-1), data["genotype"], data["qualities"]
    biased, counted = read_after_g(data), data["reads"].any(-1) & (stated >= pipeline[TABLES].config.min_quality)
    beyond = found["recalibrated_qualities"] - np.where(biased, np.maximum(stated - BIAS, 1.0), stated)
    both, either = ((copies > 0) & (true > 0)).sum(), (copies > 0).sum() + (true > 0).sum()
    return Scores(
        loss=float(genotype_cross_entropy({**found, "genotype": jnp.asarray(true)})),
        accuracy=float((copies == true).mean()),
        f1=float(2 * both / either),
        after_g=float(beyond[counted & biased].mean()),
        others=float(beyond[counted & ~biased].mean()),
    )


def without_recalibration(pipeline: Pipeline) -> Pipeline:
    """Return a copy whose tables change nothing."""
    copy = nnx.clone(pipeline)
    for name in RecalibrationTables._fields:
        table = getattr(copy[TABLES], name)
        table[...] = jnp.zeros_like(table[...])
    return copy


def with_true_qualities(pipeline: Pipeline, share=1.0) -> Pipeline:
    """Return a copy of a pipeline without recalibration whose tables take a share of the planted bias away."""
    copy = nnx.clone(pipeline)
    context = copy[TABLES].context_delta
    context[...] = context[...].at[:, :, G].add(-BIAS * share)
    return copy


def test_the_loss_of_the_caller_falls_towards_the_planted_bias(tmp_path):
    """Its slope at the qualities as they are stated leads to the true ones, and there it is lower."""
    data = sampled(tmp_path, [1], size=4000)
    pipeline = Pipeline.from_recipe(recipes.reads_to_variants(), rngs=nnx.Rngs(0), data=data)  # its tables are 0

    def lost_with(share):
        return genotype_cross_entropy(with_true_qualities(pipeline, share).apply(data, {}, None)[0])

    lost = jax.jit(jax.value_and_grad(lost_with))
    (stated, slope), (true, _) = lost(0.0), lost(1.0)
    assert slope < 0
    assert true < 0.7 * stated


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_through_recalibration_lowers_the_loss_of_the_caller(seed, tmp_path, certificate):
    """On held-out samples, with all else frozen; about as far as counting mismatches does."""
    known = sampled(tmp_path, [100 * seed, 100 * seed + 1], size=20_000)
    new = sampled(tmp_path, [100 * seed + 50, 100 * seed + 51], size=20_000)
    data = ArrayDataset(known)
    counted, _, loss, key = prepare(recipes.reads_to_variants(), data, key=jax.random.key(seed))
    stated = without_recalibration(counted)
    others = ("trimming", "pileup", "realignment", "genotypes", "classifier")  # that have parameters

    def trained(pipeline, stages):
        options = {"epochs": 8, "patience": 2, "batch_size": 32, "validation": 0.2, "validation_batch_size": 60}
        fitted = fit(pipeline, data, loss, optimizer=OPTIMIZER, key=key, trainable=stages, progress=False, **options)
        return scored(fitted.pipeline, new)

    untrained = {"as stated": stated, "by counting": counted, "true": with_true_qualities(stated)}
    scores = {name: scored(pipeline, new) for name, pipeline in untrained.items()}
    for name, pipeline, stages in (
        ("through the caller", stated, (TABLES,)),
        ("by counting, then through the caller", counted, (TABLES,)),
        ("as stated, all else trained", stated, others),
        ("by counting, all trained", counted, None),
    ):
        scores[name] = trained(pipeline, stages)
    for name, found in scores.items():
        print(f"seed {seed}, {name}: {', '.join(f'{part} {value:.4f}' for part, value in found._asdict().items())}")
    ratio = scores["through the caller"].loss / scores["as stated"].loss
    certificate(
        operator="BaseQualityRecalibration",
        reference="the same pipeline without recalibration",
        data=f"{SITES} held-out sites of two simulated genomes at depth 10, bases after G 15 Phred worse, seed {seed}",
        quantity="trained through the caller alone, cross-entropy of genotypes, ratio",
        value=ratio,
        bar="< 1",
    )
    assert ratio < 0.85
    assert scores["by counting"].loss < scores["as stated"].loss
    assert scores["by counting, all trained"].loss < scores["as stated, all else trained"].loss
    assert scores["through the caller"].after_g < 0.75 * scores["as stated"].after_g
