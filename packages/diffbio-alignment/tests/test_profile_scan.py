"""Sums over the paths of a profile HMM: beside all paths written out, beside theory, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_path import every_path
from jax.test_util import check_grads

from diffbio.operators.alignment.plan7 import Plan7, path_weights
from diffbio.operators.alignment.profile_partition import STATES, best_profile_path, path_sum
from diffbio.operators.alignment.profile_scan import PathWeights, forward
from diffbio.operators.alignment.semirings import LOG, NEVER

summed, best_of = jax.jit(path_sum), jax.jit(best_profile_path)
UNIFORM = jnp.full(4, 0.25)
KINDS = [(local, multihit) for local in (True, False) for multihit in (True, False)]


def random_core(n_nodes: int = 3, *, inserts: bool = True, seed: int = 0) -> Plan7:
    random = np.random.default_rng(seed)

    def logs(*shape: int) -> jax.Array:
        return jnp.asarray(np.log(random.dirichlet(np.ones(shape[-1]), size=shape[0])), jnp.float32)

    insert = logs(n_nodes - 1, 4) if inserts else None
    return Plan7(logs(n_nodes, 4), logs(n_nodes, 3), logs(n_nodes - 1, 2), logs(n_nodes - 1, 2), insert)


def random_letters(n_positions: int = 4, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).dirichlet(np.full(4, 0.5), size=n_positions), jnp.float32)


def weights_of(*, local: bool, multihit: bool, length: int = 4, **options) -> PathWeights:
    return path_weights(
        random_core(**options), random_letters(), jnp.array(length), frequencies=UNIFORM, local=local, multihit=multihit
    )


@pytest.mark.parametrize(("local", "multihit"), KINDS)
@pytest.mark.parametrize("length", [1, 3, 4])
def test_sum_counts_and_best_path_are_those_of_all_paths(local: bool, multihit: bool, length: int) -> None:
    weights = weights_of(local=local, multihit=multihit, length=length)
    found = summed(weights, jnp.array(length))
    best = best_of(weights, jnp.array(length))
    paths = [path for path in every_path(jax.tree.map(np.asarray, weights), length) if path.weight > NEVER / 2]
    each = np.array([path.weight for path in paths])
    log_sum = np.logaddexp.reduce(each)
    match, insert = np.zeros((2, 4, 3))
    for path, share in zip(paths, np.exp(each - log_sum), strict=True):
        for place, (state, node) in enumerate(path.states):
            match[place, node - 1] += share * (state == "M")
            insert[place, node - 1] += share * (state == "I")
    assert float(found.log_sum) == pytest.approx(log_sum, abs=1e-5)
    np.testing.assert_allclose(found.counts.emissions.match, match, atol=1e-5)
    np.testing.assert_allclose(found.counts.emissions.insert, insert, atol=1e-5)
    entries = np.exp(each - log_sum) @ [path.entries for path in paths]
    assert float(found.counts.moves.begin.sum()) == pytest.approx(entries, abs=1e-5)
    assert float(best.weight) == pytest.approx(each.max(), abs=1e-5)
    states = [(STATES[state], node) for state, node in zip(best.state.tolist(), best.node.tolist(), strict=True)]
    assert tuple(states[:length]) == paths[int(each.argmax())].states


@pytest.mark.parametrize(("local", "multihit"), KINDS)
def test_probabilities_sum_to_one(local: bool, multihit: bool) -> None:
    """Letters that are the background's have odds 1, so that the sum is the probability of a length.

    What a glocal profile lacks is the pass that deletes all nodes, which emits nothing.
    """
    core = random_core()
    letters = jnp.tile(UNIFORM, (400, 1))
    weights = path_weights(core, letters, jnp.array(6), frequencies=UNIFORM, local=local, multihit=multihit)
    lengths = jnp.arange(401)
    total = float(jnp.exp(jax.vmap(lambda length: forward(weights, length, LOG)[0])(lengths)).sum())
    silent = 0.0 if local else float(jnp.exp(core.from_match[0, 2] + core.from_delete[:, 1].sum()))
    passed = 1 - silent
    theory = passed / 2 / (1 - passed / 2) if multihit else passed
    print(f"sum of probabilities {total:.6f}, theory {theory:.6f}")
    assert total == pytest.approx(theory, abs=2e-5)


def test_a_mixture_of_letters_has_the_sum_of_the_probabilities() -> None:
    core, frequencies = random_core(), jnp.array([0.4, 0.3, 0.2, 0.1])

    @jax.jit
    def odds(letters: jax.Array) -> jax.Array:
        weights = path_weights(core, letters, jnp.array(3), frequencies=frequencies)
        return jnp.exp(forward(weights, jnp.array(3), LOG)[0])

    words = jnp.stack(jnp.meshgrid(*[jnp.arange(4)] * 3), axis=-1).reshape(-1, 3)
    each = jax.vmap(odds)(jnp.eye(4)[words])
    mixed = odds(jnp.tile(frequencies, (3, 1)))
    assert float(jnp.sum(each * frequencies[words].prod(axis=1))) == pytest.approx(float(mixed), rel=1e-5)


def test_padding_changes_nothing_whatever_stands_there() -> None:
    core = random_core()
    letters = jnp.concatenate([random_letters(), jnp.full((3, 4), 7.0)])

    @jax.jit
    @jax.value_and_grad
    def score(letters: jax.Array, length: jax.Array) -> jax.Array:
        return path_sum(path_weights(core, letters, length, frequencies=UNIFORM), length).log_sum

    value, slopes = score(letters, jnp.array(4))
    assert float(value) == pytest.approx(
        float(summed(weights_of(local=True, multihit=True), jnp.array(4)).log_sum), abs=1e-6
    )
    assert float(jnp.abs(slopes[4:]).max()) == 0
    assert all(bool(jnp.isfinite(score(letters, jnp.array(length))[1]).all()) for length in (0, 1, 7))


@jax.jit
def log_sum_of(weights: PathWeights) -> jax.Array:
    return path_sum(weights, jnp.array(4)).log_sum


@jax.jit
def statistic_of(weights: PathWeights) -> jax.Array:
    counts = path_sum(weights, jnp.array(4)).counts
    return (counts.emissions.match**2).sum() + counts.moves.begin @ jnp.arange(3.0) + counts.moves.transitions.md.sum()


@pytest.mark.slow
@pytest.mark.parametrize("local", [pytest.param(True, marks=pytest.mark.slow), False])
def test_derivatives_are_those_of_differences_also_of_the_counts(local: bool) -> None:
    weights = weights_of(local=local, multihit=True)
    for function in (log_sum_of, statistic_of):
        check_grads(jax.jit(function), (weights,), order=1, modes=["rev"], eps=1e-2, atol=1e-2, rtol=1e-2)


@pytest.mark.slow
def test_a_chain_of_sure_and_impossible_deletions_stays_exact() -> None:
    """A core whose inner nodes are always deleted, except one that can't be."""
    core = random_core(6)
    sure, never = jnp.log(jnp.array([1e-30, 1.0])), jnp.log(jnp.array([1.0, 1e-30]))
    core = core._replace(from_delete=jnp.stack([sure, sure, never, sure, sure]))
    weights = path_weights(core, random_letters(), jnp.array(4), frequencies=UNIFORM, local=False, multihit=False)
    paths = [path.weight for path in every_path(jax.tree.map(np.asarray, weights), 4) if path.weight > NEVER / 2]
    assert float(log_sum_of(weights)) == pytest.approx(np.logaddexp.reduce(paths), abs=1e-4)
