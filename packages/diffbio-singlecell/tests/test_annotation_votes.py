"""Majority voting: its limit against CellTypist and pandas, and at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from diffbio.core.errors import ConfigError
from diffbio.operators.singlecell.annotation_votes import MajorityVote, MajorityVoteConfig, cluster_votes

HARD = {"temperature": 1e-4, "majority_temperature": 1e-4, "threshold_temperature": 1e-5}


def noisy_types(n_cells=600, seed=0):
    """Return noisy probabilities of four types, clusters that lie within a type for the most part, and the types."""
    random = np.random.default_rng(seed)
    types = random.integers(4, size=n_cells)
    clusters = 5 * types + random.integers(5, size=n_cells)
    logits = 1.5 * np.eye(4)[types] + random.normal(size=(n_cells, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.astype(np.float32), clusters, types


def voted(probabilities, clusters, **options):
    data = {"cell_type_probabilities": probabilities, "cluster_assignments": np.eye(20, dtype=np.float32)[clusters]}
    return MajorityVote(MajorityVoteConfig(**options)).apply(data, {}, None)[0]


@pytest.mark.slow
def test_hard_limit_is_celltypists_majority_voting(certificate):
    classifier, pandas = pytest.importorskip("celltypist.classifier"), pytest.importorskip("pandas")
    probabilities, clusters, _ = noisy_types()
    names = np.array(["B", "DC", "Mono", "T"])
    labels = pandas.DataFrame({"predicted_labels": names[probabilities.argmax(1)]})
    table = pandas.DataFrame(probabilities, columns=names)
    result = classifier.AnnotationResult(labels, table, table, None)
    theirs = classifier.Classifier.majority_vote(result, clusters, min_prop=0.6).predicted_labels["majority_voting"]
    ours = voted(probabilities, clusters, min_share=0.6, **HARD)
    named = names[np.asarray(ours["voted_probabilities"]).argmax(1)].astype(object)
    named[np.asarray(ours["heterogeneous"]) > 0.5] = "Heterogeneous"
    agreement = (named == theirs.astype(str).to_numpy()).mean()
    assert 0 < (named == "Heterogeneous").mean() < 1
    certificate(
        operator="MajorityVote",
        reference="celltypist 1.7.1 majority_vote",
        data="600 simulated cells, 4 types, 20 clusters, min_prop 0.6",
        quantity="share of cells with the same name",
        value=agreement,
        bar="== 1",
    )
    assert agreement == 1.0


def test_hard_limit_counts_labels():
    probabilities, clusters, types = noisy_types()
    labels = probabilities.argmax(1)
    votes = np.zeros((20, 4))
    np.add.at(votes, (clusters, labels), 1)
    shares = votes / votes.sum(1, keepdims=True)
    found = cluster_votes(jnp.asarray(probabilities), jnp.eye(20)[clusters], softness=1e-4)
    np.testing.assert_allclose(found, shares, atol=1e-5)
    ours = voted(probabilities, clusters, min_probability=0.45, min_share=0.6, **HARD)
    np.testing.assert_allclose(ours["voted_probabilities"], np.eye(4)[shares.argmax(1)[clusters]], atol=1e-5)
    np.testing.assert_allclose(ours["unassigned"], probabilities.max(1) < 0.45, atol=1e-5)
    np.testing.assert_allclose(ours["heterogeneous"], shares.max(1)[clusters] < 0.6, atol=1e-5)
    accuracy = (np.asarray(ours["voted_probabilities"]).argmax(1) == types).mean()
    print(f"accuracy {(labels == types).mean():.3f}, after the vote {accuracy:.3f}")
    assert accuracy > (labels == types).mean() + 0.1


def test_votes_at_softness_one_are_mean_probabilities():
    probabilities, clusters, _ = noisy_types()
    found = cluster_votes(jnp.asarray(probabilities), jnp.eye(20)[clusters], softness=1.0)
    means = np.stack([probabilities[clusters == k].mean(0) for k in range(20)])
    np.testing.assert_allclose(found, means, atol=1e-5)


def test_soft_clusters_share_their_majorities():
    probabilities = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0]]
    assignments = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0.3, 0.7]], np.float32)
    data = {"cell_type_probabilities": probabilities, "cluster_assignments": assignments}
    found = MajorityVote(MajorityVoteConfig(**HARD)).apply(data, {}, None)[0]["voted_probabilities"]
    np.testing.assert_allclose(found[4], [0.3, 0.7], atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)


def test_training_a_classifier_through_the_vote_lowers_its_loss():
    probabilities, clusters, types = noisy_types(200)
    features = jnp.log(jnp.asarray(probabilities))
    vote = MajorityVote(MajorityVoteConfig(temperature=1.0, majority_temperature=0.2))
    optimizer = optax.adam(0.05)

    @jax.jit
    def step(kernel, state):
        def loss(kernel):
            found = vote.compute(jax.nn.softmax(features @ kernel), jnp.eye(20)[clusters]).voted_probabilities
            return -jnp.log(found[jnp.arange(200), types] + 1e-9).mean()

        value, gradient = jax.value_and_grad(loss)(kernel)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(kernel, updates), state, value

    kernel = jnp.zeros((4, 4))
    state, values = optimizer.init(kernel), []
    for _ in range(60):
        kernel, state, value = step(kernel, state)
        values.append(float(value))
    assert values[-1] < 0.5 * values[0]


def test_gradients_are_right():
    random = np.random.default_rng(0)
    probabilities = jnp.asarray(random.dirichlet(np.ones(3), 8), jnp.float32)
    assignments = jnp.asarray(random.dirichlet(np.ones(2), 8), jnp.float32)
    vote = MajorityVote(MajorityVoteConfig(temperature=0.8, majority_temperature=0.3, threshold_temperature=0.2))
    check_grads(vote.compute, (probabilities, assignments), order=1, modes=("rev",), eps=1e-3, rtol=3e-2, atol=1e-2)


@pytest.mark.slow
def test_empty_clusters_lone_cells_and_impossible_types_stay_finite():
    vote = MajorityVote(MajorityVoteConfig())
    for probabilities, assignments in (
        (np.eye(3), np.eye(3, 5)),  # certain cells, clusters without cells
        (np.zeros((3, 3)), np.ones((3, 1))),
        (np.full((3, 3), 1 / 3), np.zeros((3, 2))),
        (np.ones((1, 1)), np.ones((1, 1))),
    ):
        point = (jnp.asarray(probabilities, jnp.float32), jnp.asarray(assignments, jnp.float32))
        found = vote.compute(*point)
        slopes = jax.grad(lambda *p: sum(leaf.sum() for leaf in vote.compute(*p)), argnums=(0, 1))(*point)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found, slopes)))


def test_errors_say_what_is_wanted():
    with pytest.raises(ConfigError, match="min_probability is 2"):
        MajorityVoteConfig(min_probability=2)
