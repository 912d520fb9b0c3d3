"""GeneSelection against scanpy's highly variable genes (all flavors, one batch and two), and its edges."""

import builtins
import warnings
from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from real_counts import pbmc_counts, sample_counts

from diffbio.core.errors import ConfigError, ContractError, DataError, MissingExtraError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.gene_ranking import normal_scores, ranked_over_batches
from diffbio.operators.normalization.gene_scores import (
    cell_ranger_dispersion,
    pearson_residual_variance,
    seurat_dispersion,
    seurat_v3_trend,
    seurat_v3_variance,
)
from diffbio.operators.normalization.gene_selection import (
    GeneSelection,
    GeneSelectionConfig,
    standardized_scores,
)
from diffbio.operators.normalization.library_size import normalize_library_size

HARD = 1e-6
FLAVORS = ("seurat", "cell_ranger", "seurat_v3", "pearson_residuals")


def simulated() -> np.ndarray:
    """Negative binomial counts, 400 cells x 1500 genes, over-dispersed to unlike degrees; some genes silent."""
    random = np.random.default_rng(0)
    means = np.exp(random.normal(-1, 2, 1500)) * random.lognormal(0, 0.5, (400, 1))
    shape = random.lognormal(0.5, 1, 1500)
    return random.poisson(random.gamma(shape, means / shape)).astype(np.float32)


def pbmc() -> np.ndarray:
    """PBMC 68k with the logarithm undone: abundances, not integers, but as spread out as counts are."""
    return np.expm1(pbmc68k_reduced().X.toarray()).astype(np.float32)


def in_two_batches(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real counts, of which those of the second half of the cells are thinned gene by gene, and the batch labels."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(len(counts)) % 2)
    kept = random.binomial(counts.astype(int), random.uniform(0.2, 1.0, counts.shape[1]))
    return np.where(labels[:, None] == 1, kept, counts).astype(np.float32), labels


def scanpys_genes(counts: np.ndarray, flavor: str, n_top_genes: int, labels: np.ndarray | None = None) -> np.ndarray:
    sc = pytest.importorskip("scanpy")
    cells = sc.AnnData(counts.astype(np.float64))
    if labels is not None:
        cells.obs["batch"] = [f"batch {label}" for label in labels]
    batch_key = None if labels is None else "batch"
    find = (sc.experimental if flavor == "pearson_residuals" else sc).pp.highly_variable_genes
    if flavor in ("seurat", "cell_ranger"):
        cells.X = np.asarray(normalize_library_size(jnp.asarray(counts)).normalized, np.float64)
    if flavor == "seurat_v3":
        pytest.importorskip("skmisc")
    table = find(cells, flavor=flavor, n_top_genes=n_top_genes, batch_key=batch_key, inplace=False)
    return table["highly_variable"].to_numpy()


def our_genes(counts: np.ndarray, flavor: str, n_top_genes: int, labels: np.ndarray | None = None) -> np.ndarray:
    n_genes = counts.shape[1]
    config = GeneSelectionConfig(n_genes=n_genes, n_top_genes=n_top_genes, flavor=flavor, temperature=HARD)
    selection = GeneSelection(config)
    counts = jnp.asarray(counts)
    batch_labels = None if labels is None else jnp.asarray(labels)
    selection.initialize(normalize_library_size(counts).normalized, counts, batch_labels)
    return kept(selection, n_genes)


def compare_with_scanpy(
    counts: np.ndarray,
    data: str,
    n_top_genes: int,
    certificate: Callable[..., None],
    *,
    labels: np.ndarray | None = None,
    flavors: tuple[str, ...] = FLAVORS,
    least: float = 1.0,
) -> None:
    batches = "one batch" if labels is None else "two batches"
    for flavor in flavors:
        theirs = scanpys_genes(counts, flavor, n_top_genes, labels)
        overlap = jaccard(our_genes(counts, flavor, n_top_genes, labels), theirs)
        certificate(
            operator="GeneSelection",
            reference=f"scanpy {version('scanpy')}",
            data=data,
            quantity=f"{flavor}, {batches}: Jaccard index of {n_top_genes} genes",
            value=float(overlap),
            bar=f">= {least:g}",
        )
        assert overlap >= least


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


@pytest.mark.slow
def test_all_flavors_keep_scanpys_genes_of_two_batches(certificate: Callable[..., None]) -> None:
    counts, labels = in_two_batches(pbmc_counts())
    compare_with_scanpy(counts, "PBMC 68k counts, 700 cells x 765 genes", 100, certificate, labels=labels)


@pytest.mark.slow
def test_all_flavors_keep_scanpys_genes_of_a_whole_transcriptome(certificate: Callable[..., None]) -> None:
    data = "CellTypist sample, 558 cells x 9,810 genes"
    counts = sample_counts()[:558]  # an even number, for scanpy clips the residuals of all batches by the first's size
    compare_with_scanpy(counts, data, 1000, certificate)
    compare_with_scanpy(pbmc_counts(), "PBMC 68k counts, 700 cells x 765 genes", 100, certificate)
    counts, labels = in_two_batches(counts)
    compare_with_scanpy(counts, data, 1000, certificate, labels=labels)
    # of the 9,810 genes, 5,786 share their score with others, which scanpy's sort puts in an order of its own
    compare_with_scanpy(counts, data, 2000, certificate, labels=labels, flavors=("seurat_v3",), least=0.99)


def test_cell_ranger_and_pearson_scores_equal_scanpy() -> None:
    sc = pytest.importorskip("scanpy")
    counts = pbmc_counts()
    normalized = np.asarray(normalize_library_size(jnp.asarray(counts)).normalized)
    table = sc.pp.highly_variable_genes(sc.AnnData(normalized), n_top_genes=100, flavor="cell_ranger", inplace=False)
    scores = cell_ranger_dispersion(jnp.asarray(normalized))
    np.testing.assert_allclose(scores, table["dispersions_norm"], rtol=1e-3, atol=1e-3)
    table = sc.experimental.pp.highly_variable_genes(sc.AnnData(counts), n_top_genes=100, inplace=False)
    np.testing.assert_allclose(pearson_residual_variance(jnp.asarray(counts)), table["residual_variances"], rtol=1e-4)


def test_a_gene_that_differs_between_batches_only_is_not_kept() -> None:
    """A rate that changes with the batch: the gene varies over all cells, and not within a batch."""
    random = np.random.default_rng(0)
    labels = np.arange(400) % 2
    rates = np.tile(random.lognormal(1, 1, 200), (400, 1))
    rates[:, :6] = 5.0
    rates[:, :3] *= np.where(labels[:, None] == 1, 4.0, 0.5)
    rates[:, 3:6] *= random.lognormal(0, 1, (400, 3))
    counts = random.poisson(rates).astype(np.float32)
    assert our_genes(counts, "pearson_residuals", 6)[:6].all()
    assert our_genes(counts, "pearson_residuals", 3, labels)[3:6].all()


def test_cells_without_a_batch_are_left_out() -> None:
    counts, labels = in_two_batches(pbmc_counts()[:200])
    labels[:60] = -1
    merged = our_genes(counts, "pearson_residuals", 50, labels)
    assert (merged == our_genes(counts[60:], "pearson_residuals", 50, labels[60:])).all()


def test_the_merged_order_becomes_normal_scores() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 1000))
    ranked = ranked_over_batches(scores, 100, flavor="seurat_v3")
    assert sorted(ranked) == list(range(1000))
    normal = np.asarray(normal_scores(ranked))
    assert (np.argsort(-normal) == ranked).all()
    assert abs(normal.std() - 1) < 0.01


def test_genes_that_no_batch_can_score_come_last() -> None:
    scores = np.array([[1.0, -np.inf, 5.0, np.nan], [2.0, -np.inf, np.nan, -np.inf]])
    for flavor in FLAVORS:
        assert sorted(ranked_over_batches(scores, 2, flavor=flavor)[:2]) == [0, 2]


def test_a_batch_of_one_cell_is_left_out_and_none_is_one_batch() -> None:
    x = jnp.asarray(np.random.default_rng(0).gamma(1.0, 1.0, (7, 5)), jnp.float32)
    selection = GeneSelection(GeneSelectionConfig(n_genes=5, n_top_genes=2, flavor="pearson_residuals"))
    selection.initialize(counts=x[:6], batch_labels=jnp.array([0, 0, 0, 1, 1, 1]))
    expected = selection.logits[...]
    with pytest.warns(UserWarning, match="batch of one cell: 7 left out"):
        selection.initialize(counts=x, batch_labels=jnp.array([0, 0, 0, 1, 1, 1, 7]))
    np.testing.assert_array_equal(selection.logits[...], expected)
    selection.initialize(counts=x)
    expected = selection.logits[...]
    selection.initialize(counts=x, batch_labels=jnp.full(7, -1))
    np.testing.assert_array_equal(selection.logits[...], expected)


def test_wrong_batches_are_refused() -> None:
    selection = GeneSelection(GeneSelectionConfig(n_genes=3, n_top_genes=2))
    x = jnp.asarray(np.random.default_rng(0).gamma(1.0, 1.0, (4, 3)), jnp.float32)
    with pytest.raises(ContractError, match="each of the 4 cells"):
        selection.initialize(x, batch_labels=jnp.array([0, 1]))
    with pytest.raises(DataError, match="name 4 batches, and none has the two cells"):
        selection.initialize(x, batch_labels=jnp.arange(4))
    with pytest.raises(ContractError, match="log-normalized expression: give normalized"):
        selection.initialize(counts=x)


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
        others = cell_ranger_dispersion(x)
        finite = jnp.where(jnp.isfinite(scores), scores, 0) + jnp.where(jnp.isfinite(others), others, 0)
        return (finite + seurat_v3_variance(x, jnp.ones(5)) + pearson_residual_variance(x)).sum()

    assert not np.isnan(seurat_dispersion(x)).any()
    assert not np.isnan(cell_ranger_dispersion(x)).any()
    assert np.isfinite(jax.jit(jax.grad(total))(x)).all()


def test_scores_have_right_gradients() -> None:
    x = np.random.default_rng(5).gamma(2.0, 0.5, (20, 8)).astype(np.float32)
    check_grads(
        jax.jit(lambda x: seurat_dispersion(x, n_bins=2)), (x,), order=1, modes=["rev"], eps=1e-3, rtol=5e-2, atol=5e-2
    )
    check_grads(jax.jit(pearson_residual_variance), (x,), order=1, modes=["rev"], eps=1e-3, rtol=5e-2, atol=5e-2)
    x = np.random.default_rng(6).gamma(2.0, 0.5, (20, 60)).astype(np.float32)  # several genes in each of the bins
    check_grads(jax.jit(cell_ranger_dispersion), (x,), order=1, modes=["rev"], eps=1e-4, rtol=5e-2, atol=5e-2)


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
