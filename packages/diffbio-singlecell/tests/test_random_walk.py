"""The walk against powers of the dense matrix, in blocks of genes or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.operators.singlecell import random_walk
from diffbio.operators.singlecell.random_walk import diffuse


def walk_of(affinities, indices):
    n_cells = len(indices)
    kernel = np.zeros((n_cells, n_cells))
    np.add.at(kernel, (np.arange(n_cells)[:, None], indices), affinities)
    kernel = np.eye(n_cells) + (kernel + kernel.T) / 2
    return kernel / kernel.sum(1, keepdims=True)


@pytest.mark.parametrize("fewest", [1, 3, 64])
def test_blocks_of_genes_change_neither_values_nor_gradients(fewest, monkeypatch):
    monkeypatch.setattr(random_walk, "_CACHED", 1)
    monkeypatch.setattr(random_walk, "_FEWEST_GENES", fewest)  # blocks of 1, of 3 or 4, of all 13 genes
    random = np.random.default_rng(0)
    affinities = random.random((20, 4)).astype(np.float32)
    indices = np.stack([random.permutation(20)[:4] for _ in range(20)]).astype(np.int32)
    values, cotangent = (random.normal(size=(20, 13)).astype(np.float32) for _ in range(2))
    found, pull = jax.vjp(lambda a, y: diffuse(y, a, indices, n_steps=3), affinities, values)
    power = np.linalg.matrix_power(walk_of(affinities, indices), 3)
    np.testing.assert_allclose(found, power @ values, rtol=1e-4, atol=1e-5)
    by_affinities, by_values = pull(jnp.asarray(cotangent))
    np.testing.assert_allclose(by_values, power.T @ cotangent, rtol=1e-4, atol=1e-5)
    nudge = random.normal(size=affinities.shape) * 1e-5
    up, down = (np.linalg.matrix_power(walk_of(affinities + sign * nudge, indices), 3) @ values for sign in (1.0, -1.0))
    np.testing.assert_allclose(np.sum(by_affinities * nudge), np.sum(cotangent * (up - down)) / 2, rtol=1e-3)


def test_memory_does_not_grow_with_the_steps(monkeypatch):
    monkeypatch.setattr(random_walk, "_CACHED", 2**17)
    affinities, indices, values = (
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (((1000, 15), jnp.float32), ((1000, 15), jnp.int32), ((1000, 2000), jnp.float32))
    )
    scratch = []
    for n_steps in (2, 8):
        gradient = jax.grad(lambda y, a, i, t=n_steps: (diffuse(y, a, i, n_steps=t) ** 2).sum(), (0, 1))
        compiled = jax.jit(gradient).lower(values, affinities, indices).compile().memory_analysis()
        scratch.append(compiled.temp_size_in_bytes / (4 * 1000 * 2000))
    print(f"scratch of the gradient for 2 and 8 steps: {scratch[0]:.1f}, {scratch[1]:.1f} arrays of cells x genes")
    assert scratch[1] < 6


def test_no_step_no_gene_and_one_cell():
    assert diffuse(jnp.array([[3.0]]), jnp.ones((1, 1)), jnp.array([[0]]), n_steps=2).tolist() == [[3.0]]
    values, graph = jnp.array([[0.0], [4.0]]), (jnp.ones((2, 1)), jnp.array([[1], [0]]))
    np.testing.assert_array_equal(diffuse(values, *graph, n_steps=0), values)
    assert diffuse(values[:, :0], *graph, n_steps=2).shape == (2, 0)
