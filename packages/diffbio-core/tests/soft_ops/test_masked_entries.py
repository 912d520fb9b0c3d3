"""What a masked entry holds, even NaN or infinity, changes neither values nor gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES

ROW = jnp.array([3.0, 7.0, 1.0, 2.0, 2.5])
MASK = jnp.array([True, False, True, True, True])

COMPETING = [
    (case, mode, method) for case in CASES if case.competing for mode, method in case.combinations() if mode != "c1"
]


@pytest.mark.parametrize(("case", "mode", "method"), COMPETING, ids=lambda part: getattr(part, "name", str(part)))
def test_a_masked_entry_changes_nothing(case, mode, method):
    def loss(x, softness):
        result = case.soft(x, softness, mode, method, where=MASK)
        weights = jnp.cos(jnp.arange(result.size, dtype=jnp.float32)).reshape(result.shape)
        return (jnp.where(jnp.isfinite(result), result, 0) * weights).sum(), result

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    wanted = jax.tree.leaves(run(ROW, 0.3))
    assert all(np.isfinite(gradient).all() for gradient in wanted[2:])
    for masked in (jnp.nan, jnp.inf, -jnp.inf):
        for found, expected in zip(jax.tree.leaves(run(ROW.at[1].set(masked), 0.3)), wanted, strict=True):
            np.testing.assert_array_equal(found, expected)
