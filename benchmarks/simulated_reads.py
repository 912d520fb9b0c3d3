"""Reads that dwgsim draws from the genome of phage lambda, mapped by bwa: files, and their sites as one dataset."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pysam

from diffbio.pipelines.variant.sites import SiteDataset

GENOME = Path("/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa.gz")


class Sample(NamedTuple):
    """Files of a simulated sample."""

    reads: Path
    truth: Path


class Together:
    """Several sets of sites as one."""

    rows_at_once = 64

    def __init__(self, parts: list[SiteDataset]) -> None:
        self.parts, self.metadata = parts, parts[0].metadata
        whole = [part.take(np.arange(len(part))) for part in parts]
        most = max(part["read_mask"].shape[1] for part in whole)
        self._arrays = {
            key: np.concatenate([_with_rows(part[key], part["read_mask"].shape[1], most) for part in whole])
            for key in whole[0]
        }

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {key: array[indices] for key, array in self._arrays.items()}


def _with_rows(array: np.ndarray, rows: int, most: int) -> np.ndarray:
    """Return an array with as many rows of reads as others have; arrays without such rows as they are."""
    if array.ndim < 2 or array.shape[1] != rows:
        return array
    return np.pad(array, [(0, 0), (0, most - rows)] + [(0, 0)] * (array.ndim - 2))


def write_genome(folder: Path) -> Path:
    """Return the genome as a FASTA file that all tools take, with their indices."""
    path = folder / "lambda.fa"
    lines = gzip.decompress(GENOME.read_bytes()).decode().splitlines()
    path.write_text("\n".join([">lambda", *lines[1:]]) + "\n")
    shell(f"samtools faidx {path} && bwa index {path}")
    return path


def shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True)


def simulate(folder: Path, genome: Path, seed: int, *, ploidy: int, depth: int, error: float) -> Sample:
    """Simulate and map reads, and write the truth with its genotypes."""
    out = folder / f"p{ploidy}d{depth}e{error}s{seed}"
    reads, truth = Path(f"{out}.bam"), Path(f"{out}.truth.vcf.gz")
    pairs = sum(map(len, genome.read_text().split()[1:])) * depth // 200
    kind = "-H" if ploidy == 1 else ""
    rates = f"-r 0.002 -R 0.15 -e {error} -E {error}"
    shell(
        f"dwgsim -N {pairs} -1 100 -2 100 {rates} {kind} -y 0 -z {seed} {genome} {out} && "
        rf"bwa mem -R '@RG\tID:s\tSM:s' {genome} {out}.bwa.read1.fastq.gz {out}.bwa.read2.fastq.gz | "
        f"samtools sort -o {reads} - && samtools index {reads}"
    )
    with pysam.VariantFile(f"{out}.mutations.vcf") as given:
        header = pysam.VariantHeader()
        header.contigs.add("lambda", length=given.header.contigs["lambda"].length)
        header.formats.add("GT", 1, "String", "Genotype")
        header.add_sample("s")
        with pysam.VariantFile(str(truth), "wz", header=header) as written:
            for record in given:
                line = written.new_record(contig="lambda", start=record.start, alleles=record.alleles)
                both = float(np.ravel(record.info["AF"])[0]) > 0.75
                line.samples["s"]["GT"] = (1,) if ploidy == 1 else (1, 1) if both else (0, 1)
                written.write(line)
    pysam.tabix_index(str(truth), preset="vcf", force=True)
    return Sample(reads, truth)
