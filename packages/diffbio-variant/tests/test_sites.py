"""From simulated reads to candidates, sites and a VCF file: nothing is lost, and what is written is read back."""

from pathlib import Path

import numpy as np
import pysam
import pytest

from diffbio.core.errors import ConfigError, DataError, MissingKeyError
from diffbio.io.reads import AlignmentFile, Reference, VariantFile
from diffbio.pipelines.variant.calls import write_calls
from diffbio.pipelines.variant.candidates import find_candidates
from diffbio.pipelines.variant.simulation import SimulatedFiles, simulate_reads
from diffbio.pipelines.variant.sites import SiteDataset, read_sites

SIZE = 6000


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> SimulatedFiles:
    return simulate_reads(tmp_path_factory.mktemp("simulated"), seed=3, size=SIZE, depth=25, variant_rate=4e-3)


@pytest.fixture(scope="module")
def sites(simulated: SimulatedFiles) -> SiteDataset:
    return read_sites(simulated.reads, reference=simulated.reference, truth=simulated.truth)


def true_variants(simulated: SimulatedFiles) -> dict[tuple[int, str, str], int]:
    with Reference(simulated.reference) as reference:
        return {
            (one.position, one.reference, one.alternatives[0]): sum(one.genotypes[0].alleles)
            for one in VariantFile(simulated.truth, reference=reference, split=True).variants()
        }


def test_every_true_variant_is_a_candidate(simulated: SimulatedFiles) -> None:
    with Reference(simulated.reference) as reference:
        file = AlignmentFile(simulated.reads, reference=reference)
        found = find_candidates(file, reference, min_reads=2, min_share=0.1)
    keys = {(one.position, one.reference, one.alternatives[0]) for one in found}
    truth = true_variants(simulated)
    assert len(truth) > 15
    assert set(truth) <= keys
    assert len(found) == len(keys), "each once"
    assert file.account.seen == file.account.used


def test_reads_are_at_both_haplotypes(sites: SiteDataset) -> None:
    """At each site the haplotypes differ as the variant says, and the window is the reference around it."""
    rows = sites.take(np.arange(len(sites)))
    for row, variant in enumerate(sites.variants):
        reference, changed = (
            "".join("ACGT"[code] for code in rows["haplotypes"][row, number, :length].argmax(-1))
            for number, length in enumerate(rows["haplotype_lengths"][row])
        )
        middle = len(reference) // 2
        assert reference[middle : middle + len(variant.reference)] == variant.reference
        rest = reference[middle + len(variant.reference) :]
        assert changed == reference[:middle] + variant.alternatives[0] + rest
        kind = np.sign(len(variant.alternatives[0]) - len(variant.reference))
        assert rows["variant_kind"][row].tolist() == [kind == 0, kind > 0, kind < 0]
    assert rows["read_mask"].sum(-1).mean() == pytest.approx(25 * 1.49, abs=4)  # reads of 100 over windows of 49
    assert ((rows["base_positions"] >= -1) & (rows["base_positions"] < 49)).all()


def test_genotypes_are_those_of_the_truth(simulated: SimulatedFiles, sites: SiteDataset) -> None:
    truth = true_variants(simulated)
    genotypes = sites.take(np.arange(len(sites)))["genotype"]
    for variant, copies in zip(sites.variants, genotypes, strict=True):
        assert copies == truth.get((variant.position, variant.reference, variant.alternatives[0]), 0)
    assert (genotypes > 0).sum() == len(truth)


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_calls_are_read_back(simulated: SimulatedFiles, sites: SiteDataset, tmp_path: Path, suffix: str) -> None:
    genotypes = sites.take(np.arange(len(sites)))["genotype"]
    posteriors = np.where(np.eye(3)[genotypes] > 0, 0.99, 0.005).astype(np.float32)
    results = {
        "call_posteriors": posteriors,
        "call_qualities": np.full(len(sites), 20.0, np.float32),
        "call_log_likelihoods": np.log(posteriors),
        "allele_depths": np.tile(np.float32([10.4, 9.6]), (len(sites), 1)),
    }
    path = tmp_path / f"calls{suffix}"
    write_calls(path, sites, results, metadata={"recipe": {"format": 1}})
    with Reference(simulated.reference) as reference:
        read = list(VariantFile(path, reference=reference).variants())
    truth = true_variants(simulated)
    assert {(one.position, one.reference, one.alternatives[0]): sum(one.genotypes[0].alleles) for one in read} == truth
    assert all(one.genotypes[0].quality == 20 for one in read)
    assert all(one.genotypes[0].allele_depths == (10, 10) for one in read)
    with pysam.VariantFile(str(path)) as file:
        assert list(file.header.samples) == ["simulated"]


def test_calls_need_posteriors(sites: SiteDataset, tmp_path: Path) -> None:
    with pytest.raises(MissingKeyError, match="HaplotypeGenotyping or PileupClassifier"):
        write_calls(tmp_path / "calls.vcf", sites, {"read_depth": np.zeros(3)}, metadata={})


def test_reads_of_crowded_sites_and_long_gaps_are_told(simulated: SimulatedFiles) -> None:
    few = read_sites(simulated.reads, reference=simulated.reference, max_reads=8, longest_gap=1)
    assert few.crowded == len(few)
    assert few.take(np.arange(len(few)))["read_mask"].all()
    assert few.too_long
    assert all(abs(len(one.alternatives[0]) - len(one.reference)) > 1 for one in few.too_long)


def test_sizes_out_of_range_and_files_without_candidates_are_refused(simulated: SimulatedFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the flank must hold the longest gap"):
        read_sites(simulated.reads, reference=simulated.reference, flank=4)
    with pytest.raises(ConfigError, match="min_share"):
        read_sites(simulated.reads, reference=simulated.reference, min_share=0.0)
    empty = simulate_reads(tmp_path, seed=0, size=500, variant_rate=0.0, depth=2.0, mean_quality=41.0)
    with pytest.raises(DataError, match="lower min_reads"):
        read_sites(empty.reads, reference=empty.reference, min_reads=5)


def test_simulated_qualities_promise_what_they_keep(tmp_path: Path) -> None:
    """Without a bias as many bases are wrong as the qualities say; with one of 10, ten times as many."""
    for bias, factor in ((0.0, 1.0), (10.0, 10.0)):
        files = simulate_reads(
            tmp_path / str(bias), seed=0, size=4000, variant_rate=0.0, depth=30.0, mean_quality=30.0, quality_bias=bias
        )
        reference = pysam.FastaFile(str(files.reference)).fetch("simulated")
        wrong = expected = 0.0
        with pysam.AlignmentFile(str(files.reads)) as file:
            for record in file:
                there = reference[record.reference_start : record.reference_end]
                wrong += sum(a != b for a, b in zip(record.query_sequence, there, strict=True))
                expected += (10 ** (-np.asarray(record.query_qualities, float) / 10)).sum()
        assert wrong / expected == pytest.approx(factor, rel=0.25)


def test_bases_after_some_letters_are_wrong_more_often_as_the_sequencer_sees_them(tmp_path: Path) -> None:
    options = {"size": 4000, "variant_rate": 0.0, "depth": 30.0, "mean_quality": 30.0, "quality_bias": 10.0}
    files = simulate_reads(tmp_path, seed=0, biased_after="GT", **options)
    reference = pysam.FastaFile(str(files.reference)).fetch("simulated")
    wrong, expected = np.zeros(2), np.zeros(2)
    with pysam.AlignmentFile(str(files.reads)) as file:
        for record in file:
            there, read = reference[record.reference_start : record.reference_end], record.get_forward_sequence()
            there = str(there).translate(str.maketrans("ACGT", "TGCA"))[::-1] if record.is_reverse else there
            for place, quality in enumerate(record.get_forward_qualities()):
                kind = int(there[max(place - 2, 0) : place] == "GT")
                wrong[kind] += read[place] != there[place]
                expected[kind] += 10 ** (-quality / 10)
    assert wrong / expected == pytest.approx([1.0, 10.0], rel=0.25)
    with pytest.raises(ConfigError, match="letters of A, C, G, T"):
        simulate_reads(tmp_path, seed=0, biased_after="N", **options)
