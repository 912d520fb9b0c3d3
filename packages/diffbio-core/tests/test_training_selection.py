import jax
import numpy as np
import optax
import pytest
from flax import nnx
from training_toys import GENES, accuracy, cross_entropy, make_data, make_pipeline

from diffbio.core.errors import ConfigError
from diffbio.training import evaluate, fit, select_anchor

KEY = jax.random.key(0)
ADAM = optax.adam(5e-2)


def started_well(cells, seed=0):
    """Return a pipeline whose projection starts from the principal axes of the cells, and the cells."""
    data, pipeline = make_data(cells, seed=seed, spread=2.0), make_pipeline(seed)
    counts = data.arrays["counts"]
    pipeline["projection"].basis[...] = np.linalg.svd(counts - counts.mean(0), full_matrices=False)[2][:4].T
    return pipeline, data


def select(pipeline, data, loss=cross_entropy, **options):
    given = {"stages": ("projection",), "optimizer": ADAM, "epochs": 25, "key": KEY, "strengths": (0.0, 3.0, None)}
    return select_anchor(pipeline, data, loss, **given | {"progress": False} | options)


def test_one_compilation_serves_all_strengths():
    def loss(data):  # an object that no other test has compiled for
        return cross_entropy(data)

    selection = select(*started_well(120), loss=loss, batch_size=32, patience=8)
    assert selection.compilations == 1
    assert [candidate.strength for candidate in selection.candidates] == [None, 3.0, 0.0]
    assert sum(candidate.shortfall == 0 for candidate in selection.candidates) >= 1
    assert len(selection.fit.history) == next(
        c.epochs for c in selection.candidates if c.strength == selection.strength
    )


def test_stays_frozen_where_training_does_not_pay():
    pipeline, data = started_well(40)
    selection = select(pipeline, data, metric=accuracy, maximize=True, min_improvement=1.0)
    assert selection.strength is None
    np.testing.assert_array_equal(selection.pipeline["projection"].basis[...], pipeline["projection"].basis[...])
    assert not np.allclose(selection.pipeline["head"].weights[...], pipeline["head"].weights[...])


def test_lets_go_where_the_start_is_worthless():
    pipeline, data = make_pipeline(), make_data(600, spread=1.0)
    basis = np.zeros((GENES, 4), np.float32)
    basis[0] = 1.0
    pipeline["projection"].basis[...] = basis
    selection = select(pipeline, data, strengths=(0.0, None), metric=accuracy, maximize=True)
    scores = {c.strength: c.score for c in selection.candidates}
    print("inner accuracy:", scores)
    assert selection.strength == 0.0
    assert scores[0.0] > scores[None] + 0.1


@pytest.mark.slow
def test_is_not_worse_than_frozen_over_sizes():
    new = make_data(4000, seed=99, spread=2.0)
    options = {"patience": 10, "metric": accuracy, "maximize": True}
    for cells in (40, 100, 400, 1500):
        gains = []
        for seed in range(12):
            pipeline, data = started_well(cells, seed)
            key = jax.random.key(seed)
            # A plain fit for all epochs, which owes nothing to the selection.
            plain = fit(pipeline, data, cross_entropy, optimizer=ADAM, epochs=25, key=key, trainable=("head",))
            chosen = select(pipeline, data, key=key, **options)
            frozen = select(pipeline, data, key=key, **options, strengths=(None,))
            fits = (plain, chosen, frozen)
            scores = [evaluate(done.pipeline, new, {"a": accuracy}, key=KEY)["a"] for done in fits]
            gains.append([scores[1] - scores[0], scores[2] - scores[0]])
        mean, worst = np.mean(gains, axis=0), np.min(gains, axis=0)
        print(f"{cells} cells: accuracy over a plain frozen fit: chosen {mean[0]:+.4f} (worst {worst[0]:+.4f}), "
              f"frozen by selection {mean[1]:+.4f} (worst {worst[1]:+.4f})")  # fmt: skip
        assert mean.min() > -0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": ()}, "needs strengths"),
        ({"stages": ("projektion",)}, "stages names 'projektion'.*did you mean 'projection'"),
        ({"validation": 0.2}, "decides 'validation' itself"),
        ({"min_improvement": -1.0}, "min_improvement of 0 or more"),
    ],
)
def test_options_that_can_not_be(options, message):
    with pytest.raises(ConfigError, match=message):
        select(*started_well(40), **options)


def test_noise_is_the_error_of_paired_differences():
    selection = select(*started_well(60), splits=4)
    best = min(selection.candidates, key=lambda c: c.score)
    assert best.shortfall == best.noise == 0
    for candidate in selection.candidates:
        assert candidate.shortfall == pytest.approx(candidate.score - best.score, abs=1e-6)
        stronger_fit = candidate.shortfall <= candidate.noise
        if candidate.strength == selection.strength:
            assert stronger_fit
            break
        assert not stronger_fit
    assert nnx.state(selection.pipeline, nnx.Param)
