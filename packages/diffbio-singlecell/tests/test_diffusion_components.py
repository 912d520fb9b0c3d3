"""Diffusion components against a dense eigendecomposition and palantir, gradients, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.diffusion_components import (
    before_eigengap,
    diffusion_components,
    multiscale_space,
)
from diffbio.operators.singlecell.graph_spectrum import leading_eigenpairs


def pbmc() -> np.ndarray:
    return pytest.importorskip("scanpy").datasets.pbmc68k_reduced().obsm["X_pca"].astype(np.float32)


def densely(cells: np.ndarray, n_components: int, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues and components from the whole matrix in float64."""
    exact = cells.astype(np.float64)
    distances = np.linalg.norm(exact[:, None] - exact, axis=-1)
    order = distances.argsort(1)[:, 1:n_neighbors]
    lengths = np.take_along_axis(distances, order, 1)
    kernel = np.zeros_like(distances)
    np.put_along_axis(kernel, order, np.exp(-lengths / lengths[:, [n_neighbors // 3 - 1]]), 1)
    kernel += kernel.T
    roots = np.sqrt(kernel.sum(1))
    values, vectors = np.linalg.eigh(kernel / np.outer(roots, roots))
    vectors = vectors[:, ::-1][:, 1:n_components] / roots[:, None]
    return values[::-1][1:n_components], vectors / np.linalg.norm(vectors, axis=0)


def test_components_are_those_of_the_whole_matrix_on_pbmc(certificate) -> None:
    cells = pbmc()
    values, components = densely(cells, 10, 30)
    found = diffusion_components(jnp.asarray(cells))
    aligned = np.abs(np.sum(np.asarray(found.components, np.float64) * components, axis=0))
    certificate(
        operator="diffusion_components",
        reference="numpy.linalg.eigh",
        data="PBMC 68k, 50 components",
        quantity="least cosine of 9 eigenvectors",
        value=aligned.min(),
        bar=">= 0.9999",
    )
    assert np.abs(found.eigenvalues - values).max() < 5e-6
    assert aligned.min() >= 0.9999


@pytest.mark.slow
def test_space_is_that_of_palantir_on_pbmc(certificate) -> None:
    palantir, pandas = pytest.importorskip("palantir"), pytest.importorskip("pandas")
    cells = pbmc()
    theirs = palantir.utils.run_diffusion_maps(pandas.DataFrame(cells.astype(float)))
    expected = palantir.utils.determine_multiscale_space(theirs).to_numpy()
    found = np.asarray(multiscale_space(diffusion_components(jnp.asarray(cells))))
    n_kept = expected.shape[1]
    assert (found[:, n_kept:] == 0).all()
    signs = np.sign(np.sum(found[:, :n_kept] * expected, axis=0))
    error = np.abs(found[:, :n_kept] * signs - expected).max() / np.abs(expected).max()
    certificate(
        operator="multiscale_space",
        reference=f"palantir {palantir.__version__}",
        data="PBMC 68k, 50 components",
        quantity="largest difference over the largest coordinate",
        value=error,
        bar="<= 1e-3",
    )
    assert error <= 1e-3


def test_a_long_line_and_two_islands_converge() -> None:
    random = np.random.default_rng(0)
    line = np.stack([30 * random.random(400), np.zeros(400)], 1) + random.normal(scale=0.1, size=(400, 2))
    for cells in (line, np.concatenate([line[:200], line[200:] + 1e3])):
        values, _ = densely(cells, 6, 15)
        found = diffusion_components(jnp.asarray(cells, jnp.float32), n_components=6, n_neighbors=15)
        np.testing.assert_allclose(found.eigenvalues, values, atol=2e-5)


def test_gap_is_where_palantir_sees_it() -> None:
    def kept(values):
        return int(before_eigengap(jnp.array(values)).sum())

    assert kept([0.9, 0.8, 0.7, 0.3, 0.25]) == 3
    assert kept([0.5, 0.45, 0.44, 0.2, 0.19]) == 3  # the largest gap is before the first: the next counts
    assert kept([0.5, 0.2, 0.19, 0.18]) == 2  # both before the second: two are kept


@pytest.mark.slow
def test_gradients_are_right() -> None:
    with jax.enable_x64(True):
        cells = jnp.asarray(np.random.default_rng(0).normal(size=(40, 3)))

        @jax.jit
        def found(x):
            components = diffusion_components(x, n_components=4, n_neighbors=7)
            return components.eigenvalues, components.components * jnp.sign(components.components[0])

        check_grads(found, (cells,), order=1, modes=("rev",), eps=1e-6, rtol=1e-4)


@pytest.mark.parametrize("case", ["zeros", "duplicates", "tiny", "huge"])
def test_hard_cases_give_finite_values_and_gradients(case: str) -> None:
    cells = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    cells[: 15 if case == "duplicates" else 0] = cells[0]
    cells = jnp.asarray(cells * {"zeros": 0.0, "tiny": 1e-20, "huge": 1e18}.get(case, 1.0), jnp.float32)
    space, pull = jax.vjp(lambda x: multiscale_space(diffusion_components(x, n_components=4, n_neighbors=7)), cells)
    assert np.isfinite(space).all()
    assert np.isfinite(pull(jnp.ones_like(space))[0]).all()


def test_equal_eigenvalues_have_finite_gradients() -> None:
    indices = (jnp.arange(12)[:, None] + jnp.array([1, 2])) % 12  # a ring: eigenvalues come in pairs
    (values, _), pull = jax.vjp(lambda k: tuple(leading_eigenpairs(k / 4, indices, 3)), jnp.ones((12, 2)))
    np.testing.assert_allclose(values[1], values[2], atol=1e-5)
    assert np.isfinite(pull((jnp.ones(3), jnp.ones((12, 3))))[0]).all()


def test_too_few_cells_are_refused() -> None:
    with pytest.raises(ContractError, match="neighbourhoods of 30 cells can't be had among 20 cells"):
        diffusion_components(jnp.zeros((20, 2)))
