"""UMAP and parametric UMAP against umap-learn, and their loss against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, ContractError, MissingKeyError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.losses.singlecell.map import umap_cross_entropy
from diffbio.operators.normalization.fuzzy_graph import FuzzyEdges, FuzzyGraph, FuzzyGraphConfig, fuzzy_graph
from diffbio.operators.normalization.parametric_umap import ParametricUMAP, ParametricUMAPConfig
from diffbio.operators.normalization.umap import UMAP, UMAPConfig, optimize_layout, spectral_layout
from diffbio.operators.normalization.umap_curve import umap_attraction, umap_curve, umap_repulsion


@pytest.fixture(scope="module")
def pbmc():
    return PCA(50, svd_solver="full").fit_transform(pbmc68k_reduced().X.toarray()).astype(np.float32)


def mapped(cells, seed=0, **config):
    operator = UMAP(UMAPConfig(n_cells=len(cells), **config), rngs=nnx.Rngs(seed))
    operator.initialize(jnp.asarray(cells), key=jax.random.key(seed))
    return operator


def groups(n_cells=60, seed=0):
    random = np.random.default_rng(seed)
    return (6 * np.eye(3, 5)[np.arange(n_cells) % 3] + random.normal(size=(n_cells, 5))).astype(np.float32)


@pytest.mark.slow
def test_map_is_as_trustworthy_as_that_of_umap_learn_on_pbmc(pbmc, certificate):
    umap_learn = pytest.importorskip("umap")
    graph = fuzzy_graph(pbmc, 15)
    ours, theirs, losses = [], [], []
    for seed in range(3):
        found = np.asarray(mapped(pbmc, seed).coordinates[...])
        expected = umap_learn.UMAP(random_state=seed, n_jobs=1).fit_transform(pbmc)
        ours.append(trustworthiness(pbmc, found, n_neighbors=15))
        theirs.append(trustworthiness(pbmc, expected, n_neighbors=15))
        data = {"fuzzy_indices": graph.fuzzy_indices, "fuzzy_memberships": graph.fuzzy_memberships}
        losses.append([float(umap_cross_entropy({**data, "umap": jnp.asarray(x)})) for x in (found, expected)])
    print("cross-entropy, ours and theirs:", np.round(losses, 3).tolist())
    row = {"operator": "UMAP", "reference": "umap-learn", "data": "PBMC 68k, 50 components, mean of 3 seeds"}
    print(f"trustworthiness {np.mean(ours):.4f}, theirs {np.mean(theirs):.4f}")
    certificate(**row, quantity="trustworthiness less theirs", value=np.mean(ours) - np.mean(theirs), bar=">= -0.01")
    assert np.mean(ours) - np.mean(theirs) >= -0.01


@pytest.mark.slow
def test_network_maps_new_cells_as_well_as_umap_learn(pbmc, certificate):
    umap_learn = pytest.importorskip("umap")
    held_out = np.arange(len(pbmc)) % 4 == 0
    mapper = ParametricUMAP(ParametricUMAPConfig(n_features=50), rngs=nnx.Rngs(0))
    mapper.initialize(jnp.asarray(pbmc[~held_out]), key=jax.random.key(0))
    found = np.asarray(mapper.apply({"embeddings": pbmc}, {}, None)[0]["umap"])
    reducer = umap_learn.UMAP(random_state=0, n_jobs=1).fit(pbmc[~held_out])
    row = {"operator": "ParametricUMAP", "reference": "umap-learn", "data": "PBMC 68k, 50 components"}
    for name, kept, theirs in (
        ("training cells", ~held_out, reducer.embedding_),
        ("new cells", held_out, reducer.transform(pbmc[held_out])),
    ):
        difference = trustworthiness(pbmc[kept], found[kept]) - trustworthiness(pbmc[kept], theirs)
        certificate(**row, quantity=f"trustworthiness of {name} less theirs", value=difference, bar=">= -0.01")
        assert difference >= -0.01


@pytest.mark.parametrize(
    ("min_dist", "spread", "expected"),
    [(0.1, 1.0, (1.57694, 0.89506)), (0.001, 1.0, (1.92907, 0.79150)), (0.5, 1.0, (0.58303, 1.33417))],
)
def test_curve_is_that_of_umap_learn(min_dist, spread, expected):
    np.testing.assert_allclose(umap_curve(min_dist, spread), expected, rtol=1e-4)


def test_impossible_curves_are_refused():
    with pytest.raises(ConfigError, match="they must be at least 0 and above 0"):
        umap_curve(0.1, 0.0)


def test_loss_is_its_definition_over_all_pairs():
    graph = fuzzy_graph(groups(), 6)
    layout = np.random.default_rng(1).normal(size=(60, 2))
    a, b = umap_curve()
    matrix = np.zeros((60, 60))
    np.add.at(matrix, (np.arange(60)[:, None], np.asarray(graph.fuzzy_indices)), np.asarray(graph.fuzzy_memberships))
    matrix = matrix + matrix.T
    squared = np.sum((layout[:, None] - layout) ** 2, axis=-1)
    similarity = 1 / (1 + a * squared**b)
    push = np.log1p(1 / (a * (squared + 1e-3) ** b))
    np.fill_diagonal(push, 0.0)
    expected = np.sum(matrix * -np.log(similarity)) + 2.5 * np.sum(matrix.sum(1) * push.sum(1) / 59)
    data = {"umap": jnp.asarray(layout, jnp.float32), **graph._asdict()}
    np.testing.assert_allclose(umap_cross_entropy(data), expected / 60, rtol=1e-5)
    drawn = [umap_cross_entropy(data, key=jax.random.key(seed)) for seed in range(100)]
    print(f"exact {expected / 60:.4f}, mean of 100 samples {np.mean(drawn):.4f} +- {np.std(drawn) / 10:.4f}")
    assert abs(np.mean(drawn) - expected / 60) < 4 * np.std(drawn) / 10
    for missing in data:
        with pytest.raises(MissingKeyError, match=f"umap_cross_entropy reads '{missing}'"):
            umap_cross_entropy({key: value for key, value in data.items() if key != missing})


@pytest.mark.slow
def test_loss_has_right_and_finite_gradients():
    graph = fuzzy_graph(groups(12), 4)
    layout = jnp.asarray(np.random.default_rng(1).normal(size=(12, 2)), jnp.float32)

    def loss(layout, shares):
        return umap_cross_entropy({"umap": layout, "fuzzy_indices": graph[0], "fuzzy_memberships": shares})

    with jax.enable_x64(True):
        exact = jnp.asarray(layout, jnp.float64), jnp.asarray(graph.fuzzy_memberships, jnp.float64)
        check_grads(loss, exact, order=1, modes=("rev",), rtol=1e-4, eps=1e-6)
    for scale in (0.0, 1e-20, 1e10):
        assert np.isfinite(jax.grad(loss)(scale * layout, graph.fuzzy_memberships)).all()
    assert float(umap_attraction(jnp.zeros(()), *umap_curve())) == 0
    assert np.isfinite(jax.grad(lambda d: umap_repulsion(d, *umap_curve()))(0.0))


def test_loss_keeps_no_matrix_of_all_pairs():
    shapes = {
        "umap": jax.ShapeDtypeStruct((8000, 2), jnp.float32),
        "fuzzy_indices": jax.ShapeDtypeStruct((8000, 14), jnp.int32),
        "fuzzy_memberships": jax.ShapeDtypeStruct((8000, 14), jnp.float32),
    }
    gradient = jax.jit(jax.grad(umap_cross_entropy, allow_int=True))
    scratch = gradient.lower(shapes).compile().memory_analysis().temp_size_in_bytes
    print(f"scratch for 8000 cells: {scratch / 1e6:.0f} MB; a matrix of all pairs has 256 MB")
    assert scratch < 64e6


def test_descent_takes_memory_linear_in_cells():
    scratch = []
    for n_cells in (2000, 4000):
        graph = FuzzyEdges(
            jax.ShapeDtypeStruct((n_cells, 14), jnp.int32), jax.ShapeDtypeStruct((n_cells, 14), jnp.float32)
        )
        layout = jax.ShapeDtypeStruct((n_cells, 2), jnp.float32)
        lowered = optimize_layout.lower(layout, graph, key=jax.eval_shape(lambda: jax.random.key(0)), a=1.6, b=0.9)
        scratch.append(lowered.compile().memory_analysis().temp_size_in_bytes)
    print(f"scratch for 2000 and 4000 cells: {scratch[0] / 1e6:.1f}, {scratch[1] / 1e6:.1f} MB")
    assert scratch[1] < 2.2 * scratch[0]


def test_map_keeps_groups_apart_and_lowers_the_loss():
    cells = groups()
    data = mapped(cells, n_neighbors=8, n_epochs=200).apply({"embeddings": cells}, {}, None)[0]
    start = spectral_layout(jnp.asarray(cells), fuzzy_graph(cells, 8), 2, key=jax.random.key(0))
    losses = float(umap_cross_entropy({**data, "umap": start})), float(umap_cross_entropy(data))
    layout, types = np.asarray(data["umap"]), np.arange(60) % 3
    distances = np.linalg.norm(layout[:, None] - layout, axis=-1)
    np.fill_diagonal(distances, np.inf)
    purity = np.mean(types[distances.argmin(1)] == types)
    print(f"cross-entropy {losses[0]:.2f} -> {losses[1]:.2f}; nearest cell of the same type: {purity:.2f}")
    assert losses[1] < losses[0]
    assert purity == 1


@pytest.mark.slow
def test_same_key_same_map_and_n_neighbors_matters():
    cells = groups()
    first, again, other = (mapped(cells, n_neighbors=k, n_epochs=20).coordinates[...] for k in (5, 5, 20))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 0.1


@pytest.mark.parametrize("case", ["zeros", "duplicates", "tiny", "huge"])
def test_hard_cases_have_a_finite_map(case):
    cells = groups()
    cells[: {"duplicates": 40}.get(case, 0)] = cells[0]
    cells = cells * np.float32({"zeros": 0.0, "tiny": 1e-20, "huge": 1e15}.get(case, 1.0))
    assert np.isfinite(mapped(cells, n_epochs=20).coordinates[...]).all()


def test_coordinates_train_further_by_the_loss():
    cells = jnp.asarray(groups())
    operator = mapped(cells, n_neighbors=8, n_epochs=5)
    optimizer = nnx.Optimizer(operator, optax.adam(0.05), wrt=nnx.Param)

    @nnx.jit
    def step(operator, optimizer):
        def loss(operator):
            return umap_cross_entropy(operator.apply({"embeddings": cells}, {}, None)[0])

        value, gradient = nnx.value_and_grad(loss)(operator)
        optimizer.update(operator, gradient)
        return value

    losses = [float(step(operator, optimizer)) for _ in range(60)]
    print(f"cross-entropy {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.slow
def test_network_learns_a_map_that_holds_for_new_cells():
    train, new = groups(90), groups(60, seed=1)
    config = ParametricUMAPConfig(n_features=5, hidden_sizes=(32,), n_neighbors=10, n_steps=300, batch_size=200)
    mapper = ParametricUMAP(config, rngs=nnx.Rngs(0))
    pipeline = Pipeline(FuzzyGraph(FuzzyGraphConfig(n_neighbors=10)), mapper)
    before = float(umap_cross_entropy(pipeline.apply({"embeddings": new}, {}, None)[0]))
    mapper.initialize(jnp.asarray(train), key=jax.random.key(0))
    data = pipeline.apply({"embeddings": new}, {}, None)[0]
    after, layout = float(umap_cross_entropy(data)), np.asarray(data["umap"])
    centers = np.stack([layout[t::3].mean(0) for t in range(3)])
    nearest = np.linalg.norm(layout[:, None] - centers, axis=-1).argmin(1)
    print(f"cross-entropy of new cells {before:.2f} -> {after:.2f}")
    assert after < before
    assert np.mean(nearest == np.arange(60) % 3) > 0.95
    gradient = jax.grad(lambda x: umap_cross_entropy(pipeline.apply({"embeddings": x}, {}, None)[0]))(jnp.asarray(new))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_other_numbers_of_cells_are_refused():
    operator = UMAP(UMAPConfig(n_cells=30), rngs=nnx.Rngs(0))
    with pytest.raises(ContractError, match="UMAP has coordinates for 30 cells and was given 60"):
        operator.initialize(jnp.asarray(groups()), key=jax.random.key(0))
    with pytest.raises(ContractError, match="30"):
        operator.apply({"embeddings": groups()}, {}, None)
