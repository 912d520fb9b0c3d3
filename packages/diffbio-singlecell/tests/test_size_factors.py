"""MedianOfRatiosNormalization against pydeseq2, CenteredLogRatio against muon, and their edges."""

from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from real_counts import pbmc_counts, sample_counts

from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.normalization.size_factors import (
    CenteredLogRatio,
    CenteredLogRatioConfig,
    MedianOfRatiosNormalization,
    MedianOfRatiosNormalizationConfig,
    centered_log_ratio,
    log_geometric_means,
    median_of_ratios,
)

HARD = 1e-5


def pseudobulk(counts: np.ndarray, n_samples: int) -> np.ndarray:
    """Sums of the cells dealt out to samples of unlike size: real expression, few zeros."""
    random = np.random.default_rng(0)
    sample = random.choice(n_samples, len(counts), p=random.dirichlet(np.full(n_samples, 3.0)))
    return np.stack([counts[sample == i].sum(0) for i in range(n_samples)])


def size_factors(counts: np.ndarray, reference: str, temperature: float = HARD) -> np.ndarray:
    config = MedianOfRatiosNormalizationConfig(n_genes=counts.shape[1], reference=reference, temperature=temperature)
    operator = MedianOfRatiosNormalization(config)
    operator.initialize(jnp.asarray(counts))
    data = operator.apply({"counts": counts}, {}, None)[0]
    expected = np.log1p(counts / np.asarray(data["size_factors"], np.float64)[:, None])
    np.testing.assert_allclose(data["normalized"], expected, atol=1e-5)
    return np.asarray(data["size_factors"])


def deseq2(counts: np.ndarray, reference: str) -> np.ndarray:
    """The size factors of DESeq2 in NumPy, float64."""
    counts = counts.astype(np.float64)
    logs = np.log(counts, where=counts > 0, out=np.zeros_like(counts))
    means = logs.mean(0)
    used = (counts > 0).all(0) if reference == "ratio" else means > 0
    ratios = np.where((counts > 0) & used, logs - means, np.nan)
    medians = np.nanmedian(ratios, axis=1)
    return np.exp(medians - (medians.mean() if reference == "poscounts" else 0))


def pydeseq2_factors(counts: np.ndarray, reference: str) -> np.ndarray:
    pandas = pytest.importorskip("pandas")
    dds = pytest.importorskip("pydeseq2.dds")
    names = [f"s{i}" for i in range(len(counts))]
    table = pandas.DataFrame(counts.astype(int), index=names)
    table.columns = table.columns.astype(str)
    groups = pandas.DataFrame({"group": ["ab"[i % 2] for i in range(len(counts))]}, index=names)
    data = dds.DeseqDataSet(counts=table, metadata=groups, design="~group", quiet=True)
    data.fit_size_factors(fit_type=reference)
    return data.obs["size_factors"].to_numpy()


@pytest.mark.parametrize("reference", ["ratio", "poscounts"])
def test_the_hard_limit_is_deseq2_in_numpy(reference: str) -> None:
    counts = pbmc_counts()
    counts = pseudobulk(counts, 12) if reference == "ratio" else counts
    error = np.abs(size_factors(counts, reference) / deseq2(counts, reference) - 1).max()
    print(f"{reference}: largest relative difference from NumPy {error:.1e}")
    assert error < 1e-4


@pytest.mark.slow
def test_the_hard_limit_is_pydeseq2(certificate: Callable[..., None]) -> None:
    pytest.importorskip("pydeseq2")
    cells = sample_counts()
    for name, counts, reference in (
        ("24 pseudobulk samples of CellTypist's cells x 9,810 genes", pseudobulk(cells, 24), "ratio"),
        ("CellTypist sample, 559 cells x 9,810 genes", cells, "poscounts"),
        ("PBMC 68k counts, 700 cells x 765 genes", pbmc_counts(), "poscounts"),
    ):
        error = np.abs(size_factors(counts, reference) / pydeseq2_factors(counts, reference) - 1).max()
        certificate(
            operator="MedianOfRatiosNormalization",
            reference=f"pydeseq2 {version('pydeseq2')}",
            data=name,
            quantity=f"size factors ({reference}), largest relative difference",
            value=float(error),
            bar="<= 1e-4",
        )
        assert error <= 1e-4


def test_a_soft_median_stays_near_the_hard_one() -> None:
    counts = pseudobulk(pbmc_counts(), 12)
    hard = deseq2(counts, "ratio")
    for temperature in (0.001, 0.01, 0.1):
        error = np.abs(np.log(size_factors(counts, "ratio", temperature) / hard)).max()
        print(f"temperature {temperature}: log size factors differ by up to {error:.1e}")
        assert error < 2 * temperature


def test_new_cells_are_compared_with_the_old() -> None:
    counts = pseudobulk(pbmc_counts(), 12)
    operator = MedianOfRatiosNormalization(MedianOfRatiosNormalizationConfig(n_genes=counts.shape[1], temperature=HARD))
    operator.initialize(jnp.asarray(counts))
    together = operator.apply({"counts": counts}, {}, None)[0]
    alone = operator.apply({"counts": counts[3]}, {}, None)[0]
    assert alone["size_factors"].shape == ()
    np.testing.assert_allclose(alone["normalized"], together["normalized"][3], rtol=1e-5)
    tripled = operator.apply({"counts": 3 * counts}, {}, None)[0]
    np.testing.assert_allclose(tripled["size_factors"], 3 * together["size_factors"], rtol=1e-4)
    np.testing.assert_allclose(tripled["normalized"], together["normalized"], atol=1e-4)


def test_composition_does_not_reach_the_size_factor() -> None:
    """Three genes that take nine tenths of a cell change its sum tenfold, and its size factor hardly."""
    counts = pseudobulk(pbmc_counts(), 12)
    changed = counts.copy()
    changed[0, :3] += 9 * counts[0].sum() / 3
    before, after = size_factors(counts, "ratio"), deseq2(changed, "ratio")
    assert changed[0].sum() > 9 * counts[0].sum()
    assert abs(after[0] / before[0] - 1) < 0.02


def test_empty_cells_and_absent_genes_are_finite() -> None:
    counts = pbmc_counts()[:40, :60]
    counts[3], counts[:, 5] = 0, 0
    operator = MedianOfRatiosNormalization(MedianOfRatiosNormalizationConfig(n_genes=60, reference="poscounts"))
    operator.initialize(jnp.asarray(counts))
    data = operator.apply({"counts": counts}, {}, None)[0]
    assert float(data["size_factors"][3]) == 1
    assert (np.asarray(data["normalized"])[counts == 0] == 0).all()

    def total(counts: jax.Array) -> jax.Array:
        result = operator.compute(counts)
        return result.normalized.sum() + result.size_factors.sum()

    for scale in (1.0, 1e-20, 1e20):
        assert np.isfinite(jax.grad(total)(scale * jnp.asarray(counts))).all()


def test_gradients_match_finite_differences_and_reach_several_genes() -> None:
    random = np.random.default_rng(1)
    counts = jnp.asarray(random.gamma(2.0, 5.0, (3, 40)), jnp.float32)
    reference = log_geometric_means(counts)
    check_grads(
        jax.jit(lambda x, r, s: median_of_ratios(x, r, softness=s)),
        (counts, reference, jnp.float32(0.3)),
        order=1,
        modes=["rev"],
        eps=1e-2,
        rtol=3e-2,
        atol=1e-2,
    )
    gradient = jax.grad(lambda x: median_of_ratios(x[0], reference, softness=0.1))(counts)[0]
    assert (np.abs(gradient) > 1e-3 * np.abs(gradient).max()).sum() > 10


def test_what_can_not_be_compared_is_refused() -> None:
    sparse = np.eye(4, dtype=np.float32) * 5
    operator = MedianOfRatiosNormalization(MedianOfRatiosNormalizationConfig(n_genes=4))
    with pytest.raises(ContractError, match='reference="poscounts"'):
        operator.initialize(jnp.asarray(sparse))
    operator = MedianOfRatiosNormalization(MedianOfRatiosNormalizationConfig(n_genes=4, reference="poscounts"))
    with pytest.raises(ContractError, match="raw counts"):
        operator.initialize(jnp.asarray(sparse / 10))
    with pytest.raises(ConfigError, match="temperature is 0"):
        MedianOfRatiosNormalizationConfig(n_genes=4, temperature=0.0)


def centered(counts: np.ndarray, margin: str, flavor: str) -> np.ndarray:
    operator = CenteredLogRatio(CenteredLogRatioConfig(n_genes=counts.shape[1], margin=margin, flavor=flavor))
    operator.initialize(jnp.asarray(counts))
    return np.asarray(operator.apply({"counts": counts}, {}, None)[0]["normalized"])


@pytest.mark.parametrize("margin", ["features", "cells"])
def test_log_ratios_are_those_of_numpy(margin: str) -> None:
    counts = pbmc_counts()
    logs = np.log1p(counts.astype(np.float64))
    center = logs.mean(0 if margin == "features" else 1, keepdims=True)
    np.testing.assert_allclose(centered(counts, margin, "seurat"), np.log1p(counts / np.exp(center)), atol=1e-5)
    np.testing.assert_allclose(centered(counts, margin, "stoeckius"), logs - center, atol=1e-5)


@pytest.mark.slow
def test_log_ratios_are_those_of_muon(certificate: Callable[..., None]) -> None:
    muon = pytest.importorskip("muon")
    anndata = pytest.importorskip("anndata")
    counts = sample_counts()
    for axis, margin in enumerate(("features", "cells")):
        for flavor in ("seurat", "stoeckius"):
            theirs = muon.prot.pp.clr(
                anndata.AnnData(counts.astype(np.float64)), inplace=False, axis=axis, flavor=flavor
            )
            error = np.abs(centered(counts, margin, flavor) - theirs.X).max()
            certificate(
                operator="CenteredLogRatio",
                reference=f"muon {version('muon')}",
                data="CellTypist sample, 559 cells x 9,810 genes",
                quantity=f"{margin}, {flavor}: largest difference",
                value=float(error),
                bar="<= 1e-4",
            )
            assert error <= 1e-4


def test_log_ratios_have_right_gradients_and_stay_finite() -> None:
    counts = jnp.asarray(np.random.default_rng(2).gamma(1.0, 3.0, (4, 5)), jnp.float32)
    for flavor in ("seurat", "stoeckius"):
        check_grads(
            lambda x, flavor=flavor: centered_log_ratio(x, flavor=flavor), (counts,), order=1, eps=1e-2, rtol=2e-2
        )
        for scale in (0.0, 1e-30, 1e30):
            assert np.isfinite(
                jax.grad(lambda x, flavor=flavor: centered_log_ratio(x, flavor=flavor).sum())(scale * counts)
            ).all()


def test_one_gene_and_one_cell() -> None:
    counts = jnp.array([[7.0]])
    operator = MedianOfRatiosNormalization(MedianOfRatiosNormalizationConfig(n_genes=1))
    operator.initialize(counts)
    np.testing.assert_allclose(operator.compute(counts).size_factors, [1.0], rtol=1e-5)
    np.testing.assert_allclose(centered(np.asarray(counts), "features", "stoeckius"), [[0.0]], atol=1e-6)
