"""What lies beside diffbio in its ecosystem works on our arrays and modules."""

import jax
import numpy as np
import pytest
from datarax.pipeline import Pipeline as DataraxPipeline
from datarax.sources import MemorySource, MemorySourceConfig
from flax import nnx

from diffbio.core import Pipeline
from diffbio.operators.normalization import (
    LibrarySizeNormalization,
    LibrarySizeNormalizationConfig,
    PCAProjection,
    PCAProjectionConfig,
)
from diffbio.operators.singlecell import SoftClusteringConfig, SoftKMeansClustering


@pytest.fixture(scope="module")
def counts():
    """Three groups of cells that differ in which genes they express."""
    random = np.random.default_rng(0)
    rates = random.gamma(2.0, 2.0, size=(3, 50))[np.arange(60) % 3]
    return random.poisson(rates).astype(np.float32)


def embedding(rngs):
    """Return normalization and projection, which act on each cell by itself."""
    project = PCAProjection(PCAProjectionConfig(n_genes=50, n_components=5), rngs=rngs)
    return LibrarySizeNormalization(LibrarySizeNormalizationConfig()), project.reads(scaled="normalized")


def test_calibrax_scores_our_clusters_as_scikit_learn_does(counts):
    clustering = pytest.importorskip("calibrax.metrics.functional.clustering")
    metrics = pytest.importorskip("sklearn.metrics")
    rngs = nnx.Rngs(0)
    config = SoftClusteringConfig(n_clusters=3, n_features=5, temperature=0.1)
    pipeline = Pipeline(*embedding(rngs), SoftKMeansClustering(config, rngs=rngs))
    pipeline.initialize(key=jax.random.key(0), counts=counts)
    data, _, _ = pipeline.apply({"counts": counts}, {}, None)
    labels = data["cluster_assignments"].argmax(axis=1)
    score = float(clustering.silhouette_score(data["embeddings"], labels))
    shuffled = float(clustering.silhouette_score(data["embeddings"], jax.random.permutation(rngs(), labels)))
    print(f"silhouette: {score:.3f}, of shuffled labels {shuffled:.3f}")
    assert score > 0.3 > shuffled
    assert score == pytest.approx(
        metrics.silhouette_score(np.asarray(data["embeddings"]), np.asarray(labels)), abs=1e-3
    )


def test_a_pipeline_is_a_stage_of_datarax(counts):
    pipeline = Pipeline(*embedding(nnx.Rngs(0)))
    pipeline.initialize(key=jax.random.key(0), counts=counts)
    source = MemorySource(MemorySourceConfig(), {"counts": counts})
    stream = DataraxPipeline(source=source, stages=[pipeline], batch_size=20, rngs=nnx.Rngs(1))
    batches = np.concatenate([batch["embeddings"] for batch in stream])
    whole, _, _ = pipeline.apply({"counts": counts}, {}, None)
    np.testing.assert_allclose(batches, whole["embeddings"], rtol=1e-4, atol=1e-5)
