"""Harmony against harmonypy and an independent NumPy version, on cells with a planted batch effect; its edges."""

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from diffbio.core.errors import ConfigError, ContractError, MissingRandomnessError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.singlecell.batch_design import batch_effects, batch_indicators, without_batch_effects
from diffbio.operators.singlecell.diverse_clustering import spherical_centroids
from diffbio.operators.singlecell.harmony import Harmony, HarmonyConfig, harmony


def shifted_components(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 30 principal components of PBMC 68k, shifted in three uneven batches: globally, and by cell type."""
    random = np.random.default_rng(seed)
    adata = pbmc68k_reduced()
    x = adata.X.toarray()
    z = PCA(30, random_state=seed).fit_transform(np.clip((x - x.mean(0)) / x.std(0, ddof=1), -10, 10))
    types = adata.obs["bulk_labels"].cat.codes.to_numpy()
    batches = random.choice(3, len(z), p=[0.5, 0.3, 0.2])
    shifts = 0.5 * random.normal(size=(3, 30))[batches] + 0.15 * random.normal(size=(3, 10, 30))[batches, types]
    z = z + shifts * z.std(0)
    return (z - z.mean(0)).astype(np.float32), batches.astype(np.int32), types


def simulated_counts(n_cells: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 30 components of negative binomial counts around the mean of each type of PBMC 68k.

    Each of three uneven batches multiplies each gene by a log-normal factor.
    """
    random = np.random.default_rng(seed)
    adata = pbmc68k_reduced()
    profiles, labels = np.expm1(adata.X.toarray()), adata.obs["bulk_labels"].cat.codes.to_numpy()
    common = [code for code in range(10) if (labels == code).sum() >= 30]
    shares = np.array([(labels == code).sum() for code in common])
    means = np.stack([profiles[labels == code].mean(0) for code in common])
    types = random.choice(len(common), n_cells, p=shares / shares.sum())
    batches = random.choice(3, n_cells, p=[0.5, 0.3, 0.2])
    rates = means[types] * np.exp(random.normal(scale=0.25, size=(3, means.shape[1])))[batches]
    rates *= random.lognormal(np.log(2000), 0.4, (n_cells, 1)) / rates.sum(1, keepdims=True)
    counts = random.poisson(random.gamma(2.0, rates / 2.0))
    normalized = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    scaled = np.clip((normalized - normalized.mean(0)) / np.maximum(normalized.std(0), 1e-3), -10, 10)
    return PCA(30, random_state=seed).fit_transform(scaled).astype(np.float32), batches.astype(np.int32), types


def mean_lisi(z: np.ndarray, labels: np.ndarray, perplexity: float = 30.0) -> float:
    """Return the mean effective number of labels in a neighbourhood (Korsunsky 2019), by an independent version."""
    n_neighbors = int(3 * perplexity)
    distances = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(z).kneighbors(z)
    distances, indices = distances[0][:, 1:], distances[1][:, 1:]
    low, high = np.zeros(len(z)), np.full(len(z), np.inf)
    precision = np.ones(len(z))
    for _ in range(60):
        weights = np.exp(-(distances - distances[:, :1]) * precision[:, None])
        weights /= weights.sum(1, keepdims=True)
        entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum(1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, precision, low), np.where(wide, high, precision)
        precision = np.where(np.isinf(high), 2 * precision, (low + high) / 2)
    shares = np.stack([(weights * (labels[indices] == label)).sum(1) for label in np.unique(labels)])
    return float((1 / (shares**2).sum(0)).mean())


def batch_gap(z: np.ndarray, batches: np.ndarray, types: np.ndarray) -> float:
    """Return the mean distance between the batches of a type over the spread of all cells."""
    gaps = []
    for kind in np.unique(types):
        means = [
            z[(types == kind) & (batches == b)].mean(0)
            for b in range(3)
            if ((types == kind) & (batches == b)).sum() > 5
        ]
        gaps += [np.linalg.norm(one - other) for i, one in enumerate(means) for other in means[i + 1 :]]
    return float(np.mean(gaps) / np.sqrt(z.var(0).sum()))


def harmonized(z: np.ndarray, batches: np.ndarray, seed: int = 0, **options) -> np.ndarray:
    centroids = spherical_centroids(z, min(round(len(z) / 30), 100), key=jax.random.key(seed))
    return np.asarray(harmony(z, batches, centroids, n_batches=3, **options).corrected_embeddings)


def qualities(z: np.ndarray, batches: np.ndarray, types: np.ndarray) -> dict[str, float]:
    return {
        "mean LISI of batches": mean_lisi(z, batches),
        "mean LISI of types": mean_lisi(z, types),
        "silhouette of batches": silhouette_score(z, batches),
        "silhouette of types": silhouette_score(z, types),
    }


@pytest.mark.slow
@pytest.mark.parametrize("data", [shifted_components, simulated_counts])
def test_batches_mix_and_types_stay_as_with_harmonypy(data, certificate) -> None:
    harmonypy = pytest.importorskip("harmonypy")
    pd = pytest.importorskip("pandas")
    z, batches, types = data()
    n_clusters, labels = min(round(len(z) / 30), 100), pd.DataFrame({"batch": batches.astype(str)})
    theirs, ours = [], []
    for seed in range(4):
        reference = harmonypy.run_harmony(z, labels, ["batch"], nclust=n_clusters, random_state=seed, verbose=False)
        theirs.append(qualities(reference.Z_corr, batches, types))
        ours.append(qualities(harmonized(z, batches, seed), batches, types))
    for name in ours[0]:
        mine, other = (np.mean([run[name] for run in runs]) for runs in (ours, theirs))
        print(f"{name}: ours {mine:.4f}, harmonypy {other:.4f} +- {np.std([run[name] for run in theirs]):.4f}")
        certificate(
            operator="Harmony",
            reference=f"harmonypy {version('harmonypy')}",
            data="PBMC 68k, shifted" if data is shifted_components else "counts simulated from PBMC 68k",
            quantity=f"difference in {name}, mean of 4 starts",
            value=abs(mine - other),
            bar="<= 0.02",
        )
        assert abs(mine - other) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"theta": 8.0}, {"theta": 1.0}, {"lamb": 1.0}], ids=str)
def test_options_act_as_in_harmonypy(options: dict, certificate) -> None:
    harmonypy = pytest.importorskip("harmonypy")
    pd = pytest.importorskip("pandas")
    z, batches, types = simulated_counts()
    labels = pd.DataFrame({"batch": batches.astype(str)})
    reference = harmonypy.run_harmony(z, labels, ["batch"], nclust=50, random_state=0, verbose=False, **options)
    own = {"theta": {"diversity": options.get("theta")}, "lamb": {"ridge": 1.0, "ridge_unit": "cells"}}
    theirs = qualities(reference.Z_corr, batches, types)
    ours = qualities(harmonized(z, batches, **own[next(iter(options))]), batches, types)
    for name, value in ours.items():
        certificate(
            operator="Harmony",
            reference=f"harmonypy {version('harmonypy')}",
            data=f"counts simulated from PBMC 68k, {options}",
            quantity=f"difference in {name}",
            value=abs(value - theirs[name]),
            bar="<= 0.02",
        )
        assert abs(value - theirs[name]) <= 0.02


def numpy_harmony(
    z: np.ndarray, batches: np.ndarray, centroids: np.ndarray, *, rounds: int, theta: float
) -> np.ndarray:
    """Return Harmony in loops over blocks, clusters and batches, in float64; it shares no code with the operator."""
    sigma, n_blocks, n = 0.1, 20, len(z)
    share = np.bincount(batches) / n

    def directions(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    z, corrected = z.astype(np.float64), z.astype(np.float64)
    logits = -2 * (1 - directions(z) @ directions(centroids.astype(np.float64)).T) / sigma
    r = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for _ in range(rounds):
        x = directions(corrected)
        for _ in range(4):
            c = directions(r.T @ x)
            for block in range(n_blocks):
                chosen = np.arange(block, n, n_blocks)
                others = np.setdiff1d(np.arange(n), chosen)
                observed = np.stack([r[others][batches[others] == b].sum(0) for b in range(len(share))])
                expected = np.outer(share, r[others].sum(0))
                new = np.exp(-2 * (1 - x[chosen] @ c.T) / sigma)
                new *= ((expected / (expected + observed)) ** theta)[batches[chosen]]
                r[chosen] = new / new.sum(1, keepdims=True)
        corrected = z.copy()
        for k in range(r.shape[1]):
            design = np.column_stack([np.ones(n), *(batches == b for b in range(len(share)))]).astype(float)
            penalty = np.diag([0.0, *(0.2 * share * r[:, k].sum())])
            weighted = design.T * r[:, k]
            effects = np.linalg.solve(weighted @ design + penalty, weighted @ z)
            corrected -= r[:, k : k + 1] * (design[:, 1:] @ effects[1:])
    return corrected


def test_it_equals_an_independent_version_in_numpy(certificate) -> None:
    z, batches, _ = shifted_components()
    z, batches = z[:207, :10], batches[:207]
    centroids = np.asarray(spherical_centroids(z, 7, key=jax.random.key(0)))
    found = harmony(z, batches, centroids, n_batches=3, n_rounds=3, tolerance=0.0).corrected_embeddings
    error = np.abs(found - numpy_harmony(z, batches, centroids, rounds=3, theta=2.0)).max() / z.std()
    certificate(
        operator="Harmony",
        reference="NumPy in float64",
        data="PBMC 68k, 207 x 10",
        quantity="largest difference / spread",
        value=error,
        bar="< 1e-3",
    )
    assert error < 1e-3


def test_the_gap_between_batches_falls_fivefold_and_types_stay_apart(certificate) -> None:
    z, batches, types = simulated_counts()
    after = harmonized(z, batches)
    gaps = batch_gap(z, batches, types), batch_gap(after, batches, types)
    apart = silhouette_score(z, types), silhouette_score(after, types)
    print(f"gap {gaps[0]:.3f} -> {gaps[1]:.3f}, silhouette of types {apart[0]:.3f} -> {apart[1]:.3f}")
    certificate(
        operator="Harmony",
        reference="uncorrected",
        data="counts simulated from PBMC 68k",
        quantity="gap between batches, before / after",
        value=gaps[0] / gaps[1],
        bar="> 5",
    )
    assert gaps[0] > 5 * gaps[1]
    assert apart[1] >= apart[0]


def test_a_stronger_diversity_penalty_mixes_more() -> None:
    z, batches, types = shifted_components()
    gaps = [batch_gap(harmonized(z, batches, diversity=theta), batches, types) for theta in (0.0, 2.0, 8.0)]
    print("gap between batches for theta 0, 2 and 8:", [round(gap, 3) for gap in gaps])
    assert gaps[0] > 1.05 * gaps[1]
    assert gaps[1] > 1.005 * gaps[2]


def test_two_batch_variables_are_both_taken_out() -> None:
    random = np.random.default_rng(0)
    types, first, second = random.integers(0, 3, 400), random.integers(0, 3, 400), random.integers(0, 2, 400)
    z = 6 * np.eye(3, 5)[types] + random.normal(scale=0.4, size=(400, 5))
    z = z + random.normal(size=(3, 5))[first] + 1.5 * random.normal(size=(2, 5))[second]
    z = (z - z.mean(0)).astype(np.float32)
    labels = np.stack([first, second], axis=1).astype(np.int32)
    config = HarmonyConfig(n_features=5, n_clusters=6, n_batches=(3, 2), diversity=(2.0, 1.0), ridge=0.01)
    operator = Harmony(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(z), key=jax.random.key(0))
    after = np.asarray(operator.apply({"embeddings": z, "batch_labels": labels}, {}, None)[0]["corrected_embeddings"])
    for variable in (first, second):
        before_gap, after_gap = (
            max(
                np.linalg.norm(x[(types == t) & (variable == 0)].mean(0) - x[(types == t) & (variable == 1)].mean(0))
                for t in range(3)
            )
            for x in (z, after)
        )
        print(f"largest gap of a type: {before_gap:.2f} before, {after_gap:.2f} after")
        assert before_gap > 5 * after_gap


def test_a_cell_without_batch_stays_and_a_lone_batch_changes_nothing() -> None:
    z, batches, _ = shifted_components()
    z, batches = z[:100], np.where(np.arange(100) % 4, batches[:100], -1)
    after = harmonized(z, batches.astype(np.int32))
    np.testing.assert_array_equal(after[batches == -1], z[batches == -1])
    assert np.abs(after - z)[batches >= 0].max() > 0.1
    centroids = spherical_centroids(z, 3, key=jax.random.key(0))
    alone = harmony(z, np.zeros(100, np.int32), centroids, n_batches=1).corrected_embeddings
    np.testing.assert_allclose(alone, z, atol=1e-3 * np.abs(z).max())


def test_the_correction_does_not_depend_on_the_unit() -> None:
    z, batches, _ = shifted_components()
    z, batches = z[:120], batches[:120]
    for scale in (1e-15, 1e15):
        np.testing.assert_allclose(harmonized(scale * z, batches) / scale, harmonized(z, batches), atol=2e-2)


def test_ridge_regression_of_one_cluster_is_that_of_its_formula() -> None:
    random = np.random.default_rng(0)
    z, r = random.normal(size=(30, 4)).astype(np.float32), random.uniform(size=(30, 2)).astype(np.float32)
    labels = np.stack([random.integers(-1, 3, 30), random.integers(0, 2, 30)], axis=1).astype(np.int32)
    x = batch_indicators(jnp.asarray(labels), (3, 2))
    ridge = jnp.asarray(random.uniform(0.1, 2, size=(5, 2)), jnp.float32)
    found = batch_effects(z, r, x, ridge, reference_mass=jnp.array([4.0, 2.0]), reference_sums=jnp.ones((2, 4)))
    design = np.column_stack([np.ones(30), x])
    for k in range(2):
        gram = (design.T * r[:, k]) @ design + np.diag([[4.0, 2.0][k], *ridge[:, k]])
        moments = (design.T * r[:, k]) @ z
        moments[0] += 1.0
        np.testing.assert_allclose(found[:, k], np.linalg.solve(gram, moments)[1:], atol=1e-5)
    after = without_batch_effects(z, r, x, found)
    np.testing.assert_allclose(after, z - np.einsum("nk,nb,bkd->nd", r, x, found), atol=1e-5)


@pytest.mark.slow
def test_gradients_match_finite_differences() -> None:
    z, batches, _ = shifted_components()
    z, batches = z[:24, :4].astype(np.float64), batches[:24]
    weights = np.random.default_rng(0).normal(size=(24, 4))

    def total(z: jax.Array, softness: jax.Array, theta: jax.Array, ridge: jax.Array) -> jax.Array:
        options = {"softness": softness, "diversity": theta, "ridge": ridge, "n_rounds": 2}
        found = harmony(z, batches, jnp.asarray(np.eye(3, 4)), n_batches=3, tolerance=0.0, **options)
        return (weights * found.corrected_embeddings).sum()

    with jax.enable_x64(True):
        arguments = tuple(jnp.asarray(value) for value in (z, 0.5, 1.5, 0.3))
        check_grads(jax.jit(total), arguments, order=1, modes=["rev"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (np.zeros((9, 3)), np.arange(9) % 2),
        (np.ones((9, 3)), np.arange(9) % 2),
        (np.repeat(np.eye(3), 3, axis=0), np.arange(9) % 2),
        (np.eye(9, 3), np.full(9, -1)),
        (np.eye(9, 3), np.zeros(9)),
        (np.eye(3)[:1], np.zeros(1)),
        (np.arange(9.0)[:, None] - 4, np.arange(9) % 2),
    ],
    ids=["zero", "constant", "duplicates", "no batch", "an absent batch", "one cell", "one feature"],
)
def test_degenerate_cells_give_finite_values_and_gradients(cells: np.ndarray, labels: np.ndarray) -> None:
    cells, labels = jnp.asarray(cells, jnp.float32), jnp.asarray(labels, jnp.int32)
    centroids = jnp.asarray(np.random.default_rng(0).normal(size=(4, cells.shape[1])), jnp.float32)

    def total(cells: jax.Array, softness: jax.Array) -> jax.Array:
        found = harmony(cells, labels, centroids, n_batches=2, softness=softness, n_rounds=2)
        return found.corrected_embeddings.sum() + found.harmony_assignments[:, 0].sum()

    values = jax.value_and_grad(total, argnums=(0, 1))(cells, jnp.float32(0.1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values))


def test_memory_of_the_gradient_grows_with_clusters_not_with_cells_squared() -> None:
    n_cells, n_clusters = 8000, 20
    shapes = (jax.ShapeDtypeStruct((n_cells, 10), jnp.float32), jax.ShapeDtypeStruct((n_cells,), jnp.int32))
    centroids = jnp.eye(n_clusters, 10)

    def total(z: jax.Array, labels: jax.Array) -> jax.Array:
        return harmony(z, labels, centroids, n_batches=3).corrected_embeddings.sum()

    used = jax.jit(jax.grad(total)).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    print(f"gradient: {used / 1e6:.0f} MB for {n_cells} cells; cells x cells would be {4 * n_cells**2 / 1e6:.0f} MB")
    assert used < 60 * 4 * n_cells * n_clusters < 4 * n_cells**2


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="diversity has 3 values, and n_batches describes 2"):
        HarmonyConfig(n_features=2, n_clusters=2, n_batches=(3, 2), diversity=(1.0, 2.0, 3.0))
    config = HarmonyConfig(n_features=2, n_clusters=5, n_batches=2)
    with pytest.raises(MissingRandomnessError):
        Harmony(config)
    operator = Harmony(config, rngs=nnx.Rngs(0))
    with pytest.raises(ContractError, match="5 clusters were asked for among 4 cells"):
        operator.initialize(jnp.zeros((4, 2)), key=jax.random.key(0))
    data = {"embeddings": np.zeros((4, 2), np.float32), "batch_labels": np.zeros((4, 2), np.int32)}
    with pytest.raises(ContractError, match=r"hold 2 batch variables, and n_batches = \(2,\) describes 1"):
        operator.apply(data, {}, None)
