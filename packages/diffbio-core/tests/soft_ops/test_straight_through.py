"""Straight-through forms: the value of mode hard to the bit, the derivatives of the soft mode."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, FAMILIES

from diffbio.core import soft_ops

NAMES = [name for name in FAMILIES["straight-through"].split() if name.endswith("_st")]
WITH_ST = [case for case in CASES if f"{case.name.split()[0]}_st" in NAMES]
each_case = pytest.mark.parametrize("case", WITH_ST, ids=[case.name for case in WITH_ST])
each_name = pytest.mark.parametrize("name", NAMES)
INPUTS = np.array(
    [
        [0.3, -1.2, 2.5, 0.3, 0.9, -0.4],
        [3e3, -1e4, 2.5e4, 0.0, -0.0, 7.7e3],
        [np.inf, -1.0, 2.0, -np.inf, 0.5, 2.0],
        [1e-20, -1e-20, 3e20, -1e20, 0.0, 0.5],
    ],
    np.float32,
)


@each_case
def test_value_is_the_hard_one_to_the_bit(case):
    def both(x):
        forms = [case.soft(x, 0.3, *pair, form="_st") for pair in case.combinations()]
        return case.soft(x, 0.3, "hard"), forms

    hard, forms = jax.jit(both)(INPUTS)
    for found in forms:
        assert found.dtype == hard.dtype
        assert np.asarray(found).tobytes() == np.asarray(hard).tobytes()
    print(f"{case.name}_st: 0.0e+00 ({len(forms)} combinations)")


@each_case
def test_gradient_is_that_of_the_soft_mode(case):
    x = jnp.asarray(INPUTS[0])

    def gradients(mode, form):
        value, pull = jax.vjp(lambda x, softness: case.soft(x, softness, mode, form=form), x, 2.0)
        return pull(jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))

    for mode in ("smooth", "c1") if case.competing else ("smooth", "c0", "c1", "c2"):
        of_soft, of_st = gradients(mode, ""), gradients(mode, "_st")
        for one, same in zip(of_soft, of_st, strict=True):
            np.testing.assert_array_equal(one, same, err_msg=mode)
        assert np.isfinite(of_st[0]).all()
        assert np.any(of_st[0] != 0)


@each_name
def test_each_reads_like_its_soft_function(name):
    form, soft = getattr(soft_ops, name), getattr(soft_ops, name.removesuffix("_st"))
    assert inspect.signature(form) == inspect.signature(soft)
    assert "softness" in inspect.signature(form).parameters or "options" in inspect.signature(form).parameters
    assert form.__name__ == form.__qualname__ == name
    assert form.__module__ == soft.__module__
    assert form.__doc__.startswith(f"Return `{soft.__name__}` in mode `hard`, with the derivatives of the soft mode")


@each_name
def test_each_raises_the_errors_of_its_soft_function(name):
    x = jnp.arange(5.0)
    extra = {"clip": (0.0, 1.0), "top_k": (2,), "top_k_mask": (2,), "quantile": (0.5,), "percentile": (50.0,)}
    extra |= {"argquantile": (0.5,), "argpercentile": (50.0,)}
    comparisons = FAMILIES["comparison"].split()
    rest = extra.get(name.removesuffix("_st"), (0.5,) if name.removesuffix("_st") in comparisons else ())
    with pytest.raises(ValueError, match="softness is 0; it must be above 0"):
        getattr(soft_ops, name)(x, *rest, softness=0)
    with pytest.raises(ValueError, match="mode is 'typo'"):
        getattr(soft_ops, name)(x, *rest, mode="typo")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sharpness'"):
        getattr(soft_ops, name)(x, *rest, sharpness=1)


def cubic(x, *, mode="smooth"):
    """Stands for a function of one's own, with an integer and a tree of results."""
    if mode == "hard":
        return {"rounded": jnp.round(x), "whole": jnp.round(x).astype(int)}
    return {"rounded": x**3, "whole": 2.0 * x}


def test_a_function_of_ones_own():
    x = jnp.array([0.6, 1.7])
    both = soft_ops.st(cubic)
    assert both.__name__ == "cubic_st"
    assert inspect.signature(both) == inspect.signature(cubic)
    found = both(x)
    np.testing.assert_array_equal(found["rounded"], [1.0, 2.0])
    np.testing.assert_array_equal(found["whole"], [1.0, 2.0])
    np.testing.assert_allclose(jax.grad(lambda x: both(x)["rounded"].sum())(x), 3 * x**2, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: both(x)["whole"].sum())(x), [2.0, 2.0])


def test_a_function_that_returns_a_tuple_keeps_its_type():
    x = jnp.array([0.3, 2.0, -1.0, 2.5])
    found = soft_ops.top_k_st(x, 2, softness=0.5)
    assert isinstance(found, soft_ops.TopK)
    assert found.values.tolist() == [2.5, 2.0]
    assert found.indices.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]

    def indices(function):
        return jax.jacrev(lambda x: function(x, 2, softness=0.5).indices)

    np.testing.assert_array_equal(*jax.jit(lambda x: (indices(soft_ops.top_k_st)(x), indices(soft_ops.top_k)(x)))(x))


def test_value_is_hard_where_the_soft_one_is_nan():
    def broken(x, *, mode="smooth"):
        return jnp.sign(x) if mode == "hard" else jnp.nan * x

    assert soft_ops.st(broken)(jnp.array([-2.0, 3.0])).tolist() == [-1.0, 1.0]
    assert jax.jit(soft_ops.st(broken))(jnp.array([-2.0, 3.0])).tolist() == [-1.0, 1.0]


def test_a_large_soft_value_does_not_round_the_hard_one():
    """hard + soft - stop_gradient(soft), the usual way to write it, gives 0 or 256 here."""

    def far(x, *, mode="smooth"):
        return x if mode == "hard" else 1e10 * x

    x = jnp.array([0.1, 1.0, 3.3])
    assert soft_ops.st(far)(x).tolist() == x.tolist()


def test_mode_hard_has_no_gradient():
    assert jax.grad(lambda x: soft_ops.sign_st(x, mode="hard"))(0.1) == 0


SMOOTH = {
    "abs": lambda form, x: getattr(soft_ops, f"abs{form}")(x, softness=0.7),
    "argmax": lambda form, x: getattr(soft_ops, f"argmax{form}")(x, softness=0.7),
    "max": lambda form, x: getattr(soft_ops, f"max{form}")(x, softness=0.7),
    "top_k_mask": lambda form, x: getattr(soft_ops, f"top_k_mask{form}")(x, 2, softness=0.7),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_transformations(name):
    x = jnp.array([[0.3, -1.2, 2.5, 0.4], [0.1, 0.2, 0.9, -3.0]])

    def loss(form):
        return lambda row: jnp.sum(SMOOTH[name](form, row) * jnp.cos(row))  # the carrier's derivative, times a value

    def carried(row):
        """The same loss written out: hard value, soft derivative."""
        return jnp.sum(jax.lax.stop_gradient(SMOOTH[name]("_st", row)) * jnp.cos(row))

    in_rows = jax.jit(jax.vmap(jax.value_and_grad(loss("_st"))))(x)
    row = x[1]
    value, slope = jax.value_and_grad(loss("_st"))(row)
    np.testing.assert_allclose(in_rows[0][1], value, rtol=1e-6)
    np.testing.assert_allclose(in_rows[1][1], slope, rtol=1e-5, atol=1e-7)
    soft, pull = jax.vjp(lambda row: SMOOTH[name]("", row), row)
    pulled = pull(jnp.cos(row) if soft.ndim else jnp.cos(row).sum())[0]
    np.testing.assert_allclose(slope, jax.grad(carried)(row) + pulled, rtol=1e-5, atol=1e-6)
    tangent = jax.jvp(loss("_st"), (row,), (jnp.ones(4),))[1]
    np.testing.assert_allclose(tangent, slope.sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SMOOTH)
def test_second_derivatives_are_those_of_the_soft_function(name):
    x = jnp.array([0.3, -1.2, 2.5, 0.4])
    losses = [lambda x, form=form: jnp.sum(SMOOTH[name](form, x) * jnp.arange(1.0, 5.0)) for form in ("_st", "")]
    of_st, of_soft = jax.jit(lambda x: [jax.hessian(loss)(x) for loss in losses])(x)
    np.testing.assert_allclose(of_st, of_soft, rtol=1e-6, atol=1e-7)
    assert np.any(of_st != 0)


@soft_ops.grad_replace
def rounded(x, factor=1.0, *, forward):
    """Round, with the derivative of a straight line."""
    return factor * jnp.round(x) if forward else factor * x


@soft_ops.grad_replace
def clipped_gradient(x, *, forward):
    return {"x": x, "twice": 2 * x} if forward else {"x": jnp.clip(x, -1, 1), "twice": jnp.clip(2 * x, -1, 1)}


def test_grad_replace():
    assert float(rounded(1.7)) == 2
    assert jax.grad(rounded, (0, 1))(1.7, 2.0) == (2.0, 1.7)
    assert float(jax.jit(jax.grad(rounded))(1.7)) == 1
    assert jax.vmap(rounded)(jnp.array([0.2, 0.9])).tolist() == [0.0, 1.0]
    found = clipped_gradient(jnp.array(0.7))
    assert (float(found["x"]), float(found["twice"])) == pytest.approx((0.7, 1.4))
    assert float(jax.grad(lambda x: clipped_gradient(x)["x"])(0.7)) == 1
    assert float(jax.grad(lambda x: clipped_gradient(x)["twice"])(0.7)) == 0


def test_grad_replace_reads_without_its_switch():
    assert rounded.__name__ == "rounded"
    assert rounded.__doc__ == "Round, with the derivative of a straight line."
    assert list(inspect.signature(rounded).parameters) == ["x", "factor"]


def test_shapes_that_differ_are_refused():
    @soft_ops.grad_replace
    def summed(x, *, forward):
        return x.sum() if forward else x

    message = r"the value has shape \(\) and what is differentiated in its place \(3,\); they must be the same"
    with pytest.raises(ValueError, match=message):
        summed(jnp.ones(3))
    with pytest.raises(ValueError, match=r"the value has shape \(3,\) and .* \(\)"):
        soft_ops.st(lambda x, *, mode="smooth": x if mode == "hard" else x.sum())(jnp.ones(3))
