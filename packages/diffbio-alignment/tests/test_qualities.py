"""Qualities as probabilities: the definition of Phred, on the called letter and the others."""

import jax
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.io.sequence import DNA, encode, error_probability, with_quality


def test_a_called_letter_keeps_one_minus_p_and_the_others_share_p() -> None:
    letters, _ = encode(["AN", "C"], DNA)
    qualities = np.array([[10.0, 20.0], [30.0, 0.0]], np.float32)
    found = np.asarray(with_quality(letters, qualities))
    np.testing.assert_allclose(found[0, 0], [0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3], rtol=1e-6)
    np.testing.assert_allclose(found[0, 1], 0.25, rtol=1e-6)  # N stays N
    np.testing.assert_allclose(found[1, 0], [0.001 / 3, 0.999, 0.001 / 3, 0.001 / 3], rtol=1e-5)
    assert not found[1, 1].any()  # beyond the end


def test_probabilities_are_those_of_biopython() -> None:
    quality_io = pytest.importorskip("Bio.SeqIO.QualityIO")
    scores = np.arange(0.0, 94.0, dtype=np.float32)
    found = np.asarray(error_probability(scores))
    back = [quality_io.phred_quality_from_solexa(quality_io.solexa_quality_from_phred(q)) for q in (5, 20, 40)]
    np.testing.assert_allclose(-10 * np.log10(found[[5, 20, 40]]), back, rtol=1e-5)
    np.testing.assert_allclose(found, 10 ** (-scores.astype(float) / 10), rtol=1e-5)


def test_derivatives_are_right_and_finite() -> None:
    letters, _ = encode(["ACGT"], DNA, size=6)
    qualities = np.array([[3.0, 20.0, 40.0, 0.0, 0.0, 0.0]], np.float32)
    check_grads(with_quality, (letters, qualities), order=1, modes=("rev",), atol=1e-2, rtol=1e-2)
    slopes = jax.grad(lambda q: (with_quality(letters, q) ** 2).sum())(1e4 * qualities)
    assert np.isfinite(slopes).all()
