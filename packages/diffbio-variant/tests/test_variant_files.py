"""Variants: normal forms as bcftools makes them, files that pysam and bcftools read back, clear errors."""

import gzip
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import alignments
import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffbio.core.errors import ConfigError, DataError
from diffbio.io.reads.references import Reference
from diffbio.io.reads.variant_files import VariantFile
from diffbio.io.reads.variant_writing import InfoField, write_variants
from diffbio.io.reads.variants import Genotype, Variant, called_genotype, genotype_order, normalized, split_alleles

LETTERS = "GGGCACACACAGGGTTTTTTCATGNNACGRACGT"
VT = Path("/usr/share/doc/vt/examples")

HEADER = """##fileformat=VCFv4.2
##contig=<ID=chr1,length=34>
##FILTER=<ID=low,Description="low">
##INFO=<ID=AF,Number=A,Type=Float,Description="x">
##INFO=<ID=DP,Number=1,Type=Integer,Description="x">
##FORMAT=<ID=GT,Number=1,Type=String,Description="x">
##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="x">
##FORMAT=<ID=AD,Number=R,Type=Integer,Description="x">
##FORMAT=<ID=GL,Number=G,Type=Float,Description="x">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ta\tb
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text(f">chr1\n{LETTERS}\n")
    return Reference(path)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (Variant("chr1", 7, "CAC", ("C",)), (2, "GCA", ("G",))),  # Tan et al., figure 1: five ways of one deletion
        (Variant("chr1", 3, "CAC", ("C",)), (2, "GCA", ("G",))),
        (Variant("chr1", 2, "GCACA", ("GCA",)), (2, "GCA", ("G",))),
        (Variant("chr1", 1, "GGCA", ("GG",)), (2, "GCA", ("G",))),
        (Variant("chr1", 2, "GCA", ("G",)), (2, "GCA", ("G",))),
        (Variant("chr1", 19, "T", ("TT",)), (13, "G", ("GT",))),
        (Variant("chr1", 19, "t", ("tt", "ttt")), (13, "G", ("GT", "GTT"))),
        (Variant("chr1", 20, "CATG", ("CACG",)), (22, "T", ("C",))),
        (Variant("chr1", 20, "CAT", ("CGC",)), (21, "AT", ("GC",))),
        (Variant("chr1", 2, "GC", ("C",)), (0, "GG", ("G",))),  # up to the first base
        (Variant("chr1", 0, "GG", ("G",)), (0, "GG", ("G",))),
        (Variant("chr1", 29, "R", ("G",)), (29, "R", ("G",))),
        (Variant("chr1", 29, "A", ("G",)), (29, "A", ("G",))),  # the reference is not sure of it
    ],
    ids=str,
)
def test_normal_forms(variant: Variant, expected: tuple, reference: Reference) -> None:
    ours = normalized(variant, reference)
    assert ours[1:4] == expected
    assert normalized(ours, reference) == ours


@given(st.integers(1, 22), st.integers(1, 8), st.text("ACGT", min_size=1, max_size=6))
def test_normal_forms_say_the_same_and_are_one(position: int, size: int, bases: str) -> None:
    letters = LETTERS[:24]
    variant = Variant("chr1", position, letters[position : min(position + size, 24)], (bases,))
    if variant.reference == bases:
        return
    reference = _Letters(letters)
    ours = normalized(variant, reference)
    assert letters[: ours.position] + ours.alternatives[0] + letters[ours.end :] == (
        letters[:position] + bases + letters[variant.end :]
    )
    longer = variant._replace(
        position=position - 1,
        reference=letters[position - 1] + variant.reference + letters[variant.end : variant.end + 1],
        alternatives=(letters[position - 1] + bases + letters[variant.end : variant.end + 1],),
    )
    assert normalized(longer, reference) == ours


class _Letters:
    """A reference in memory."""

    path = Path("memory.fa")

    def __init__(self, letters: str) -> None:
        self._letters = letters

    def letters(self, region: tuple[str, int, int]) -> str:
        return self._letters[region[1] : region[2]]


def test_genotypes_are_in_the_order_of_the_specification() -> None:
    for n_alleles in range(1, 6):
        order = genotype_order(n_alleles)
        assert [order.index((j, k)) for k in range(n_alleles) for j in range(k + 1)] == list(range(len(order)))
        assert all(order[k * (k + 1) // 2 + j] == (j, k) for j, k in order)
        assert genotype_order(n_alleles, 1) == tuple((number,) for number in range(n_alleles))
    assert genotype_order(2, 3) == ((0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1))


def test_genotypes_are_called_from_likelihoods() -> None:
    called = called_genotype([-12.0, -7.04, -3.0, -np.inf, -3.2, -50.0], n_alleles=3)
    assert called.alleles == (1, 1)
    assert called.likelihoods == (90, 40, 0, 2**31 - 1, 2, 470)
    assert called.quality == 2
    assert called_genotype([0.0, -20.0], n_alleles=2, ploidy=1) == Genotype((0,), quality=99, likelihoods=(0, 200))
    assert called_genotype([-3e38, -1e38, 0], n_alleles=2).likelihoods == (2**31 - 1, 2**31 - 1, 0)
    for wrong, message in (
        ([0.0, 1.0], r"2 alleles with ploidy 2 make 3 genotypes"),
        ([0.0, np.nan, 1.0], "none NaN"),
        ([-np.inf] * 3, "at least one above"),
    ):
        with pytest.raises(DataError, match=message):
            called_genotype(wrong, n_alleles=2)


BOTH = Genotype((1, 2), phased=True, quality=9, depth=4, allele_depths=(0, 2, 2))
VARIANTS = [
    Variant("chr2", 5, "A", ("G",), 30.5, ("PASS",), (Genotype((0, 1), False, 40, 12, (7, 5), (40, 0, 50)),), "rs1"),
    Variant(
        "chr1",
        9,
        "ACT",
        ("A", "ACTT"),
        None,
        ("low",),
        (Genotype((1, 2), True, 9, 4, (0, 2, 2)),),
        "",
        {"AF": (0.5, 0.25)},
    ),
    Variant("chr1", 2, "G", ("T",), 12.0, (), (Genotype((None, None)),), "", {"DP": 3, "END_SEEN": True}),
    Variant("chr1", 2, "G", ("C",), 3.0, (), (Genotype((1,), likelihoods=(30, 0)),)),
]
INFO = {
    "AF": InfoField("A", "Float", "Fraction of reads"),
    "DP": InfoField(1, "Integer", "Reads"),
    "END_SEEN": InfoField(0, "Flag", "The end was seen"),
}
OPTIONS = {
    "contigs": {"chr1": 100, "chr2": 50},
    "samples": ["s"],
    "info": INFO,
    "filters": {"low": "Low quality"},
    "source": "diffbio-variant 0.1.0",
    "parameters": {"softness": 0.1, "region": "chr1:1-100"},
}


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_what_is_written_is_read_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"calls{suffix}"
    assert write_variants(path, VARIANTS, **OPTIONS) == 4
    file = VariantFile(path)
    expected = [VARIANTS[number] for number in (3, 2, 1, 0)]
    assert list(file.variants()) == expected
    assert (dict(file.contigs), file.samples, str(file.account)) == (OPTIONS["contigs"], ("s",), "4 variants: 4 used")
    with pysam.VariantFile(str(path)) as theirs:
        header = str(theirs.header)
        records = list(theirs)
    for line in (
        "##source=diffbio-variant 0.1.0",
        "##diffbio_softness=0.1",
        "##diffbio_region=chr1:1-100",
        "##contig=<ID=chr2,length=50>",
        '##FILTER=<ID=low,Description="Low quality">',
        '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="Phred likelihood of each genotype, the best 0">',
    ):
        assert line in header
    assert [record.pos for record in records] == [3, 3, 10, 6]
    assert records[3].samples["s"]["PL"] == (40, 0, 50)
    assert (
        sorted(each.name for each in tmp_path.iterdir())
        == {
            ".vcf": ["calls.vcf"],
            ".vcf.gz": ["calls.vcf.gz", "calls.vcf.gz.tbi"],
            ".bcf": ["calls.bcf", "calls.bcf.csi"],
        }[suffix]
    )
    if suffix != ".vcf":
        assert list(VariantFile(path).variants("chr1:4-20")) == [VARIANTS[1]]


def test_a_long_contig_has_an_index_of_the_other_kind(tmp_path: Path) -> None:
    path = tmp_path / "calls.vcf.gz"
    variant = Variant("chr1", 600_000_000, "A", ("G",))
    write_variants(path, [Variant("chr1", 5, "A", ("G",))], contigs={"chr1": 1000})
    write_variants(path, [variant], contigs={"chr1": 700_000_000})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["calls.vcf.gz", "calls.vcf.gz.csi"]
    assert list(VariantFile(path).variants("chr1:600,000,001-600,000,001")) == [variant]


def test_a_file_without_samples_or_variants(tmp_path: Path) -> None:
    for suffix in (".vcf", ".vcf.gz", ".bcf"):
        path = tmp_path / f"calls{suffix}"
        assert write_variants(path, [], contigs={"chr1": 10}) == 0
        assert list(VariantFile(path).variants()) == []
        assert VariantFile(path).table().alleles.shape == (0, 0, 0)


def refused(change: dict, options: dict | None = None) -> Callable[[Path], object]:
    variant = VARIANTS[0]._replace(**change)
    return lambda path: write_variants(path, [VARIANTS[2], variant], **OPTIONS | (options or {}))


REFUSED: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "contig": (refused({"contig": "2"}), DataError, r"2:6 A>G: there is no contig '2' \(did you mean 'chr2'\?\)"),
    "position": (
        refused({"position": 50}),
        DataError,
        r"chr2:51 A>G is not within 'chr2', which has positions 1 to 50",
    ),
    "allele": (
        refused({"alternatives": ("<DEL>",)}),
        DataError,
        r"chr2:6 A><DEL> has an allele twice, or one",
    ),
    "twice": (refused({"alternatives": ("A",)}), DataError, r"chr2:6 A>A has an allele twice"),
    "filter": (refused({"filters": ("odd",)}), DataError, r"chr2:6 A>G failed 'odd', which filters does not describe"),
    "field": (refused({"info": {"XX": 1}}), DataError, r"chr2:6 A>G has the field 'XX', which info does not describe"),
    "samples": (refused({"genotypes": ()}), DataError, r"chr2:6 A>G has 0 genotypes for 1 samples; give one for each"),
    "genotype": (refused({"genotypes": (Genotype((0, 2)),)}), DataError, r"genotype \(0, 2\), and alleles 0 to 1"),
    "likelihoods": (
        refused({"genotypes": (Genotype((0, 1), likelihoods=(0, 1)),)}),
        DataError,
        r"has 2 likelihoods of a sample; its alleles and ploidy make 3",
    ),
    "depths": (
        refused({"genotypes": (Genotype((0, 1), allele_depths=(1, 2, 3)),)}),
        DataError,
        r"has 3 allele_depths of a sample; its alleles and ploidy make 2",
    ),
    "header": (
        refused({}, {"parameters": {"a": "b\nc"}}),
        ConfigError,
        r"can't stand in a header; leave out line breaks",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_written_is_refused_by_name(case: str, tmp_path: Path) -> None:
    act, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        act(tmp_path / "calls.vcf")
    assert list(tmp_path.iterdir()) == []


def test_the_suffix_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"calls\.txt ends with none of '\.vcf', '\.vcf\.gz', '\.bcf'"):
        write_variants(tmp_path / "calls.txt", [], contigs={"chr1": 10})


def written(path: Path, *lines: str) -> Path:
    path.write_text(HEADER + "".join(line.replace(" ", "\t") + "\n" for line in lines))
    return path


def test_variants_are_read_in_normal_form_and_as_a_table(reference: Reference, tmp_path: Path) -> None:
    path = written(
        tmp_path / "truth.vcf",
        "chr1 1 . G A 7 low DP=3 GT 0/1 1|1",
        "chr1 8 x CAC C . PASS AF=0.5 GT 1|0 1",
        "chr1 18 . T . . . . GT 0/0 0/0",
        "chr1 20 . T TT,C 5 . AF=0.25,0.5 GT:GQ:AD:GL 1/2:33:1,2,3:-9,-8,-7,-6,-5,-4.5 ./.:.:.:.",
        "chr1 21 . C <DEL> . . . GT 0/1 0/0",
    )
    file = VariantFile(path, reference=reference, symbolic="skip", split=True)
    variants = list(file.variants())
    assert [str(variant) for variant in variants] == [
        "chr1:1 G>A",
        "chr1:3 GCA>G",
        "chr1:14 G>GT",
        "chr1:20 T>C",
    ]
    assert str(file.account) == "5 variants: 3 used, 1 dropped as symbolic, 1 dropped as without alternative"
    assert variants[2].genotypes[0] == Genotype((1, 0), quality=33, allele_depths=(1, 2), likelihoods=(45, 35, 25))
    assert variants[3].genotypes[0] == Genotype((0, 1), quality=33, allele_depths=(1, 3), likelihoods=(45, 15, 0))
    assert (variants[2].info["AF"], variants[3].info["AF"]) == ((0.25,), (0.5,))
    table = VariantFile(path, reference=reference, symbolic="skip", split=True).table()
    assert table.positions.tolist() == [0, 2, 13, 19]
    assert table.alternatives == [("A",), ("G",), ("GT",), ("C",)]
    assert table.alleles.tolist() == [[[0, 1], [1, 1]], [[1, 0], [1, -1]], [[1, 0], [-1, -1]], [[0, 1], [-1, -1]]]
    assert table.phased.tolist()[:2] == [[False, True], [True, table.phased[1, 1]]]
    assert table.passed.tolist() == [False, True, True, True]
    np.testing.assert_array_equal(table.qualities, np.array([7, np.nan, 5, 5], np.float32))


def test_symbolic_alleles_are_an_error_unless_said_otherwise(tmp_path: Path) -> None:
    for allele in ("<DEL>", "*", "A]chr1:9]", "<NON_REF>"):
        path = written(tmp_path / "calls.vcf", f"chr1 1 . G {allele} . . . GT 0/1 0/0")
        with pytest.raises(DataError, match=r"calls\.vcf: chr1:1 G>.* is not written out in bases; give symbolic="):
            list(VariantFile(path).variants())
        (kept,) = VariantFile(path, symbolic="keep").variants()
        assert kept.alternatives == (allele,)
        assert list(VariantFile(path, symbolic="skip").variants()) == []


def test_options_that_can_not_be_are_refused(reference: Reference, tmp_path: Path) -> None:
    path = written(tmp_path / "calls.vcf")
    with pytest.raises(ConfigError, match="symbolic is 'drop'; give"):
        VariantFile(path, symbolic="drop")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no normal form"):
        VariantFile(path, symbolic="keep", reference=reference)


def lines(*given: str, **options) -> Callable[[Path], list]:
    return lambda path: list(VariantFile(written(path, *given), **options).variants())


def content(given: bytes | None) -> Callable[[Path], list]:
    def act(path: Path) -> list:
        if given is not None:
            path.write_bytes(given)
        return list(VariantFile(path).variants())

    return act


def cut(path: Path, end: bytes) -> list:
    whole = path.with_name("whole.vcf.gz")
    many = [Variant("chr1", begin, "A", ("G",), info={"DP": begin * 7919 % 10007}) for begin in range(20_000)]
    write_variants(whole, many, contigs={"chr1": 30_000}, info=INFO)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2] + end)
    return list(VariantFile(path).variants())


def _region(path: Path) -> list:
    return list(VariantFile(written(path, "chr1 1 . G A . . . GT 0/1 0/0")).variants("chr1:1-5"))


END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

BAD: dict[str, tuple[Callable[[Path], list], str]] = {
    "missing": (content(None), r"bad\.vcf does not exist"),
    "empty": (content(b""), r"bad\.vcf can't be read as VCF or BCF"),
    "another kind": (content(b"@r1\nACGT\n+\nIIII\n"), r"bad\.vcf can't be read as VCF or BCF .*another kind"),
    "gzip": (content(gzip.compress(HEADER.encode())), r"bad\.vcf is compressed by gzip and not by bgzip; run `gunzip"),
    "malformed": (
        lines("chr1 1 . G A . . . GT 0/1 0/0", "chr1 x . G A . . . GT 0/1 0/0"),
        r"bad\.vcf is malformed or cut short after chr1:1 .*bcftools view",
    ),
    "cut short": (lambda path: cut(path, b""), r"bad\.vcf is cut short .*; write or copy it again"),
    "cut within": (lambda path: cut(path, END_OF_BGZF), r"bad\.vcf is malformed or cut short after chr1:\d+"),
    "no index": (_region, r"bad\.vcf has no index, which regions need; run `bcftools index"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    act, message = BAD[case]
    with pytest.raises(DataError, match=message):
        act(tmp_path / "bad.vcf")


def test_variants_of_another_reference_are_refused(reference: Reference, tmp_path: Path) -> None:
    for line, message in (
        ("chr1 1 . A C . . . GT 0/1 0/0", r"calls\.vcf: chr1:1 A>C is of another reference than .*, which has G there"),
        ("chr1 34 . TAC C . . . GT 0/1 0/0", r"chr1:34 TAC>C: region chr1:34-36 is not within 'chr1'"),
        ("chr1 1 . G G . . . GT 0/1 0/0", r"chr1:1 G>G names an allele twice"),
    ):
        with pytest.raises(DataError, match=message):
            list(VariantFile(written(tmp_path / "calls.vcf", line), reference=reference).variants())


def test_alleles_are_split_with_what_belongs_to_them() -> None:
    order = genotype_order(3)
    genotype = Genotype((2, None), True, 5, 9, (2, 3, 4), tuple(range(len(order))))
    variant = Variant("chr1", 4, "A", ("C", "G"), genotypes=(genotype,), info={"AF": (1, 2), "AD": (5, 6, 7), "DP": 3})
    one, two = split_alleles(variant, {"AF": "A", "AD": "R", "DP": "1"})
    assert (one.info, two.info) == ({"AF": (1,), "AD": (5, 6), "DP": 3}, {"AF": (2,), "AD": (5, 7), "DP": 3})
    assert one.genotypes == (Genotype((0, None), True, 5, 9, (2, 3), (0, 1, 2)),)
    assert two.genotypes == (Genotype((1, None), True, 5, 9, (2, 4), (0, 3, 5)),)


def norm(path: Path, reference: Path, *options: str) -> list[tuple]:
    """Return what `bcftools norm` makes of a file, sorted."""
    command = ["bcftools", "norm", "-f", str(reference), *options, str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [line.split("\t")[:5] for line in text.splitlines() if not line.startswith("#")]
    return sorted((chrom, int(pos) - 1, ref, tuple(alt.split(","))) for chrom, pos, _, ref, alt in rows)


def ours_of(path: Path, reference: Path, **options) -> list[tuple]:
    variants = VariantFile(path, reference=Reference(reference), symbolic="skip", **options).variants()
    return sorted(tuple(variant[:4]) for variant in variants)


@pytest.mark.slow
def test_normal_forms_of_real_variants_are_those_of_vt_and_bcftools(tmp_path: Path, certificate) -> None:
    alignments.needed(VT, "bcftools")
    paths = []
    for source in (VT / "ref" / "20.fa.gz", *(VT / "normalize" / f"01_{end}.vcf.gz" for end in ("IN", "OUT"))):
        paths.append(tmp_path / source.name.removesuffix(".gz"))
        with gzip.open(source) as compressed, paths[-1].open("wb") as plain:
            shutil.copyfileobj(compressed, plain)
    genome, given, expected = paths
    ours = ours_of(given, genome)
    raw, vt = (sorted(tuple(each[:4]) for each in VariantFile(path).variants()) for path in (given, expected))
    for tool, theirs in (("vt normalize", vt), ("bcftools norm", norm(given, genome))):
        different = len(set(ours) ^ set(theirs)) + abs(len(ours) - len(theirs))
        certificate(
            operator="normalized",
            reference=tool,
            data=f"vt's example, {len(ours)} variants of human chr20",
            quantity="variants that differ",
            value=different,
            bar="= 0",
        )
        assert different == 0
    assert sum(one != other for one, other in zip(raw, ours, strict=True)) > 20


@pytest.mark.slow
@pytest.mark.parametrize("split", [False, True])
def test_normal_forms_of_random_variants_are_those_of_bcftools(split: bool, tmp_path: Path, certificate) -> None:
    alignments.needed("bcftools")
    rng = np.random.default_rng(1)
    letters = "".join(rng.choice(list("AC"), 4000))  # two letters: much can be moved
    (tmp_path / "genome.fa").write_text(f">chr1\n{letters}\n")
    variants = []
    for begin in range(5, 3900, 13):
        given = {"".join(rng.choice(list("AC"), rng.integers(1, 7))) for _ in range(2)}
        reference = letters[begin : begin + int(rng.integers(1, 7))]
        if given := tuple(sorted(given - {reference})):
            variants.append(Variant("chr1", begin, reference, given, genotypes=(Genotype((0, 1)),)))
    path = tmp_path / "calls.vcf.gz"
    write_variants(path, variants, contigs={"chr1": 4000}, samples=["s"])
    theirs = norm(path, tmp_path / "genome.fa", *(["-m", "-any"] if split else []))
    ours = ours_of(path, tmp_path / "genome.fa", split=split)
    different = sum(one != other for one, other in zip(ours, theirs, strict=True))
    certificate(
        operator="normalized",
        reference=f"bcftools norm{' -m -any' if split else ''}",
        data=f"{len(ours)} random variants",
        quantity="variants that differ",
        value=different,
        bar="= 0",
    )
    assert different == 0


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_bcftools_takes_what_is_written(suffix: str, tmp_path: Path, certificate) -> None:
    alignments.needed("bcftools")
    path = tmp_path / f"calls{suffix}"
    write_variants(path, VARIANTS, **OPTIONS)
    words = 0
    for command in (
        ["view"],
        ["stats"],
        ["query", "-f", "%POS\t%ALT\t%AF[\t%GT\t%PL]\n"],
        *([["index", "-s"]] * (suffix != ".vcf")),
    ):
        done = subprocess.run(["bcftools", *command, str(path)], check=True, capture_output=True, text=True)
        words += len(done.stderr.split())
        if command[0] == "query":
            assert done.stdout.splitlines() == [
                "3\tC\t.\t1\t30,0",
                "3\tT\t.\t./.\t.",
                "10\tA,ACTT\t0.5,0.25\t1|2\t.",
                "6\tG\t.\t0/1\t40,0,50",
            ]
    certificate(
        operator="write_variants",
        reference="bcftools view, stats, query",
        data=f"{suffix}: one, two and unknown alleles, haploid and diploid, filters, fields",
        quantity="words of complaint",
        value=words,
        bar="= 0",
    )
    assert words == 0
