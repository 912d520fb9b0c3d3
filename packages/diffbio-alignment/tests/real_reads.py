"""Reads for the tests: real ones, as arrays and as files, and what the field's tools make of them."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from diffbio.io.sequence.alphabets import DNA, encode

ERR127302 = Path("/usr/lib/R/site-library/ShortRead/extdata/E-MTAB-1147")
"""20,000 pairs of 72 bases with qualities, of the Debian package r-bioc-shortread."""
READ_THROUGH = Path("/usr/share/doc/adapterremoval/examples")
"""500 pairs of 100 bases, many of which read through into the adapter, of the Debian package adapterremoval."""


class Record(NamedTuple):
    """One read of a FASTQ file."""

    name: str
    sequence: str
    qualities: str


def load(path: Path, first: int | None = None) -> list[Record]:
    """Return the reads of a FASTQ file; skips the test where there is none."""
    if not path.exists():
        pytest.skip(f"no {path}: install the Debian package that brings it")
    with gzip.open(path, "rt") as lines:
        text = lines.read().splitlines()
    records = zip(text[::4], text[1::4], text[3::4], strict=True)
    return [Record(name[1:].split()[0], sequence, qualities) for name, sequence, qualities in records][:first]


def save(path: Path, records: list[Record]) -> Path:
    """Write a FASTQ file."""
    path.write_text("".join(f"@{name}\n{sequence}\n+\n{qualities}\n" for name, sequence, qualities in records))
    return path


def parsed(text: str) -> dict[str, Record]:
    """Return the reads of a FASTQ file by name."""
    lines = text.splitlines()
    records = zip(lines[::4], lines[1::4], lines[3::4], strict=True)
    return {name[1:].split()[0]: Record(name[1:].split()[0], *rest) for name, *rest in records}


def arrays(records: list[Record], size: int | None = None) -> dict[str, np.ndarray]:
    """Return reads as the operators take them."""
    encoded = encode([record.sequence for record in records], DNA, size=size)
    qualities = np.zeros(encoded.letters.shape[:2], np.float32)
    for row, record in zip(qualities, records, strict=True):
        row[: len(record.qualities)] = np.frombuffer(record.qualities.encode(), np.uint8) - 33.0
    return {"reads": encoded.letters, "qualities": qualities, "read_lengths": encoded.lengths}


def cutadapt(path: Path, *options: str) -> dict[str, Record]:
    """Return what cutadapt leaves of a file."""
    pytest.importorskip("cutadapt")
    command = [sys.executable, "-m", "cutadapt", "--quiet", *options, str(path)]
    return parsed(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def fastp(path: Path, *options: str, mate: Path | None = None) -> tuple[dict[str, Record], ...]:
    """Return what fastp leaves of a file, or of two; adapters, poly-G and filters are off unless options say so."""
    program = shutil.which("fastp")
    if program is None:
        pytest.skip("fastp is not installed (apt install fastp)")
    ends = ["1"] if mate is None else ["1", "2"]
    out = [path.with_suffix(f".out{end}.fastq") for end in ends]
    command = [program, "-i", str(path), "-o", str(out[0]), "-j", "/dev/null", "-h", "/dev/null", "-w", "1", "-G"]
    command += [] if mate is None else ["-I", str(mate), "-O", str(out[1])]
    subprocess.run([*command, *options], check=True, capture_output=True, cwd=path.parent)
    return tuple(parsed(file.read_text()) for file in out)


def some_reads() -> list[Record]:
    """Return a few of the first kind: with N, with bad ends, and good ones."""
    return [Record(f"ERR127302.{number}", sequence, qualities) for number, sequence, qualities in _SOME]


def with_adapters(records: list[Record], adapter: str, *, seed: int = 0, mismatches: float = 0.02) -> list[Record]:
    """Return reads of which seven in ten run into an adapter with a few sequencing errors, at random places.

    A letter is drawn anew at the rate `mismatches`, which changes three in four, and is left out, or doubled, at a
    quarter of that rate.
    """
    random = np.random.default_rng(seed)
    planted = []
    for name, sequence, qualities in records:
        found = []
        for letter in adapter:
            draw = random.random()
            if draw < mismatches / 4:
                continue
            found += [letter] if draw < mismatches / 2 else []
            found.append("ACGT"[random.integers(4)] if random.random() < mismatches else letter)
        size = len(sequence)
        begin = random.integers(0, size + len(adapter)) if random.random() < 0.7 else size
        planted.append(Record(name, (sequence[:begin] + "".join(found) + sequence[::-1])[:size], qualities))
    return planted


def reverse_complement(sequence: str) -> str:
    """Return the other strand."""
    return sequence[::-1].translate(str.maketrans("ACGT", "TGCA"))


_SOME = (
    (
        "18525359",
        "ATTTGTTCCAGTCACTTTTGAATCCATGTTCTATAATCTAAAATTTATTCTCTTTCCCTAAGCTNAGAGATT",
        "GIIIIIIIIIIIIIIIIIIIIIHIIGIIIIIIIIIHIIIIDHIIIIGIGHIIIIIIIFIIFFDE)@@#####",
    ),
    (
        "23192302",
        "TTACNCTCTTGCCTCCGTGAAGCTCCTCCCCATTTTTGTCCGTGTTTCTGCCAGACCAGAAGAGATGTGCAC",
        "CCBC'FFFFFGHHHHHHHBGHGHHHHHHHHH>HHHHHEHHHFHGHHHBHHHHHHHHHFGHFFHFDE@EDFEF",
    ),
    (
        "18563730",
        "CTCAGGTTCTTGAAAAGTGACAGCATATACAGGAGCTTGTCCACTTTCCAATTGTATGTAATATNCTCTTTT",
        "HHHHHHHHHHHDBHHHBHHHHHDBHHHHHHHHHDHHHHHHHHHHHHHGHHHHHHHFHDHH############",
    ),
    (
        "4116808",
        "CGCCGCTCAGCGAAATCCACGGCGCGCAAGCGCGCAGAGCCTTTACGGTGCTTCACGTGCGCGCGGAACCCA",
        "D=?BDAEEEE>GGDG??DDD####################################################",
    ),
    (
        "982807",
        "CTAACGGGCTCCGATCCAGCGAGCGCTGCGTCCTCGAGTCCCTGCGCCCGTGCGTCCGTCTGCGACCCGAGG",
        "GGGGGGGGGGGGGGGGGGEBDB>38;67;:=??3=141/3=?##############################",
    ),
    (
        "3016765",
        "CGCCAAGAGCGCGGACGGCTCGGCGCCGGCAGGCGAGGGCGAGGGCGTGACCCGGCAGCGGAACGTCACGCT",
        "HHHHHHGHDGHGGEHDHHDHHEH>GHHDBB3CC@?>@CC>;8?>?8?#########################",
    ),
    (
        "8649849",
        "GCAGCCTTCTGGAGGTCCATCTTTATCTTTTTTGCCCCGCTGTCCCTTCTTTTTGGTTGGCCCCCCCCCGCC",
        "IIIIGIIIIHIIDIIFIIGIGIIIGIHIII@@########################################",
    ),
    (
        "3101937",
        "GAGGAGGGGCTGGAGAGGCAGGGGGGCCAGGACGGGAGGGCGGGCCAGGCGCGGGGGCGGGAGGTGGCCTGG",
        "B?CC;DE@@@GDB<89;?A;EBB#################################################",
    ),
    (
        "10256950",
        "GGGCAGTGCCCGGTGCCCTGGTGCTCCCAGCCGCCCCCCCCCTTCGGGCCTCGGCGCCGCGCCCTGTGTAGG",
        "B<EEB<EBBE?:?<B=BBB2/77:3=@@;@##########################################",
    ),
    (
        "8493430",
        "GTCTGCTGTATCTGTGTCGGCTGTCTCGCGGGACATGAAGTCAATGAAGGCCTGGAATGTCACTACCCCCAG",
        "HHHHHHHHHHHHHHHHHHHHEBDBB?B:BBGG<DDAA?AABFEFBDBD@DDECEE3>:?;@@@>?=BAB?##",
    ),
    (
        "19486260",
        "GTTTGGATATATGGAGGATGGGGATTATTGCTAGGATGAGGATGGATAGTAATAGGGCAAGGACGCCTCCTA",
        "GGEGGE8EEEDDBD?EEEDEGGG3GE<EEEBBEEE8@D?DC;;CB8BBB?E>E?CGEGG<G@F>GGB>D###",
    ),
    (
        "109069",
        "CAAAGACCAGCTTTGGCCTCGCACTGCGCCCGAGGCAGACACAGGGCGTTCCATCCTCTTCCCTCCCCCCTC",
        "DBBDBDDDDB=;B*?DBBDD8;;@>B:DBBDD@DD><>>>8>->?>;;2;2;573<<B?BDBD<D#######",
    ),
    (
        "21406531",
        "CTAGGGCAATCTTTGCAGCAATGAATGCCAATGGGTAGCCAGTGGCTTTTGAGGCCAGAGCAGACCTTCGGG",
        "IIIIHIIIGIIIIIIIHIIIIEGBGHIIIIHGIIHIIIIIIIHIIIHIIIIIGIIIEGIIGBGE@DDGGGIG",
    ),
    (
        "22173106",
        "TGGGCTGTTCCTTCTCACTGTGGCCTGACTAAAACCCAGTGGCATTAAGAAAGAGTCACGTTTCCCAAGTCT",
        "GGHBHGBGGGHHHHDHHHHHHHHHFGHHHHHHHHHHHHHHHHHHHHHGHFHHHHHHHHHHHHHH8AGDGGG>",
    ),
    (
        "10402268",
        "CTCATCCACACCTTTGGTCTTGATGGCTGTTTCAATGTTCAAAGCATCCCGCTCAGCATCAAAGTTAGTATA",
        "IIIIIIIIIIIIIIIIIHIIIGHIIIIIIIIIIIIIGIIHIIIIIIIIIIHIIIIHIIHIGDIIHIHIIIHF",
    ),
)
