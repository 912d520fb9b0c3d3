"""The randomized search for principal components against scanpy and scikit-learn, dense and sparse."""

import tracemalloc
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.sparse import BCOO
from scipy.linalg import subspace_angles
from scipy.sparse import csc_matrix, csr_array, csr_matrix, random_array
from sklearn.decomposition import PCA

from diffbio.core.errors import ContractError, MissingRandomnessError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.pca import principal_components
from diffbio.operators.normalization.projection import PCAProjection, PCAProjectionConfig
from diffbio.operators.normalization.randomized_pca import randomized_principal_components

KINDS = {
    "dense": jnp.asarray,
    "CSR matrix": csr_matrix,
    "CSC matrix": csc_matrix,
    "CSR array": csr_array,
    "BCOO": lambda x: BCOO.fromdense(jnp.asarray(x)),
}


@pytest.fixture(scope="module")
def expression() -> np.ndarray:
    """Log-normalized PBMC 68k, 700 cells x 765 genes, two thirds zeros."""
    return pbmc68k_reduced().X.toarray().astype(np.float32)


def angle(found, components: np.ndarray) -> float:
    return float(subspace_angles(np.asarray(found.components, np.float64), components).max())


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_and_dense_equal_scikit_learn(expression: np.ndarray, kind: str, certificate) -> None:
    n_components = 10 if kind == "BCOO" else 50
    found = randomized_principal_components(KINDS[kind](expression), n_components, key=jax.random.key(0))
    reference = PCA(n_components, svd_solver="full").fit(expression.astype(np.float64))
    largest = angle(found, reference.components_.T)
    certificate(
        operator="randomized_principal_components",
        reference="scikit-learn PCA",
        data=f"PBMC 68k, 700 x 765, {kind}",
        quantity=f"largest angle of {n_components} components",
        value=largest,
        bar="< 1e-3",
    )
    assert largest < 1e-3
    assert ((np.asarray(found.components) * reference.components_.T).sum(0) > 0.999).all()
    np.testing.assert_allclose(found.mean, reference.mean_, atol=1e-5)
    np.testing.assert_allclose(found.explained_variance, reference.explained_variance_, rtol=1e-4)


def test_sparse_equals_scanpy(expression: np.ndarray, certificate) -> None:
    sc = pytest.importorskip("scanpy")
    adata = sc.AnnData(csr_matrix(expression))
    sc.pp.pca(adata, n_comps=50)
    found = randomized_principal_components(adata.X, 50, key=jax.random.key(1))
    largest = angle(found, adata.varm["PCs"].astype(np.float64))
    certificate(
        operator="randomized_principal_components",
        reference=f"scanpy {version('scanpy')} pp.pca",
        data="PBMC 68k, 700 x 765, sparse",
        quantity="largest angle of 50 components",
        value=largest,
        bar="< 1e-3",
    )
    assert largest < 1e-3


def test_sparse_data_are_never_dense() -> None:
    x = random_array((20_000, 3_000), density=0.01, dtype=np.float32, rng=np.random.default_rng(0), format="csr")
    tracemalloc.start()
    found = randomized_principal_components(x, 5, key=jax.random.key(0), n_oversamples=5, n_iterations=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    dense = 4 * x.shape[0] * x.shape[1]
    print(f"peak {peak / 1e6:.0f} MB on the host; the dense matrix has {dense / 1e6:.0f} MB")
    assert peak < dense / 10
    np.testing.assert_allclose(found.components.T @ found.components, np.eye(5), atol=1e-5)


@pytest.mark.slow
def test_more_iterations_come_nearer() -> None:
    spectrum = 0.9 ** np.arange(60)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(300, 60)) * spectrum, jnp.float32)
    exact = np.asarray(principal_components(x, 8).components, np.float64)
    angles = [
        angle(randomized_principal_components(x, 8, key=jax.random.key(2), n_oversamples=2, n_iterations=n), exact)
        for n in (0, 1, 2, 3)
    ]
    print("angles for 0 to 3 iterations:", " ".join(f"{a:.1e}" for a in angles))
    assert angles == sorted(angles, reverse=True)
    assert angles[-1] < 1e-2


def test_a_constant_gene_far_from_zero_spoils_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    x[:, 3] = 1e5
    found = randomized_principal_components(x, 4, key=jax.random.key(0))
    reference = PCA(4, svd_solver="full").fit(x.astype(np.float64))
    assert angle(found, reference.components_.T) < 1e-3
    assert np.abs(found.components[3]).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "x",
    [
        np.zeros((6, 4)),
        np.full((6, 4), 3.0),
        np.outer(np.arange(6.0), np.arange(4.0)),
        np.ones((1, 5)),
        np.ones((5, 1)),
    ],
    ids=["zero", "constant", "rank one", "one cell", "one gene"],
)
def test_degenerate_cells_give_finite_orthonormal_components(kind: str, x: np.ndarray) -> None:
    n_components = min(x.shape)
    found = randomized_principal_components(KINDS[kind](x.astype(np.float32)), n_components, key=jax.random.key(0))
    assert all(np.isfinite(array).all() for array in found)
    np.testing.assert_allclose(found.components.T @ found.components, np.eye(n_components), atol=1e-4)
    np.testing.assert_allclose(found.explained_variance.sum(), x.var(0).sum() * len(x) / max(len(x) - 1, 1), atol=1e-4)


def test_it_compiles_and_has_no_gradient() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(30, 8)), jnp.float32)
    search = jax.jit(lambda x, key: randomized_principal_components(x, 3, key=key).components)
    eager = randomized_principal_components(x, 3, key=jax.random.key(4)).components
    np.testing.assert_allclose(search(x, jax.random.key(4)), eager, atol=1e-4)
    assert not np.any(jax.grad(lambda x: search(x, jax.random.key(0)).sum())(x))


def test_the_operator_is_initialized_from_sparse_cells(expression: np.ndarray) -> None:
    config = PCAProjectionConfig(n_genes=765, n_components=5, method="randomized")
    projection = PCAProjection(config, rngs=nnx.Rngs(0))
    projection.initialize(csr_matrix(expression), key=jax.random.key(0))
    embeddings = projection.apply({"scaled": expression}, {}, None)[0]["embeddings"]
    expected = PCA(5, svd_solver="full").fit_transform(expression)
    np.testing.assert_allclose(embeddings, expected, atol=1e-2)


def test_errors_say_what_to_do(expression: np.ndarray) -> None:
    with pytest.raises(ContractError, match="4 cells of 9 genes have between 1 and 4 principal components"):
        randomized_principal_components(csr_matrix((4, 9), dtype=np.float32), 5, key=jax.random.key(0))
    with pytest.raises(ContractError, match="n_iterations -1; give numbers of at least 0"):
        randomized_principal_components(expression, 5, key=jax.random.key(0), n_iterations=-1)
    full = PCAProjection(PCAProjectionConfig(n_genes=765, n_components=5), rngs=nnx.Rngs(0))
    with pytest.raises(ContractError, match=r"csr_matrix.*choose method='randomized', or give an array"):
        full.initialize(csr_matrix(expression))
    randomized = PCAProjectionConfig(n_genes=765, n_components=5, method="randomized")
    with pytest.raises(MissingRandomnessError, match=r"pass key=jax.random.key\(seed\)"):
        PCAProjection(randomized, rngs=nnx.Rngs(0)).initialize(jnp.asarray(expression))
