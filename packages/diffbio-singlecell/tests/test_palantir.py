"""Palantir against palantir 1.4 and the hard algorithm in NumPy, on simulated fates and on real cells."""

import contextlib
import io
import time

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


@pytest.mark.parametrize("n_neighbors", [9, pytest.param(15, marks=pytest.mark.slow)])
def test_limit_is_the_hard_algorithm(n_neighbors: int, certificate) -> None:
    cells = forked_cells(150, noise=0.1)
    settings = {"early_cell": 0, "terminal_cells": (99, 149), "n_neighbors": n_neighbors, "n_waypoints": 60}
    config = PalantirConfig(**settings, n_components=6, temperature=1e-5)
    expected = hard_palantir(cells.astype(float), config)
    found = Palantir(config).apply({"embeddings": cells}, {}, None)[0]
    for key in ("pseudotime", "fate_probabilities"):
        error = np.abs(found[key] - expected[key]).max()
        certificate(
            operator="Palantir",
            reference="the hard algorithm in NumPy and SciPy",
            data=f"fork of 150 cells, {n_neighbors} neighbours",
            quantity=f"largest difference of {key}",
            value=error,
            bar="<= 1e-4",
        )
        assert error <= 1e-4


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
            n_jobs=1,
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


def median_cpu_time(run) -> float:
    run()  # compiles
    times = []
    for _ in range(3):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return sorted(times)[1]


@pytest.mark.slow
@pytest.mark.parametrize("data", ["line of 3,000 cells", "PBMC 68k"])
def test_takes_no_longer_than_palantir(data: str, certificate) -> None:
    library = pytest.importorskip("palantir")
    if data == "PBMC 68k":
        (cells, early), terminal, n_waypoints = pbmc(), (100, 200), 300
    else:
        noise = np.random.default_rng(0).normal(scale=0.05, size=(3000, 2))
        cells = (np.linspace([0, 0], [300, 0], 3000) + noise).astype(np.float32)
        early, terminal, n_waypoints = 0, (2999,), 500
    config = PalantirConfig(
        early_cell=early, terminal_cells=terminal, start_at_early_cell=True, n_waypoints=n_waypoints
    )
    order = jax.jit(lambda x: Palantir(config).apply({"embeddings": x}, {}, None)[0])
    theirs = median_cpu_time(lambda: by_palantir(cells, early, terminal, n_waypoints, use_early=True))
    ours = median_cpu_time(lambda: jax.block_until_ready(order(cells)))
    print(f"{data}: diffbio {ours:.2f} s, palantir {theirs:.2f} s")
    certificate(
        operator="Palantir",
        reference=f"palantir {library.__version__}",
        data=f"{data}, {n_waypoints} waypoints",
        quantity="ratio of CPU times",
        value=ours / theirs,
        bar="<= 5",
    )
    assert ours <= 5 * theirs


@pytest.mark.slow
def test_follows_the_simulated_fates() -> None:
    cells = krumsiek()
    found = trajectory(cells, early_cell=0, terminal_cells=FATES, start_at_early_cell=True, n_waypoints=200)
    order, fates = np.asarray(found["pseudotime"]), np.asarray(found["fate_probabilities"])
    for fate, end in enumerate(FATES):
        steps = np.arange(end - 159, end + 1)
        late = steps[-40:]
        print(
            f"fate {fate}: Spearman with simulated time {spearmanr(order[steps], steps)[0]:.3f}, "
            f"probability of its own last cells {fates[late, fate].mean():.3f}"
        )
        assert spearmanr(order[steps], steps)[0] > 0.85
        assert fates[late, fate].mean() > 0.8
    np.testing.assert_allclose(fates.sum(1), 1, atol=1e-3)


@pytest.fixture(scope="module")
def forked() -> jax.Array:
    return jnp.asarray(forked_cells(45))


SMALL = {"early_cell": 0, "terminal_cells": (29, 44), "n_neighbors": 9, "n_waypoints": 24, "n_components": 4}


ORDER = np.concatenate([np.linspace(0, 0.5, 15), np.linspace(0.5, 1, 15), np.linspace(0.5, 1, 15)])  # of the fork


@pytest.fixture(scope="module")
def misorder():
    """Return how far the pseudotime is from the order of the fork, and its gradient: compiled once for all tests."""
    operator = Palantir(PalantirConfig(**SMALL | {"temperature": 0.02}))

    def squared(cells):
        found = operator.apply({"embeddings": cells}, {}, None)[0]
        return jnp.mean((found["pseudotime"] - ORDER) ** 2) + 1e-9 * found["fate_entropy"].sum(), found

    return jax.jit(jax.value_and_grad(squared, has_aux=True))


@pytest.mark.parametrize("case", ["constant", "duplicates", "islands"])
def test_hard_cases_give_finite_values_and_gradients(forked: jax.Array, misorder, case: str) -> None:
    cells = {
        "constant": jnp.ones_like(forked),
        "duplicates": 1e12 * forked.at[5:20].set(forked[5]),
        "islands": forked.at[23:].add(50.0),
    }[case]
    (_, found), gradient = misorder(jnp.pad(cells, ((0, 0), (0, 2))))
    assert all(np.isfinite(found[key]).all() for key in ("pseudotime", "fate_probabilities", "fate_entropy"))
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_an_encoder_learns_to_order_cells(forked: jax.Array, misorder) -> None:
    """Train a scaling of noisy coordinates so that the pseudotime follows a known order."""
    noise = np.random.default_rng(0).normal(scale=0.6, size=(45, 2))
    noisy = jnp.concatenate([forked, jnp.asarray(noise, jnp.float32)], axis=1)
    scales, losses = jnp.ones(5), []
    for _ in range(40):
        (loss, _), gradient = misorder(noisy * scales)
        losses.append(float(loss))
        pulled = jnp.sum(noisy * gradient, axis=0)
        scales = scales - 0.1 * pulled / jnp.linalg.norm(pulled)
    print(f"loss {losses[0]:.4f} -> {min(losses):.4f}; scales {np.round(scales, 2).tolist()}")
    assert min(losses) < 0.5 * losses[0]


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


def test_wrong_settings_are_refused(forked: jax.Array) -> None:
    with pytest.raises(ConfigError, match="must name at least one cell"):
        PalantirConfig(early_cell=0, terminal_cells=())
    with pytest.raises(ConfigError, match="n_waypoints is 10; it must be at least 30"):
        PalantirConfig(early_cell=0, terminal_cells=(1,), n_waypoints=10)
    with pytest.raises(ContractError, match="cell 99 is named, but there are 45"):
        trajectory(forked, **SMALL | {"terminal_cells": (99,)})
    with pytest.raises(ContractError, match="30 cells can't be had among 20 cells"):
        diffusion_components(jnp.zeros((20, 2)))
