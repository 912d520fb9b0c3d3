"""As softness -> 0 every relaxation becomes the hard function; ties as documented. The largest errors are printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, FAMILIES, other, softness_far_below

from diffbio.core import soft_ops

N = 12
MOST = 1e-5
SAME_BUT_FOR_Q = ("argquantile", "quantile", "argmedian", "median", "argpercentile", "percentile")
by_name = {case.name: case for case in CASES}
each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
each_index = pytest.mark.parametrize("case", [case for case in CASES if case.index], ids=lambda case: case.name)


def inputs():
    """Return rows of each kind, (draws, kinds, n): random, with ties, sorted, reversed and constant."""
    draws = np.random.default_rng(0).normal(size=(2, N)).astype(np.float32)
    tied = draws.copy()
    tied[:, [3, 0, 5]] = draws[:, [7, 11, 7]]  # a pair and a triple
    kinds = [draws, tied, np.sort(tied, axis=-1), -np.sort(-draws, axis=-1), np.full_like(draws, 0.7)]
    return np.stack(kinds, axis=1)


def softness_of_rows(case, x):
    return np.apply_along_axis(lambda row: [softness_far_below(case, row)], -1, x).astype(np.float32)


@each_case
def test_every_mode_and_method_has_the_hard_limit(case):
    x = inputs()
    expected = np.asarray(case.limit(x))
    # compiled as a whole, as users do; quantiles that differ in q alone share what is compiled inside of them
    run = (lambda function: function) if case.name in SAME_BUT_FOR_Q else jax.jit
    found = run(lambda x, s: {pair: case.soft(x, s, *pair) for pair in case.combinations()})(
        x, softness_of_rows(case, x)
    )
    assert {result.shape for result in found.values()} == {expected.shape}
    errors = {pair: np.max(np.abs(result - expected)) for pair, result in found.items()}
    print(f"{case.name}: {max(errors.values()):.1e} ({len(found)} combinations)")
    assert all(error <= MOST for error in errors.values()), errors


COMPUTED = [
    ("sort", "c0", "softsort"),
    ("sort", "smooth", "neuralsort"),
    ("sort", "smooth", "sinkhorn"),
    ("top_k", "c0", "softsort"),
    ("rank", "c0", "pairwise"),
    ("quantile", "c0", "softsort"),
    ("top_k_mask", "smooth", None),
    ("cumulative_max", "c0", None),
]


@pytest.mark.parametrize(("name", "mode", "method"), COMPUTED)
def test_limit_holds_for_entries_that_are_computed_in_the_same_program(name, mode, method):
    """The compiler may compute an entry twice, rounded differently; at 1e5 the floats are as far apart as the softness.

    If the two were compared with each other, an entry would not be equal to itself.
    """
    case = by_name[name]
    a, b = jnp.asarray(np.random.default_rng(0).normal(size=(2, 13)), jnp.float32)

    def entries(a, b):
        return 1e5 * a[:, None] * b[None] / 3

    x = np.asarray(jax.jit(entries)(a, b))
    assert np.diff(np.sort(x, axis=-1)).min() > 5
    found = jax.jit(lambda a, b: case.soft(entries(a, b), 0.01, mode, method))(a, b)
    np.testing.assert_allclose(found, case.limit(x), rtol=1e-6, atol=1e-6)


@each_index
def test_limit_of_an_index_is_a_distribution_over_what_the_hard_answer_is(case):
    """Anchors the documented sharing of ties, which `limit` spells out, in the answers of jnp."""
    x = inputs()
    limit, hard = case.limit(x), np.asarray(case.hard(x))
    picked = x if case.result == "value" else x[..., None, :]
    np.testing.assert_allclose((limit * picked).sum(-1), (hard * picked).sum(-1), atol=1e-6)
    np.testing.assert_allclose(limit.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["argmax", "argsort", "top_k indices", "argquantile"])
def test_logarithms_are_those_of_the_distributions(name):
    x, case = inputs(), by_name[name]
    method = next(iter(case.methods))
    modes = [("smooth", method), ("c1", method), ("hard", None)]
    both = jax.jit(lambda x: [(case.soft(x, 0.3, *mode), case.soft(x, 0.3, *mode, log=True)) for mode in modes])(x)
    for plain, logs in both:
        np.testing.assert_allclose(jnp.exp(logs), plain, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if None not in case.methods], ids=lambda case: case.name)
def test_auto_is_the_documented_method(case):
    x = inputs()
    documented = {"smooth": next(iter(case.methods))}  # for all modes, but for rank
    for mode, method in (documented | ({"c0": "pairwise"} if case.name == "rank" else {})).items():
        auto = case.soft(x, 0.3, mode, "auto")
        np.testing.assert_array_equal(auto, case.soft(x, 0.3, mode, method))
        np.testing.assert_array_equal(auto, case.soft(x, 0.3, mode))


def one_hot(index, n=N):
    return jax.nn.one_hot(index, n)


def true(x):
    return (x > 0).astype(jnp.float32)


# for truth values 0 and 1 and one-hot indices these are the hard functions themselves
EXACT = {
    "sqrt": (lambda x: soft_ops.sqrt(x**2), lambda x: jnp.sqrt(x**2)),
    "log": (lambda x: soft_ops.log(x**2), lambda x: jnp.log(x**2)),
    "arcsin": (lambda x: soft_ops.arcsin(x / 4), lambda x: jnp.arcsin(x / 4)),
    "arccos": (lambda x: soft_ops.arccos(x / 4), lambda x: jnp.arccos(x / 4)),
    "div": (lambda x: soft_ops.div(x, other(x)), lambda x: x / other(x)),
    "norm": (lambda x: soft_ops.norm(x, -1), lambda x: jnp.linalg.norm(x, axis=-1)),
    "logical_not": (lambda x: soft_ops.logical_not(true(x)), lambda x: x <= 0),
    "logical_and": (
        lambda x, **norm: soft_ops.logical_and(true(x), true(other(x)), **norm),
        lambda x: (x > 0) & (other(x) > 0),
    ),
    "logical_or": (
        lambda x, **norm: soft_ops.logical_or(true(x), true(other(x)), **norm),
        lambda x: (x > 0) | (other(x) > 0),
    ),
    "logical_xor": (
        lambda x, **norm: soft_ops.logical_xor(true(x), true(other(x)), **norm),
        lambda x: (x > 0) ^ (other(x) > 0),
    ),
    "all": (lambda x, **norm: soft_ops.all(true(x), -1, **norm), lambda x: jnp.all(x > 0, -1)),
    "any": (lambda x, **norm: soft_ops.any(true(x), -1, **norm), lambda x: jnp.any(x > 0, -1)),
    "where": (lambda x: soft_ops.where(true(x), x, other(x)), lambda x: jnp.where(x > 0, x, other(x))),
    "take_along_axis": (
        lambda x: soft_ops.take_along_axis(x, one_hot(jnp.argsort(x))),
        lambda x: jnp.take_along_axis(x, jnp.argsort(x), -1),
    ),
    "take": (lambda x: soft_ops.take(x, one_hot(jnp.array([7, 0])), -1), lambda x: x[..., jnp.array([7, 0])]),
    "choose": (
        lambda x: soft_ops.choose(one_hot((x > 0).astype(int), 2), [x, other(x)]),
        lambda x: jnp.choose((x > 0).astype(int), [x, other(x)], mode="clip"),
    ),
    "dynamic_index_in_dim": (
        lambda x: soft_ops.dynamic_index_in_dim(x, one_hot(jnp.argmax(x[0, 0])), -1),
        lambda x: jax.lax.dynamic_index_in_dim(x, jnp.argmax(x[0, 0]), -1),
    ),
    "dynamic_slice_in_dim": (
        lambda x: soft_ops.dynamic_slice_in_dim(x, one_hot(jnp.argmax(x[0, 0])), 5, -1),
        lambda x: jax.lax.dynamic_slice_in_dim(x, jnp.argmax(x[0, 0]), 5, -1),
    ),
    "dynamic_slice": (
        lambda x: soft_ops.dynamic_slice(x, [one_hot(0, 2), one_hot(3, 5), one_hot(jnp.argmax(x[0, 0]))], (1, 2, 3)),
        lambda x: jax.lax.dynamic_slice(x, (0, 3, jnp.argmax(x[0, 0])), (1, 2, 3)),
    ),
}
NORMS = [{"norm": "product"}, {"norm": "geometric_mean"}]
WITH_NORM = ("logical_and", "logical_or", "logical_xor", "all", "any")


@pytest.mark.parametrize("name", EXACT)
def test_what_has_no_softness_is_the_hard_function(name):
    x = jnp.asarray(inputs())
    soft, hard = EXACT[name]
    options = NORMS if name in WITH_NORM else [{}]
    found, expected = jax.jit(lambda x: ([soft(x, **option) for option in options], hard(x).astype(x.dtype)))(x)
    assert {result.shape for result in found} == {expected.shape}
    error = max(float(jnp.max(jnp.abs(result - expected))) for result in found)
    print(f"{name}: {error:.1e} ({len(found)} combinations)")
    assert error <= (MOST if name == "norm" else 0)


def test_the_79_are_all_there_and_all_tested():
    names = {family: text.split() for family, text in FAMILIES.items()}
    assert [len(names[family]) for family in names] == [6, 8, 7, 6, 7, 9, 6, 30]
    listed = {name for family in names.values() for name in family}
    assert len(listed) == 79
    beyond = {"Mode", "SoftBool", "SoftIndex", "TopK", "random", "cumulative_max", "cumulative_min"}
    assert len(soft_ops.__all__) == len(set(soft_ops.__all__))
    assert set(soft_ops.__all__) == listed | beyond
    assert all(hasattr(soft_ops, name) for name in soft_ops.__all__)

    in_tables = {case.name.split()[0] for case in CASES}
    relaxed = {name for family in ("elementwise", "comparison", "ordering", "quantile") for name in names[family]}
    assert in_tables == relaxed | {"cumulative_max", "cumulative_min"}
    assert set(EXACT) == {name for family in ("safe math", "logical", "selection") for name in names[family]}
    with_st = {name.removesuffix("_st") for name in names["straight-through"]} - {"st", "grad_replace"}
    assert with_st == relaxed - {"sigmoidal", "softrelu"}  # second names of heaviside and relu
