"""Component selection: its limit against scikit-learn's choice, its learning, its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads
from sklearn.decomposition import PCA

from diffbio.core.errors import ConfigError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.component_selection import (
    ComponentSelection,
    ComponentSelectionConfig,
    component_gates,
    variance_before,
)


@pytest.mark.parametrize("coverage", [0.3, 0.5, 0.8, 0.95])
def test_the_limit_keeps_as_many_components_as_scikit_learn(coverage: float, certificate) -> None:
    x = pbmc68k_reduced().X.toarray()[:, :200]
    embeddings = PCA(svd_solver="full").fit_transform(x).astype(np.float32)
    wanted = PCA(coverage, svd_solver="full").fit(x).n_components_
    config = ComponentSelectionConfig(n_features=200, coverage=coverage, temperature=1e-6)
    selection = ComponentSelection(config)
    selection.initialize(jnp.asarray(embeddings))
    data = selection.apply({"embeddings": embeddings}, {}, None)[0]
    kept = float(data["component_gate"].sum())
    certificate(
        operator="ComponentSelection",
        reference="scikit-learn PCA",
        data=f"PBMC 68k, 700 x 200, coverage {coverage}",
        quantity=f"difference from the {wanted} components kept",
        value=abs(kept - wanted),
        bar="< 0.1",
    )
    assert abs(kept - wanted) < 0.1
    np.testing.assert_array_equal(data["embeddings"], embeddings)
    assert np.abs(data["selected_embeddings"][:, wanted:]).max() < 1e-3


def test_the_order_of_components_does_not_matter() -> None:
    variances = jnp.array([0.5, 4.0, 1.0, 2.0])
    order = jnp.array([3, 0, 2, 1])
    np.testing.assert_allclose(variance_before(variances)[order], variance_before(variances[order]), rtol=1e-6)


def test_a_price_per_component_lowers_the_coverage_and_no_price_raises_it() -> None:
    random = np.random.default_rng(0)
    embeddings = jnp.asarray(random.normal(size=(100, 6)) * [5, 4, 3, 0.3, 0.2, 0.1], jnp.float32)

    def trained(price: float) -> float:
        selection = ComponentSelection(ComponentSelectionConfig(n_features=6, coverage=0.8, temperature=0.05))
        selection.initialize(embeddings)
        graphdef, params, rest = nnx.split(selection, nnx.Param, ...)
        optimizer = optax.adam(0.05)

        def loss(params: nnx.State) -> jax.Array:
            chosen = nnx.merge(graphdef, params, rest).compute(embeddings)
            lost = jnp.square(embeddings - chosen.selected_embeddings).sum(1).mean()
            return lost + price * chosen.component_gate.sum()

        @jax.jit
        def step(params: nnx.State, state: optax.OptState) -> tuple:
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        state = optimizer.init(params)
        for _ in range(200):
            params, state = step(params, state)
        return float(nnx.merge(graphdef, params, rest).compute(embeddings).component_gate.sum())

    kept = [trained(price) for price in (0.0, 1.0, 100.0)]
    print("components kept at a price of 0, 1 and 100:", [round(k, 2) for k in kept])
    assert kept[0] > kept[1] > kept[2]


def test_gradients_match_finite_differences() -> None:
    before = jnp.array([0.0, 0.5, 0.8, 0.95])
    check_grads(
        lambda c, s: component_gates(before, c, softness=s),
        (jnp.float32(0.7), jnp.float32(0.2)),
        order=1,
        modes=["rev", "fwd"],
        rtol=1e-2,
        atol=1e-2,
    )


@pytest.mark.parametrize(
    "cells",
    [np.zeros((5, 3)), np.ones((5, 3)), np.ones((1, 3)), 1e30 * np.eye(5, 3), 1e-30 * np.eye(5, 3)],
    ids=["zero", "constant", "one cell", "huge", "tiny"],
)
def test_degenerate_cells_give_finite_gates_and_gradients(cells: np.ndarray) -> None:
    cells = jnp.asarray(cells, jnp.float32)
    selection = ComponentSelection(ComponentSelectionConfig(n_features=3))
    selection.initialize(cells)
    gradient = nnx.grad(lambda s: s.compute(cells).component_gate.sum())(selection)
    gate = selection.compute(cells).component_gate
    assert float(gate[0]) > 0.99
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_learnable_holds_a_parameter_and_fixed_holds_none() -> None:
    for learnable in (True, False):
        selection = ComponentSelection(ComponentSelectionConfig(n_features=3, learnable=learnable))
        assert len(jax.tree.leaves(nnx.state(selection, nnx.Param))) == int(learnable)
    with pytest.raises(ConfigError, match=r"coverage is 1\.0"):
        ComponentSelectionConfig(n_features=3, coverage=1.0)
