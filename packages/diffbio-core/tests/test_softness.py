import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from diffbio.core import Softness
from diffbio.core.errors import ConfigError


def test_learnable_is_a_parameter_and_stays_positive():
    softness = Softness(0.5, learnable=True)
    assert isinstance(softness.log_value, nnx.Param)
    softness.log_value[...] -= 50.0
    assert softness() > 0


def test_fixed_is_not_a_parameter():
    assert not nnx.state(Softness(0.5), nnx.Param)


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_refuses_what_is_not_positive(value):
    with pytest.raises(ConfigError, match="a softness must be above 0"):
        Softness(value)


def test_annealing_compiles_once():
    softness = Softness(1.0)
    graphdef, state = nnx.split(softness)

    @jax.jit
    def annealed(state, step):
        module = nnx.merge(graphdef, state)
        module.set(0.5**step)
        return module(), nnx.state(module)

    values = []
    for step in range(3):
        value, state = annealed(state, jnp.float32(step))
        values.append(round(float(value), 5))
    assert values == [1.0, 0.5, 0.25]
    assert annealed._cache_size() == 1
