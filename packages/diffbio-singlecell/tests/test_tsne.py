"""t-SNE against scikit-learn, and its loss against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads
from scipy.stats import entropy
from sklearn import manifold
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from diffbio.core.errors import ContractError, MissingKeyError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.losses.singlecell.map import tsne_divergence
from diffbio.operators.normalization.tsne import (
    TSNE,
    TSNEConfig,
    TSNEGraph,
    descend,
    neighbor_probabilities,
    tsne_graph,
)


@pytest.fixture(scope="module")
def pbmc():
    return PCA(50, svd_solver="full").fit_transform(pbmc68k_reduced().X.toarray()).astype(np.float32)


def groups(n_cells=60, seed=0):
    random = np.random.default_rng(seed)
    return (6 * np.eye(3, 5)[np.arange(n_cells) % 3] + random.normal(size=(n_cells, 5))).astype(np.float32)


def mapped(cells, **config):
    operator = TSNE(TSNEConfig(n_cells=len(cells), **config), rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(cells))
    return operator


def dense(graph):
    indices, shares = map(np.asarray, graph)
    matrix = np.zeros((len(shares),) * 2)
    np.add.at(matrix, (np.arange(len(shares))[:, None], indices), shares)
    return matrix + matrix.T


@pytest.mark.parametrize("perplexity", [5.0, 30.0])
def test_distribution_is_that_of_scikit_learn_on_pbmc(pbmc, perplexity, certificate):
    fitted = NearestNeighbors(n_neighbors=int(3 * perplexity + 1), algorithm="brute").fit(pbmc.astype(np.float64))
    squared = fitted.kneighbors_graph(mode="distance")
    squared.data **= 2
    expected = manifold._t_sne._joint_probabilities_nn(squared, perplexity, 0).toarray()
    found = dense(tsne_graph(pbmc, perplexity))
    error = np.abs(found - expected).max() / expected.max()
    certificate(
        operator="TSNE",
        reference="scikit-learn _joint_probabilities_nn",
        data=f"PBMC 68k, 50 components, perplexity {perplexity:g}",
        quantity="largest difference of p, relative to the largest p",
        value=error,
        bar="<= 1e-3",
    )
    assert error <= 1e-3
    np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_map_is_as_trustworthy_as_that_of_scikit_learn_on_pbmc(pbmc, certificate):
    data = mapped(pbmc).apply({"embeddings": pbmc}, {}, None)[0]
    expected = manifold.TSNE(random_state=0).fit_transform(pbmc)
    ours, theirs = (manifold.trustworthiness(pbmc, layout) for layout in (data["tsne"], expected))
    divergence = float(tsne_divergence(data)), float(tsne_divergence({**data, "tsne": jnp.asarray(expected)}))
    print(f"trustworthiness {ours:.4f} and {theirs:.4f}, divergence {divergence[0]:.4f} and {divergence[1]:.4f}")
    row = {"operator": "TSNE", "reference": "scikit-learn TSNE", "data": "PBMC 68k, 50 components"}
    certificate(**row, quantity="trustworthiness less theirs", value=ours - theirs, bar=">= -0.01")
    certificate(**row, quantity="divergence over theirs", value=divergence[0] / divergence[1], bar="<= 1.05")
    assert ours - theirs >= -0.01
    assert divergence[0] <= 1.05 * divergence[1]


@pytest.mark.parametrize("perplexity", [1.5, 5.0, 20.0])
def test_rows_have_the_perplexity(pbmc, perplexity):
    distances = np.sort(np.linalg.norm(pbmc[:50, None] - pbmc[:200], axis=-1), axis=1)[:, 1:70]
    chosen = np.asarray(neighbor_probabilities(jnp.asarray(distances), perplexity))
    np.testing.assert_allclose(np.exp(entropy(chosen, axis=1)), perplexity, rtol=1e-3)


def test_probabilities_have_the_gradient_of_the_implicit_function():
    with jax.enable_x64(True):
        distances = jnp.asarray(np.sort(np.random.default_rng(0).random((5, 8)) + 0.5))
        check_grads(
            lambda d: neighbor_probabilities(d, 3.0), (distances,), order=1, modes=("fwd", "rev"), rtol=1e-4, eps=1e-5
        )


@pytest.mark.slow
def test_loss_is_the_divergence_and_has_right_gradients():
    cells = groups(20)
    graph = tsne_graph(cells, 3.0)
    layout = np.random.default_rng(1).normal(size=(20, 2))
    p = dense(graph)
    q = 1 / (1 + np.sum((layout[:, None] - layout) ** 2, axis=-1))
    np.fill_diagonal(q, 0.0)
    q /= q.sum()
    data = {"tsne": jnp.asarray(layout, jnp.float32), **graph._asdict()}
    np.testing.assert_allclose(tsne_divergence(data), np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])), rtol=1e-4)
    with pytest.raises(MissingKeyError, match="tsne_divergence reads 'tsne'"):
        tsne_divergence(graph._asdict())

    def loss(layout, cells):
        return tsne_divergence({"tsne": layout, **tsne_graph(cells, 3.0)._asdict()})

    with jax.enable_x64(True):
        check_grads(
            loss, (jnp.asarray(layout), jnp.asarray(cells, jnp.float64)), order=1, modes=("rev",), rtol=1e-4, eps=1e-6
        )


def test_descent_follows_the_gradient_of_the_loss():
    graph = tsne_graph(groups(20), 3.0)
    start = jnp.asarray(np.random.default_rng(1).normal(size=(20, 2)), jnp.float32)
    moved = descend(start, graph, n_iterations=1, early_exaggeration=1.0, learning_rate=0.1)
    slope = jax.grad(lambda y: tsne_divergence({"tsne": y, **graph._asdict()}))(start)
    np.testing.assert_allclose((start - moved) / 0.08, slope, atol=1e-5)  # the first gain is 0.8


def test_descent_keeps_no_matrix_of_all_pairs():
    graph = TSNEGraph(jax.ShapeDtypeStruct((8000, 91), jnp.int32), jax.ShapeDtypeStruct((8000, 91), jnp.float32))
    compiled = descend.lower(jax.ShapeDtypeStruct((8000, 2), jnp.float32), graph).compile()
    scratch = compiled.memory_analysis().temp_size_in_bytes
    print(f"scratch for 8000 cells: {scratch / 1e6:.0f} MB; a matrix of all pairs has 256 MB")
    assert scratch < 64e6


def test_map_keeps_groups_apart_and_trains_further():
    cells = jnp.asarray(groups())
    operator = mapped(cells, perplexity=8.0, n_iterations=300)
    layout, types = np.asarray(operator.coordinates[...]), np.arange(60) % 3
    distances = np.linalg.norm(layout[:, None] - layout, axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert np.mean(types[distances.argmin(1)] == types) == 1
    optimizer = nnx.Optimizer(operator, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(operator, optimizer):
        def loss(operator):
            return tsne_divergence(operator.apply({"embeddings": cells}, {}, None)[0])

        value, gradient = nnx.value_and_grad(loss)(operator)
        optimizer.update(operator, gradient)
        return value

    losses = [float(step(operator, optimizer)) for _ in range(100)]
    print(f"divergence {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["zeros", "constant", "duplicates", "tiny", "huge", "outlier"])
def test_hard_cases_give_finite_values_and_gradients(case):
    cells = groups(30)
    cells[: {"duplicates": 20}.get(case, 0)] = cells[0]
    cells = cells * np.float32({"zeros": 0.0, "tiny": 1e-18, "huge": 1e15}.get(case, 1.0))
    cells = np.ones_like(cells) if case == "constant" else cells
    if case == "outlier":
        cells[0] = 1e5
    shares, pullback = jax.vjp(lambda x: tsne_graph(x, 3.0).tsne_affinities, jnp.asarray(cells))
    assert np.isfinite(shares).all()
    assert np.isfinite(pullback(jnp.ones_like(shares))[0]).all()
    np.testing.assert_allclose(shares.sum(), 0.5, rtol=1e-4)
    assert np.isfinite(mapped(cells, perplexity=3.0, n_iterations=50).coordinates[...]).all()


def test_impossible_requests_are_refused():
    with pytest.raises(ContractError, match="perplexity 30 can't be had among 20 cells; lower it below 19"):
        tsne_graph(groups(20), 30.0)
    with pytest.raises(ContractError, match="TSNE has coordinates for 30 cells and was given 60"):
        TSNE(TSNEConfig(n_cells=30), rngs=nnx.Rngs(0)).initialize(jnp.asarray(groups()))
    with pytest.raises(ContractError, match="has no pair"):
        tsne_divergence({"tsne": jnp.zeros((1, 2)), **tsne_graph(groups(20), 3.0)._asdict()})
