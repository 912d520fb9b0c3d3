"""The automatic diffusion time against MAGIC's rule with SciPy's Procrustes analysis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import procrustes

from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.diffusion_time import choose_diffusion_time, procrustes_disparity
from diffbio.operators.singlecell.imputation import diffusion_imputation, square_root_proportions


def pbmc(n_genes=200):
    scanpy = pytest.importorskip("scanpy")
    counts = np.expm1(scanpy.datasets.pbmc68k_reduced().raw.X.toarray()).astype(np.float32)
    rooted = 100 * np.asarray(square_root_proportions(counts))
    left, values, _ = np.linalg.svd(rooted - rooted.mean(0), full_matrices=False)
    return rooted[:, rooted.std(0).argsort()[-n_genes:]], (left * values)[:, :100]


def test_time_and_disparities_are_those_of_scipy_on_pbmc(certificate):
    rooted, components = pbmc()
    walk = np.asarray(diffusion_imputation(np.eye(len(rooted)), components, n_steps=1).imputed_counts, float)
    values, expected = rooted.astype(float), []
    for _ in range(12):
        moved = walk @ values
        expected.append(procrustes(values, moved)[2])
        values = moved
    for threshold in (0.01, 0.001):
        chosen = choose_diffusion_time(rooted, components, threshold=threshold, max_time=12)
        first = next(step for step, change in enumerate(expected, start=1) if change < threshold)
        print(f"threshold {threshold}: time {chosen.time}")
        assert chosen.time == first + 1
    difference = np.abs(np.asarray(chosen.disparities) - expected).max()
    certificate(
        operator="choose_diffusion_time",
        reference="SciPy's procrustes",
        data="PBMC 68k, 700 cells x 200 genes",
        quantity="largest difference of the disparities of 12 steps",
        value=difference,
        bar="<= 1e-5",
    )
    assert difference <= 1e-5


def test_walk_that_never_rests_takes_the_longest_time():
    cells = jnp.arange(40.0)[:, None]
    assert choose_diffusion_time(cells, cells, threshold=0.0, max_time=3).time == 3


def test_last_step_is_within_the_longest_time():
    cells = jnp.arange(40.0)[:, None]
    assert choose_diffusion_time(cells, cells, threshold=1.0, max_time=1).time == 1


@pytest.mark.parametrize("scale", [0.0, 1e-15, 1e15])
def test_any_scale_gives_finite_disparities(scale):
    x, y = np.random.default_rng(0).normal(size=(2, 30, 4)).astype(np.float32)
    found = float(procrustes_disparity(x * np.float32(scale), y))
    assert found == pytest.approx(procrustes(x, y)[2] if scale else 0.0, abs=1e-5)


def test_constant_values_are_at_rest():
    cells = jax.random.normal(jax.random.key(0), (20, 3))
    chosen = choose_diffusion_time(jnp.ones((20, 2)), cells)
    np.testing.assert_array_equal(chosen.disparities, 0.0)
    assert chosen.time == 2


def test_too_few_cells_are_refused():
    with pytest.raises(ContractError, match="distance to neighbour 5, but there are 5 cells"):
        choose_diffusion_time(jnp.ones((5, 2)), jnp.ones((5, 2)))
