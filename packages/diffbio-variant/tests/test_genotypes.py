"""Genotype likelihoods beside a written-out model, a numerical one, and what bcftools says of real reads."""

import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pysam
import pytest
from alignments import ex1
from jax.test_util import check_grads
from laid_reads import laid_reads, one_hot, write_random_bam

from diffbio.operators.variant.genotypes import (
    GenotypeLikelihood,
    GenotypeLikelihoodConfig,
    genotype_alleles,
    genotype_prior,
)


def written_out(data: dict[str, np.ndarray], window: int, ploidy: int, dependence: float) -> np.ndarray:
    """Return log-likelihoods in float64, base by base; the bases of each column from the best to the worst."""
    alleles = genotype_alleles(ploidy)
    log_likelihoods = np.zeros((window, len(alleles)))
    n_reads, n_positions = data["qualities"].shape
    bases = [
        (read, place)
        for read in range(n_reads)
        for place in range(n_positions)
        if place < data["read_lengths"][read] and data["base_positions"][read, place] >= 0
    ]
    quality = np.minimum(data["qualities"], data["mapping_qualities"][:, None])
    seen: dict[tuple, int] = {}
    for read, place in sorted(bases, key=lambda at: (-quality[at], at)):
        letter = data["reads"][read, place]
        if not letter.any():
            continue
        error = 10 ** (-np.clip(quality[read, place], 4, 63) / 10)
        column = data["base_positions"][read, place]
        kind = column, letter.argmax(), data["reverse_strand"][read]
        share = 0.97 * dependence ** seen.get(kind, 0) + 0.03
        seen[kind] = seen.get(kind, 0) + 1
        for number, genotype in enumerate(alleles):
            chance = np.mean([1 - error if allele == letter.argmax() else error / 3 for allele in genotype])
            log_likelihoods[column, number] += (1 if letter.argmax() in genotype else share) * np.log(chance)
    return log_likelihoods


@pytest.mark.parametrize(("ploidy", "dependence"), [(1, 1.0), (2, 0.83)])
def test_likelihoods_are_those_of_the_model(tmp_path: Path, certificate, ploidy: int, dependence: float) -> None:
    path = tmp_path / "random.bam"
    reference = write_random_bam(path, n_reads=300, size=500)
    data = laid_reads(path, "ref", 0, 500)
    operator = GenotypeLikelihood(GenotypeLikelihoodConfig(ploidy=ploidy, dependence=dependence))
    found = operator.apply({**data, "reference": one_hot(reference)}, {}, None)[0]
    expected = written_out(data, 500, ploidy, min(dependence, 1 - 1e-6))
    difference = np.abs(found["genotype_log_likelihoods"] - expected).max() / np.log(10)
    certificate(
        operator="GenotypeLikelihood",
        reference="the model written out in float64",
        data="300 random reads with gaps and clips",
        quantity=f"log10 likelihood, ploidy {ploidy}, dependence {dependence}, largest difference",
        value=float(difference),
        bar="<= 1e-4",
    )
    assert difference <= 1e-4
    np.testing.assert_allclose(found["genotype_posteriors"].sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found["allele_dosage"].sum(-1), ploidy, atol=1e-5)


def test_the_most_probable_genotype_is_that_of_the_reads() -> None:
    genotype = {"AG": [0, 2] * 6, "GG": [2] * 12, "AA": [0] * 12}
    for name, letters in genotype.items():
        data = {
            "reads": np.eye(4, dtype=np.float32)[np.array(letters)[:, None]],
            "qualities": np.full((12, 1), 30, np.float32),
            "base_positions": np.zeros((12, 1), np.int32),
            "reference": one_hot("A"),
        }
        found = GenotypeLikelihood(GenotypeLikelihoodConfig(dependence=1.0)).apply(data, {}, None)[0]
        best = genotype_alleles(2)[int(found["genotype_posteriors"][0].argmax())]
        assert "".join("ACGT"[allele] for allele in best) == name
        assert found["genotype_qualities"][0] > 20
        assert (found["variant_probability"][0] > 0.5) == (name != "AA")


def test_where_no_base_counts_the_prior_remains() -> None:
    data = {
        "reads": np.zeros((2, 3, 4), np.float32),
        "qualities": np.zeros((2, 3), np.float32),
        "base_positions": np.full((2, 3), -1, np.int32),
        "reference": one_hot("ACN"),
        "read_mask": np.zeros(2, bool),
    }
    found = GenotypeLikelihood(GenotypeLikelihoodConfig()).apply(data, {}, None)[0]
    np.testing.assert_allclose(found["genotype_posteriors"], genotype_prior(data["reference"], 1e-3, 2), atol=1e-6)
    assert not found["variant_probability"][2]
    assert np.isfinite(found["genotype_qualities"]).all()


@pytest.mark.parametrize("quality", [0.0, 2.0, 40.0, 93.0])
def test_derivatives_are_finite_and_those_of_finite_differences(tmp_path: Path, quality: float) -> None:
    path = tmp_path / "random.bam"
    reference = write_random_bam(path, n_reads=10, size=120, length=20)
    data = laid_reads(path, "ref", 0, 120) | {"reference": one_hot(reference)}
    data["mapping_qualities"][:] = 99
    data["qualities"][:] = quality + np.linspace(0, 1, data["qualities"].size).reshape(data["qualities"].shape)

    def mean(qualities: jax.Array, offset: jax.Array, dependence: jax.Array) -> jax.Array:
        operator = GenotypeLikelihood(GenotypeLikelihoodConfig())
        operator.error_offset[...], operator.dependence_logit[...] = offset, dependence
        found = operator.apply({**data, "qualities": qualities}, {}, None)[0]
        return found["genotype_log_likelihoods"].mean() + found["allele_dosage"][:, 0].mean()

    arguments = data["qualities"], jnp.float32(0.1), jnp.float32(1.5)
    assert all(np.isfinite(slope).all() for slope in jax.grad(mean, (0, 1, 2))(*arguments))
    if quality == 40.0:
        check_grads(mean, arguments, 1, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_error_terms_are_learned_from_genotypes() -> None:
    """Qualities that promise too much are put right by what the reads of known positions show."""
    random = np.random.default_rng(0)
    truth = random.integers(4, size=400)
    true_error, stated = 0.05, 30.0
    letters = np.where(random.random((30, 400)) < true_error, random.integers(4, size=(30, 400)), truth)
    data = {
        "reads": np.eye(4, dtype=np.float32)[letters],
        "qualities": np.full(letters.shape, stated, np.float32),
        "base_positions": np.tile(np.arange(400, dtype=np.int32), (30, 1)),
        "reference": np.eye(4, dtype=np.float32)[truth],
    }

    @jax.jit
    def loss(offset: jax.Array) -> jax.Array:
        operator = GenotypeLikelihood(GenotypeLikelihoodConfig(ploidy=1, dependence=1.0))
        operator.error_offset[...] = offset
        found = operator.apply(data, {}, None)[0]["genotype_log_likelihoods"]
        return -jnp.take_along_axis(found, truth[:, None], axis=1).mean()

    offset = jnp.float32(0.0)
    for _ in range(200):
        offset = offset - 0.05 * jax.grad(loss)(offset)
    learned = jax.nn.sigmoid(jnp.log(1e-3 / (1 - 1e-3)) + offset)
    assert float(learned) == pytest.approx(true_error * 0.75, rel=0.1)  # a quarter of the random letters is right


@pytest.mark.slow
def test_genotypes_are_those_of_bcftools_on_real_reads(tmp_path: Path, certificate) -> None:
    if shutil.which("bcftools") is None:
        pytest.skip("needs bcftools")
    path, fasta = ex1(tmp_path)
    differing = compared = 0
    gaps = []
    with pysam.FastaFile(fasta) as sequences:
        references = {name: sequences.fetch(name).upper() for name in sequences.references}
    for contig, reference in references.items():
        command = ["bcftools", "mpileup", "-B", "-A", "-x", "-Q", "1", "-I", "-a", "DP", "-r", contig]
        printed = subprocess.run(
            [*command, "-f", str(fasta), str(path)], check=True, capture_output=True, text=True
        ).stdout
        data = laid_reads(path, contig, 0, len(reference)) | {"reference": one_hot(reference)}
        operator = GenotypeLikelihood(GenotypeLikelihoodConfig())
        found = operator.apply(data, {}, None)[0]["genotype_log_likelihoods"] * 10 / np.log(10)
        order = {tuple(sorted(genotype)): number for number, genotype in enumerate(genotype_alleles(2).tolist())}
        for line in printed.splitlines():
            if line.startswith("#"):
                continue
            fields = line.split("\t")
            alleles = [fields[3], *(allele for allele in fields[4].split(",") if allele != "<*>")]
            if len(alleles) < 2 or any(allele not in set("ACGT") for allele in alleles):
                continue
            names = fields[8].split(":")
            theirs = np.array([float(value) for value in fields[9].split(":")[names.index("PL")].split(",")])
            codes = ["ACGT".index(allele) for allele in alleles]
            pairs = [tuple(sorted((codes[i], codes[j]))) for j in range(len(codes)) for i in range(j + 1)]
            ours = np.array([float(found[int(fields[1]) - 1, order[pair]]) for pair in pairs])
            ours = ours.max() - ours
            differing += int(ours.argmin() != theirs[: len(pairs)].argmin())
            gaps.append(np.abs(np.minimum(ours, 255) - np.minimum(theirs[: len(pairs)], 255)))
            compared += 1
    median = float(np.median(np.concatenate(gaps)))
    certificate(
        operator="GenotypeLikelihood",
        reference="bcftools 1.16 mpileup -B -A -x -Q 1",
        data=f"{compared} positions of ex1.bam with more than one letter",
        quantity="share of most likely genotypes that differ",
        value=differing / compared,
        bar="<= 0.01",
    )
    certificate(
        operator="GenotypeLikelihood",
        reference="bcftools 1.16 mpileup -B -A -x -Q 1",
        data=f"{compared} positions of ex1.bam with more than one letter",
        quantity="PL, median difference, Phred",
        value=median,
        bar="<= 3",
    )
    assert compared > 50
    assert differing / compared <= 0.01
    assert median <= 3
