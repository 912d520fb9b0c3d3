"""Soft time warping beside all paths, written out, and beside DTW; its band, its padding, its derivatives, its use."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from diffbio.core.errors import ContractError
from diffbio.operators.alignment.diagonals import Diagonals
from diffbio.operators.alignment.semirings import COUNT, LOG, MAX
from diffbio.operators.alignment.time_warping import (
    SoftTimeWarping,
    TimeWarpingConfig,
    soft_dtw,
    soft_dtw_divergence,
    squared_distances,
)
from diffbio.operators.alignment.warping_paths import _forward, warping_paths, warping_total

SIZE = (5, 6)
LENGTHS = np.array([[5, 6], [4, 4], [5, 3], [1, 4], [1, 1]], np.int32)
HEMOGLOBIN = {
    "alpha": (
        "VLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALSALSDLHAHKLRVDPVNFKLLSHCLLVTLAAHLPAEFTPAVH"
        "ASLDKFLASVSTVLTSKYR"
    ),
    "beta": (
        "VHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLDNLKGTFATLSELHCDKLHVDPENFRLLGNVLVCVLAHHFGKEFT"
        "PPVQAAYQKVVAGVANALAHKYH"
    ),
}
HYDROPATHY = dict(  # Kyte and Doolittle 1982
    zip(
        "ARNDCQEGHILKMFPSTWYV",
        [
            *(1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5),
            *(3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7, -0.9, -1.3, 4.2),
        ],
        strict=True,
    )
)


def every_path(n_rows: int, n_columns: int, band: int | None) -> Iterator[list[tuple[int, int]]]:
    """Yield each path, as the pairs that it passes."""

    def go_on(path: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        row, column = path[-1]
        if row >= n_rows or column >= n_columns or (band is not None and abs(row - column) > band):
            return
        if (row, column) == (n_rows - 1, n_columns - 1):
            yield path
        for step in ((row + 1, column + 1), (row + 1, column), (row, column + 1)):
            yield from go_on([*path, step])

    yield from go_on([(0, 0)])


def dtw(costs: np.ndarray) -> float:
    """Return the least cost of a path, row by row."""
    best = np.full((costs.shape[0] + 1, costs.shape[1] + 1), np.inf)
    best[0, 0] = 0
    for i, row in enumerate(costs):
        for j, cost in enumerate(row):
            best[i + 1, j + 1] = cost + min(best[i, j], best[i, j + 1], best[i + 1, j])
    return float(best[-1, -1])


def walks(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.5, size=shape).cumsum(axis=-2).astype(np.float32)


@pytest.mark.parametrize("band", [None, 2])
def test_sums_and_probabilities_are_those_of_all_paths(certificate, band: int | None) -> None:
    weights = np.random.default_rng(0).normal(size=(len(LENGTHS), *SIZE)).astype(np.float32)
    found = jax.vmap(lambda w, n: warping_paths(w, n, band))(weights, LENGTHS)
    ones = jnp.ones_like(weights)
    counts = jax.vmap(lambda w, n: warping_total(w, n, COUNT, band))(ones, LENGTHS)
    best = jax.vmap(lambda w, n: warping_total(w, n, MAX, band))(weights, LENGTHS)
    errors = []
    for number, (n_rows, n_columns) in enumerate(LENGTHS):
        paths = list(every_path(n_rows, n_columns, band))
        assert int(counts[number]) == len(paths)
        if not paths:  # none stays within the band
            assert found.log_sum[number] < -1e29
            assert (found.passes[number] == 0).all()
            continue
        each = np.array([sum(float(weights[number][pair]) for pair in path) for path in paths])
        log_sum = np.logaddexp.reduce(each)
        passes = np.zeros(SIZE)
        for weight, path in zip(np.exp(each - log_sum), paths, strict=True):
            passes[tuple(np.transpose(path))] += weight
        errors += [abs(float(found.log_sum[number]) - log_sum), np.abs(found.passes[number] - passes).max()]
        assert float(best[number]) == pytest.approx(each.max(), abs=1e-5)
    certificate(
        operator="SoftTimeWarping",
        reference="all paths, enumerated",
        data=f"5 pairs of up to 5 x 6 positions, random weights, band {band}",
        quantity="largest difference of log-sums and probabilities",
        value=float(max(errors)),
        bar="<= 1e-05",
    )
    assert max(errors) <= 1e-5


@pytest.mark.parametrize("band", [None, 3])
def test_first_and_second_derivatives_are_those_of_the_plain_recurrence(band: int | None) -> None:
    weights, lengths = jnp.asarray(np.random.default_rng(1).normal(size=SIZE), jnp.float32), jnp.array([5, 6])
    layout = Diagonals(*SIZE, band)

    def ours(weights: jax.Array) -> jax.Array:
        return warping_paths(weights, lengths, band).log_sum

    def plain(weights: jax.Array) -> jax.Array:
        return _forward(weights, lengths, layout, LOG)[0]

    for order in (jax.grad, lambda f: jax.jacrev(jax.grad(f))):
        np.testing.assert_allclose(jax.jit(order(ours))(weights), jax.jit(order(plain))(weights), atol=1e-5)


@pytest.mark.parametrize("divergence", [False, True], ids=["distance", "divergence"])
def test_derivatives_are_those_of_differences(divergence: bool) -> None:
    warping = SoftTimeWarping(TimeWarpingConfig(temperature=0.7, divergence=divergence, band=3))

    def outputs(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        data = {"series": x, "reference_series": y, "series_length": jnp.array([4, 5])}
        found = warping.apply(data, {}, None)[0]
        return found["warping_distance"], jnp.tanh(found["warping_posterior"])

    series = walks(2, 5, 2), walks(2, 6, 2, seed=1)
    check_grads(outputs, series, order=1, modes=["rev"], eps=1e-2, atol=2e-2, rtol=2e-2)


def test_the_limit_is_dtw_of_real_profiles(certificate) -> None:
    """Mean hydropathy of 7 residues along two chains of hemoglobin."""
    x, y = (
        np.convolve([HYDROPATHY[letter] for letter in chain], np.full(7, 1 / 7), "valid").astype(np.float32)[:, None]
        for chain in HEMOGLOBIN.values()
    )
    lengths = jnp.array([len(x), len(y)])
    costs = squared_distances(jnp.asarray(x), jnp.asarray(y))
    wanted = dtw(np.asarray((x.astype(float) - y.T) ** 2))
    distances = [float(soft_dtw(costs, lengths, softness=tau).warping_distance) for tau in (1.0, 0.1, 1e-2, 1e-4)]
    assert distances == sorted(distances)
    error = abs(distances[-1] - wanted) / wanted
    certificate(
        operator="SoftTimeWarping",
        reference="DTW in NumPy, float64",
        data="hydropathy of human hemoglobin alpha and beta, 135 x 140 positions, softness 1e-4",
        quantity="relative difference",
        value=error,
        bar="<= 0.0001",
    )
    assert error <= 1e-4


def test_the_divergence_of_equal_series_is_zero_and_stationary() -> None:
    x, y = jnp.asarray(walks(6, 2)), jnp.asarray(walks(8, 2, seed=3))

    def divergence(x: jax.Array, z: jax.Array) -> jax.Array:
        return soft_dtw_divergence(x, z, jnp.array([len(x), len(z)]), softness=0.5).warping_distance

    value, slopes = jax.value_and_grad(divergence)(x, x)
    assert float(value) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(slopes, 0, atol=1e-5)
    assert float(divergence(x, y)) > 0.1
    assert float(divergence(x, y)) == pytest.approx(float(divergence(y, x)), rel=1e-5)
    assert float(soft_dtw(squared_distances(x, x), jnp.array([6, 6]), softness=0.5)[0]) < 0  # what it is for


def test_padding_changes_nothing_whatever_stands_there() -> None:
    x, y, lengths = walks(2, 5, 2), walks(2, 6, 2, seed=1), {"series_length": np.full(2, 5), "reference_length": [6, 6]}
    lengths = {name: np.asarray(length, np.int32) for name, length in lengths.items()}
    for divergence in (False, True):
        warping = SoftTimeWarping(TimeWarpingConfig(divergence=divergence))

        @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
        def value(x: jax.Array, y: jax.Array, warping: SoftTimeWarping = warping) -> tuple[jax.Array, jax.Array]:
            found = warping.apply({"series": x, "reference_series": y, **lengths}, {}, None)[0]
            return found["warping_distance"].sum(), found["warping_posterior"]

        padded = [np.pad(z, ((0, 0), (0, 3), (0, 0)), constant_values=np.nan) for z in (x, y)]
        (short, posterior), slopes = jax.jit(value)(x, y)
        (long, wide), wide_slopes = jax.jit(value)(*padded)
        assert float(long) == pytest.approx(float(short), rel=1e-6)
        np.testing.assert_allclose(wide[:, :5, :6], posterior, atol=1e-6)
        assert float(wide.sum()) == pytest.approx(float(posterior.sum()), rel=1e-6)
        for wider, narrow in zip(wide_slopes, slopes, strict=True):
            np.testing.assert_allclose(wider[:, : narrow.shape[1]], narrow, atol=1e-5)
            assert (wider[:, narrow.shape[1] :] == 0).all()


def test_a_wide_band_changes_nothing_and_one_that_holds_no_path_has_no_derivatives() -> None:
    costs, lengths = jnp.asarray(walks(12, 9)) ** 2, jnp.array([12, 9])
    free = soft_dtw(costs, lengths, softness=1.0)
    for band in (11, 12, 99):
        np.testing.assert_allclose(soft_dtw(costs, lengths, softness=1.0, band=band)[0], free[0], rtol=1e-6)
    assert float(soft_dtw(costs, lengths, softness=1.0, band=3)[0]) > float(free[0])
    value, slopes = jax.value_and_grad(lambda c: soft_dtw(c, lengths, softness=1.0, band=2)[0])(costs)
    assert float(value) > 1e29
    assert (slopes == 0).all()


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e4])
def test_derivatives_are_finite_at_any_scale_and_without_positions(scale: float) -> None:
    x, y = scale * walks(3, 5, 2), scale * walks(3, 6, 2, seed=1)
    lengths = {"series_length": np.array([0, 0, 5], np.int32), "reference_length": np.array([0, 6, 6], np.int32)}

    def total(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = SoftTimeWarping(TimeWarpingConfig()).apply({"series": x, "reference_series": y, **lengths}, {}, None)[0]
        return jnp.tanh(found["warping_distance"]).sum(), (found["warping_posterior"] ** 2).sum()

    for k in range(2):
        slopes = jax.grad(lambda x, y, k=k: total(x, y)[k], argnums=(0, 1))(x, y)
        assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("divergence", [False, True], ids=["distance", "divergence"])
def test_a_barycenter_of_shifted_series_is_learned(divergence: bool) -> None:
    """The mean of shifted peaks is flat; the barycenter has the peak."""
    random = np.random.default_rng(0)
    times = np.arange(30)
    shifts = random.uniform(-5, 5, size=(8, 1))
    peaks = 2 * np.exp(-(((times - 15 - shifts) / 2) ** 2)) + 0.1 * random.normal(size=(8, 30))
    data = jnp.asarray(peaks, jnp.float32)[..., None]
    warping = SoftTimeWarping(TimeWarpingConfig(temperature=0.1, divergence=divergence))
    optimizer = optax.adam(0.1)

    @jax.jit
    def step(center: jax.Array, state: optax.OptState) -> tuple:
        def loss(center: jax.Array) -> jax.Array:
            batch = {"series": jnp.broadcast_to(center, data.shape), "reference_series": data}
            return warping.apply(batch, {}, None)[0]["warping_distance"].mean()

        value, slopes = jax.value_and_grad(loss)(center)
        changes, state = optimizer.update(slopes, state)
        return optax.apply_updates(center, changes), state, value

    center = data.mean(axis=0)
    state, losses = optimizer.init(center), []
    for _ in range(60):
        center, state, loss = step(center, state)
        losses.append(float(loss))
    flat, high = float(data.mean(axis=0).max()), float(center.max())
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}, height {flat:.2f} -> {high:.2f}")
    assert losses[-1] < losses[0] - 0.5 * abs(losses[0])
    assert high > 1.6 > 1.2 > flat


def test_softness_does_not_recompile() -> None:
    costs, lengths = jnp.asarray(walks(4, 4)) ** 2, jnp.array([4, 4])
    traced = []

    @jax.jit
    def distance(softness: jax.Array) -> jax.Array:
        traced.append(softness)
        return soft_dtw(costs, lengths, softness=softness).warping_distance

    distances = [float(distance(softness)) for softness in (0.1, 1.0, 3.0)]
    assert len(traced) == 1
    assert distances == sorted(distances, reverse=True)


def test_series_of_other_features_are_named() -> None:
    with pytest.raises(ContractError, match="the series have 2 and 3 features"):
        squared_distances(jnp.ones((4, 2)), jnp.ones((4, 3)))
