"""Relaxed draws: exact in mode hard, the same noise in all modes, and right gradients in the parameters."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.core.soft_ops import random

SOFT_MODES = ("smooth", "c0", "c1", "c2")
LOGITS = jnp.array([0.3, -1.0, 1.2, -jnp.inf, 0.0])
P = np.asarray(jax.nn.softmax(LOGITS))
NAMES = ("categorical", "bernoulli", "choice", "permutation")
DRAW = {
    "categorical": lambda function, key, **options: function(key, LOGITS, shape=(7,), **options),
    "bernoulli": lambda function, key, **options: function(key, jnp.array([0.2, 0.5, 0.9]), shape=(7, 3), **options),
    "choice": lambda function, key, **options: function(key, jnp.arange(5.0), shape=(4,), **options),
    "choice, not again": lambda function, key, **options: function(
        key, jnp.arange(5.0), shape=(4,), replace=False, **options
    ),
    "permutation": lambda function, key, **options: function(key, jnp.arange(5.0), **options),
}
each_draw = pytest.mark.parametrize("name", DRAW)


def draw(name, key, form="", **options):
    return DRAW[name](getattr(random, name.split(",")[0] + form), jax.random.key(key), **options)


def chi_square(counts, expected):
    """Return Pearson's statistic over the categories that can be drawn, and three sigma above its mean."""
    possible = expected > 0
    freedom = possible.sum() - 1
    assert counts[~possible].sum() == 0
    return (((counts - expected) ** 2)[possible] / expected[possible]).sum(), freedom + 3 * np.sqrt(2 * freedom)


def test_categorical_draws_have_their_probabilities():
    draws = random.categorical(jax.random.key(0), LOGITS, shape=(20_000,), mode="hard")
    assert set(np.unique(draws)) == {0, 1}
    found, bound = chi_square(np.asarray(draws.sum(0)), 20_000 * P)
    print(f"categorical: chi-square {found:.1f}, bound {bound:.1f}")
    assert found < bound


def test_categorical_draws_are_those_of_jax():
    """Gumbel's trick with the same noise: not only the same distribution, but the same draws."""
    key = jax.random.key(3)
    index = jax.random.categorical(key, LOGITS, shape=(50,))
    ours = jnp.argmax(random.categorical(key, LOGITS, shape=(50,), mode="hard"), axis=-1)
    assert (index == ours).all()


def test_categorical_axis_and_shape():
    logits = jnp.stack([jnp.array([8.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 8.0])], axis=1)  # (3, 2)
    key = jax.random.key(0)
    draws = random.categorical(key, logits, axis=0, shape=(500, 2), mode="hard")
    assert draws.shape == (500, 2, 3)
    assert draws[:, 0, 0].mean() > 0.97
    assert draws[:, 1, 2].mean() > 0.97
    assert random.categorical(key, logits, axis=0).shape == (2, 3)
    assert random.categorical(key, logits).shape == (3, 2)
    same = random.categorical(key, logits.T, axis=-1, shape=(500, 2), mode="hard")
    np.testing.assert_array_equal(draws, same)


@pytest.mark.parametrize("mode", ["smooth", "c0"])
def test_a_logit_of_minus_infinity_is_never_drawn(mode):
    draws, pull = jax.vjp(
        lambda logits: random.categorical(jax.random.key(1), logits, shape=(20,), softness=3.0, mode=mode), LOGITS
    )
    assert (draws[:, 3] == 0).all()
    np.testing.assert_allclose(draws.sum(-1), 1, rtol=1e-5)
    assert np.isfinite(pull(jnp.cos(jnp.arange(100.0)).reshape(20, 5))[0]).all()


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.95])
def test_bernoulli_draws_have_their_probability(p):
    draws = random.bernoulli(jax.random.key(0), p, shape=(20_000,), mode="hard")
    assert set(np.unique(draws)) == {0, 1}
    assert abs(draws.mean() - p) < 3 * np.sqrt(p * (1 - p) / 20_000)


@pytest.mark.parametrize("mode", ["hard", *SOFT_MODES])
def test_bernoulli_at_0_and_1_is_certain(mode):
    draws, slope = jax.vmap(jax.value_and_grad(lambda p: random.bernoulli(jax.random.key(0), p, mode=mode)))(
        jnp.array([0.0, 1.0])
    )
    assert draws.tolist() == [0, 1]
    assert np.isfinite(slope).all()
    assert random.bernoulli(jax.random.key(0), jnp.array([0, 1]), shape=(4, 2), mode=mode).tolist() == [[0, 1]] * 4


def test_bernoulli_out_of_range_is_an_error_where_known_and_else_the_nearest():
    key = jax.random.key(0)
    for p in (1.5, jnp.array([0.2, -0.1])):
        with pytest.raises(ValueError, match="between 0 and 1"):
            random.bernoulli(key, p)
    assert jax.jit(lambda p: random.bernoulli(key, p))(jnp.array([-0.1, 1.5])).tolist() == [0, 1]


def test_choice_draws_have_their_probabilities():
    a = jnp.array([2.0, 3.0, 5.0, 7.0, 11.0])
    draws = random.choice(jax.random.key(0), a, shape=(100, 200), logits=LOGITS, mode="hard")
    assert draws.shape == (100, 200)
    found, bound = chi_square(np.array([(draws == one).sum() for one in a]), 20_000 * P)
    print(f"choice: chi-square {found:.1f}, bound {bound:.1f}")
    assert found < bound


def test_choice_without_replacement_repeats_nothing():
    a = jnp.arange(5.0)
    many = jax.vmap(lambda key: random.choice(key, a, shape=(3,), replace=False, logits=LOGITS, mode="hard"))(
        jax.random.split(jax.random.key(0), 4000)
    )
    ascending = np.sort(many, axis=-1)
    assert (ascending[:, 1:] > ascending[:, :-1]).all()
    assert not (many == 3).any()  # cannot be drawn
    found, bound = chi_square(np.array([(many[:, 0] == one).sum() for one in a]), 4000 * P)
    print(f"choice without replacement, first of three: chi-square {found:.1f}, bound {bound:.1f}")
    assert found < bound
    # given a first draw of 2, the second has the probabilities of the rest
    second = many[many[:, 0] == 2, 1]
    rest = np.where(np.arange(5) == 2, 0, P) / (1 - P[2])
    found, bound = chi_square(np.array([(second == one).sum() for one in a]), len(second) * rest)
    assert found < bound


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_draws_have_their_probabilities(dtype):
    """Noise in half precision would have neither the tails nor, with its many ties, an even chance for all."""
    p = float(dtype(0.003))
    draws = random.bernoulli(jax.random.key(0), dtype(p), shape=(50_000,), mode="hard")
    assert draws.dtype == dtype
    assert abs(np.asarray(draws, np.float32).mean() - p) < 3 * np.sqrt(p / 50_000)
    firsts = jax.vmap(
        lambda key: random.choice(key, jnp.arange(30, dtype=dtype), shape=(1,), replace=False, mode="hard")
    )(jax.random.split(jax.random.key(1), 30_000))
    found, bound = chi_square(np.bincount(np.asarray(firsts, int).ravel(), minlength=30), np.full(30, 1000.0))
    assert found < bound


def test_choice_of_slices():
    a = jnp.arange(12.0).reshape(3, 4)
    drawn = random.choice(jax.random.key(0), a, shape=(2, 5), axis=1, mode="hard")
    assert drawn.shape == (3, 2, 5)
    np.testing.assert_array_equal(drawn[1] - drawn[0], jnp.full((2, 5), 4.0))  # whole slices
    all_of_them = random.choice(jax.random.key(0), a, shape=(4,), replace=False, axis=1, mode="hard")
    assert sorted(all_of_them[0].tolist()) == [0, 1, 2, 3]
    assert random.choice(jax.random.key(0), a).shape == (4,)


def test_permutations_are_uniform():
    many = jax.vmap(lambda key: random.permutation(key, jnp.arange(3.0), mode="hard"))(
        jax.random.split(jax.random.key(0), 6000)
    )
    orders, counts = np.unique(np.asarray(many), axis=0, return_counts=True)
    assert len(orders) == 6
    found, bound = chi_square(counts, np.full(6, 1000.0))
    print(f"permutation: chi-square {found:.1f}, bound {bound:.1f}")
    assert found < bound


def test_permutation_of_slices():
    x = jnp.arange(12.0).reshape(3, 4)
    shuffled = random.permutation(jax.random.key(5), x, axis=1, mode="hard")
    assert sorted(shuffled[0].tolist()) == [0, 1, 2, 3]
    np.testing.assert_array_equal(shuffled[2] - shuffled[0], jnp.full(4, 8.0))
    np.testing.assert_allclose(random.permutation(jax.random.key(5), x, axis=1, softness=1e-7), shuffled, atol=1e-4)


@each_draw
def test_the_same_key_gives_the_same_noise(name):
    hard = draw(name, 0, mode="hard")
    for mode in ("smooth", "c1"):
        np.testing.assert_allclose(draw(name, 0, mode=mode, softness=1e-6), hard, atol=1e-4)
    np.testing.assert_array_equal(draw(name, 0), draw(name, 0))
    assert np.any(draw(name, 1) != draw(name, 0))
    assert np.any(draw(name, 1, mode="hard") != hard)


@each_draw
def test_soft_draws_differ_between_softnesses(name):
    near, far = draw(name, 0, softness=0.3), draw(name, 0, softness=3.0)
    assert near.shape == far.shape == draw(name, 0, mode="hard").shape
    assert np.any(np.abs(near - far) > 1e-3)


def all_draws(logits, a, mode):
    """Return one weighted sum for each kind of draw, the noise held: a function of the parameters alone."""
    key, options = jax.random.key(4), {"softness": 0.8, "mode": mode}
    draws = [
        random.categorical(key, logits, shape=(3,), **options),
        random.bernoulli(key, jax.nn.sigmoid(logits), **options),
        random.choice(key, a, shape=(2,), logits=logits, **options),
        random.choice(key, a, shape=(2,), replace=False, logits=logits, **options),
        random.permutation(key, a, **options),
    ]
    return jnp.stack([jnp.sum(draw * jnp.cos(jnp.arange(float(draw.size))).reshape(draw.shape)) for draw in draws])


@pytest.mark.parametrize("mode", ["smooth", "c2"])
def test_gradients_are_right_with_the_noise_held(mode):
    with jax.enable_x64(True):
        logits, a = jnp.array([0.3, -0.5, 1.2, 0.1]), jnp.array([1.0, -2.0, 0.5, 3.0])
        slopes = jax.tree.map(np.asarray, jax.jit(jax.jacrev(all_draws, (0, 1)), static_argnums=2)(logits, a, mode))
        along = jax.jit(jax.vmap(all_draws, (0, 0, None)), static_argnums=2)
        moves, still = 1e-6 * jnp.eye(4), jnp.zeros((4, 4))
        for slope, move in zip(slopes, [(moves, still), (still, moves)], strict=True):
            ahead = along(logits + move[0], a + move[1], mode)
            behind = along(logits - move[0], a - move[1], mode)
            np.testing.assert_allclose(slope, (ahead - behind).T / 2e-6, rtol=1e-5, atol=1e-8)
    assert np.any(slopes[0] != 0, axis=1).tolist() == [True, True, True, True, False]  # a permutation has no logits
    assert np.any(slopes[1] != 0, axis=1).tolist() == [False, False, True, True, True]


def test_a_parameter_is_learned_through_the_draws():
    """The mean of many relaxed draws has nearly the gradient of the probability."""
    draws = jax.grad(lambda p: random.bernoulli(jax.random.key(0), p, shape=(50_000,), softness=0.1).mean())(0.3)
    print(f"bernoulli: gradient of the mean draw in p {float(draws):.3f}, exactly 1")
    assert abs(draws - 1) < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_straight_through_draws(name):
    form, soft = getattr(random, f"{name}_st"), getattr(random, name)
    assert inspect.signature(form) == inspect.signature(soft)
    assert form.__name__ == f"{name}_st"
    np.testing.assert_array_equal(draw(name, 2, form="_st"), draw(name, 2, mode="hard"))


def test_straight_through_draws_have_the_soft_gradient():
    logits, weights = jnp.array([0.3, -0.5, 1.2]), jnp.arange(3.0)
    slopes = [
        jax.grad(lambda logits, f=function: (f(jax.random.key(0), logits) * weights).sum())(logits)
        for function in (random.categorical_st, random.categorical)
    ]
    np.testing.assert_array_equal(*slopes)
    assert np.any(slopes[0] != 0)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            r"shape is \(4,\); it must end like \(2,\)",
            lambda key: random.categorical(key, jnp.ones((2, 3)), shape=(4,)),
        ),
        (r"shape is \(2, 4\)", lambda key: random.categorical(key, jnp.ones((2, 3)), shape=(2, 4))),
        (r"shape is \(4,\).* \(3,\)", lambda key: random.bernoulli(key, jnp.full(3, 0.5), shape=(4,))),
        (r"shape is \(1,\).* \(3,\)", lambda key: random.bernoulli(key, jnp.full(3, 0.5), shape=(1,))),
        (
            r"logits has shape \(2,\); it must be \(3,\)",
            lambda key: random.choice(key, jnp.ones(3), logits=jnp.ones(2)),
        ),
        (
            r"shape \(2, 2\) asks for 4 draws without replacement, but a has 3 slices",
            lambda key: random.choice(key, jnp.ones(3), shape=(2, 2), replace=False),
        ),
        ("softness is 0; it must be above 0", lambda key: random.categorical(key, jnp.ones(3), softness=0)),
        ("softness is -1", lambda key: random.bernoulli(key, softness=-1)),
        ("mode is 'typo'", lambda key: random.choice(key, jnp.ones(3), mode="typo")),
        ("mode is 'typo'", lambda key: random.permutation(key, jnp.ones(3), mode="typo")),
    ],
)
def test_errors_say_what_does_not_fit(message, call):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))
