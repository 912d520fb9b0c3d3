"""TfidfLsi against muon, against the formulas in NumPy, and at its edges."""

from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from real_counts import pbmc_counts, sample_counts

from diffbio.core.errors import ConfigError, ContractError, MissingRandomnessError
from diffbio.operators.normalization.tfidf import (
    TfidfLsi,
    TfidfLsiConfig,
    inverse_document_frequency,
    singular_vectors,
    tf_idf,
)

WEIGHTINGS = ("log_tf_log_idf", "log_tfidf", "tf_log_idf")


def lsi_of(counts: np.ndarray, **config: object) -> tuple[TfidfLsi, dict]:
    operator = TfidfLsi(TfidfLsiConfig(n_peaks=counts.shape[1], **config), rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(counts))
    return operator, operator.apply({"counts": counts}, {}, None)[0]


def up_to_sign(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.asarray(ours) * np.sign((np.asarray(ours) * theirs).sum(0))


def numpy_tfidf(counts: np.ndarray, weighting: str) -> np.ndarray:
    counts = counts.astype(np.float64)
    tf = 1e4 * counts / counts.sum(1, keepdims=True)
    idf = len(counts) / counts.sum(0)
    return {
        "log_tf_log_idf": np.log1p(tf) * np.log1p(idf),
        "log_tfidf": np.log1p(tf * idf),
        "tf_log_idf": tf * np.log1p(idf),
    }[weighting]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_and_embeddings_are_those_of_numpy(weighting: str) -> None:
    counts = pbmc_counts()
    expected = numpy_tfidf(counts, weighting)
    _, data = lsi_of(counts, weighting=weighting, n_components=20)
    error = np.abs(data["tfidf"] - expected).max() / expected.max()
    left, _, _ = np.linalg.svd(expected, full_matrices=False)
    standard = (left[:, :20] - left[:, :20].mean(0)) / left[:, :20].std(0)
    apart = np.abs(up_to_sign(data["embeddings"], standard) - standard).max()
    print(f"{weighting}: weights differ by {error:.1e} of the largest, embeddings by {apart:.1e}")
    assert error < 1e-6
    assert apart < 1e-2  # of 20 components of real data; some singular values are close to each other


@pytest.mark.slow
def test_weights_and_embeddings_are_those_of_muon(certificate: Callable[..., None]) -> None:
    muon = pytest.importorskip("muon")
    anndata = pytest.importorskip("anndata")
    scipy_sparse = pytest.importorskip("scipy.sparse")
    for name, counts in (
        ("CellTypist sample, 559 cells x 9,810 genes", sample_counts()),
        ("PBMC 68k counts, 700 cells x 765 genes", pbmc_counts()),
    ):
        for weighting, options in (
            ("log_tf_log_idf", {}),
            ("log_tfidf", {"log_tf": False, "log_idf": False, "log_tfidf": True}),
            ("tf_log_idf", {"log_tf": False}),
        ):
            theirs = anndata.AnnData(scipy_sparse.csr_matrix(counts.astype(np.float64)))
            muon.atac.pp.tfidf(theirs, scale_factor=1e4, **options)
            muon.atac.tl.lsi(theirs, n_comps=30)
            _, ours = lsi_of(counts, weighting=weighting, n_components=30)
            weights = theirs.X.toarray()
            coordinates = theirs.obsm["X_lsi"]
            differences = {
                "weights, largest difference over the largest": np.abs(ours["tfidf"] - weights).max() / weights.max(),
                "30 embeddings up to sign, largest difference": np.abs(
                    up_to_sign(ours["embeddings"], coordinates) - coordinates
                ).max(),
            }
            for quantity, value in differences.items():
                certificate(
                    operator="TfidfLsi",
                    reference=f"muon {version('muon')}",
                    data=name,
                    quantity=f"{weighting}: {quantity}",
                    value=float(value),
                    bar="<= 1e-4",
                )
                assert value <= 1e-4


def test_without_standardizing_the_cells_have_unit_length_along_each_component() -> None:
    _, data = lsi_of(pbmc_counts(), n_components=5, standardize=False)
    np.testing.assert_allclose(np.linalg.norm(data["embeddings"], axis=0), 1.0, rtol=1e-4)
    _, data = lsi_of(pbmc_counts(), n_components=5)
    np.testing.assert_allclose(data["embeddings"].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data["embeddings"].std(0), 1, rtol=1e-4)


def test_the_first_component_follows_depth_and_may_be_dropped() -> None:
    counts = pbmc_counts()
    _, all_of_them = lsi_of(counts, n_components=6, standardize=False)
    _, dropped = lsi_of(counts, n_components=5, drop_first=True, standardize=False)
    np.testing.assert_allclose(dropped["embeddings"], all_of_them["embeddings"][:, 1:], atol=1e-4)
    expressed = (counts > 0).sum(1)
    correlations = [abs(np.corrcoef(expressed, column)[0, 1]) for column in np.asarray(all_of_them["embeddings"]).T]
    print("correlation of components with the number of expressed genes:", np.round(correlations, 2))
    assert np.argmax(correlations) == 0


def test_new_cells_are_weighted_and_projected_as_the_old() -> None:
    counts = pbmc_counts()
    operator, data = lsi_of(counts, n_components=5)
    alone = operator.apply({"counts": counts[7]}, {}, None)[0]
    np.testing.assert_allclose(alone["embeddings"], data["embeddings"][7], rtol=1e-4, atol=1e-4)
    assert alone["tfidf"].shape == (765,)
    deeper = operator.apply({"counts": 3 * counts}, {}, None)[0]["embeddings"]
    np.testing.assert_allclose(deeper, data["embeddings"], rtol=1e-3, atol=1e-3)


def test_lanczos_and_the_full_decomposition_agree() -> None:
    matrix = np.log1p(pbmc_counts()[:60, :80])
    few, few_values = singular_vectors(matrix, 5)
    many, many_values = singular_vectors(matrix, 50)
    np.testing.assert_allclose(few, many[:, :5], atol=1e-5)
    np.testing.assert_allclose(few_values, many_values[:5], rtol=1e-5)
    np.testing.assert_allclose(few.T @ few, np.eye(5), atol=1e-5)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_empty_cells_and_peaks_are_zero_and_finite(weighting: str, scale: float) -> None:
    counts = pbmc_counts()[:30, :40]
    counts[3], counts[:, 7], counts[5] = 0, 0, counts[6]
    counts = jnp.asarray(scale * counts, jnp.float32)
    idf = inverse_document_frequency(counts)
    assert float(idf[7]) == 0
    weights = tf_idf(counts, idf, weighting=weighting)
    assert np.isfinite(weights).all()
    assert (np.asarray(weights)[3] == 0).all()
    gradients = jax.grad(lambda x, idf: tf_idf(x, idf, weighting=weighting).sum(), (0, 1))(counts, jnp.ones(40))
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_matrix_without_rank_gives_finite_embeddings() -> None:
    counts = np.ones((6, 5), np.float32)
    _, data = lsi_of(counts, n_components=3)
    assert np.isfinite(data["embeddings"]).all()
    np.testing.assert_allclose(data["embeddings"][:, 1:], 0, atol=1e-3)
    _, data = lsi_of(np.array([[3.0]], np.float32), n_components=1)
    assert np.isfinite(data["embeddings"]).all()


def test_gradients_match_finite_differences() -> None:
    counts = jnp.asarray(np.random.default_rng(2).gamma(1.0, 3.0, (4, 5)), jnp.float32)
    for weighting in WEIGHTINGS:

        def weights(counts: jax.Array, idf: jax.Array, weighting: str = weighting) -> jax.Array:
            return tf_idf(counts, idf, weighting=weighting, scale_factor=10.0)

        check_grads(weights, (counts, jnp.linspace(0.5, 2, 5)), order=1, modes=["rev"], eps=1e-2, rtol=2e-2, atol=1e-2)


def test_training_the_components_separates_types_that_they_mix() -> None:
    """Two types that differ in peaks which carry little variance: the start ignores them, training finds them."""
    random = np.random.default_rng(0)
    types = np.arange(200) % 2
    rates = np.exp(random.normal(0, 1, (200, 1)) * random.normal(0, 1, 60))
    rates[:, :6] *= np.where(types[:, None] == 1, 3.0, 1.0)
    counts = jnp.asarray(random.poisson(rates), jnp.float32)
    operator = TfidfLsi(TfidfLsiConfig(n_peaks=60, n_components=1, learnable=True), rngs=nnx.Rngs(0))
    operator.initialize(counts)

    @nnx.jit
    def step(operator: TfidfLsi) -> jax.Array:
        def surprise(operator: TfidfLsi) -> jax.Array:
            return jnp.logaddexp(0, (1 - 2 * types) * operator.compute(counts).embeddings[:, 0]).mean()

        value, gradient = nnx.value_and_grad(surprise)(operator)
        operator.components[...] -= 0.1 * gradient.components[...]
        return value

    values = [float(step(operator)) for _ in range(300)]
    print(f"surprise of the type: {values[0]:.3f} -> {values[-1]:.3f} nats")
    assert values[-1] < 0.6 * values[0]


def test_errors_say_what_is_wanted() -> None:
    with pytest.raises(MissingRandomnessError):
        TfidfLsi(TfidfLsiConfig(n_peaks=4, n_components=2))
    with pytest.raises(ConfigError, match="choose n_components <= 3"):
        TfidfLsiConfig(n_peaks=4, n_components=4, drop_first=True)
    operator = TfidfLsi(TfidfLsiConfig(n_peaks=4, n_components=3), rngs=nnx.Rngs(0))
    with pytest.raises(ContractError, match="2 cells of 4 peaks have between 1 and 2 singular vectors"):
        operator.initialize(jnp.ones((2, 4)))
    assert not jax.tree.leaves(nnx.state(operator, nnx.Param))
