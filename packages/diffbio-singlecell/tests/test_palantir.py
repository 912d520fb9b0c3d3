"""Palantir against palantir 1.4 and the hard algorithm in NumPy, on simulated fates and on real cells."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.singlecell.diffusion_components import diffusion_components
from diffbio.operators.singlecell.examples.palantir import forked_cells, hard_palantir
from diffbio.operators.singlecell.palantir import Palantir, PalantirConfig, palantir, palantir_space
from diffbio.operators.singlecell.terminal_states import find_terminal_cells
from diffbio.operators.singlecell.waypoints import boundary_cells, max_min_waypoints, start_cell

FATES = (159, 319, 479, 639)  # the last cells of the four simulated trajectories: Mo, Ery, Mk, Neu


def krumsiek() -> np.ndarray:
    """Return cells of the simulated myeloid progenitors, with measurement noise."""
    cells = pytest.importorskip("scanpy").datasets.krumsiek11().X
    return (cells + np.random.default_rng(0).normal(scale=0.05, size=cells.shape)).astype(np.float32)


def pbmc() -> tuple[np.ndarray, int]:
    """Return principal components of real cells, and the row of a hematopoietic stem cell."""
    cells = pytest.importorskip("scanpy").datasets.pbmc68k_reduced()
    return cells.obsm["X_pca"].astype(np.float32), int(np.flatnonzero(cells.obs["bulk_labels"] == "CD34+")[0])


def trajectory(cells, **config):
    return Palantir(PalantirConfig(**config)).apply({"embeddings": cells}, {}, None)[0]


def agreement(found, expected) -> dict[str, float]:
    """Return rank correlations of pseudotime and entropy, and the least correlation of a fate."""
    fates, theirs = np.asarray(found["fate_probabilities"]), expected["fate_probabilities"]
    return {
        "Spearman of pseudotime": spearmanr(found["pseudotime"], expected["pseudotime"])[0],
        "Spearman of entropy": spearmanr(found["fate_entropy"], expected["fate_entropy"])[0],
        "least correlation of a fate": min(pearsonr(*pair)[0] for pair in zip(fates.T, theirs.T, strict=True)),
    }


@pytest.mark.parametrize("n_neighbors", [9, 15])
def test_limit_is_the_hard_algorithm(n_neighbors: int, certificate) -> None:
    cells = forked_cells(150, noise=0.1)
    settings = {"early_cell": 0, "terminal_cells": (99, 149), "n_neighbors": n_neighbors, "n_waypoints": 60}
    config = PalantirConfig(**settings, n_components=6, temperature=1e-5)
    expected = hard_palantir(cells.astype(float), config)
    found = Palantir(config).apply({"embeddings": cells}, {}, None)[0]
    for key, bar in (("pseudotime", 1e-3), ("fate_probabilities", 1e-2)):
        error = np.abs(found[key] - expected[key]).max()
        certificate(
            operator="Palantir",
            reference="the hard algorithm in NumPy and SciPy",
            data=f"fork of 150 cells, {n_neighbors} neighbours",
            quantity=f"largest difference of {key}",
            value=error,
            bar=f"<= {bar:g}",
        )
        assert error <= bar


def by_palantir(cells, early, terminal, n_waypoints, *, use_early: bool):
    """Return what palantir finds, and the waypoints that it took, the start first."""
    library, pandas = pytest.importorskip("palantir"), pytest.importorskip("pandas")
    names = [f"cell {row}" for row in range(len(cells))]
    with contextlib.redirect_stdout(io.StringIO()):
        components = library.utils.run_diffusion_maps(pandas.DataFrame(cells.astype(float), index=names))
        space = library.utils.determine_multiscale_space(components)
        if terminal is None:
            terminal = library.core.identify_terminal_states(space, names[early], num_waypoints=n_waypoints)[0]
        else:
            terminal = [names[row] for row in terminal]
        results = library.core.run_palantir(
            space,
            names[early],
            terminal_states=list(terminal),
            num_waypoints=n_waypoints,
            use_early_cell_as_start=use_early,
        )
    rows = {name: row for row, name in enumerate(names)}
    found = {
        "pseudotime": results.pseudotime.to_numpy(),
        "fate_probabilities": results.branch_probs[list(terminal)].to_numpy(),
        "fate_entropy": results.entropy.to_numpy(),
    }
    return found, tuple(rows[name] for name in terminal), np.array([rows[name] for name in results.waypoints])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["krumsiek11", "PBMC 68k"])
def test_agrees_with_palantir(data: str, certificate) -> None:
    library = pytest.importorskip("palantir")
    cells, early = (krumsiek(), 0) if data == "krumsiek11" else pbmc()
    known = FATES if data == "krumsiek11" else None
    expected, terminal, waypoints = by_palantir(cells, early, known, 300, use_early=data == "krumsiek11")

    space = palantir_space(jnp.asarray(cells))
    if data == "PBMC 68k":
        assert int(start_cell(space, early)) == waypoints[0]
        assert find_terminal_cells(cells, early, n_waypoints=300) == tuple(sorted(terminal))
    same = palantir(space, jnp.asarray(waypoints), jnp.asarray(terminal))._asdict()
    settings = {"early_cell": early, "terminal_cells": terminal, "start_at_early_cell": data == "krumsiek11"}
    own = trajectory(cells, **settings, n_waypoints=300)
    for found, which, bars in (
        (same, "the same waypoints", (0.99, 0.99, 0.99)),
        (own, "own waypoints", (0.95, 0.95, 0.9)),
    ):
        for (quantity, value), bar in zip(agreement(found, expected).items(), bars, strict=True):
            certificate(
                operator="Palantir",
                reference=f"palantir {library.__version__}",
                data=data,
                quantity=f"{quantity}, {which}",
                value=value,
                bar=f">= {bar}",
            )
            assert value >= bar


def test_follows_the_simulated_fates() -> None:
    cells = krumsiek()
    found = trajectory(cells, early_cell=0, terminal_cells=FATES, start_at_early_cell=True, n_waypoints=200)
    time, fates = np.asarray(found["pseudotime"]), np.asarray(found["fate_probabilities"])
    for fate, end in enumerate(FATES):
        steps = np.arange(end - 159, end + 1)
        late = steps[-40:]
        print(
            f"fate {fate}: Spearman with simulated time {spearmanr(time[steps], steps)[0]:.3f}, "
            f"probability of its own last cells {fates[late, fate].mean():.3f}"
        )
        assert spearmanr(time[steps], steps)[0] > 0.85
        assert fates[late, fate].mean() > 0.8
    np.testing.assert_allclose(fates.sum(1), 1, atol=1e-3)


@pytest.fixture(scope="module")
def forked() -> jax.Array:
    return jnp.asarray(forked_cells(45))


SMALL = {"early_cell": 0, "terminal_cells": (29, 44), "n_neighbors": 9, "n_waypoints": 24, "n_components": 4}


def test_cells_out_of_reach_are_bridged(forked: jax.Array) -> None:
    found = trajectory(jnp.concatenate([forked, forked + 50.0]), **SMALL | {"n_waypoints": 40})
    assert all(np.isfinite(found[key]).all() for key in ("pseudotime", "fate_probabilities", "fate_entropy"))


@pytest.mark.parametrize("case", ["constant", "duplicates"])
def test_hard_cases_give_finite_values_and_gradients(forked: jax.Array, case: str) -> None:
    cells = {"constant": jnp.ones_like(forked), "duplicates": 1e12 * forked.at[5:20].set(forked[5])}
    operator = Palantir(PalantirConfig(**SMALL))

    def total(x):
        found = operator.apply({"embeddings": x}, {}, None)[0]
        return found["pseudotime"].sum() + found["fate_entropy"].sum(), found

    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(cells[case])
    assert all(np.isfinite(found[key]).all() for key in ("pseudotime", "fate_probabilities", "fate_entropy"))
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_neighborhoods_start_and_softness_matter(forked: jax.Array) -> None:
    default = trajectory(forked, **SMALL)
    for other in ({"n_neighbors": 12}, {"early_cell": 29}, {"temperature": 0.3}, {"n_components": 6}):
        found = trajectory(forked, **SMALL | other)
        assert max(np.abs(found[key] - default[key]).max() for key in ("pseudotime", "fate_entropy")) > 1e-3
    start = trajectory(forked, **SMALL | {"early_cell": 7, "start_at_early_cell": True})["pseudotime"]
    assert start.argmin() == 7


def test_waypoints_are_distinct_and_hold_what_they_must() -> None:
    space = jnp.asarray(np.random.default_rng(0).random((50, 3)), jnp.float32).at[:, 2].set(0.0)
    for n_waypoints in (12, 30, 50):
        waypoints = np.asarray(max_min_waypoints(space, 7, jnp.array([3, 4]), n_waypoints=n_waypoints))
        assert waypoints[0] == 7
        assert len(set(waypoints.tolist())) == n_waypoints
        assert {3, 4, *boundary_cells(space).tolist()} <= set(waypoints.tolist())
    duplicates = max_min_waypoints(jnp.zeros((9, 2)), 0, jnp.array([1]), n_waypoints=9)
    assert sorted(duplicates.tolist()) == list(range(9))


def test_an_encoder_learns_to_order_cells(forked: jax.Array) -> None:
    """Train a linear map of noisy coordinates so that the pseudotime follows a known order."""
    random = np.random.default_rng(0)
    noisy = jnp.concatenate([forked, jnp.asarray(random.normal(scale=0.6, size=(45, 2)), jnp.float32)], axis=1)
    third = jnp.linspace(0, 1, 15)
    order = jnp.concatenate([third, 1 + third, 1 + third]) / 2
    operator = Palantir(PalantirConfig(**SMALL | {"temperature": 0.02}))

    @jax.jit
    @jax.value_and_grad
    def loss(scales):
        time = operator.apply({"embeddings": noisy * scales}, {}, None)[0]["pseudotime"]
        return jnp.mean((time - order) ** 2)

    scales, losses = jnp.ones(5), []
    for _ in range(40):
        value, gradient = loss(scales)
        losses.append(float(value))
        scales = scales - 0.1 * gradient / jnp.linalg.norm(gradient)
    print(f"loss {losses[0]:.4f} -> {min(losses):.4f}; scales {np.round(scales, 2).tolist()}")
    assert min(losses) < 0.5 * losses[0]


def test_wrong_settings_are_refused(forked: jax.Array) -> None:
    with pytest.raises(ConfigError, match="must name at least one cell"):
        PalantirConfig(early_cell=0, terminal_cells=())
    with pytest.raises(ConfigError, match="n_waypoints is 10; it must be at least 30"):
        PalantirConfig(early_cell=0, terminal_cells=(1,), n_waypoints=10)
    with pytest.raises(ContractError, match="cell 99 is named, but there are 45"):
        trajectory(forked, **SMALL | {"terminal_cells": (99,)})
    with pytest.raises(ContractError, match="30 cells can't be had among 20 cells"):
        diffusion_components(jnp.zeros((20, 2)))
