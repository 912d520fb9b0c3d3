"""PHATE against its authors' package, and its parts against definitions and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.decomposition import PCA
from sklearn.manifold import smacof, trustworthiness

from diffbio.core.errors import ConfigError, ContractError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.landmarks import landmark_transitions, landmarks
from diffbio.operators.normalization.metric_mds import classical_mds, metric_mds, principal_axes
from diffbio.operators.normalization.phate import (
    PHATE,
    PHATEConfig,
    decayed_affinities,
    diffusion_operator,
    log_potential,
    phate,
    row_distances,
)
from diffbio.operators.normalization.von_neumann import knee, von_neumann_entropy
from diffbio.operators.singlecell.conjugate_gradients import conjugate_gradients
from diffbio.operators.singlecell.neighbors import nearest_neighbors


@pytest.fixture(scope="module")
def pbmc():
    return PCA(50, svd_solver="full").fit_transform(pbmc68k_reduced().X.toarray()).astype(np.float32)


def walk_of(cells, n_neighbors=5, decay=40.0):
    neighbors = nearest_neighbors(jnp.asarray(cells), min(20 * n_neighbors, len(cells) - 1))
    return diffusion_operator(decayed_affinities(neighbors, n_neighbors, decay=decay), neighbors.indices)


def tree(n_cells=60, seed=0):
    random = np.random.default_rng(seed)
    along = random.uniform(0, 4, n_cells)
    return (along[:, None] * np.eye(3)[np.arange(n_cells) % 3] + random.normal(scale=0.1, size=(n_cells, 3))).astype(
        np.float32
    )


@pytest.mark.slow
def test_operator_time_potential_and_map_are_those_of_phate_on_pbmc(pbmc, certificate):
    authors = pytest.importorskip("phate")
    theirs = authors.PHATE(verbose=0, n_jobs=1, random_state=0)
    expected = theirs.fit_transform(pbmc.astype(float))
    walk = walk_of(pbmc)
    time = knee(von_neumann_entropy(walk))
    potential = log_potential(walk, time)
    found = PHATE(PHATEConfig()).apply({"embeddings": pbmc}, {}, None)[0]["phate"]
    difference = trustworthiness(pbmc, found) - trustworthiness(pbmc, expected)
    row = {"operator": "PHATE", "reference": "phate", "data": "PBMC 68k, 50 components"}
    for quantity, value, bar in (
        ("largest difference of the diffusion operator", np.abs(walk - np.asarray(theirs.diff_op)).max(), 1e-3),
        ("difference of the diffusion time", abs(int(time) - int(theirs.optimal_t)), 0),
        ("largest difference of the potential", np.abs(potential - theirs.diff_potential).max(), 1e-3),
        ("loss of trustworthiness", -difference, 0.01),
    ):
        certificate(**row, quantity=quantity, value=value, bar=f"<= {bar:g}")
        assert value <= bar


@pytest.mark.slow
def test_landmarks_keep_the_map_on_pbmc(pbmc, certificate):
    authors = pytest.importorskip("phate")
    expected = authors.PHATE(verbose=0, n_jobs=1, random_state=0, n_landmark=200).fit_transform(pbmc.astype(float))
    found = phate(pbmc, n_landmarks=200).phate
    difference = trustworthiness(pbmc, found) - trustworthiness(pbmc, expected)
    certificate(
        operator="PHATE",
        reference="phate",
        data="PBMC 68k, 50 components, 200 landmarks",
        quantity="trustworthiness less theirs",
        value=difference,
        bar=">= -0.01",
    )
    assert difference >= -0.01


def test_lists_hold_all_affinities_on_pbmc(pbmc):
    neighbors = nearest_neighbors(pbmc, 100)
    counts = np.asarray(decayed_affinities(neighbors, 5, decay=40.0) > 0).sum(1)
    print(f"neighbours with an affinity: {counts.min()} to {counts.max()} of 100 in the list")
    assert counts.min() >= 5
    assert counts.max() < 100


def test_entropy_and_knee_are_their_definitions(pbmc):
    walk = walk_of(pbmc[:200])
    values = np.linalg.svd(np.asarray(walk, np.float64), compute_uv=False)
    shares = values ** np.arange(1, 101)[:, None]
    shares /= shares.sum(1, keepdims=True)
    entropy = -np.sum(shares * np.log(shares + 1e-300), axis=1)
    np.testing.assert_allclose(von_neumann_entropy(walk), entropy, atol=1e-3)
    errors = []
    for at in range(1, 99):
        lines = 0.0
        for part in (slice(None, at + 1), slice(at, None)):
            x, y = np.arange(100)[part], entropy[part]
            lines += np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).sum()
        errors.append(lines)
    assert int(knee(jnp.asarray(entropy, jnp.float32))) == 1 + int(np.argmin(errors))


@pytest.mark.parametrize("time", [0, 1, 5, 100, 200])
def test_potential_is_that_of_the_power(time):
    walk = walk_of(tree())
    power = np.linalg.matrix_power(np.asarray(walk, np.float64), time)
    np.testing.assert_allclose(log_potential(walk, time), -np.log(power + 1e-7), atol=1e-3)
    if time < 128:
        np.testing.assert_allclose(jax.jit(log_potential)(walk, time), -np.log(power + 1e-7), atol=1e-3)


def test_scaling_reaches_the_stress_of_scikit_learn(pbmc):
    wanted = np.asarray(row_distances(log_potential(walk_of(pbmc[:150]), 10)), np.float64)
    start = np.asarray(classical_mds(jnp.asarray(wanted, jnp.float32)))
    expected = smacof(wanted, init=start, n_init=1, max_iter=3000, eps=1e-12, normalized_stress=False)[1]
    found = np.asarray(metric_mds(jnp.asarray(wanted, jnp.float32)))
    distances = np.linalg.norm(found[:, None] - found, axis=-1)
    stress = np.sum((distances - wanted) ** 2) / 2
    print(f"stress {stress:.2f}, scikit-learn {expected:.2f}")
    assert stress <= expected * (1 + 1e-4)


def test_scaling_recovers_points_from_their_distances():
    points = np.random.default_rng(0).normal(size=(20, 2)) * [3.0, 1.0]
    wanted = np.linalg.norm(points[:, None] - points, axis=-1)
    found = np.asarray(metric_mds(jnp.asarray(wanted, jnp.float32)))
    np.testing.assert_allclose(found, principal_axes(jnp.asarray(points, jnp.float32)), atol=1e-4)


def test_gradients_are_those_of_the_minimum():
    with jax.enable_x64(True):
        cells = jnp.asarray(tree(14), jnp.float64)
        check_grads(
            lambda x: phate(x, 2, n_neighbors=3, decay=5.0, diffusion_time=3).phate,
            (cells,),
            order=1,
            modes=("rev",),
            rtol=1e-3,
            eps=1e-6,
        )


@pytest.mark.parametrize("case", ["zeros", "constant", "duplicates", "tiny", "huge", "two pieces"])
def test_hard_cases_give_finite_values_and_gradients(case):
    cells = tree(30)
    cells[: {"duplicates": 15}.get(case, 0)] = cells[0]
    cells = cells * np.float32({"zeros": 0.0, "tiny": 1e-18, "huge": 1e15}.get(case, 1.0))
    cells = np.ones_like(cells) if case == "constant" else cells
    if case == "two pieces":
        cells[::2] += 1000
    layout, pullback = jax.vjp(lambda x: phate(x, 2, n_neighbors=3).phate, jnp.asarray(cells))
    assert np.isfinite(layout).all()
    assert np.isfinite(pullback(jnp.ones_like(layout))[0]).all()
    assert case != "duplicates" or float(jnp.abs(layout[:15] - layout[0]).max()) < 1e-3


@pytest.mark.slow
def test_settings_matter():
    cells = tree()
    default = phate(cells, diffusion_time=4).phate
    for other in (
        {"n_neighbors": 15},
        {"decay": 2.0},
        {"diffusion_time": 20},
        {"max_neighbors": 5},
        {"n_landmarks": 20},
    ):
        change = float(jnp.abs(phate(cells, **{"diffusion_time": 4, **other}).phate - default).max())
        print(f"{other} moves cells by up to {change:.2f} nats")
        assert change > 0.1


def test_branches_of_a_tree_are_apart():
    cells = tree()
    layout = np.asarray(phate(cells).phate)
    tips = [np.flatnonzero(np.arange(60) % 3 == branch) for branch in range(3)]
    tips = [branch[np.argsort(cells[branch].sum(1))[-5:]] for branch in tips]
    centers = np.stack([layout[tip].mean(0) for tip in tips])
    spread = max(layout[tip].std(0).max() for tip in tips)
    gap = min(np.linalg.norm(centers[i] - centers[i - 1]) for i in range(3))
    print(f"least gap of tips {gap:.1f}, spread within them {spread:.1f}")
    assert gap > 5 * spread


def test_groups_cover_the_cells_and_their_walk_is_stochastic():
    cells = tree(200)
    groups = np.asarray(landmarks(jnp.asarray(cells), 30))
    assert len(set(groups.tolist())) == 30
    order = np.random.default_rng(0).permutation(200)
    shuffled = np.asarray(landmarks(jnp.asarray(cells[order]), 30))
    pairs = {(a, b) for a, b in zip(groups[order], shuffled, strict=True)}
    assert len(pairs) == 30  # the same groups, whatever the order
    neighbors = nearest_neighbors(cells, 20)
    walk, membership = landmark_transitions(decayed_affinities(neighbors, 5, decay=10.0), neighbors.indices, groups, 30)
    np.testing.assert_allclose(walk.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(membership.sum(1), 1.0, rtol=1e-5)


def test_conjugate_gradients_solve_columns_by_themselves():
    random = np.random.default_rng(0)
    factor = random.normal(size=(20, 20))
    matrix = factor @ factor.T + np.eye(20)
    right = random.normal(size=(20, 3)) * [1.0, 1e3, 0.0]
    found = conjugate_gradients(lambda x: jnp.asarray(matrix, jnp.float32) @ x, jnp.asarray(right, jnp.float32))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-2, atol=1e-3)
    assert np.isfinite(conjugate_gradients(lambda x: -x, jnp.ones((4, 1)))).all()


def test_impossible_requests_are_refused():
    with pytest.raises(ConfigError, match="max_neighbors is 3; it must be at least n_neighbors, which is 5"):
        PHATEConfig(max_neighbors=3)
    with pytest.raises(ContractError, match="distance to neighbour 5, but there are 5 cells"):
        phate(jnp.zeros((5, 2)))
    with pytest.raises(ContractError, match="9 landmarks were asked for among 5 cells"):
        landmarks(jnp.zeros((5, 2)), 9)
    with pytest.raises(ContractError, match="4 dimensions were asked for 3 cells"):
        metric_mds(jnp.zeros((3, 3)), 4)
