"""Optimal transport between times against a float64 Sinkhorn in NumPy, POT, planted growth, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.optimize import linear_sum_assignment

from diffbio.core.errors import ConfigError, ContractError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.singlecell.optimal_transport import (
    OptimalTransportTrajectory,
    OptimalTransportTrajectoryConfig,
    transport_cells,
)


def real_times() -> tuple[np.ndarray, np.ndarray]:
    """Return two halves of the PBMC as if they were two times: their principal components, the later ones moved."""
    expression = pbmc68k_reduced().X.toarray()
    left, values, _ = np.linalg.svd(expression - expression.mean(0), full_matrices=False)
    cells = (left[:, :10] * values[:10]).astype(np.float32)
    return cells[:300], cells[300:] + 0.3


def costs_of(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    squared = np.sum((source[:, None].astype(float) - target) ** 2, axis=-1)
    return squared / squared.mean()


def sinkhorn(costs, masses, softness, tau_source=1.0, tau_target=1.0, n_iterations=5000) -> np.ndarray:
    """Return the plan by the textbook iteration in the logarithmic domain, in float64."""
    from scipy.special import logsumexp

    log_a, log_b = np.log(masses), np.full(costs.shape[1], -np.log(costs.shape[1]))
    f, g = np.zeros(costs.shape[0]), np.zeros(costs.shape[1])
    for _ in range(n_iterations):
        before = f
        f = tau_source * softness * (log_a - logsumexp((g - costs) / softness, axis=1))
        g = tau_target * softness * (log_b - logsumexp((f[:, None] - costs) / softness, axis=0))
        if np.abs(f - before).max() < 1e-9:
            break
    return np.exp((f[:, None] + g - costs) / softness)


@pytest.mark.slow
@pytest.mark.parametrize(("tau_source", "tau_target"), [(1.0, 1.0), (0.8, 0.95)])
def test_plan_is_that_of_a_float64_sinkhorn(tau_source: float, tau_target: float, certificate) -> None:
    source, target = real_times()
    rates = np.random.default_rng(0).uniform(0.5, 2.0, len(source)).astype(np.float32)
    found = transport_cells(source, target, rates, tau_source=tau_source, tau_target=tau_target)
    expected = sinkhorn(costs_of(source, target), rates.astype(float) / rates.sum(), 0.05, tau_source, tau_target)
    expected /= expected.sum()
    error = np.abs(found.transport_plan - expected).max() / expected.max()
    certificate(
        operator="OptimalTransportTrajectory",
        reference="log-domain Sinkhorn in NumPy, float64",
        data=f"PBMC 68k, 300 to 400 cells, tau {tau_source:g} and {tau_target:g}",
        quantity="largest difference over the largest entry of the plan",
        value=error,
        bar="<= 1e-4",
    )
    assert error <= 1e-4
    np.testing.assert_allclose(found.growth, 300 * expected.sum(1), rtol=1e-3)
    positions = expected @ target / expected.sum(1, keepdims=True)
    np.testing.assert_allclose(found.descendants, positions, atol=1e-3 * np.abs(target).max())


@pytest.mark.slow
@pytest.mark.parametrize("balanced", [True, False])
def test_plan_is_that_of_pot(balanced: bool, certificate) -> None:
    ot = pytest.importorskip("ot")
    source, target = real_times()
    costs, softness, tau = costs_of(source, target), 0.05, 1.0 if balanced else 0.9
    a, b = np.full(300, 1 / 300), np.full(400, 1 / 400)
    if balanced:
        expected = ot.sinkhorn(a, b, costs, softness, method="sinkhorn_log", numItermax=5000, stopThr=1e-10)
    else:
        penalty = softness * tau / (1 - tau)
        expected = ot.unbalanced.sinkhorn_unbalanced(
            a, b, costs, softness, (penalty, penalty), reg_type="entropy", numItermax=20000, stopThr=1e-12
        )
    found = transport_cells(source, target, tau_source=tau, tau_target=tau).transport_plan
    error = np.abs(found - expected / expected.sum()).max() / expected.max()
    certificate(
        operator="OptimalTransportTrajectory",
        reference=f"POT {ot.__version__}",
        data=f"PBMC 68k, 300 to 400 cells, {'balanced' if balanced else 'unbalanced'}",
        quantity="largest difference over the largest entry of the plan",
        value=error,
        bar="<= 1e-4",
    )
    assert error <= 1e-4


@pytest.mark.slow
def test_plan_is_that_of_ott(certificate) -> None:
    ott = pytest.importorskip("ott")
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    source, target = real_times()
    geometry = PointCloud(jnp.asarray(source), jnp.asarray(target), epsilon=0.05, scale_cost="mean")
    solve = Sinkhorn(threshold=1e-6, max_iterations=5000)
    expected = np.asarray(jax.jit(solve)(LinearProblem(geometry, tau_a=0.9)).matrix)
    found = transport_cells(source, target, tau_source=0.9).transport_plan
    error = np.abs(found - expected / expected.sum()).max() / expected.max()
    certificate(
        operator="OptimalTransportTrajectory",
        reference=f"OTT-JAX {ott.__version__}",
        data="PBMC 68k, 300 to 400 cells, tau 0.9 and 1",
        quantity="largest difference over the largest entry of the plan",
        value=error,
        bar="<= 1e-3",
    )
    assert error <= 1e-3


def test_marginals_of_a_balanced_plan_are_right(certificate) -> None:
    source, target = real_times()
    rates = np.random.default_rng(0).uniform(0.5, 2.0, len(source)).astype(np.float32)
    plan = np.asarray(transport_cells(source, target, rates).transport_plan)
    given, received = plan.sum(1) - rates / rates.sum(), plan.sum(0) - 1 / len(target)
    error = max(np.abs(given).sum(), np.abs(received).sum())
    certificate(
        operator="OptimalTransportTrajectory",
        reference="prescribed marginals",
        data="PBMC 68k, 300 to 400 cells",
        quantity="summed error of a marginal",
        value=error,
        bar="<= 1e-4",
    )
    assert error <= 1e-4


def test_limit_is_the_assignment() -> None:
    random = np.random.default_rng(0)
    source = random.normal(size=(40, 5)).astype(np.float32)
    target = (source[random.permutation(40)] + 0.1 * random.normal(size=(40, 5))).astype(np.float32)
    assigned = linear_sum_assignment(costs_of(source, target))[1]
    errors = []
    for softness in (0.3, 0.1, 0.03, 0.01, 0.003):
        plan = transport_cells(source, target, softness=softness).transport_plan
        errors.append(float(np.abs(40 * plan - np.eye(40)[assigned]).max()))
    print("difference from the assignment as the softness falls:", " ".join(f"{error:.1e}" for error in errors))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def growing(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return cells of three types, their later descendants 0.5, 1 or 2 for each, and both times' types."""
    random = np.random.default_rng(seed)
    centres = 6 * np.eye(3, 8)
    early = np.repeat(np.arange(3), n_cells)
    late = np.repeat(np.arange(3), [n_cells // 2, n_cells, 2 * n_cells])
    source, target = (centres[types] + random.normal(size=(len(types), 8)) for types in (early, late))
    return source.astype(np.float32), (target + 0.5).astype(np.float32), early, late


def test_planted_growth_is_recovered(certificate) -> None:
    source, target, early, late = growing(80, seed=0)
    planted = np.array([0.5, 1.0, 2.0])[early]
    found = transport_cells(source, target, tau_source=0.8)
    growth = np.asarray(found.growth) * len(target) / len(source)
    for quantity, value, bar in (
        ("correlation of the cells' growth", np.corrcoef(growth, planted)[0, 1], 0.9),
        ("slope of growth on planted growth", np.polyfit(planted, growth, 1)[0], 0.9),
    ):
        certificate(
            operator="OptimalTransportTrajectory",
            reference="planted growth 0.5, 1, 2",
            data="240 to 280 cells of three simulated types",
            quantity=quantity,
            value=value,
            bar=f">= {bar:g}",
        )
        assert value >= bar
    np.testing.assert_allclose([growth[early == k].mean() for k in range(3)], [0.5, 1, 2], rtol=0.1)
    into = np.asarray(found.transport_plan) @ np.eye(3)[late]
    kept = into[np.arange(len(early)), early].sum()
    given = transport_cells(source, target, planted.astype(np.float32))
    into = np.asarray(given.transport_plan) @ np.eye(3)[late]
    known = into[np.arange(len(early)), early].sum()
    ignored = np.asarray(transport_cells(source, target).transport_plan) @ np.eye(3)[late]
    blind = ignored[np.arange(len(early)), early].sum()
    print(f"mass that stays in its type: growth estimated {kept:.3f}, given {known:.3f}, ignored {blind:.3f}")
    assert min(kept, known) > 0.95 > blind


def test_growth_is_the_prior_where_it_is_kept() -> None:
    source, target, _, _ = growing(20, seed=1)
    rates = np.random.default_rng(0).uniform(0.0, 2.0, len(source)).astype(np.float32)
    rates[3] = 0.0
    growth = transport_cells(source, target, rates).growth
    np.testing.assert_allclose(growth, rates / rates.mean(), atol=1e-4)


@pytest.mark.parametrize(("tau", "block_size"), [(1.0, 4), (0.8, 1024)])
def test_gradients_are_right(tau: float, block_size: int) -> None:
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        source, target = jnp.asarray(random.normal(size=(6, 2))), jnp.asarray(random.normal(size=(8, 2)))
        rates = jnp.asarray(random.uniform(0.5, 2.0, 6))

        @jax.jit
        def found(source, target, rates, softness):
            return transport_cells(
                source, target, rates, softness=softness, tau_source=tau, tau_target=tau, block_size=block_size
            )

        point = (source, target, rates, jnp.asarray(0.2))
        check_grads(found, point, order=1, modes=("rev",), eps=1e-5, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("softness", [1e-3, 0.05, 10.0])
@pytest.mark.parametrize("case", ["zeros", "duplicates", "tiny", "huge", "one cell", "no growth"])
def test_hard_cases_give_finite_values_and_gradients(case: str, softness: float) -> None:
    random = np.random.default_rng(0)
    source, target = (random.normal(size=(n, 3)).astype(np.float32) for n in (9, 7))
    source[: 6 if case == "duplicates" else 0] = source[0]
    source = source[:1] if case == "one cell" else source
    rates = jnp.ones(len(source)).at[: 5 if case == "no growth" else 0].set(0.0)
    scale = {"zeros": 0.0, "tiny": 1e-15, "huge": 1e15}.get(case, 1.0)

    def found(source, target, rates):
        return transport_cells(source, target, rates, softness=softness, tau_source=0.9)

    result, pull = jax.vjp(found, jnp.asarray(scale * source), jnp.asarray(scale * target), rates)
    assert all(np.isfinite(value).all() for value in result)
    assert all(np.isfinite(value).all() for value in pull(jax.tree.map(jnp.ones_like, result)))


def test_blocks_do_not_change_the_plan() -> None:
    source, target = real_times()
    whole, blocks = (transport_cells(source, target, block_size=size) for size in (1024, 64))
    np.testing.assert_allclose(whole.transport_plan, blocks.transport_plan, atol=1e-7)


@pytest.mark.slow
def test_memory_is_linear_in_cells() -> None:
    scratch = []
    for n_cells in (2000, 4000):
        cells = jax.ShapeDtypeStruct((n_cells, 5), jnp.float32)
        moved = jax.grad(lambda x, y: (transport_cells(x, y).descendants ** 2).sum())
        scratch.append(jax.jit(moved).lower(cells, cells).compile().memory_analysis().temp_size_in_bytes / n_cells)
    print(f"scratch of a gradient through descendants, per cell: {scratch[0]:.0f} and {scratch[1]:.0f} bytes")
    assert scratch[1] < 1.2 * scratch[0]


def test_growth_rates_learn_where_cells_go() -> None:
    """Train growth rates so that the descendants of each cell are where its type is later."""
    source, target, early, late = growing(20, seed=2)
    centres = jnp.asarray([target[late == k].mean(0) for k in range(3)])[early]

    @jax.jit
    @jax.value_and_grad
    def loss(log_rates):
        descendants = transport_cells(source, target, jnp.exp(log_rates)).descendants
        return jnp.mean((descendants - centres) ** 2)

    log_rates, losses = jnp.zeros(len(source)), []
    for _ in range(60):
        value, gradient = loss(log_rates)
        losses.append(float(value))
        log_rates = log_rates - 0.1 * gradient / jnp.abs(gradient).max()
    means = [float(jnp.exp(log_rates)[early == k].mean()) for k in range(3)]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; mean rates of the types {np.round(means, 2).tolist()}")
    assert losses[-1] < 0.7 * losses[0]
    assert means == sorted(means)


def test_wrong_settings_and_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tau_source is 1\.5"):
        OptimalTransportTrajectoryConfig(tau_source=1.5)
    operator = OptimalTransportTrajectory(OptimalTransportTrajectoryConfig())
    with pytest.raises(ContractError, match="features is 3"):
        operator.apply({"source_embeddings": jnp.ones((4, 2)), "target_embeddings": jnp.ones((5, 3))}, {}, None)
