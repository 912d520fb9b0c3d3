"""GeneSelection against scanpy's highly variable genes (both flavors), and its edges."""

import builtins
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from diffbio.core.errors import ConfigError, ContractError, MissingExtraError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization import (
    GeneSelection,
    GeneSelectionConfig,
    normalize_library_size,
    seurat_dispersion,
    seurat_v3_trend,
    seurat_v3_variance,
    standardized_scores,
)

HARD = 1e-6


def simulated() -> np.ndarray:
    """Negative binomial counts, 400 cells x 1500 genes, over-dispersed to unlike degrees; some genes silent."""
    random = np.random.default_rng(0)
    means = np.exp(random.normal(-1, 2, 1500)) * random.lognormal(0, 0.5, (400, 1))
    shape = random.lognormal(0.5, 1, 1500)
    return random.poisson(random.gamma(shape, means / shape)).astype(np.float32)


def pbmc() -> np.ndarray:
    """PBMC 68k with the logarithm undone: abundances, not integers, but as spread out as counts are."""
    return np.expm1(pbmc68k_reduced().X.toarray()).astype(np.float32)


@pytest.fixture(scope="module", params=[simulated, pbmc], ids=lambda source: source.__name__)
def counts(request: pytest.FixtureRequest) -> np.ndarray:
    return request.param()


@pytest.fixture(scope="module")
def normalized(counts: np.ndarray) -> np.ndarray:
    return np.asarray(normalize_library_size(jnp.asarray(counts)).normalized)


def kept(selection: GeneSelection, n_genes: int) -> np.ndarray:
    gate = np.asarray(selection.compute(jnp.ones(n_genes)).gene_gate)
    assert ((gate < 0.01) | (gate > 0.99)).all(), "the gate is not hard"
    return gate > 0.5


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_seurat_scores_equal_scanpy(normalized: np.ndarray) -> None:
    sc = pytest.importorskip("scanpy")
    table = sc.pp.highly_variable_genes(sc.AnnData(normalized), n_top_genes=100, inplace=False)
    expected = table["dispersions_norm"].to_numpy()
    scores = np.asarray(seurat_dispersion(jnp.asarray(normalized)))
    scored = np.isfinite(expected)
    assert (np.isfinite(scores) == scored).all()
    error = np.abs(scores - expected)[scored].max()
    print(f"{scored.sum()} scored genes, largest difference from scanpy {error:.1e}")
    assert error < 1e-4


@pytest.mark.parametrize("n_top_genes", [20, 100, 500])
def test_the_hard_limit_keeps_scanpys_seurat_genes(normalized: np.ndarray, n_top_genes: int) -> None:
    sc = pytest.importorskip("scanpy")
    table = sc.pp.highly_variable_genes(sc.AnnData(normalized), n_top_genes=n_top_genes, inplace=False)
    n_genes = normalized.shape[1]
    selection = GeneSelection(GeneSelectionConfig(n_genes=n_genes, n_top_genes=n_top_genes, temperature=HARD))
    selection.initialize(jnp.asarray(normalized))
    assert jaccard(kept(selection, n_genes), table["highly_variable"].to_numpy()) == 1.0


@pytest.mark.parametrize("n_top_genes", [20, 100, 500])
def test_the_hard_limit_keeps_scanpys_seurat_v3_genes(
    counts: np.ndarray, normalized: np.ndarray, n_top_genes: int
) -> None:
    sc = pytest.importorskip("scanpy")
    pytest.importorskip("skmisc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # abundances are no integers
        table = sc.pp.highly_variable_genes(
            sc.AnnData(counts), n_top_genes=n_top_genes, flavor="seurat_v3", inplace=False
        )
    scores = seurat_v3_variance(jnp.asarray(counts), jnp.asarray(seurat_v3_trend(counts)))
    np.testing.assert_allclose(scores, table["variances_norm"].to_numpy(), rtol=1e-5)

    n_genes = counts.shape[1]
    config = GeneSelectionConfig(n_genes=n_genes, n_top_genes=n_top_genes, flavor="seurat_v3", temperature=HARD)
    selection = GeneSelection(config)
    selection.initialize(jnp.asarray(normalized), jnp.asarray(counts))
    assert jaccard(kept(selection, n_genes), table["highly_variable"].to_numpy()) == 1.0


def test_a_gene_alone_in_its_bin_scores_one_as_in_scanpy() -> None:
    sc = pytest.importorskip("scanpy")
    x = np.log1p(np.random.default_rng(0).poisson(np.r_[np.full(30, 1.0), 40.0, 80.0], (50, 32))).astype(np.float32)
    expected = sc.pp.highly_variable_genes(sc.AnnData(x), n_top_genes=5, inplace=False)["dispersions_norm"]
    scores = np.asarray(seurat_dispersion(jnp.asarray(x)))
    assert scores[30:].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_tied_genes_share_what_is_left_equally() -> None:
    selection = GeneSelection(GeneSelectionConfig(n_genes=5, n_top_genes=2, temperature=HARD))
    selection.logits[...] = jnp.array([3.0, 1.0, 1.0, 0.0, 1.0])
    gate = selection.compute(jnp.ones(5)).gene_gate
    np.testing.assert_allclose(gate, [1, 1 / 3, 1 / 3, 0, 1 / 3], atol=1e-5)


def test_genes_without_variance_are_never_kept_before_others() -> None:
    x = np.random.default_rng(0).gamma(1.0, 1.0, (40, 12)).astype(np.float32)
    x[:, [0, 4]], x[:, 7] = 0.0, 2.0
    scores = np.asarray(seurat_dispersion(jnp.asarray(x), n_bins=3))
    assert (np.flatnonzero(np.isneginf(scores)) == [0, 4, 7]).all()
    selection = GeneSelection(GeneSelectionConfig(n_genes=12, n_top_genes=4, temperature=1e-3))
    selection.initialize(jnp.asarray(x))
    assert not kept(selection, 12)[[0, 4, 7]].any()


def test_too_few_varying_genes_warn_and_stay_finite() -> None:
    selection = GeneSelection(GeneSelectionConfig(n_genes=4, n_top_genes=2))
    with pytest.warns(UserWarning, match="only 0 genes vary"):
        selection.initialize(jnp.ones((5, 4)))
    np.testing.assert_allclose(selection.compute(jnp.ones(4)).gene_gate, 0.5, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-4])
def test_scores_and_gradients_are_never_nan(value: float) -> None:
    x = jnp.full((6, 5), value).at[:, 0].set(jnp.arange(6.0))

    def total(x: jax.Array) -> jax.Array:
        scores = seurat_dispersion(x)
        return jnp.where(jnp.isfinite(scores), scores, 0).sum() + seurat_v3_variance(x, jnp.ones(5)).sum()

    assert not np.isnan(seurat_dispersion(x)).any()
    assert np.isfinite(jax.jit(jax.grad(total))(x)).all()


def test_scores_have_right_gradients() -> None:
    x = np.random.default_rng(5).gamma(2.0, 0.5, (20, 8)).astype(np.float32)
    check_grads(
        jax.jit(lambda x: seurat_dispersion(x, n_bins=2)), (x,), order=1, modes=["rev"], eps=1e-3, rtol=5e-2, atol=5e-2
    )


def test_one_outlier_does_not_flatten_the_other_scores() -> None:
    scores = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, 1000).astype(np.float32))
    z = standardized_scores(scores)
    assert abs(float(z.std()) - 1) < 0.1
    outlier = standardized_scores(scores.at[0].set(1e6))
    np.testing.assert_allclose(outlier[1:], z[1:], atol=0.02)


def test_gates_sum_to_the_number_of_genes_and_learn(normalized: np.ndarray) -> None:
    n_genes = normalized.shape[1]
    selection = GeneSelection(GeneSelectionConfig(n_genes=n_genes, n_top_genes=50))
    even = selection.compute(jnp.ones(n_genes)).gene_gate
    np.testing.assert_allclose(even, 50 / n_genes, rtol=1e-5)
    selection.initialize(jnp.asarray(normalized))
    assert abs(float(selection.compute(jnp.ones(n_genes)).gene_gate.sum()) - 50) < 1e-3

    def energy(selection: GeneSelection) -> jax.Array:
        return jnp.square(selection.compute(jnp.asarray(normalized)).gated).mean()

    gradient = nnx.grad(energy)(selection).logits[...]
    moving = int((np.abs(gradient) > 1e-3 * np.abs(gradient).max()).sum())
    print(f"{moving} of {n_genes} logits have a gradient within 1e-3 of the largest")
    assert np.isfinite(gradient).all()
    assert moving >= 10


def test_fixed_logits_are_no_parameters() -> None:
    fixed = GeneSelection(GeneSelectionConfig(n_genes=4, n_top_genes=2, learnable=False))
    assert not jax.tree.leaves(nnx.state(fixed, nnx.Param))


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="choose n_top_genes <= 3"):
        GeneSelectionConfig(n_genes=3, n_top_genes=4)
    selection = GeneSelection(GeneSelectionConfig(n_genes=3, n_top_genes=2, flavor="seurat_v3"))
    with pytest.raises(ContractError, match="raw counts"):
        selection.initialize(jnp.ones((4, 3)))

    real_import = builtins.__import__

    def without_scikit_misc(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("skmisc"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_scikit_misc)
    with pytest.raises(MissingExtraError, match=r'pip install "diffbio-singlecell\[scanpy\]"'):
        seurat_v3_trend(np.ones((4, 3)))


def test_a_failed_loess_says_so() -> None:
    pytest.importorskip("skmisc")
    with pytest.raises(ContractError, match=r"loess .* failed with 2 varying genes"):
        seurat_v3_trend(np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]]))
