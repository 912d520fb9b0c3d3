"""LISI and kBET against harmonypy, scib-metrics and their definitions on real cells, and at their edges."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats
from scipy.optimize import brentq
from sklearn.neighbors import NearestNeighbors

from diffbio.core.errors import ContractError, MissingKeyError
from diffbio.losses.singlecell.kbet import batch_kbet, kbet, kbet_statistics
from diffbio.losses.singlecell.mixing import batch_lisi, cell_type_lisi, lisi, perplexity_weights

scanpy = pytest.importorskip("scanpy")

PBMC = "PBMC 68k, 700 cells, 50 components"


@pytest.fixture(scope="module")
def pbmc() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return 50 principal components of 700 cells, their types, and their cell-cycle phases as batches."""
    adata = scanpy.datasets.pbmc68k_reduced()
    labels = {name: adata.obs[name].cat.codes.to_numpy().astype(np.int32) for name in ("bulk_labels", "phase")}
    return adata.obsm["X_pca"].astype(np.float32), labels


def one_hot(labels: np.ndarray) -> jax.Array:
    return jax.nn.one_hot(labels, int(labels.max()) + 1)


def lisi_by_definition(x: np.ndarray, labels: np.ndarray, k: int, perplexity: float) -> np.ndarray:
    """Return LISI cell by cell, with Brent's method for the width of the kernel, in float64."""
    distances, indices = NearestNeighbors(n_neighbors=k + 1).fit(x.astype(float)).kneighbors()
    found = []
    for d, neighbors in zip(distances[:, :k] - distances[:, :1], indices[:, :k], strict=True):

        def weights(beta: float, d: np.ndarray = d) -> np.ndarray:
            return np.exp(-beta * d) / np.exp(-beta * d).sum()

        beta = brentq(lambda b, w=weights: stats.entropy(w(b)) - np.log(perplexity), 1e-9, 1e4 / d.mean())
        shares = np.bincount(labels[neighbors], weights(beta))
        found.append(1 / (shares**2).sum())
    return np.array(found)


def kbet_by_definition(x: np.ndarray, labels: np.ndarray, k: int, alpha: float) -> tuple[np.ndarray, float]:
    """Return the statistics of neighbourhoods of a cell and its k nearest others, and the acceptance rate."""
    _, indices = NearestNeighbors(n_neighbors=k).fit(x.astype(float)).kneighbors()
    hoods = labels[np.c_[np.arange(len(x)), indices]]
    frequencies = np.bincount(labels) / len(labels)
    found = [stats.chisquare(np.bincount(hood, minlength=len(frequencies)), frequencies * (k + 1)) for hood in hoods]
    return np.array([test.statistic for test in found]), np.mean([test.pvalue >= alpha for test in found])


@pytest.mark.parametrize(("k", "perplexity"), [(90, 30), (15, 10)])
def test_lisi_is_its_definition(pbmc, k, perplexity, certificate):
    cells, labels = pbmc
    for name, codes in labels.items():
        expected = lisi_by_definition(cells, codes, k, perplexity)
        difference = np.abs(lisi(cells, one_hot(codes), n_neighbors=k, perplexity=perplexity) - expected).max()
        certificate(
            operator="lisi",
            reference="NumPy and SciPy in float64",
            data=f"{PBMC}, {name}, {k} neighbours",
            quantity="largest difference",
            value=difference,
            bar="<= 1e-4",
        )
        assert difference <= 1e-4
        assert np.ptp(expected) > 1


@pytest.mark.slow
def test_lisi_is_that_of_harmonypy_and_scib_metrics(pbmc, certificate):
    harmonypy = pytest.importorskip("harmonypy")
    scib = pytest.importorskip("scib_metrics")
    neighbors = pytest.importorskip("scib_metrics.nearest_neighbors")
    cells, labels = pbmc
    distances, indices = NearestNeighbors(n_neighbors=90).fit(cells.astype(float)).kneighbors(cells)
    lists = neighbors.NeighborsResults(indices=indices, distances=distances)
    theirs = harmonypy.compute_lisi(cells, labels, list(labels), perplexity=30)
    for column, (name, codes) in enumerate(labels.items()):
        ours = lisi(cells, one_hot(codes), n_neighbors=89, perplexity=30)  # scib-metrics counts the cell itself
        n_groups = codes.max() + 1
        for reference, found, expected in (
            (f"harmonypy {harmonypy.__version__}", lisi(cells, one_hot(codes)), theirs[:, column]),
            (f"scib-metrics {scib.__version__}", ours, np.asarray(scib.lisi_knn(lists, codes, perplexity=30))),
        ):
            difference = np.abs(found - expected).max()
            certificate(
                operator="lisi",
                reference=reference,
                data=f"{PBMC}, {name}",
                quantity="largest difference",
                value=difference,
                bar="<= 1e-3",
            )
            assert difference <= 1e-3
        scaled = (np.median(ours) - 1) / (n_groups - 1)
        assert scaled == pytest.approx(scib.ilisi_knn(lists, codes, perplexity=30), abs=1e-4)


def test_kbet_tends_to_the_chi_squared_test(pbmc, certificate):
    cells, labels = pbmc
    codes = labels["phase"]
    expected, rate = kbet_by_definition(cells, codes, 50, 0.05)
    errors, rates = [], []
    for softness in (1.0, 0.1, 1e-2, 1e-3, 1e-7):
        found = kbet_statistics(cells, one_hot(codes), n_neighbors=50, softness=softness)
        errors.append(float(np.abs(found - expected).mean()))
        rates.append(float(kbet(cells, one_hot(codes), n_neighbors=50, softness=softness)))
    print("mean difference of the statistics as softness falls:", " ".join(f"{error:.1e}" for error in errors))
    print(f"acceptance rates as softness falls: {rates}; hard {rate:.4f}")
    assert errors == sorted(errors, reverse=True)
    certificate(
        operator="kbet_statistics",
        reference="SciPy chisquare",
        data=f"{PBMC}, phases as batches, softness 1e-7",
        quantity="largest difference",
        value=np.abs(found - expected).max(),
        bar="<= 1e-3",
    )
    assert np.abs(found - expected).max() <= 1e-3
    assert 0.2 < rate < 0.95
    assert rates[-1] == pytest.approx(rate, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("k", [30, 70])
def test_kbet_is_that_of_scib_metrics(pbmc, k, certificate):
    scib = pytest.importorskip("scib_metrics")
    neighbors = pytest.importorskip("scib_metrics.nearest_neighbors")
    cells, labels = pbmc
    distances, indices = NearestNeighbors(n_neighbors=k).fit(cells.astype(float)).kneighbors(cells)
    lists = neighbors.NeighborsResults(indices=indices, distances=distances)
    for name, codes in labels.items():
        rate, statistics, _ = scib.kbet(lists, codes, alpha=0.05)
        ours = kbet_statistics(cells, one_hot(codes), n_neighbors=k - 1, softness=1e-7)
        for quantity, value, bar in (
            ("largest difference of a statistic, relative", np.abs(ours / statistics - 1).max(), 1e-3),
            ("acceptance rate", abs(rate - kbet(cells, one_hot(codes), n_neighbors=k - 1, softness=1e-7)), 1e-6),
        ):
            certificate(
                operator="kbet",
                reference=f"scib-metrics {scib.__version__}",
                data=f"{PBMC}, {name}, {k} cells per neighbourhood",
                quantity=quantity,
                value=value,
                bar=f"<= {bar:g}",
            )
            assert value <= bar


def test_weights_have_the_perplexity_asked_for():
    distances = np.sort(np.random.default_rng(0).gamma(3.0, size=(50, 30)), axis=1).astype(np.float32)
    for scale in (1e-20, 1.0, 1e15):
        weights = perplexity_weights(jnp.asarray(scale * distances), 7.0)
        np.testing.assert_allclose(np.exp(stats.entropy(weights, axis=1)), 7.0, rtol=1e-5)
    np.testing.assert_allclose(perplexity_weights(jnp.asarray(distances), 40.0), 1 / 30, rtol=1e-3)
    equal = jnp.concatenate([jnp.zeros((1, 10)), jnp.ones((1, 5))], axis=1)
    np.testing.assert_allclose(perplexity_weights(equal, 4.0), [[0.1] * 10 + [0] * 5], atol=1e-4)
    half = perplexity_weights(jnp.asarray(distances), 7.0, where=jnp.arange(30) < 15)
    np.testing.assert_array_equal(half[:, 15:], 0)
    np.testing.assert_allclose(half[:, :15], perplexity_weights(jnp.asarray(distances[:, :15]), 7.0), atol=1e-5)


@pytest.mark.slow
def test_neighbors_and_perplexity_matter(pbmc):
    cells, labels = pbmc
    phases = one_hot(labels["phase"])
    values = [float(lisi(cells, phases, n_neighbors=k).mean()) for k in (5, 90)]
    print("mean LISI at 5 and 90 neighbours:", np.round(values, 3))
    assert np.diff(values).min() > 0.05
    narrow, wide = (float(lisi(cells, phases, n_neighbors=90, perplexity=p).mean()) for p in (5, 60))
    assert wide - narrow > 0.05
    assert abs(kbet(cells, phases, n_neighbors=10) - kbet(cells, phases)) > 0.05
    assert kbet(cells, phases, alpha=0.5) < kbet(cells, phases, alpha=0.01) - 0.05


@pytest.mark.slow
def test_unlabelled_cells_are_as_if_they_were_not_there():
    random = np.random.default_rng(0)
    cells, labels = random.normal(size=(40, 3)).astype(np.float32), random.integers(0, 3, 40)
    labels[30:] = -1
    data = {"embeddings": cells, "batch_labels": labels, "labels": labels}
    kept = {key: value[:30] for key, value in data.items()}
    options = {"n_neighbors": 8}
    for loss in (partial(batch_lisi, n_batches=3, **options), partial(batch_kbet, n_batches=3, **options)):
        value, gradient = jax.value_and_grad(lambda x, loss=loss: loss({**data, "embeddings": x}))(jnp.asarray(cells))
        assert float(value) == pytest.approx(float(loss(kept)), abs=1e-5)
        np.testing.assert_array_equal(gradient[30:], 0)
        assert (np.abs(gradient[:30]).max(axis=1) > 0).mean() > 0.9
        assert loss({**data, "batch_labels": np.full(40, -1)}) == 0
    types = cell_type_lisi(data, n_classes=3, **options)
    assert float(types) == pytest.approx(1 - float(batch_lisi(data, n_batches=3, **options)), abs=1e-5)
    assert (lisi(cells, jax.nn.one_hot(labels, 3), n_neighbors=8)[30:] == 0).all()


def test_soft_memberships_count_by_their_share():
    cells = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    half = jnp.full((30, 2), 0.5)
    np.testing.assert_allclose(lisi(cells, half, n_neighbors=10), 2, rtol=1e-5)
    np.testing.assert_allclose(kbet_statistics(cells, half, n_neighbors=10), 0, atol=1e-5)
    gradient = jax.grad(lambda a: lisi(cells, a, n_neighbors=10).mean())(one_hot(np.arange(30) // 15))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences():
    random = np.random.default_rng(1)
    cells, groups = jnp.asarray(random.normal(size=(24, 2)), jnp.float32), one_hot(np.arange(24) % 3)
    direction = jnp.asarray(random.normal(size=24), jnp.float32)
    options = {"modes": ["fwd", "rev"], "eps": 1e-3, "rtol": 2e-2, "atol": 2e-3}
    near = options | {"eps": 1e-4, "rtol": 5e-2}  # the slope changes where two neighbours change places
    check_grads(lambda x: direction @ lisi(x, groups, n_neighbors=8, perplexity=4.0), (cells,), 1, **options)
    check_grads(lambda x: kbet_statistics(x, groups, n_neighbors=8) @ direction, (cells,), 1, **near)
    near |= {"eps": 3e-4, "atol": 2e-2}
    check_grads(lambda x: 10 * kbet(x + groups[:, :2], groups, n_neighbors=8), (cells,), 1, **near)
    distances = jnp.sort(jnp.asarray(random.gamma(3.0, size=(4, 12)), jnp.float32), axis=1)
    target = jnp.asarray(random.normal(size=(4, 12)), jnp.float32)
    check_grads(lambda d, p: (perplexity_weights(d, p) * target).sum(), (distances, 5.0), 1, **options)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e15])
def test_gradients_are_finite_for_duplicates_and_any_scale(scale):
    cells = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    cells[5:20] = cells[4]
    groups = jax.nn.one_hot(np.arange(30) % 3, 4)  # nobody in the fourth
    for x in (scale * cells, np.zeros_like(cells)):
        for function in (lisi, kbet_statistics):
            value, pull = jax.vjp(lambda x, a, f=function: f(x, a, n_neighbors=6), jnp.asarray(x), groups)
            assert np.isfinite(value).all()
            assert all(np.isfinite(gradient).all() for gradient in pull(jnp.ones(30)))
        for softness in (1.0, 0.01):
            gradient = jax.grad(lambda x, s=softness: kbet(x, groups, n_neighbors=6, softness=s))(jnp.asarray(x))
            assert np.isfinite(gradient).all()
    rescaled = lisi(scale * cells, groups, n_neighbors=6)
    np.testing.assert_allclose(rescaled, lisi(cells, groups, n_neighbors=6), rtol=1e-4)


def test_softness_compiles_nothing_again():
    cells, groups = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2))), one_hot(np.arange(20) % 2)
    kbet(cells, groups, n_neighbors=5, softness=0.3)
    compiled = kbet._cache_size()
    kbet(cells, groups, n_neighbors=5, softness=0.7)
    assert kbet._cache_size() == compiled


def test_descent_finds_a_batch_effect():
    random = np.random.default_rng(0)
    batches = np.arange(200) % 2
    x = (
        random.normal(size=(200, 3))
        + 2.5 * (np.arange(200) // 2 % 3)[:, None] * [0, 0, 1]
        + batches[:, None] * [0, 2, 0]
    )
    cells, mask = jnp.asarray(x, jnp.float32), jnp.asarray(batches[:, None], jnp.float32)
    losses = {
        "LISI": lambda d: batch_lisi(d, n_batches=2, n_neighbors=60),
        "kBET": lambda d: batch_kbet(d, n_batches=2, n_neighbors=40, softness=1.0),
    }
    for name, loss in losses.items():
        step = jax.jit(
            jax.value_and_grad(lambda s, loss=loss: loss({"embeddings": cells - s * mask, "batch_labels": batches}))
        )
        shift, start = jnp.zeros(3), step(jnp.zeros(3))[0]
        for _ in range(60):
            value, gradient = step(shift)
            shift = shift - 0.1 * gradient / jnp.maximum(jnp.linalg.norm(gradient), 0.02)
        print(f"{name}: the batch effect (0, 2, 0) is found as {np.round(shift, 2)}; loss {start:.3f} -> {value:.3f}")
        np.testing.assert_allclose(shift, [0, 2, 0], atol=0.5)


def test_errors_say_what_is_wanted():
    cells = jnp.zeros((6, 2))
    with pytest.raises(ContractError, match="90 neighbours were asked for among 6 cells"):
        lisi(cells, jnp.ones((6, 2)))
    with pytest.raises(ContractError, match=r"shape \(5, 2\) for 6 cells"):
        kbet(cells, jnp.ones((5, 2)), n_neighbors=2)
    with pytest.raises(ContractError, match="at least 2 groups"):
        batch_lisi({"embeddings": cells, "batch_labels": jnp.zeros(6, int)}, n_batches=1)
    with pytest.raises(MissingKeyError, match="batch_kbet reads 'batch_labels'"):
        batch_kbet({"embeddings": cells}, n_batches=2)
