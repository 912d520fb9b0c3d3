"""The losses of batch correction: the discrepancy against NumPy, its expectation, its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.spatial.distance import cdist, pdist

from diffbio.core.errors import ContractError, MissingKeyError
from diffbio.losses.singlecell.batch import (
    adversarial_batch_correction,
    batch_reconstruction,
    maximum_mean_discrepancy,
    median_squared_distance,
    mmd_batch_correction,
)


def numpy_discrepancy(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """Return the unbiased estimate for two samples, from whole kernel matrices in float64."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = cdist(a, b, "sqeuclidean") / bandwidth
        return np.mean([np.exp(-squared / width) for width in (0.25, 0.5, 1, 2, 4)], axis=0)

    within = [(kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return within[0] + within[1] - 2 * kernel(x, y).mean()


def test_the_discrepancy_is_that_of_its_formula(certificate) -> None:
    random = np.random.default_rng(0)
    samples = [random.normal(size=(n, 4)) + shift for n, shift in ((150, 0.0), (300, 0.7), (70, -0.5))]
    cells = np.concatenate(samples).astype(np.float32)
    labels = np.repeat([0, 1, 2], [150, 300, 70]).astype(np.int32)
    order = random.permutation(520)
    found = maximum_mean_discrepancy(cells[order], labels[order], n_batches=3, bandwidth=5.0)
    expected = np.mean([numpy_discrepancy(samples[i], samples[j], 5.0) for i, j in ((0, 1), (0, 2), (1, 2))])
    error = abs(float(found) - expected)
    certificate(
        operator="maximum_mean_discrepancy",
        reference="NumPy in float64",
        data="normal draws, 520 x 4, 3 batches",
        quantity="difference",
        value=error,
        bar="< 1e-5",
    )
    assert error < 1e-5


@pytest.mark.parametrize("share", [0.5, 0.1, 0.04])
def test_equal_batches_have_discrepancy_zero_in_the_mean_whatever_their_ratio(share: float) -> None:
    n_cells, n_draws = 100, 1000
    labels = jnp.asarray(np.arange(n_cells) < share * n_cells, jnp.int32)

    def draw(key: jax.Array) -> jax.Array:
        return maximum_mean_discrepancy(jax.random.normal(key, (n_cells, 3)), labels, n_batches=2)

    found = jax.lax.map(jax.jit(draw), jax.random.split(jax.random.key(0), n_draws))
    error = float(found.std()) / np.sqrt(n_draws)
    print(f"share {share}: mean discrepancy {float(found.mean()):.1e} +- {error:.1e}")
    assert abs(float(found.mean())) < 3 * error
    assert float(found.min()) < 0 < float(found.max())


@pytest.mark.slow
def test_it_grows_with_the_shift_and_not_with_the_scale() -> None:
    random = np.random.default_rng(0)
    labels = jnp.asarray(np.arange(300) % 3 == 0, jnp.int32)
    cells = jnp.asarray(random.normal(size=(300, 3)), jnp.float32)
    shifted = [cells + shift * labels[:, None] for shift in (0.0, 0.5, 1.0, 2.0, 4.0)]
    found = [float(maximum_mean_discrepancy(x, labels, n_batches=2)) for x in shifted]
    print("discrepancy for shifts of 0, 0.5, 1, 2 and 4:", [round(value, 3) for value in found])
    assert found == sorted(found)
    for scale in (1e-12, 1e12):
        assert abs(float(maximum_mean_discrepancy(scale * shifted[3], labels, n_batches=2)) - found[3]) < 1e-3
    slope = jax.grad(lambda s: maximum_mean_discrepancy(s * shifted[3], labels, n_batches=2))(1.0)
    assert abs(float(slope)) < 1e-3  # shrinking all cells lowers nothing


def test_the_median_is_that_of_scipy() -> None:
    cells = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    found = median_squared_distance(cells, jnp.ones(100, bool), softness=1e-3)
    assert abs(float(found) / np.median(pdist(cells, "sqeuclidean")) - 1) < 1e-2


def test_cells_without_batch_and_batches_of_one_cell_do_not_count() -> None:
    random = np.random.default_rng(0)
    cells = jnp.asarray(random.normal(size=(60, 3)), jnp.float32)
    labels = jnp.asarray(np.arange(60) % 2, jnp.int32)
    more = jnp.concatenate([cells, 1e3 * jnp.ones((6, 3))])
    more_labels = jnp.concatenate([labels, jnp.array([-1, -1, -1, -1, 2, 7], jnp.int32)])
    options = {"n_batches": 3, "bandwidth": 2.0}
    found = maximum_mean_discrepancy(more, more_labels, **options)
    np.testing.assert_allclose(found, maximum_mean_discrepancy(cells, labels, **options), atol=1e-4)


@pytest.mark.slow
def test_gradients_match_finite_differences() -> None:
    random = np.random.default_rng(0)
    cells, labels = random.normal(size=(20, 3)), jnp.asarray(np.arange(20) % 2, jnp.int32)
    with jax.enable_x64(True):
        check_grads(
            lambda x: maximum_mean_discrepancy(x, labels, n_batches=2),
            (jnp.asarray(cells),),
            order=1,
            modes=["rev"],
            rtol=1e-3,
            atol=1e-4,
        )


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (np.zeros((6, 3)), np.arange(6) % 2),
        (np.repeat(np.eye(2, 3), 3, axis=0), np.arange(6) % 2),
        (np.eye(6, 3), np.zeros(6)),
        (np.eye(6, 3), np.full(6, -1)),
        (np.eye(1, 3), np.zeros(1)),
    ],
    ids=["zero", "duplicates", "one batch", "no batch", "one cell"],
)
def test_degenerate_cells_give_finite_values_and_gradients(cells: np.ndarray, labels: np.ndarray) -> None:
    def total(cells: jax.Array) -> jax.Array:
        data = {"embeddings": cells, "reconstructed_embeddings": 0.5 * cells, "latent": cells}
        data |= {"batch_labels": jnp.asarray(labels, jnp.int32), "batch_logits": cells}
        data["batch_slopes"] = jnp.square(cells).sum(1)
        return mmd_batch_correction(data, n_batches=2) + adversarial_batch_correction(data)

    value, gradient = jax.value_and_grad(total)(jnp.asarray(cells, jnp.float32))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_memory_does_not_grow_with_cells_squared() -> None:
    n_cells = 8000

    def total(cells: jax.Array, labels: jax.Array) -> jax.Array:
        return maximum_mean_discrepancy(cells, labels, n_batches=2)

    shapes = (jax.ShapeDtypeStruct((n_cells, 5), jnp.float32), jax.ShapeDtypeStruct((n_cells,), jnp.int32))
    used = jax.jit(jax.grad(total)).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    print(f"gradient: {used / 1e6:.0f} MB for {n_cells} cells; cells x cells would be {4 * n_cells**2 / 1e6:.0f} MB")
    assert used < n_cells**2


def test_each_batch_counts_the_same_in_the_cross_entropy() -> None:
    logits = jnp.array([[2.0, 0.0]] * 9 + [[0.0, 1.0]])
    labels = jnp.array([0] * 9 + [1])
    cells = jnp.arange(10.0)[:, None]
    data = {"embeddings": cells, "reconstructed_embeddings": cells, "batch_logits": logits, "batch_labels": labels}
    data["batch_slopes"] = jnp.asarray([1.0] * 9 + [5.0])
    expected = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))) / 2
    np.testing.assert_allclose(adversarial_batch_correction(data, penalty=0.0), expected, rtol=1e-6)
    penalized = adversarial_batch_correction(data, weight=3.0, penalty=2.0)
    np.testing.assert_allclose(penalized, 3 * (expected + 2.0 * 3.0), rtol=1e-6)
    np.testing.assert_allclose(batch_reconstruction({**data, "reconstructed_embeddings": cells + 1}), 1 / 8.25)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(MissingKeyError, match="mmd_batch_correction reads 'latent', which the data lacks"):
        mmd_batch_correction({"batch_labels": jnp.zeros(2, int)}, n_batches=2)
    with pytest.raises(ContractError, match="n_batches is 1; batches differ where there are at least 2"):
        maximum_mean_discrepancy(jnp.zeros((2, 2)), jnp.zeros(2, int), n_batches=1)
