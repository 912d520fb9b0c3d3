"""Seven stages from abundances to pseudotime, trained jointly on real cells in time."""

import jax
import numpy as np
import pytest

from diffbio.io.singlecell import AnnDataDataset, hsmm_myoblasts
from diffbio.pipelines.singlecell.differentiation import (
    EVERYTHING,
    NOTHING_ELSE,
    differentiation_recipe,
    unfreezing,
    with_plates,
)
from diffbio.pipelines.singlecell.differentiation_report import gradient_table, unfreezing_table
from diffbio.training import data_options, prepare, stage_gradients

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def recipe():
    return differentiation_recipe()


@pytest.fixture(scope="module")
def cells(recipe):
    return AnnDataDataset(with_plates(hsmm_myoblasts(), key=KEY), **data_options(recipe))


def test_the_planted_plates_are_an_effect_on_genes_alone():
    plain, plated = hsmm_myoblasts(), with_plates(hsmm_myoblasts(), strength=1.0, key=KEY)
    first, second = (plated.obs["plate"] == name for name in ("first", "second"))
    assert (plated.X != plain.X)[first.to_numpy()].nnz == 0
    ratio = plated.X[second.to_numpy()].sum(0) / plain.X[second.to_numpy()].sum(0)
    assert 0.8 < np.log(ratio).std() < 1.2
    assert abs(first.sum() - second.sum()) <= 1


@pytest.mark.slow
def test_every_stage_has_a_gradient(recipe, cells):
    pipeline, _, loss, _ = prepare(recipe, cells, key=KEY)
    found = stage_gradients(pipeline, cells.take(np.arange(len(cells))), loss)
    for stage, gradient in found.items():
        print(stage, gradient)
        assert gradient.parameters is None or 1e-6 < gradient.parameters < 1e6
        # the classifier starts at zero, behind which only what it writes has a gradient from its own loss
        assert 1e-6 < gradient.outputs < 1e6
    assert [stage for stage, gradient in found.items() if gradient.parameters is None] == ["order"]
    assert gradient_table(found, found).row_count == 7


@pytest.mark.slow
def test_joint_training_orders_cells_whose_time_is_hidden(recipe, cells):
    scores = list(unfreezing(recipe, cells, seeds=range(2)))
    assert len(scores) == 2 * 7
    assert unfreezing_table(scores).row_count == 7
    by_choice = {choice: [s for s in scores if s.trained == choice] for choice in (NOTHING_ELSE, EVERYTHING)}
    order = {choice: np.mean([s.rank_correlation for s in chosen]) for choice, chosen in by_choice.items()}
    f1 = {choice: np.mean([s.macro_f1 for s in chosen]) for choice, chosen in by_choice.items()}
    print(order, f1)
    assert order[EVERYTHING] > order[NOTHING_ELSE] + 0.2
    assert f1[EVERYTHING] > f1[NOTHING_ELSE] - 0.02
