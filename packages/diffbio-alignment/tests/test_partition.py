"""The recurrence beside all alignments, written out: sums, probabilities, expected gaps, counts, second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_alignment import every_alignment

from diffbio.operators.alignment import (
    COUNT,
    GLOBAL,
    LOCAL,
    MAX,
    SEMI_GLOBAL,
    Ends,
    Pair,
    chains,
    expectations,
    log_partition,
)
from diffbio.operators.alignment.diagonals import Diagonals
from diffbio.operators.alignment.partition import total
from diffbio.operators.alignment.posterior import Expectations
from diffbio.operators.alignment.recurrence import forward
from diffbio.operators.alignment.semirings import LOG

SIZE = (4, 5)
LENGTHS = np.array([[4, 5], [3, 4], [4, 2], [1, 1], [1, 3]], np.int32)
OPEN, EXTEND = 1.3, 0.4
ENDS = {
    "local": LOCAL,
    "global": GLOBAL,
    "semi-global": SEMI_GLOBAL,
    "x may hang over": Ends(x_begin=True, x_end=True),
    "the end of y is free": Ends(y_end=True),
    "x begins and y ends free": Ends(x_begin=True, y_end=True),
}


@pytest.fixture
def pairs() -> Pair:
    """Five pairs of different lengths; what is beyond these scores well, and must not count."""
    scores = np.random.default_rng(0).normal(size=(len(LENGTHS), *SIZE)).astype(np.float32)
    for number, (n_rows, n_columns) in enumerate(LENGTHS):
        scores[number, n_rows:] = scores[number, :, n_columns:] = 9.0
    costs = [np.full(len(LENGTHS), cost, np.float32) for cost in (OPEN, EXTEND)]
    return Pair(*map(jnp.asarray, (scores, *costs, LENGTHS)))


@pytest.mark.parametrize("band", [None, 2])
@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_sums_and_expectations_are_those_of_all_alignments(pairs: Pair, ends: Ends, band: int | None) -> None:
    sums = jax.vmap(lambda pair: log_partition(pair, ends, band))(pairs)
    found = jax.vmap(lambda pair: expectations(pair, ends, band))(pairs)
    weights = ("scores", "gap_open", "gap_extend")
    ones = pairs._replace(**{name: jnp.ones_like(getattr(pairs, name)) for name in weights})
    counts = jax.vmap(lambda pair: total(pair, ends, COUNT, band))(ones)
    gains = pairs._replace(gap_open=-pairs.gap_open, gap_extend=-pairs.gap_extend)
    best = jax.vmap(lambda pair: total(pair, ends, MAX, band))(gains)
    for number, (n_rows, n_columns) in enumerate(LENGTHS):
        scores = np.asarray(pairs.scores[number, :n_rows, :n_columns], np.float64)
        alignments = list(every_alignment(scores, OPEN, EXTEND, ends, band))
        if not alignments:  # none stays within the band
            assert sums[number] < -1e20
            continue
        each = np.array([alignment.score for alignment in alignments])
        log_sum = each.max() + np.log(np.exp(each - each.max()).sum())
        weights = np.exp(each - log_sum)
        matches = np.zeros(SIZE)
        for weight, alignment in zip(weights, alignments, strict=True):
            for place in alignment.pairs:
                matches[place] += weight
        assert float(sums[number]) == pytest.approx(log_sum, abs=1e-5)
        np.testing.assert_allclose(found.matches[number], matches, atol=1e-5)
        opens, extends = (weights @ [getattr(a, name) for a in alignments] for name in ("opens", "extends"))
        assert float(found.opens[number]) == pytest.approx(opens, abs=1e-5)
        assert float(found.extends[number]) == pytest.approx(extends, abs=1e-5)
        assert int(counts[number]) == len(alignments)
        assert float(best[number]) == pytest.approx(each.max(), abs=1e-5)


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param(LOCAL, id="local"),
        pytest.param(GLOBAL, id="global", marks=pytest.mark.slow),
        pytest.param(SEMI_GLOBAL, id="semi-global", marks=pytest.mark.slow),
    ],
)
def test_first_and_second_derivatives_are_those_of_the_plain_recurrence(pairs: Pair, ends: Ends) -> None:
    pair = jax.tree.map(lambda values: values[0], pairs)

    def ours(*costs: jax.Array) -> jax.Array:
        return log_partition(Pair(*costs, pair.lengths), ends, None)

    def plain(scores: jax.Array, gap_open: jax.Array, gap_extend: jax.Array) -> jax.Array:
        weights = Pair(scores[None], -gap_open[None], -gap_extend[None], pair.lengths[None])
        return forward(weights, Diagonals(*SIZE), ends, LOG)[0][0]

    for order in (jax.grad, lambda f, **options: jax.jacrev(jax.grad(f, **options), **options)):
        found, expected = (jax.tree.leaves(jax.jit(order(f, argnums=(0, 1, 2)))(*pair[:3])) for f in (ours, plain))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_wide_band_changes_nothing_and_a_narrow_one_much(pairs: Pair) -> None:
    sums = [jax.vmap(lambda pair, band=band: log_partition(pair, LOCAL, band))(pairs) for band in (None, 4, 9, 1)]
    np.testing.assert_array_equal(sums[0], sums[2])
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-6)
    assert (sums[3] < sums[0] - 1e-3).any()


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e4])
@pytest.mark.parametrize("ends", [LOCAL, GLOBAL], ids=["local", "global"])
def test_derivatives_are_finite_at_any_scale(pairs: Pair, ends: Ends, scale: float) -> None:
    def mean(*costs: jax.Array) -> jax.Array:
        return jax.vmap(lambda pair: log_partition(pair, ends, None))(Pair(*costs, pairs.lengths)).mean()

    value, slopes = jax.value_and_grad(mean, argnums=(0, 1, 2))(*(scale * cost for cost in pairs[:3]))
    assert np.isfinite(value)
    assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize(
    ("size", "ends"),
    [
        pytest.param((9, 2), LOCAL, id="local"),
        pytest.param((9, 2), SEMI_GLOBAL, id="semi-global"),
        pytest.param((2, 9), GLOBAL, id="global", marks=pytest.mark.slow),
        pytest.param((1, 1), SEMI_GLOBAL, id="single positions", marks=pytest.mark.slow),
    ],
)
def test_pairs_in_chains_are_as_each_alone(size: tuple[int, int], ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=(2, 7, *size)).astype(np.float32)
    lengths = np.stack([random.integers(1, n + 1, size=(2, 7)) for n in size], axis=-1)

    def both(scores: jax.Array, lengths: jax.Array, gap_open: jax.Array) -> tuple[jax.Array, Expectations]:
        pair = Pair(scores, gap_open, jnp.float32(EXTEND), lengths)
        return log_partition(pair, ends), expectations(pair, ends)

    gap_open = jnp.array([OPEN, 2 * OPEN])  # one for each row of pairs
    one = jax.jit(both)
    alone = [one(scores[i, j], lengths[i, j], gap_open[i]) for i in range(2) for j in range(7)]
    expected = jax.tree.map(lambda *values: np.array(values).reshape(2, 7, *values[0].shape), *alone)
    for lanes in (16, 64):  # 1 chain of 14 pairs, and 4 of 4, of which the last isn't full
        monkeypatch.setattr(chains, "LANES_SIDE_BY_SIDE", lanes)
        found = jax.jit(jax.vmap(jax.vmap(both, in_axes=(0, 0, None))))(scores, lengths, gap_open)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), found, expected)
