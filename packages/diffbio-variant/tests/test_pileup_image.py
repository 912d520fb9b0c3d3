"""Pileup images beside those drawn read by read from pysam's pileup; what supports a variant; their derivatives."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pysam
import pytest
from alignments import ex1
from jax.test_util import check_grads
from laid_reads import FILTERED, LETTERS, laid_reads, one_hot, write_random_bam
from sites_to_classify import arrays_of, random_sites

from diffbio.operators.variant.examples.pileup_image import drawn_by_hand
from diffbio.operators.variant.examples.pileup_image import pileup_image as example
from diffbio.operators.variant.pileup_image import CHANNELS, PileupImage, PileupImageConfig, draw_reads, read_pixels
from diffbio.operators.variant.read_support import support_by_bases, support_by_scores

_AT = {name: number for number, name in enumerate(CHANNELS)}


def image_of(data: dict[str, np.ndarray], **config: int) -> np.ndarray:
    operator = PileupImage(PileupImageConfig(**config))
    return np.asarray(jax.jit(lambda data: operator.apply(data, {}, None)[0]["pileup_image"])(data))


def by_pysam(path: Path, contig: str, begin: int, end: int) -> np.ndarray:
    """Return letters, inserted, qualities and deleted of each read and column, by pysam's pileup."""
    with pysam.AlignmentFile(path) as bam:
        kept = [record for record in bam.fetch(contig, begin, end) if not record.flag & FILTERED]
        rows = {(record.query_name, record.flag): row for row, record in enumerate(kept)}
        drawn = np.zeros((len(rows), end - begin, 7))
        options = {"truncate": True, "min_base_quality": 0, "min_mapping_quality": 0, "max_depth": 10**6}
        for column in bam.pileup(contig, begin, end, **options, ignore_overlaps=False, ignore_orphans=False):
            for read in column.pileups:
                record = read.alignment
                pixel = drawn[rows[record.query_name, record.flag], column.reference_pos - begin]
                if read.is_del:
                    pixel[6] = 1
                    continue
                place, letters, qualities = read.query_position, record.query_sequence, record.query_qualities
                assert place is not None
                assert letters is not None
                assert qualities is not None
                if letters[place] in LETTERS:
                    pixel[LETTERS.index(letters[place])] = 1
                pixel[4] = np.tanh(qualities[place] / 40)
                pixel[5] = max(read.indel, 0) / (max(read.indel, 0) + 1)
    return drawn


_SEEN = [*range(4), _AT["base_quality"], _AT["inserted"], _AT["deleted"]]


def test_images_are_those_of_pysam_on_random_reads(tmp_path: Path, certificate) -> None:
    reference = write_random_bam(tmp_path / "reads.bam", n_reads=120, size=400)
    data = {**laid_reads(tmp_path / "reads.bam", "ref", 0, 400), "reference": one_hot(reference)}
    drawn = image_of(data, reference_rows=0)[..., _SEEN]
    worst = float(np.abs(drawn - by_pysam(tmp_path / "reads.bam", "ref", 0, 400)).max())
    certificate(
        operator="PileupImage", reference=f"pysam {pysam.__version__} pileup, read by read",
        data="120 random reads with gaps and clips, 400 columns",
        quantity="letters, qualities, insertions and deletions, largest difference", value=worst, bar="<= 1e-5",
    )  # fmt: skip
    assert drawn[..., -1].sum() > 50
    assert worst <= 1e-5


def test_images_are_those_of_pysam_on_real_reads(tmp_path: Path, certificate) -> None:
    path, _ = ex1(tmp_path)
    data = laid_reads(path, "chr2", 0, 1600)
    assert (data["base_positions"] >= 0).any()
    data["reference"] = np.zeros((1600, 4), np.float32)
    chosen = {key: array[:400] if key != "reference" else array for key, array in data.items()}
    worst = float(np.abs(image_of(chosen, reference_rows=0)[..., _SEEN] - by_pysam(path, "chr2", 0, 1600)[:400]).max())
    certificate(
        operator="PileupImage", reference=f"pysam {pysam.__version__} pileup, read by read",
        data="400 reads of ex1.bam, 1600 columns",
        quantity="letters, qualities, insertions and deletions, largest difference", value=worst, bar="<= 1e-5",
    )  # fmt: skip
    assert worst <= 1e-5


def test_the_reference_comes_first_and_masked_rows_are_blank() -> None:
    data = arrays_of(example())
    data["read_mask"] = np.arange(5) < np.array([[5], [2], [0]])
    found = PileupImage(PileupImageConfig(reference_rows=3)).apply(data, {}, None)[0]
    image, mask = np.asarray(found["pileup_image"]), np.asarray(found["image_mask"])
    assert image.shape == (3, 8, 12, 11)
    assert mask.sum(-1).tolist() == [8, 5, 3]
    assert not image[~mask].any()
    np.testing.assert_array_equal(image[:, :3, :, :4], np.repeat(data["reference"][:, None], 3, axis=1))
    garbage = {**data, "reads": np.where(data["read_mask"][..., None, None], data["reads"], 7).astype(np.float32)}
    np.testing.assert_allclose(image_of(garbage, reference_rows=3), image, atol=1e-6)
    assert ((image >= 0) & (image <= 1)).all()
    drawn = drawn_by_hand(example().data, 3)
    rest = [channel for channel in range(11) if channel != _AT["supports_variant"]]
    np.testing.assert_allclose(image[0][..., rest], drawn[0][..., rest], atol=1e-6)


def test_a_base_between_two_columns_is_drawn_in_both() -> None:
    pixels = read_pixels(
        jnp.eye(4)[None, :2], jnp.full((1, 2), 30.0), jnp.ones((1, 2)), jnp.array([[0.25, 2.0]]), jnp.eye(4)[:3],
        jnp.ones(1),
    )  # fmt: skip
    np.testing.assert_allclose(pixels[0, :, :2], [[0.75, 0], [0.25, 0], [0, 1]])
    np.testing.assert_allclose(pixels[0, :, _AT["differs"]], [0, 0.25, 1])


def test_support_is_that_of_the_letter() -> None:
    data = random_sites(40)
    image = image_of(data, reference_rows=0)
    variant = (data["haplotypes"][:, 1, 5] * data["reads"][:, :, 5].swapaxes(0, 1)).sum(-1).T
    known = (data["haplotypes"][:, 0, 5] * data["reads"][:, :, 5].swapaxes(0, 1)).sum(-1).T
    expected = np.where(data["read_mask"], (1 + variant - known) / 2, 0)[..., None]
    np.testing.assert_allclose(image[..., _AT["supports_variant"]], np.broadcast_to(expected, (40, 10, 11)))


def haplotypes_of(*texts: str) -> tuple[jax.Array, jax.Array]:
    size = max(len(text) for text in texts)
    padded = np.zeros((len(texts), size, 4), np.float32)
    for row, text in enumerate(texts):
        padded[row, : len(text)] = one_hot(text)
    return jnp.asarray(padded), jnp.array([len(text) for text in texts])


@pytest.mark.parametrize(("kind", "change"), [("deletion", -1), ("insertion", 1)])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_gap_may_lie_anywhere_in_a_repeat(kind: str, change: int, place: int) -> None:
    """Reads: with the gap, without it, with another gap, and one that ends before the end of the repeat."""
    haplotypes, lengths = haplotypes_of("GCAAATG", "GCAATG" if kind == "deletion" else "GCAAAATG")
    columns = np.tile(np.arange(7), (4, 1))
    gaps = np.zeros((4, 7), np.int32)
    columns[0, place + 1 :] -= change
    if kind == "insertion":
        columns[0, place + 1] = -1
    columns = np.where(columns > 6, -1, columns)
    gaps[0, place], gaps[2, 2] = 1, 3
    ins, dels = (gaps, 0 * gaps) if kind == "insertion" else (0 * gaps, gaps)
    weights = np.ones((4, 7), np.float32)
    weights[3, 4:] = 0
    reads = np.tile(one_hot("GCAAATG"), (4, 1, 1))
    support = support_by_bases(
        jnp.asarray(reads), jnp.asarray(weights), jnp.asarray(columns), haplotypes, lengths, jnp.asarray(ins),
        jnp.asarray(dels), site=1,
    )  # fmt: skip
    assert support.tolist() == [1.0, 0.0, 0.5, 0.5]


def test_support_by_scores_tends_to_that_of_the_better_haplotype() -> None:
    scores = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    np.testing.assert_allclose(
        support_by_scores(jnp.asarray(scores), softness=1e-6), scores[:, 1] > scores[:, 0], atol=1e-6
    )


def test_images_have_derivatives_by_letters_qualities_and_weights() -> None:
    data = {key: jnp.asarray(array) for key, array in arrays_of(example()).items()}
    haplotypes = jnp.stack([data["reference"], data["reference"][:, ::-1]], axis=1)

    @jax.jit
    def drawn(reads: jax.Array, qualities: jax.Array, mapping: jax.Array, weights: jax.Array) -> jax.Array:
        return draw_reads(
            reads, qualities, data["base_positions"], data["reference"], None, haplotypes, None, data["insertions"],
            data["deletions"], mapping, data["reverse_strand"], weights,
        )  # fmt: skip

    weights = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.9, size=(3, 5, 8)), jnp.float32)
    soft = 0.8 * data["reads"] + 0.05
    check_grads(drawn, (soft, data["qualities"], data["mapping_qualities"], weights), order=1, atol=2e-2, rtol=2e-2)
    by_weight = jax.grad(lambda weights: drawn(soft, data["qualities"], data["mapping_qualities"], weights).sum())
    assert bool(jnp.isfinite(by_weight(jnp.zeros((3, 5, 8)))).all())


def test_sites_without_reads_are_the_reference_alone() -> None:
    data = {key: array if key == "reference" else array[:, :0] for key, array in arrays_of(example()).items()}
    assert image_of(data).shape == (3, 1, 12, 11)
