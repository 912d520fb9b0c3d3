"""Substitution matrices as probabilities: BLAST's statistics of BLOSUM62, and matrices that come from probabilities."""

import numpy as np
import pytest

from diffbio.core.errors import ConfigError
from diffbio.io.sequence import DNA, PROTEIN
from diffbio.operators.alignment.substitution import substitution_matrix
from diffbio.operators.alignment.target_frequencies import target_frequencies

ROBINSON = {  # Robinson and Robinson 1991, per thousand
    **{"A": 78.05, "R": 51.29, "N": 44.87, "D": 53.64, "C": 19.25, "Q": 42.64, "E": 62.95, "G": 73.77, "H": 21.99},
    **{"I": 51.42, "L": 90.19, "K": 57.44, "M": 22.43, "F": 38.56, "P": 52.03, "S": 71.20, "T": 58.41, "W": 13.30},
    **{"Y": 32.16, "V": 64.41},
}


def test_blosum62_has_the_statistics_of_blast(certificate) -> None:
    background = np.array([ROBINSON[letter] for letter in PROTEIN])
    found = target_frequencies(substitution_matrix("BLOSUM62", PROTEIN), background)
    entropy = found.relative_entropy * np.log(2)
    for quantity, value, published in (("lambda", found.scale, 0.3176), ("entropy in nats", entropy, 0.4012)):
        certificate(
            operator="target_frequencies",
            reference="BLAST's parameters of BLOSUM62 without gaps",
            data="BLOSUM62, background of Robinson and Robinson",
            quantity=f"difference of {quantity}, published as {published}",
            value=abs(value - published),
            bar="<= 5e-05",
        )
        assert abs(value - published) <= 5e-5
    assert found.pairs.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["BLOSUM45", "BLOSUM62", "BLOSUM90", "PAM30", "GONNET1992"])
def test_pairs_with_the_implied_background_have_its_letters(name: str) -> None:
    scores = substitution_matrix(name, PROTEIN)
    found = target_frequencies(scores)
    np.testing.assert_allclose(found.pairs.sum(axis=0), found.background, rtol=1e-6)
    np.testing.assert_allclose(found.pairs, found.pairs.T)
    odds = found.pairs / np.outer(found.background, found.background)
    np.testing.assert_allclose(np.log(odds) / found.scale, scores, atol=1e-6)
    assert found.relative_entropy > 0


def test_a_matrix_of_log_odds_gives_its_probabilities_back() -> None:
    random = np.random.default_rng(0)
    pairs = random.dirichlet(np.full(25, 2.0)).reshape(5, 5) + np.eye(5) / 10
    pairs = (pairs + pairs.T) / (2 * pairs.sum())
    background = pairs.sum(axis=0)
    scores = np.log(pairs / np.outer(background, background)) / 0.25
    for found in (target_frequencies(scores), target_frequencies(scores, background)):
        np.testing.assert_allclose(found.pairs, pairs, atol=1e-9)
        np.testing.assert_allclose(found.background, background, atol=1e-9)
        assert found.scale == pytest.approx(0.25)


def test_what_is_no_substitution_matrix_is_named() -> None:
    with pytest.raises(ConfigError, match="the best score is 1 and the mean score of letters by chance 0"):
        target_frequencies(2 * np.eye(2) - 1)
    with pytest.raises(ConfigError, match="the best score is -1"):
        target_frequencies(-np.ones((4, 4)))
    with pytest.raises(ConfigError, match="implies no chances of letters"):
        target_frequencies(substitution_matrix("PAM250", PROTEIN))
    assert target_frequencies(substitution_matrix("NUC.4.4", DNA)).background.tolist() == pytest.approx([0.25] * 4)
