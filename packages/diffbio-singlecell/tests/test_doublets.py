"""Doublet scores beside Scrublet's on real cells of which some were added up, and at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from real_counts import sample_counts
from sklearn.metrics import roc_auc_score

from diffbio.core.errors import ConfigError, ContractError, DataError, MissingRandomnessError
from diffbio.operators.singlecell.bimodal_threshold import bimodal_threshold
from diffbio.operators.singlecell.doublet_simulation import doublet_pairs
from diffbio.operators.singlecell.doublets import DoubletScorer, DoubletScorerConfig, doublet_scores


def summed(cells, n_doublets, seed):
    """Return the cells with random pairs of them added up, and which rows those are."""
    order = np.random.default_rng(seed).permutation(len(cells))
    first, second, rest = order[:n_doublets], order[n_doublets : 2 * n_doublets], order[2 * n_doublets :]
    return np.concatenate([cells[rest], cells[first] + cells[second]]), np.arange(len(cells) - n_doublets) >= len(rest)


def simulated_cells(n_cells=330, n_genes=200, seed=0):
    """Return negative binomial counts of four types, of unlike depth, with 30 doublets."""
    random = np.random.default_rng(seed)
    profiles = random.gamma(0.5, 1.0, (4, n_genes))
    depth = random.lognormal(0, 0.4, (n_cells, 1))
    means = 2 * depth * profiles[np.arange(n_cells) % 4]
    return summed(random.poisson(random.gamma(3.0, means / 3)).astype(np.float32), 30, seed)


def scores_of(counts, seed=0, **options):
    config = DoubletScorerConfig(n_genes=counts.shape[1], **options)
    scorer = DoubletScorer(config, rngs=nnx.Rngs(0))
    scorer.initialize(jnp.asarray(counts), key=jax.random.key(seed))
    return scorer, scorer.apply({"counts": counts}, {}, None, jax.random.key(seed + 1000))[0]


@pytest.mark.slow
def test_doublets_among_real_cells_are_found_as_by_scrublet(certificate):
    scrublet, sparse = pytest.importorskip("scrublet"), pytest.importorskip("scipy.sparse")
    cells = sample_counts()
    found = {"library size": [], "scrublet": [], "as scrublet": [], "default": []}
    for seed in range(4):
        counts, doublets = summed(cells, 50, seed)
        found["library size"].append(roc_auc_score(doublets, counts.sum(1)))
        for repeat in range(2):
            reference = scrublet.Scrublet(sparse.csc_matrix(counts), random_state=repeat, expected_doublet_rate=0.1)
            theirs, _ = reference.scrub_doublets(use_approx_neighbors=False, verbose=False)
            found["scrublet"].append(roc_auc_score(doublets, theirs))
            alike = {"n_top_genes": 1471, "n_components": 30, "log_transform": False, "expected_doublet_rate": 0.1}
            for name, options in (("as scrublet", alike), ("default", {"expected_doublet_rate": 0.1})):
                ours = scores_of(counts, seed=10 * seed + repeat, **options)[1]
                found[name].append(roc_auc_score(doublets, ours["doublet_scores"]))
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    print("AUROC, mean of 4 sets of doublets (x 2 seeds): " + ", ".join(f"{n} {v:.3f}" for n, v in mean.items()))
    for quantity, value, bar in (
        ("AUROC less Scrublet's, same settings", mean["as scrublet"] - mean["scrublet"], ">= -0.01"),
        ("AUROC less Scrublet's, our defaults", mean["default"] - mean["scrublet"], ">= 0"),
    ):
        certificate(
            operator="DoubletScorer",
            reference="scrublet 0.2.3",
            data="CellTypist sample, 50 of 509 droplets summed, 4 draws x 2 seeds",
            quantity=quantity,
            value=value,
            bar=bar,
        )
    assert mean["as scrublet"] - mean["scrublet"] >= -0.01
    assert mean["default"] >= mean["scrublet"]
    assert mean["default"] > mean["library size"] + 0.05


@pytest.mark.slow
def test_doublets_among_simulated_cells_are_found_as_by_scanpy(certificate):
    sc = pytest.importorskip("scanpy")
    ours, theirs, library = [], [], []
    for seed in range(2):
        counts, doublets = simulated_cells(seed=seed)
        _, found = scores_of(counts, seed, n_components=10)
        ours.append(roc_auc_score(doublets, found["doublet_scores"]))
        reference = sc.AnnData(counts.copy())
        sc.pp.scrublet(reference, n_prin_comps=10, threshold=0.3, random_state=seed, verbose=False)
        theirs.append(roc_auc_score(doublets, reference.obs["doublet_score"]))
        library.append(roc_auc_score(doublets, counts.sum(1)))
    print(f"AUROC: ours {np.mean(ours):.3f}, scanpy {np.mean(theirs):.3f}, library size {np.mean(library):.3f}")
    certificate(
        operator="DoubletScorer",
        reference="scanpy pp.scrublet",
        data="300 simulated cells of 4 types, 30 doublets, 2 draws",
        quantity="AUROC less scanpy's",
        value=np.mean(ours) - np.mean(theirs),
        bar=">= -0.01",
    )
    assert np.mean(ours) >= np.mean(theirs) - 0.01
    assert np.mean(ours) > np.mean(library)


def test_scores_at_hard_neighbourhoods_are_scrublets_formula():
    from sklearn.neighbors import NearestNeighbors

    random = np.random.default_rng(0)
    points = random.normal(size=(90, 4)).astype(np.float32)
    hard = doublet_scores(points[:30], points[30:], 8, expected_doublet_rate=0.07, softness=1e-6)
    nearest = NearestNeighbors(n_neighbors=9).fit(points).kneighbors(points)[1][:, 1:]
    share = ((nearest >= 30).sum(1) + 1) / 10
    np.testing.assert_allclose(hard, share * 0.07 / 2 / (1 - 0.07 - share * (1 - 0.07 - 0.07 / 2)), rtol=1e-5)
    soft = doublet_scores(points[:30], points[30:], 8, expected_doublet_rate=0.07, softness=0.2)
    assert 0.8 < np.corrcoef(soft, hard)[0, 1] < 1


@pytest.mark.slow
def test_threshold_is_scikit_images():
    filters = pytest.importorskip("skimage.filters")
    random = np.random.default_rng(0)
    for n in (200, 1000, 5000):
        scores = np.concatenate([random.beta(2, 20, n), random.beta(20, 10, n // 2)]).astype(np.float32)
        width = (scores.max() - scores.min()) / 256
        assert abs(float(bimodal_threshold(jnp.asarray(scores), 0.5)) - filters.threshold_minimum(scores)) < 2 * width


def test_threshold_lies_between_modes_and_has_a_fallback():
    random = np.random.default_rng(0)
    scores = jnp.asarray(np.concatenate([random.normal(0.1, 0.03, 400), random.normal(0.7, 0.05, 300)]), jnp.float32)
    assert 0.2 < float(bimodal_threshold(scores, 0.9)) < 0.6
    for one_mode in (jnp.zeros(50), jnp.ones(1)):
        assert abs(float(bimodal_threshold(one_mode, 0.9)) - 0.9) < 1e-6
    assert not np.any(jax.grad(lambda x: bimodal_threshold(x, 0.5))(scores))


@pytest.mark.slow
def test_threshold_calls_most_doublets_and_few_cells():
    counts, doublets = simulated_cells()
    scorer, found = scores_of(counts, n_components=10)
    called = np.asarray(found["predicted_doublets"]) > 0.5
    print(
        f"threshold {float(scorer.threshold[...]):.2f}: {called[doublets].mean():.2f} of the doublets are called, "
        f"{called[~doublets].mean():.3f} of the cells"
    )
    assert called[doublets].mean() > 0.5
    assert called[~doublets].mean() < 0.05
    assert np.asarray(found["simulated_doublet_scores"]).shape == (600,)


def test_pairs_are_of_different_cells_and_cover_all():
    pairs = np.asarray(doublet_pairs(7, 5000, key=jax.random.key(0)))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == 7 * 6


def test_gradients_are_right():
    random = np.random.default_rng(0)
    points = jnp.asarray(random.normal(size=(20, 3)), jnp.float32)

    def scores(observed, softness):
        return doublet_scores(observed, points[8:], 4, expected_doublet_rate=0.1, softness=softness)

    check_grads(scores, (points[:8], jnp.float32(0.3)), order=1, modes=("rev",), rtol=3e-2, atol=3e-3)


@pytest.mark.slow
def test_empty_duplicated_and_extreme_cells_stay_finite():
    counts, _ = simulated_cells(60, 12)
    scorer, _ = scores_of(counts, n_components=4)

    @jax.jit
    def total_and_gradient(counts):
        def total(counts):
            found = scorer.compute(counts, key=jax.random.key(0))
            return found.doublet_scores.sum() + found.predicted_doublets.sum()

        return jax.value_and_grad(total)(counts)

    empty = counts.copy()
    empty[:3] = 0
    for cells in (empty, np.zeros_like(counts), np.ones_like(counts), counts * 1e20, counts * np.float32(1e-20)):
        value, gradient = total_and_gradient(jnp.asarray(cells))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    for cells in (empty, np.full_like(counts, 5.0), counts * 1e20):  # the second has nothing but constant genes
        scorer.initialize(jnp.asarray(cells), key=jax.random.key(0))
        assert np.isfinite(scorer.components[...]).all()
        assert np.isfinite(scorer.threshold[...])
        assert np.isfinite(total_and_gradient(jnp.asarray(cells))[0])


@pytest.mark.slow
def test_depth_alone_changes_no_score():
    counts, _ = simulated_cells(60, 12)
    scorer, found = scores_of(counts, n_components=4)
    # all cells scaled alike: twice the counts are the same shares
    again = scorer.apply({"counts": 2 * counts}, {}, None, jax.random.key(1000))[0]
    np.testing.assert_allclose(again["doublet_scores"], found["doublet_scores"], atol=1e-4)


def test_errors_say_what_is_wanted():
    with pytest.raises(ConfigError, match="5 genes count; choose fewer components"):
        DoubletScorerConfig(n_genes=5, n_components=6)
    config = DoubletScorerConfig(n_genes=5, n_components=2)
    with pytest.raises(MissingRandomnessError):
        DoubletScorer(config)
    scorer = DoubletScorer(config, rngs=nnx.Rngs(0))
    with pytest.raises(MissingRandomnessError, match="key"):
        scorer.apply({"counts": np.ones((8, 5), np.float32)}, {}, None)
    with pytest.raises(DataError, match=r"0 genes have 3\.0 counts in 3 cells"):
        scorer.initialize(jnp.ones((8, 5)), key=jax.random.key(0))
    with pytest.raises(ContractError, match="made of two cells"):
        scorer.apply({"counts": np.ones((1, 5), np.float32)}, {}, None, jax.random.key(0))
