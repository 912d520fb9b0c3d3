"""From reads to variants: operators of two distributions that know nothing of each other train as one pipeline.

Needs diffbio-alignment (trimming, the pair HMM) and diffbio-variant (all else).
"""

import json

import jax
import numpy as np
import pysam
import pytest
from flax import nnx

from diffbio.core import Pipeline, load
from diffbio.core.errors import RegistryError
from diffbio.core.registry import registry

pytest.importorskip("diffbio.operators.alignment", reason="needs diffbio-alignment")
pytest.importorskip("diffbio.operators.variant", reason="needs diffbio-variant")
pytest.importorskip("parasail")

import parasail

from diffbio.losses.variant.genotypes import genotype_cross_entropy
from diffbio.operators.variant.recalibration import BaseQualityRecalibration
from diffbio.operators.variant.recalibration_table import read_recalibration_table
from diffbio.pipelines.variant import recipes
from diffbio.pipelines.variant.simulation import simulate_reads
from diffbio.pipelines.variant.sites import read_sites


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Two samples with other variants of other references: one to train on, one to call."""
    folder = tmp_path_factory.mktemp("samples")
    options = {"size": 3000, "depth": 12.0, "mean_quality": 25.0, "variant_rate": 8e-3}
    return [simulate_reads(folder / name, seed=seed, **options) for seed, name in enumerate(("known", "new"))]


@pytest.fixture(scope="module")
def sites(samples):
    return read_sites(samples[0].reads, reference=samples[0].reference, truth=samples[0].truth, flank=16)


def test_one_gradient_reaches_qualities_gap_costs_and_classifier(sites):
    batch = sites.take(np.arange(8))
    pipeline = Pipeline.from_recipe(recipes.reads_to_variants(), rngs=nnx.Rngs(0), data=batch)
    pipeline.initialize(key=jax.random.key(0), **batch)
    of = {found.declaration.name: found.distribution for found in registry().operators.values()}
    assert {of[type(step).__name__] for step in pipeline.steps} == {"diffbio-alignment", "diffbio-variant"}

    @nnx.jit
    def slopes(pipeline):
        return nnx.grad(lambda pipeline: genotype_cross_entropy(pipeline.apply(batch, {}, None)[0]))(pipeline)

    found = slopes(pipeline)["steps"]
    stages = {name: found[place] for place, name in enumerate(pipeline.names) if place in found}
    for stage, names in {
        "recalibration": ("quality_delta", "cycle_delta", "context_delta"),
        "trimming": ("tail",),
        "realignment": ("gap_open_logit", "gap_extend_logit", "pair_logits"),
        "genotypes": ("misplaced_logit",),
    }.items():
        for name in names:
            slope = np.asarray(stages[stage][name][...])
            assert np.isfinite(slope).all()
            assert slope.any(), f"{stage}.{name} is not reached"
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(stages["classifier"]["kernels"]))


def test_fit_and_apply_from_reads_to_a_called_file(samples, tmp_path, diffbio):
    known, new = samples
    recipe, run, calls = tmp_path / "short.json", tmp_path / "run", tmp_path / "calls.vcf.gz"
    table = recipes.reads_to_variants().to_dict()
    recipe.write_text(json.dumps({**table, "training": {**table["training"], "epochs": 2}}))
    fit = ("fit", recipe, known.reads, "--reference", known.reference, "--truth", known.truth)
    status, printed, complaint = diffbio(*fit, "--flank", "16", "--out", run)
    assert status == 0, complaint
    says_what_was_learned(run, printed)
    apply = ("apply", run, new.reads, "--reference", new.reference)
    status, _, complaint = diffbio(*apply, "--flank", "16", "--out", calls)
    assert status == 0, complaint

    def variants(path):
        with pysam.VariantFile(str(path)) as file:
            return {(one.pos, one.ref, one.alts[0]) for one in file}

    called, true = variants(calls), variants(new.truth)
    found = len(called & true)
    assert 2 * found / (len(called) + len(true)) > 0.85, (found, len(called), len(true))
    assert (tmp_path / "calls.vcf.gz.tbi").exists()
    with pysam.VariantFile(str(calls)) as file:
        (cost,) = [one.value for one in file.header.records if one.key == "diffbio_realignment_gap_open_logit"]
    assert float(cost) == pytest.approx(float(load(run)["realignment"].gap_open_logit[...]), rel=1e-5)


def says_what_was_learned(run, printed):
    """The norms of gradients stand in the table that is printed; GATK and parasail can go on with what was learned."""
    rows = [line for line in printed.splitlines() if line.startswith(("step ", "recalibration ", "realignment "))]
    head, *stages = rows[-3:]
    assert head.endswith("gradient")
    assert all(float(stage.split()[-1]) > 0 for stage in stages)
    pipeline = load(run)
    recalibration, realignment = pipeline["recalibration"], pipeline["realignment"]
    report = read_recalibration_table(run / "exports" / "recalibration.table")
    assert report.read_groups == ("simulated",)
    found, learned = BaseQualityRecalibration(recalibration.config), recalibration.tables()
    found.initialize_from_counts(report.counts)
    assert np.abs(learned.cycle_delta).max() > 0.01
    np.testing.assert_allclose(found.tables().cycle_delta, learned.cycle_delta, atol=0.01)
    np.testing.assert_allclose(found.tables().context_delta, learned.context_delta, atol=0.01)
    matrix = parasail.Matrix(str(run / "exports" / "realignment.mat"))
    chance = float(realignment.model().pairs[0, 0])
    assert parasail.nw("A", "A", 1500, 300, matrix).score == pytest.approx(100 * np.log2(16 * chance), abs=5)


def test_without_the_other_distribution_the_recipe_says_what_to_install(monkeypatch):
    monkeypatch.setattr(recipes, "_OF_ALIGNMENT", ("PairHMM", "AbsentOperator"))
    with pytest.raises(RegistryError, match="pip install diffbio-alignment"):
        recipes.reads_to_variants()
