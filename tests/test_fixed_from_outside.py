"""The names, shapes and behaviours that users were promised, as they would write them.

Everything here is imported from the public packages, and nothing is set up but by the calls that are promised.
"""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from diffbio.core import Operator, Pipeline, Softness, soft_ops
from diffbio.operators.normalization import (
    LibrarySizeNormalization,
    LibrarySizeNormalizationConfig,
    PCAProjection,
    PCAProjectionConfig,
)
from diffbio.operators.singlecell import (
    DiffusionImputation,
    DiffusionImputationConfig,
    DiffusionPseudotime,
    DiffusionPseudotimeConfig,
    SoftClusteringConfig,
    SoftKMeansClustering,
)
from diffbio.training import ArrayDataset, fit, temperature_schedule

N_CELLS, N_GENES, N_CLUSTERS = 60, 50, 10


@pytest.fixture(scope="module")
def counts():
    """Three groups of cells that differ in which genes they express."""
    random = np.random.default_rng(0)
    rates = random.gamma(2.0, 2.0, size=(3, N_GENES))[np.arange(N_CELLS) % 3]
    return jnp.asarray(random.poisson(rates), jnp.float32)


@pytest.fixture(scope="module")
def imputer():
    return DiffusionImputation(DiffusionImputationConfig())


@pytest.fixture(scope="module")
def clusterer():
    config = SoftClusteringConfig(n_clusters=10, n_features=50, temperature=1.0)
    return SoftKMeansClustering(config, rngs=nnx.Rngs(42))


@pytest.fixture(scope="module")
def pseudotime():
    return DiffusionPseudotime(DiffusionPseudotimeConfig())


class TestSoftOperations:
    """`soft_ops.f(x, ..., softness=t)` for the five hard decisions, and their two ends."""

    x = jnp.array([0.3, 2.0, -1.0, 1.1])

    @pytest.mark.parametrize(
        ("soft", "hard"),
        [
            (lambda x, t: soft_ops.max(x, softness=t), lambda x: x.max()),
            (lambda x, t: soft_ops.argmax(x, softness=t), lambda x: np.eye(4)[x.argmax()]),
            (lambda x, t: soft_ops.greater(x, 1.0, softness=t), lambda x: x > 1.0),
            (lambda x, t: soft_ops.sort(x, softness=t), np.sort),
            (lambda x, t: soft_ops.top_k(x, 2, softness=t).values, lambda x: np.sort(x)[:-3:-1]),
        ],
        ids=["max", "argmax", "greater", "sort", "top_k"],
    )
    def test_low_softness_is_discrete_and_high_softness_is_smooth(self, soft, hard):
        wanted = np.asarray(hard(np.asarray(self.x)), np.float32)
        errors = [float(jnp.abs(soft(self.x, t) - wanted).max()) for t in (1.0, 0.1, 0.01)]
        assert errors[0] > errors[1] >= errors[2]
        assert errors[2] < 1e-4

        def roughness(t):
            moved = jax.vmap(self.x.at[0].add)(jnp.linspace(-1.5, 2.0, 41))
            slopes = jax.jit(jax.vmap(jax.jacobian(lambda x: soft(x, t))))(moved)
            return float(jnp.abs(jnp.diff(slopes, axis=0)).max())

        assert roughness(100.0) < 0.1 * roughness(0.1)

    @pytest.mark.parametrize("name", ["max", "argmax", "greater", "sort", "top_k"])
    def test_the_temperature_is_called_softness(self, name):
        assert "softness" in inspect.signature(getattr(soft_ops, name)).parameters

    def test_weak_gradients_at_low_softness(self):
        slope = jax.grad(lambda x, t: soft_ops.greater(x, 20.0, softness=t))
        assert abs(slope(30.0, 0.1)) < abs(slope(30.0, 10.0))


class TestClustering:
    """The first example of the interface, word for word."""

    def test_the_configuration_is_frozen_and_compares_by_value(self):
        config = SoftClusteringConfig(n_clusters=10, n_features=50, temperature=1.0)
        assert config == SoftClusteringConfig(n_clusters=10, n_features=50)
        assert [field.name for field in dataclasses.fields(config)][:3] == ["n_clusters", "n_features", "temperature"]
        with pytest.raises(AttributeError):
            config.temperature = 2.0

    def test_the_triple_comes_back_with_the_input_untouched(self, clusterer):
        embeddings = jax.random.normal(jax.random.key(1), (100, 50))
        data, state, metadata = {"embeddings": embeddings, "other": jnp.ones(3)}, {}, {"source": "here"}
        result, new_state, new_metadata = clusterer.apply(data, state, metadata)
        assert set(data) == {"embeddings", "other"}
        assert set(data) < set(result)
        assert new_state == state
        assert new_metadata == metadata
        assert result["embeddings"] is embeddings
        assert result["cluster_assignments"].shape == (100, 10)
        assert result["cluster_assignments"].dtype == jnp.float32
        np.testing.assert_allclose(result["cluster_assignments"].sum(axis=1), 1.0, rtol=1e-5)
        assert clusterer.apply(data, {}, None)[2] is None

    def test_jit_vmap_and_grad_go_through_apply(self, clusterer):
        batches = jax.random.normal(jax.random.key(2), (3, 20, 50))

        def assign(embeddings):
            return clusterer.apply({"embeddings": embeddings}, {}, None)[0]["cluster_assignments"]

        one_by_one = jnp.stack([assign(batch) for batch in batches])
        np.testing.assert_allclose(jax.jit(jax.vmap(assign))(batches), one_by_one, atol=1e-4)
        assert jnp.isfinite(jax.grad(lambda e: jnp.square(assign(e)).sum())(batches[0])).all()

    def test_its_weights_are_parameters(self, clusterer):
        assert isinstance(clusterer, Operator)
        assert clusterer.centroids[...].shape == (10, 50)
        assert isinstance(clusterer.centroids, nnx.Param)


class TestComposition:
    """Imputation, clustering and pseudotime in a row, by hand, and the gradient through them."""

    def test_three_operators_chained_by_hand_keep_all_keys(self, counts, imputer, clusterer, pseudotime):
        result, _, _ = imputer.apply({"counts": counts}, {}, None)
        result["embeddings"] = result["imputed_counts"]
        result, _, _ = clusterer.apply(result, {}, None)
        result, _, _ = pseudotime.apply(result, {}, None)
        assert {"counts", "imputed_counts", "cluster_assignments", "pseudotime"} <= set(result)
        assert result["imputed_counts"].shape == (N_CELLS, N_GENES)
        assert result["cluster_assignments"].shape == (N_CELLS, N_CLUSTERS)
        assert result["pseudotime"].shape == (N_CELLS,)
        np.testing.assert_array_equal(result["counts"], counts)

    def test_a_pipeline_is_the_chain(self, counts, imputer, clusterer, pseudotime):
        by_hand, _, _ = imputer.apply({"counts": counts}, {}, None)
        by_hand["embeddings"] = by_hand["imputed_counts"]
        by_hand, _, _ = pseudotime.apply(clusterer.apply(by_hand, {}, None)[0], {}, None)
        pipeline = Pipeline(
            imputer, clusterer.reads(embeddings="imputed_counts"), pseudotime.reads(embeddings="imputed_counts")
        )
        together, _, _ = pipeline.apply({"counts": counts}, {}, None)
        for key in ("imputed_counts", "cluster_assignments", "pseudotime"):
            np.testing.assert_allclose(together[key], by_hand[key], rtol=1e-4, atol=1e-5)

    def test_the_gradient_reaches_the_counts_through_two_operators(self, counts, imputer):
        # Centroids drawn at random lie far from all cells, where a temperature of 1 is cold and gradients vanish: as
        # in training, they start from the data, and the temperature is of the size of squared distances.
        config = SoftClusteringConfig(n_clusters=N_CLUSTERS, n_features=N_GENES, temperature=100.0)
        clusterer = SoftKMeansClustering(config, rngs=nnx.Rngs(42))
        clusterer.initialize(counts, key=jax.random.key(0))

        def pipeline_loss(data):
            result, _, _ = imputer.apply(data, {}, None)
            result["embeddings"] = result["imputed_counts"]
            result, _, _ = clusterer.apply(result, {}, None)
            assignments = result["cluster_assignments"]
            return -jnp.sum(assignments * jnp.log(assignments + 1e-8))

        grad_fn = jax.grad(pipeline_loss)
        grads = grad_fn({"counts": counts})["counts"]
        assert grads.shape == counts.shape
        assert jnp.isfinite(grads).all()
        assert float(jnp.abs(grads).max()) > 1e-3
        uphill = jnp.where(counts > 0, grads, 0.0)  # counts of zero have no way back
        slope = float(jnp.linalg.norm(uphill))
        step = 0.1 * uphill / slope
        ahead, behind = pipeline_loss({"counts": counts + step}), pipeline_loss({"counts": counts - step})
        measured = float((ahead - behind) / 0.2)
        print(f"slope along the gradient: {slope:.4f}, measured {measured:.4f}")
        assert measured == pytest.approx(slope, rel=0.05)

    def test_the_sum_of_assignments_is_no_loss(self, counts, imputer, clusterer):
        """Each cell's assignments sum to 1 whatever the counts: the sum is the number of cells, its gradient zero."""

        def constant(data):
            result, _, _ = imputer.apply(data, {}, None)
            result["embeddings"] = result["imputed_counts"]
            return clusterer.apply(result, {}, None)[0]["cluster_assignments"].sum()

        value, grads = jax.value_and_grad(constant)({"counts": counts})
        assert float(value) == pytest.approx(N_CELLS, rel=1e-5)
        assert float(jnp.abs(grads["counts"]).max()) < 1e-4

    def test_the_gradient_reaches_the_parameters_of_every_stage(self, counts):
        rngs = nnx.Rngs(0)
        pipeline = Pipeline(
            LibrarySizeNormalization(LibrarySizeNormalizationConfig(learnable=True)),
            PCAProjection(PCAProjectionConfig(n_genes=N_GENES, n_components=5, learnable=True), rngs=rngs).reads(
                scaled="normalized"
            ),
            SoftKMeansClustering(
                # one iteration: the more there are, the less their end depends on the centroids they start from
                SoftClusteringConfig(n_clusters=3, n_features=5, temperature=10.0, n_iterations=1),
                rngs=rngs,
            ),
        )
        pipeline.initialize(key=jax.random.key(0), counts=counts)

        def loss(pipeline):
            data, _, _ = pipeline.apply({"counts": counts}, {}, None)
            return jnp.square(data["cluster_assignments"]).mean()

        grads = nnx.grad(loss)(pipeline)
        for index, name in enumerate(pipeline.names):
            leaves = jax.tree.leaves(grads["steps"][index])
            assert leaves, f"{name} has no parameters"
            assert all(jnp.isfinite(leaf).all() for leaf in leaves)
            largest = max(float(jnp.abs(leaf).max()) for leaf in leaves)
            print(f"largest gradient in {name}: {largest:.1e}")
            assert largest > 1e-5, f"no gradient reaches {name}"


class TestTemperature:
    """Fixed, learnable, or annealed exponentially from warm to cool."""

    def test_the_schedule_has_the_promised_signature_and_values(self):
        parameters = inspect.signature(temperature_schedule).parameters
        assert {name: p.default for name, p in parameters.items() if name != "step"} == {
            "initial": 10.0,
            "final": 0.1,
            "decay_steps": 10000,
        }
        for step in (0, 2500, 5000, 10000):
            assert float(temperature_schedule(step)) == pytest.approx(10.0 * (0.1 / 10.0) ** (step / 10000), rel=1e-4)

    def test_the_schedule_is_one_of_optax(self):
        theirs = optax.exponential_decay(10.0, transition_steps=10000, decay_rate=0.01, end_value=0.1)
        for step in (0, 100, 9999, 20000):
            assert float(temperature_schedule(step)) == pytest.approx(float(theirs(step)), rel=1e-4)
        updates, _ = optax.scale_by_schedule(temperature_schedule).update(
            jnp.ones(2), optax.scale_by_schedule(temperature_schedule).init(jnp.ones(2))
        )
        np.testing.assert_allclose(updates, 10.0, rtol=1e-5)

    def test_a_temperature_is_fixed_or_learned(self):
        config = {"n_clusters": 3, "n_features": 2, "temperature": 2.0}
        fixed = SoftKMeansClustering(SoftClusteringConfig(**config), rngs=nnx.Rngs(0))
        learned = SoftKMeansClustering(SoftClusteringConfig(**config, learnable_temperature=True), rngs=nnx.Rngs(0))
        assert float(fixed.softness()) == pytest.approx(2.0)
        assert len(jax.tree.leaves(nnx.state(fixed, nnx.Param))) == 1
        assert len(jax.tree.leaves(nnx.state(learned, nnx.Param))) == 2
        assert isinstance(learned.softness, Softness)

    @pytest.mark.parametrize(
        "schedule",
        [
            functools.partial(temperature_schedule, initial=10.0, final=0.1, decay_steps=6),
            optax.exponential_decay(10.0, transition_steps=6, decay_rate=0.01, end_value=0.1),
        ],
        ids=["temperature_schedule", "optax"],
    )
    def test_fit_anneals_by_the_schedule_with_one_compilation(self, schedule):
        embeddings = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
        pipeline = Pipeline(
            SoftKMeansClustering(SoftClusteringConfig(n_clusters=3, n_features=2, n_iterations=1), rngs=nnx.Rngs(0)),
            names=["clusters"],
        )

        def loss(data):
            return jnp.square(data["cluster_assignments"] - 0.5).mean()

        result = fit(
            pipeline,
            ArrayDataset({"embeddings": embeddings}),
            loss,
            optimizer=optax.sgd(0.1),
            epochs=5,
            key=jax.random.key(0),
            anneal=schedule,
            progress=False,
        )
        assert result.compilations == 1
        reached = float(result.pipeline["clusters"].softness())
        print(f"temperature after 5 steps: {reached:.4f}; the schedule at steps 4 and 5: {schedule(4)}, {schedule(5)}")
        assert min(abs(reached - float(schedule(step))) for step in (4, 5)) < 1e-3
        assert float(pipeline["clusters"].softness()) == pytest.approx(1.0)
