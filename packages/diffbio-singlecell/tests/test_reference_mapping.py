"""Reference mapping against an independent version and symphonypy, its label transfer, its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from sklearn.neighbors import KNeighborsClassifier

from diffbio.core import Pipeline
from diffbio.core.errors import ContractError, MissingRandomnessError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization import PCAProjection, PCAProjectionConfig, Scaling, ScalingConfig
from diffbio.operators.singlecell.harmony import HarmonizedCells
from diffbio.operators.singlecell.reference_mapping import (
    ReferenceMapping,
    ReferenceMappingConfig,
    compress_reference,
    map_to_reference,
)


def reference_and_query(seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return log-normalized PBMC 68k of the six largest types, split: 400 cells, and others as a query of two batches.

    The two batches of the reference add a random draw to each gene. Those of the query are shifted towards the profile
    of one of the two largest types and away from the other, one each way, so that distances mislead.
    """
    random = np.random.default_rng(seed)
    adata = pbmc68k_reduced()
    types = adata.obs["bulk_labels"].cat.codes.to_numpy()
    common = np.argsort(-np.bincount(types))[:6]
    chosen = random.permutation(np.flatnonzero(np.isin(types, common)))
    x, types = adata.X.toarray()[chosen], types[chosen]
    batches = random.integers(0, 2, len(x))
    apart = x[types == common[0]].mean(0) - x[types == common[1]].mean(0)
    effects = 0.2 * np.abs(random.normal(size=(2, x.shape[1]))), 0.6 * np.stack([apart, -apart])
    splits = []
    for cells, effect in zip((slice(0, 400), slice(400, None)), effects, strict=True):
        shifted = (x[cells] + effect[batches[cells]]).astype(np.float32)
        splits.append({"normalized": shifted, "batch_labels": batches[cells].astype(np.int32), "types": types[cells]})
    return splits[0], splits[1]


@pytest.fixture(scope="module")
def mapped() -> tuple[dict, dict, Pipeline, HarmonizedCells, dict]:
    """Return reference and query, the pipeline initialized on the reference, that integrated, and the query mapped."""
    reference, query = reference_and_query()
    config = ReferenceMappingConfig(n_features=20, n_clusters=13, n_batches=2)
    pipeline = Pipeline(
        Scaling(ScalingConfig(n_genes=765)),
        PCAProjection(PCAProjectionConfig(n_genes=765, n_components=20), rngs=nnx.Rngs(0)),
        ReferenceMapping(config, rngs=nnx.Rngs(0)),
        names=("scaling", "projection", "mapping"),
    )
    pipeline.initialize(
        key=jax.random.key(0), normalized=reference["normalized"], batch_labels=reference["batch_labels"]
    )
    embeddings = pipeline.apply({k: reference[k] for k in ("normalized", "batch_labels")}, {}, None)[0]["embeddings"]
    integrated = pipeline["mapping"].integrate(embeddings, reference["batch_labels"], key=jax.random.key(0))
    pipeline["mapping"].keep(integrated)
    found = pipeline.apply({k: query[k] for k in ("normalized", "batch_labels")}, {}, None)[0]
    return reference, query, pipeline, integrated, found


@pytest.mark.slow
def test_labels_are_transferred_better_than_without_and_the_reference_does_not_move(mapped, certificate) -> None:
    reference, query, pipeline, integrated, found = mapped
    before = jax.tree.map(np.asarray, pipeline["mapping"].reference)
    again = pipeline.apply({k: query[k] for k in ("normalized", "batch_labels")}, {}, None)[0]
    np.testing.assert_array_equal(again["corrected_embeddings"], found["corrected_embeddings"])
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, pipeline["mapping"].reference))
    classifier = KNeighborsClassifier(10).fit(integrated.corrected_embeddings, reference["types"])
    accuracy = {key: classifier.score(found[key], query["types"]) for key in ("embeddings", "corrected_embeddings")}
    print(
        f"accuracy of transferred labels: {accuracy['embeddings']:.3f} unmapped, {accuracy['corrected_embeddings']:.3f}"
    )
    certificate(
        operator="ReferenceMapping",
        reference="unmapped query",
        data="PBMC 68k, 400 cells and a shifted query",
        quantity="gain in accuracy of labels by 10 neighbours",
        value=accuracy["corrected_embeddings"] - accuracy["embeddings"],
        bar="> 0.05",
    )
    assert accuracy["corrected_embeddings"] > accuracy["embeddings"] + 0.05


def test_it_equals_an_independent_version_in_numpy(mapped, certificate) -> None:
    _, query, pipeline, _, found = mapped
    kept = jax.tree.map(lambda a: np.asarray(a, np.float64), pipeline["mapping"].reference)
    z, batches = np.asarray(found["embeddings"], np.float64), query["batch_labels"]
    x, c = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, kept.sums))
    r = np.exp(-2 * (1 - x @ c.T) / 0.1)
    r /= r.sum(1, keepdims=True)
    design = np.column_stack([np.ones(len(z)), batches == 0, batches == 1]).astype(float)
    expected = z.copy()
    for k in range(r.shape[1]):
        gram = (design.T * r[:, k]) @ design + np.diag([kept.mass[k], 1.0, 1.0])
        moments = (design.T * r[:, k]) @ z
        moments[0] += kept.sums[k]
        expected -= r[:, k : k + 1] * (design[:, 1:] @ np.linalg.solve(gram, moments)[1:])
    error = np.abs(found["corrected_embeddings"] - expected).max() / z.std()
    certificate(
        operator="ReferenceMapping",
        reference="NumPy in float64",
        data="PBMC 68k, 400 cells and a shifted query",
        quantity="largest difference / spread",
        value=error,
        bar="< 1e-4",
    )
    assert error < 1e-4
    np.testing.assert_allclose(found["harmony_assignments"], r, atol=1e-4)


@pytest.mark.slow
def test_it_equals_symphonypy(mapped, certificate) -> None:
    symphonypy = pytest.importorskip("symphonypy", reason="symphonypy is not in the reference environment")
    ad, pd = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    reference, query, pipeline, integrated, found = mapped
    scaling, projection, mapping = pipeline["scaling"], pipeline["projection"], pipeline["mapping"]
    components = np.asarray(projection.components[...], np.float64)
    old = ad.AnnData(reference["normalized"].astype(np.float64))
    # symphonypy projects without a mean of its own: the components' is that of scaled genes, which clipping moves
    old.var["mean"] = np.asarray(scaling.mean[...] + projection.mean[...] * scaling.std[...], np.float64)
    old.var["std"] = np.asarray(scaling.std[...], np.float64)
    old.varm["PCs"] = components
    old.obsm["X_pca_harmony"] = np.asarray(integrated.corrected_embeddings)
    kept = jax.tree.map(lambda a: np.asarray(a, np.float64), mapping.reference)
    old.uns["harmony"] = {
        "Nr": kept.mass, "C": kept.sums, "K": len(kept.mass), "sigma": 0.1, "ref_basis_loadings": "PCs",
        "ref_basis_adjusted": "X_pca_harmony", "vars_use": "batch", "harmony_kwargs": {}, "converged": True,
    }  # fmt: skip
    batch = pd.DataFrame(
        {"batch": query["batch_labels"].astype(str)}, index=[str(i) for i in range(len(query["types"]))]
    )
    new = ad.AnnData(query["normalized"].astype(np.float64), obs=batch)
    symphonypy.tl.map_embedding(new, old, key="batch", use_genes_column=None, lamb=1.0)
    theirs = np.asarray(new.obsm["X_pca_harmony"])
    error = np.abs(found["corrected_embeddings"] - theirs).max() / theirs.std()
    certificate(
        operator="ReferenceMapping",
        reference="symphonypy 0.2.4",
        data="PBMC 68k, 400 cells and a shifted query",
        quantity="largest difference / spread",
        value=error,
        bar="< 0.02",
    )
    assert error < 0.02


def test_a_cell_without_batch_stays_and_a_query_equal_to_the_reference_hardly_moves() -> None:
    random = np.random.default_rng(0)
    types = random.integers(0, 3, 300)
    cells = (5 * np.eye(3, 4)[types] + 0.3 * random.normal(size=(300, 4))).astype(np.float32)
    mapping = ReferenceMapping(ReferenceMappingConfig(n_features=4, n_clusters=3), rngs=nnx.Rngs(0))
    mapping.initialize(jnp.asarray(cells[:200]), jnp.zeros(200, jnp.int32), key=jax.random.key(0))
    labels = jnp.asarray(np.where(np.arange(100) < 50, 0, -1), jnp.int32)
    after = mapping.apply({"embeddings": cells[200:], "batch_labels": labels}, {}, None)[0]["corrected_embeddings"]
    np.testing.assert_array_equal(after[50:], cells[250:])
    assert np.abs(after[:50] - cells[200:250]).max() < 0.2


def test_gradients_match_finite_differences() -> None:
    random = np.random.default_rng(0)
    z, weights = random.normal(size=(2, 10, 3))
    labels = jnp.asarray(np.arange(10) % 2, jnp.int32)
    with jax.enable_x64(True):
        reference = compress_reference(
            jnp.asarray(3 * random.normal(size=(8, 3))), jnp.asarray(np.eye(4)[np.arange(8) % 4])
        )

        def total(z: jax.Array, softness: jax.Array, ridge: jax.Array) -> jax.Array:
            found = map_to_reference(z, labels, reference, n_batches=2, softness=softness, ridge=ridge)
            return (weights * found.corrected_embeddings).sum()

        arguments = (jnp.asarray(z), jnp.asarray(0.5), jnp.asarray(1.0))
        check_grads(jax.jit(total), arguments, order=1, modes=["rev", "fwd"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "cells", [np.zeros((5, 3)), np.ones((5, 3)), np.eye(1, 3), 1e-20 * np.eye(5, 3), 1e20 * np.eye(5, 3)],
    ids=["zero", "duplicates", "one cell", "tiny", "huge"],
)  # fmt: skip
@pytest.mark.slow
def test_degenerate_queries_give_finite_values_and_gradients(cells: np.ndarray) -> None:
    mapping = ReferenceMapping(ReferenceMappingConfig(n_features=3, n_clusters=4), rngs=nnx.Rngs(0))
    reference = jnp.asarray(np.repeat(np.eye(2, 3), 4, axis=0), jnp.float32)  # fewer distinct cells than clusters
    mapping.initialize(reference, jnp.zeros(8, jnp.int32), key=jax.random.key(0))
    cells = jnp.asarray(cells, jnp.float32)

    def total(cells: jax.Array) -> jax.Array:
        found = mapping.compute(cells, jnp.zeros(len(cells), jnp.int32))
        return found.corrected_embeddings.sum()

    value, gradient = jax.value_and_grad(total)(cells)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_errors_say_what_to_do() -> None:
    config = ReferenceMappingConfig(n_features=2, n_clusters=5)
    with pytest.raises(MissingRandomnessError):
        ReferenceMapping(config)
    with pytest.raises(ContractError, match="5 clusters were asked for among 4 cells"):
        ReferenceMapping(config, rngs=nnx.Rngs(0)).initialize(
            jnp.zeros((4, 2)), jnp.zeros(4, jnp.int32), key=jax.random.key(0)
        )
