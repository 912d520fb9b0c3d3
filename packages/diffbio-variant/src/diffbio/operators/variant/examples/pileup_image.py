"""The conformance example of pileup images; the limit draws base by base."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.variant.examples.pileup import laid_reads
from diffbio.operators.variant.pileup_image import CHANNELS, PileupImage, PileupImageConfig
from diffbio.testing import Example, Limit


def drawn_by_hand(data: Mapping[str, ArrayLike], n_reference_rows: int) -> np.ndarray:
    """Return the images, with reads that support the variant or not by their scores."""
    arrays = {name: np.asarray(values) for name, values in data.items()}
    n_sites, n_reads = arrays["reads"].shape[:2]
    reference = arrays["reference"]
    images = np.zeros((n_sites, n_reference_rows + n_reads, reference.shape[1], len(CHANNELS)))
    of = {name: number for number, name in enumerate(CHANNELS)}
    images[:, :n_reference_rows, :, :4] = reference[:, None]
    images[:, :n_reference_rows, :, [of["base_quality"], of["mapping_quality"]]] = 1
    for site, read in np.ndindex(n_sites, n_reads):
        end = int(arrays["read_lengths"][site, read])
        columns, ins, gap = (arrays[name][site, read] for name in ("base_positions", "insertions", "deletions"))
        scores = arrays["alignment_score"][site, read]
        row = images[site, n_reference_rows + read]
        of_read = {
            "mapping_quality": np.tanh(arrays["mapping_qualities"][site, read] / 60),
            "reverse_strand": arrays["reverse_strand"][site, read],
            "supports_variant": scores[1] > scores[0],
        }
        for place in np.flatnonzero(columns[:end] >= 0):
            pixel = row[columns[place]]
            pixel[:4] = arrays["reads"][site, read, place]
            pixel[of["base_quality"]] = np.tanh(arrays["qualities"][site, read, place] / 40)
            pixel[of["inserted"]] = ins[place] / (ins[place] + 1)
            pixel[of["differs"]] = pixel[:4] @ (1 - reference[site, columns[place]])
            following = place + 1 + ins[place]
            lacked = row[columns[place] + 1 : columns[place] + 1 + gap[place]] if following < end else row[:0]
            lacked[:, of["deleted"]] = 1
            for drawn in (pixel[None], lacked):
                for name, value in of_read.items():
                    drawn[:, of[name]] = value
    return images


def pileup_image() -> Example:
    """Return three sites of five reads in windows of 12 columns."""
    data = laid_reads()
    data["alignment_score"] = np.asarray(np.random.default_rng(1).normal(size=(3, 5, 2)), np.float32)
    config = PileupImageConfig(reference_rows=2, temperature=0.5)

    def sharpen(operator: PileupImage) -> PileupImage:
        operator.softness.set(1e-4)
        return operator

    return Example(
        PileupImage(config),
        data,
        limit=Limit(sharpen, lambda data: {"pileup_image": drawn_by_hand(data, 2)}, atol=1e-5),
    )
