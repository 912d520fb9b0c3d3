"""Diffusion pseudotime: known processes, scanpy on real cells, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.stats import spearmanr

from diffbio.core.errors import ContractError
from diffbio.operators.singlecell import (
    DiffusionPseudotime,
    DiffusionPseudotimeConfig,
    diffusion_pseudotime,
)


def order_of(embeddings, root=0, **config):
    operator = DiffusionPseudotime(DiffusionPseudotimeConfig(root_cell=root, **config))
    return np.asarray(operator.apply({"embeddings": np.asarray(embeddings, np.float32)}, {}, None)[0]["pseudotime"])


def scanpy_order(embeddings, root, n_neighbors=15):
    """Return scanpy's pseudotime from all diffusion components."""
    scanpy, anndata = pytest.importorskip("scanpy"), pytest.importorskip("anndata")
    adata = anndata.AnnData(np.asarray(embeddings, np.float32))
    scanpy.pp.neighbors(adata, n_neighbors=n_neighbors, method="gauss", use_rep="X")
    scanpy.tl.diffmap(adata, n_comps=adata.n_obs - 1)
    adata.uns["iroot"] = root
    scanpy.tl.dpt(adata, n_dcs=adata.n_obs - 1)
    return adata.obs["dpt_pseudotime"].to_numpy()


def process(shape, n_cells=300, seed=0):
    """Return noisy cells of a process in five dimensions, their time and their branch."""
    random = np.random.default_rng(seed)
    time = np.append(0.0, random.random(n_cells - 1))
    branch = random.integers(0, 3, n_cells)
    cells = random.normal(scale=0.1, size=(n_cells, 5))
    if shape == "line":
        cells[:, 0] += 10 * time
    elif shape == "arc":
        cells[:, :2] += 3 * np.stack([np.cos(4.5 * time), np.sin(4.5 * time)], 1)
    else:
        directions = np.array([[0.0, -1.0], [0.87, 0.5], [-0.87, 0.5]])
        branch[0] = 0
        cells[:, :2] += 5 * np.where(branch == 0, 1 - time, time)[:, None] * directions[branch]
        time = np.where(branch == 0, time, 1 + time)
    return cells, time, branch


@pytest.mark.parametrize("shape", ["line", "arc"])
@pytest.mark.parametrize("n_neighbors", [8, 15, 30])
def test_order_along_one_path(shape, n_neighbors):
    cells, time, _ = process(shape)
    agreement = spearmanr(order_of(cells, n_neighbors=n_neighbors), time)[0]
    print(f"{shape}, {n_neighbors} neighbours: Spearman with the truth {agreement:.4f}")
    assert agreement > 0.99


def test_order_along_each_branch_of_a_fork():
    cells, time, branch = process("fork")
    order = order_of(cells)
    for b in range(3):
        agreement = spearmanr(order[branch == b], time[branch == b])[0]
        print(f"branch {b}: Spearman with the truth {agreement:.4f}")
        assert agreement > 0.98


@pytest.mark.parametrize(("root", "n_neighbors"), [(0, 15), (333, 15), (0, 8)])
def test_agrees_with_scanpy_on_pbmc(root, n_neighbors, certificate):
    cells = pytest.importorskip("scanpy").datasets.pbmc68k_reduced().obsm["X_pca"]
    ours, theirs = order_of(cells, root, n_neighbors=n_neighbors), scanpy_order(cells, root, n_neighbors)
    certificate(
        operator="DiffusionPseudotime",
        reference="scanpy tl.dpt",
        data="PBMC 68k, 700 cells",
        quantity=f"largest difference, root {root}, {n_neighbors} neighbours",
        value=np.abs(ours - theirs).max(),
        bar="<= 5e-4",
    )
    np.testing.assert_allclose(ours, theirs, atol=5e-4)
    assert ours.min() == ours[root] == 0.0
    assert ours.max() == 1.0


def test_agrees_with_scanpy_on_cells_out_of_reach():
    line = process("line", 80)[0]
    cells = np.concatenate([line, line + 100.0])
    ours, theirs = order_of(cells), scanpy_order(cells, 0)
    np.testing.assert_array_equal(np.isinf(ours), np.arange(160) >= 80)
    np.testing.assert_array_equal(np.isinf(ours), np.isinf(theirs))
    np.testing.assert_allclose(ours[:80], theirs[:80], atol=5e-4)


@pytest.mark.slow
def test_long_processes_keep_their_order():
    random = np.random.default_rng(0)
    time = np.append(0.0, random.random(1499))
    cells = np.stack([100 * time, np.zeros(1500)], 1) + random.normal(scale=0.1, size=(1500, 2))
    ours, theirs = (spearmanr(order, time)[0] for order in (order_of(cells), scanpy_order(cells, 0)))
    print(f"line of 1500 cells: Spearman with the truth {ours:.4f}, of scanpy {theirs:.4f}")
    assert ours > 0.99


def test_cells_out_of_reach_have_no_gradient():
    line = process("line", 40)[0]
    cells = jnp.asarray(np.concatenate([line, line + 100.0]), jnp.float32)
    order, pullback = jax.vjp(lambda x: diffusion_pseudotime(x, 0).pseudotime, cells)
    gradient = pullback(jnp.ones_like(order))[0]
    assert np.isinf(order[40:]).all()
    assert np.isfinite(gradient).all()
    assert (gradient[40:] == 0).all()
    assert (gradient[1:40] != 0).any()


def test_gradients_are_right():
    cells = jnp.asarray(process("arc", 20)[0], jnp.float32)
    with jax.enable_x64(True):
        check_grads(
            lambda x: diffusion_pseudotime(x, 3, n_neighbors=6).pseudotime,
            (cells.astype(jnp.float64),),
            order=1,
            modes=("rev",),
            eps=1e-6,
            rtol=1e-4,
        )


@pytest.mark.parametrize("case", ["zeros", "constant", "duplicates", "tiny", "huge"])
def test_hard_cases_give_finite_values_and_gradients(case):
    cells = process("arc", 40)[0].astype(np.float32)
    if case == "duplicates":
        cells[5:25] = cells[5]
    cells = jnp.asarray(cells * {"zeros": 0.0, "tiny": 1e-20, "huge": 1e18}.get(case, 1.0), jnp.float32)
    cells = jnp.ones_like(cells) if case == "constant" else cells
    order, pullback = jax.vjp(lambda x: diffusion_pseudotime(x, 2).pseudotime, cells)
    assert np.isfinite(order).all()
    assert np.isfinite(pullback(jnp.ones_like(order))[0]).all()


def test_cells_come_in_no_order_and_have_no_unit():
    cells = process("arc", 60)[0]
    permutation = np.random.default_rng(0).permutation(60)
    root = int(np.flatnonzero(permutation == 7)[0])
    np.testing.assert_allclose(order_of(cells[permutation], root), order_of(cells, 7)[permutation], atol=1e-3)
    np.testing.assert_allclose(order_of(1000 * cells, 7), order_of(cells, 7), atol=1e-3)


def test_neighborhoods_and_root_matter():
    cells = process("arc", 60)[0]
    default = order_of(cells)
    assert np.abs(order_of(cells, n_neighbors=8) - default).max() > 0.01
    assert np.abs(order_of(cells, 5) - default).max() > 0.1


def test_wrong_sizes_are_refused():
    with pytest.raises(ContractError, match="n_neighbors=15 cells can't be had among 10"):
        order_of(np.zeros((10, 2)))
    with pytest.raises(ContractError, match="the root is cell 20, but there are 20 cells"):
        order_of(np.zeros((20, 2)), 20)
