"""Products of symmetric graphs against dense matrices and SciPy's sparse ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import sparse

from diffbio.operators.singlecell.sparse_products import rows_matmul, symmetric_rows


def graph(n_cells=30, n_neighbors=4, seed=0):
    """Return shares and columns, in which one cell is in every list and another in none."""
    random = np.random.default_rng(seed)
    indices = np.stack([random.permutation(n_cells - 1)[:n_neighbors] for _ in range(n_cells)]).astype(np.int32)
    indices[:, 0] = 0
    return random.random((n_cells, n_neighbors)).astype(np.float32), indices


def as_sparse(shares, indices):
    n_cells, n_neighbors = indices.shape
    starts = np.arange(n_cells + 1) * n_neighbors
    matrix = sparse.csr_array((shares.ravel().astype(float), indices.ravel(), starts), shape=(n_cells, n_cells))
    return matrix + matrix.T


def test_product_is_that_of_scipy():
    shares, indices = graph()
    values = np.random.default_rng(1).normal(size=(30, 7)).astype(np.float32)
    found = rows_matmul(shares, symmetric_rows(indices), values)
    np.testing.assert_allclose(found, as_sparse(shares, indices) @ values, rtol=1e-5, atol=1e-5)


def test_gradients_are_right_by_shares_and_values():
    shares, indices = graph(10, 3)
    rows = symmetric_rows(indices)
    values = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    check_grads(lambda c, y: rows_matmul(c, rows, y), (shares, values), order=2, modes=("rev",), rtol=1e-2, atol=1e-2)


def test_a_batch_is_a_loop_in_values_shares_and_graphs():
    graphs = [graph(12, 3, seed) for seed in range(3)]
    shares, indices = (jnp.stack(column) for column in zip(*graphs, strict=True))
    values = jnp.asarray(np.random.default_rng(1).normal(size=(3, 12, 5)), jnp.float32)

    def loss(c, i, y):
        return jnp.sum(rows_matmul(c, symmetric_rows(i), y) ** 2)

    gradient = jax.value_and_grad(loss, (0, 2))
    together = jax.jit(jax.vmap(gradient))(shares, indices, values)
    alone = [gradient(*one) for one in zip(shares, indices, values, strict=True)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(stacked), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_columns", [0, 1])
def test_few_columns_and_one_edge(n_columns):
    rows = symmetric_rows(jnp.array([[1], [0]]))
    assert rows_matmul(jnp.ones((2, 1)), rows, jnp.ones((2, n_columns))).tolist() == [[2.0] * n_columns] * 2


def test_weights_of_zero_and_cells_that_list_themselves():
    shares, indices = graph()
    shares[3] = 0.0
    indices[5, 1] = 5
    values = np.eye(30, dtype=np.float32)
    found = rows_matmul(shares, symmetric_rows(indices), values)
    np.testing.assert_allclose(found, as_sparse(shares, indices).toarray(), rtol=1e-5, atol=1e-6)
