"""Losses of alignment: their hard limits, their edges, their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core.errors import MissingKeyError
from diffbio.io.sequence import DNA, encode
from diffbio.losses.alignment import (
    alignment_cross_entropy,
    alignment_dissimilarity,
    column_score,
    edit_distance,
    profile_surprise,
    soft_edit_distance,
    sum_of_pairs,
)


def levenshtein(x: str, y: str) -> int:
    """Return the fewest edits, row by row."""
    row = list(range(len(y) + 1))
    for number, letter in enumerate(x, 1):
        before, row = row, [number]
        for column, other in enumerate(y, 1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (letter != other)))
    return row[-1]


def test_edit_distance_becomes_levenshteins(certificate) -> None:
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list(DNA), size)) for size in random.integers(1, 30, 40)]
    words += [word[: len(word) // 2] + word[len(word) // 2 + 1 :] + "A" for word in words[:20]]
    pairs = list(zip(words, words[20:] + words[:20], strict=True))
    x, y = (encode([pair[side] for pair in pairs], DNA, size=32) for side in range(2))
    lengths = np.stack([x.lengths, y.lengths], 1)
    soft = jax.vmap(lambda a, b, n: soft_edit_distance(a, b, n, softness=0.01))(x.letters, y.letters, lengths)
    expected = np.array([levenshtein(*pair) for pair in pairs])
    certificate(
        operator="soft_edit_distance",
        reference="Levenshtein, row by row",
        data="60 pairs of words of DNA of up to 30 letters",
        quantity="largest difference at softness 0.01",
        value=float(np.abs(np.asarray(soft) - expected).max()),
        bar="<= 0.2",
    )
    assert (np.round(np.asarray(soft)) == expected).all()
    assert (np.asarray(soft) <= expected + 1e-4).all()


def test_edit_distance_of_uncertain_letters_has_its_gradient() -> None:
    random = np.random.default_rng(0)
    x, y = (jnp.asarray(random.dirichlet(np.ones(4), size), jnp.float32) for size in (5, 6))

    def distance(x, y):
        return soft_edit_distance(x, y, jnp.array([5, 6]), softness=0.5)

    check_grads(distance, (x, y), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_column_score_counts_whole_columns() -> None:
    columns = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 3]])
    data = {"column_weights": jax.nn.one_hot(columns, 4), "reference_columns": jnp.array([[0, 1, 2]] * 3)}
    assert float(column_score(data)) == pytest.approx(1 / 3)
    assert float(sum_of_pairs(data)) == pytest.approx(2 / 9)


@pytest.mark.parametrize("loss", [column_score, sum_of_pairs])
def test_a_reference_that_aligns_nothing_costs_nothing(loss) -> None:
    weights = jnp.full((3, 2, 4), 0.25)
    data = {"reference_columns": jnp.full((3, 2), -1)}
    value, slopes = jax.value_and_grad(lambda weights: loss({**data, "column_weights": weights}))(weights)
    assert float(value) == 0
    assert np.isfinite(np.asarray(slopes)).all()


def test_cross_entropy_is_zero_for_a_sure_right_alignment_and_bounded() -> None:
    reference = jnp.stack([jnp.eye(3), jnp.zeros((3, 3))])  # the second pair has nothing to say
    right = alignment_cross_entropy({"alignment_posterior": reference, "reference_alignment": reference})
    wrong = alignment_cross_entropy({"alignment_posterior": 0 * reference, "reference_alignment": reference})
    assert float(right) == pytest.approx(0, abs=1e-6)
    assert float(wrong) == pytest.approx(np.log(1001), abs=1e-3)


@pytest.mark.parametrize(
    "loss",
    [alignment_cross_entropy, alignment_dissimilarity, column_score, edit_distance, profile_surprise, sum_of_pairs],
)
def test_what_is_missing_is_named(loss) -> None:
    with pytest.raises(MissingKeyError, match=loss.__name__):
        loss({})
