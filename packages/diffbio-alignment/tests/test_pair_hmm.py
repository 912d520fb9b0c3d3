"""The pair HMM beside its own definition: paths, sums over all sequences, simulation; its limit and derivatives."""

from collections.abc import Iterator
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from every_alignment import every_alignment
from flax import nnx
from jax.test_util import check_grads

from diffbio.core.errors import ConfigError, ContractError
from diffbio.io.sequence import DNA, PROTEIN, encode
from diffbio.operators.alignment.best_path import best_path
from diffbio.operators.alignment.ends import GLOBAL, Ends
from diffbio.operators.alignment.pair_hmm import PairHMM, PairHMMConfig, pair_alignment
from diffbio.operators.alignment.pair_model import PairModel, pair_weights
from diffbio.operators.alignment.substitution import substitution_matrix
from diffbio.operators.alignment.target_frequencies import target_frequencies

MATCH, ONLY_X, ONLY_Y, END = range(4)
HEMOGLOBIN = (
    "VLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALSALSDLHAHKLRVDPVNFKLLSHCLLVTLAAHLPAEFTPAVH"
    "ASLDKFLASVSTVLTSKYR",
    "VHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLDNLKGTFATLSELHCDKLHVDPENFRLLGNVLVCVLAHHFGKEFT"
    "PPVQAAYQKVVAGVANALAHKYH",
)
LYSOZYME = (
    "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKIVSDGNGMNAWVAWRNRCKGTDVQA"
    "WIRGCRL"
)


def a_model(n_letters: int = 2) -> PairModel:
    pairs = np.random.default_rng(0).dirichlet(np.full(n_letters**2, 3.0)).reshape(n_letters, n_letters)
    return PairModel(jnp.asarray((pairs + pairs.T) / 2, jnp.float32), *map(jnp.float32, (0.15, 0.4, 0.3)))


def transitions(model: PairModel) -> np.ndarray:
    """Return the probability of each step from M, X, Y to M, X, Y, end."""
    delta, epsilon, eta = (float(chance) for chance in model[1:])
    on, stay = np.array([1 - eta, eta]), (1 - epsilon)
    return np.array(
        [
            [(1 - delta) ** 2 * on[0], delta, (1 - delta) * delta, (1 - delta) ** 2 * on[1]],
            [stay * (1 - delta) * on[0], epsilon, stay * delta, stay * (1 - delta) * on[1]],
            [stay * on[0], 0, epsilon, stay * on[1]],
        ]
    )


def every_path(n: int, m: int) -> Iterator[tuple[int, ...]]:
    """Yield the states of all paths that emit n and m letters, in all orders, also those that have probability 0."""
    if (n, m) == (0, 0):
        yield ()
    for state, (i, j) in enumerate(((1, 1), (1, 0), (0, 1))):
        if n >= i and m >= j:
            for before in every_path(n - i, m - j):
                yield (*before, state)


def test_the_steps_of_each_state_sum_to_one() -> None:
    np.testing.assert_allclose(transitions(a_model()).sum(axis=1), 1)


def test_likelihood_and_posterior_are_those_of_all_paths(certificate) -> None:
    model, random = a_model(3), np.random.default_rng(1)
    steps, pairs = transitions(model), np.asarray(model.pairs, float)
    background, errors = pairs.sum(axis=1), []
    for n, m in ((4, 5), (3, 3), (1, 4), (1, 1), (0, 2), (0, 0)):
        x, y = random.integers(3, size=n), random.integers(3, size=m)
        likelihood, aligned = 0.0, np.zeros((4, 5))
        gaps = np.zeros(2)
        for path in every_path(n, m):
            chance, state, i, j, matches, opens, extends = 1.0, MATCH, 0, 0, [], 0, 0
            for following in (*path, END):
                chance *= steps[state, following]
                if following == MATCH:
                    chance *= pairs[x[i], y[j]]
                    matches.append((i, j))
                elif following != END:
                    chance *= background[x[i] if following == ONLY_X else y[j]]
                    opens, extends = opens + (state != following), extends + (state == following)
                i, j = i + (following in (MATCH, ONLY_X)), j + (following in (MATCH, ONLY_Y))
                state = following
            likelihood += chance
            gaps += chance * np.array([opens, extends])
            for match in matches:
                aligned[match] += chance
        query, target = (jnp.zeros((size, 3)).at[jnp.arange(len(z)), z].set(1.0) for size, z in ((4, x), (5, y)))
        found = pair_alignment(model, query, target, jnp.array([n, m]))
        unrelated = background[np.concatenate([x, y])].prod() * 0.7 ** (n + m) * 0.3**2
        errors += [
            abs(float(found.pair_log_likelihood) - np.log(likelihood)),
            abs(float(found.pair_log_odds) - np.log2(likelihood / unrelated)),
            np.abs(found.alignment_posterior - aligned / likelihood).max(),
            np.abs(np.array([found.gap_opens, found.gap_extends]) - gaps / likelihood).max(),
        ]
    certificate(
        operator="PairHMM",
        reference="all paths, enumerated",
        data="6 pairs of up to 4 x 5 letters",
        quantity="largest difference of log-likelihood, log-odds, posterior and expected gaps",
        value=float(max(errors)),
        bar="<= 1e-05",
    )
    assert max(errors) <= 1e-5


def test_likelihoods_of_all_sequences_sum_to_the_probability_of_their_lengths(certificate) -> None:
    """k pairs of letters have k + 1 places for gaps in each sequence: their lengths are independent sums."""
    model, most = a_model(), 4
    sequences = [letters for n in range(most + 1) for letters in product(range(2), repeat=n)]
    codes = np.array([[*letters, *[0] * (most - len(letters))] for letters in sequences])
    lengths = np.array([len(letters) for letters in sequences])
    one_hot = jnp.eye(2)[codes]
    first, second = (grid.ravel() for grid in np.meshgrid(*[np.arange(len(sequences))] * 2, indexing="ij"))
    align = jax.vmap(lambda x, y, n: pair_alignment(model, x, y, n).pair_log_likelihood)
    found = np.exp(align(one_hot[first], one_hot[second], jnp.stack([lengths[first], lengths[second]], axis=1)))
    sums = np.zeros((most + 1, most + 1))
    np.add.at(sums, (lengths[first], lengths[second]), found)

    delta, epsilon, eta = (float(chance) for chance in model[1:])
    gap = np.array([1 - delta, *(delta * (1 - epsilon) * epsilon ** np.arange(most))])
    theory, inserted = np.zeros_like(sums), gap
    for k in range(most + 1):
        theory[k:, k:] += eta * (1 - eta) ** k * np.outer(inserted[: most + 1 - k], inserted[: most + 1 - k])
        inserted = np.convolve(inserted, gap)[: most + 1]
    error = float(np.abs(sums - theory).max())
    certificate(
        operator="PairHMM",
        reference="the distribution of both lengths, in closed form",
        data="all 961 pairs of sequences of up to 4 of 2 letters",
        quantity="largest difference of the sum of their likelihoods",
        value=error,
        bar="<= 1e-06",
    )
    assert error <= 1e-6
    assert theory.sum() > 0.6  # the rest is longer


def test_the_scores_of_pairs_are_those_of_the_matrix() -> None:
    hmm = PairHMM(PairHMMConfig())
    wanted = target_frequencies(substitution_matrix("BLOSUM62", PROTEIN))
    weights = pair_weights(hmm.model(), jnp.eye(20), jnp.eye(20), jnp.array([20, 20]))
    scores = np.asarray(weights.pair.scores) - 2 * np.log(0.95) + np.log(0.99)
    np.testing.assert_allclose(scores / wanted.scale, substitution_matrix("BLOSUM62", PROTEIN), atol=2e-4)


def test_relatives_are_told_from_strangers_and_the_limit_is_the_best_path() -> None:
    query, target = encode([HEMOGLOBIN[0]] * 2, PROTEIN, size=141), encode([HEMOGLOBIN[1], LYSOZYME], PROTEIN, size=146)
    data = {"query": query.letters, "target": target.letters, "target_length": target.lengths}
    hmm = PairHMM(PairHMMConfig())
    related, not_related = hmm.apply(data, {}, None)[0]["pair_log_odds"]
    print(f"hemoglobin alpha with beta {float(related):.1f} bits, with lysozyme {float(not_related):.1f}")
    assert related > 90
    assert not_related < 0
    pair, once, _ = pair_weights(hmm.model(), query.letters[0], target.letters[0], jnp.array([141, 146]))
    viterbi = float(best_path(pair, GLOBAL).score + once) / np.log(2)
    hmm.softness.set(1e-3)
    assert float(hmm.apply(data, {}, None)[0]["pair_log_odds"][0]) == pytest.approx(viterbi, abs=0.02)
    assert viterbi < related


def test_a_position_of_which_nothing_is_known_says_nothing() -> None:
    model = a_model(4)
    flat, none = (
        pair_weights(model, jnp.eye(4).at[1].set(row), jnp.eye(4), jnp.array([4, 4])).pair.scores for row in (0.25, 0.0)
    )
    empty = pair_weights(model, jnp.ones((1, 4)), jnp.eye(4), jnp.array([1, 4])).pair.scores
    np.testing.assert_allclose(flat[1], empty[0], atol=1e-6)
    np.testing.assert_allclose(none[1], empty[0], atol=1e-6)


def test_which_sequence_comes_first_means_nothing() -> None:
    x, y = (jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(4), 6), jnp.float32) for _ in range(2))
    one, other = (pair_alignment(a_model(4), *pair, jnp.array([6, 6])) for pair in ((x, y), (y[::-1], x[::-1])))
    assert float(one.pair_log_likelihood) == pytest.approx(float(other.pair_log_likelihood), rel=1e-6)
    swapped = pair_alignment(a_model(4), y, x, jnp.array([6, 6]))
    assert float(one.pair_log_odds) == pytest.approx(float(swapped.pair_log_odds), rel=1e-5)


def test_padding_changes_nothing_whatever_stands_there() -> None:
    model, random = a_model(4), np.random.default_rng(0)
    x, y = (jnp.asarray(random.dirichlet(np.ones(4), size), jnp.float32) for size in (4, 5))

    def likelihood(x: jax.Array, y: jax.Array) -> jax.Array:
        return pair_alignment(model, x, y, jnp.array([4, 5])).pair_log_likelihood

    padded = [jnp.pad(z, ((0, 3), (0, 0)), constant_values=jnp.nan) for z in (x, y)]
    value_and_slopes = jax.jit(jax.value_and_grad(likelihood, argnums=(0, 1)))
    (value, slopes), (wide, wide_slopes) = value_and_slopes(x, y), value_and_slopes(*padded)
    assert float(wide) == pytest.approx(float(value), rel=1e-6)
    for wider, narrow in zip(wide_slopes, slopes, strict=True):
        np.testing.assert_allclose(wider[:-3], narrow, rtol=1e-4, atol=1e-5)
        assert (wider[-3:] == 0).all()


def test_derivatives_are_those_of_differences_and_finite_at_extremes() -> None:
    random = np.random.default_rng(0)
    x, y = (jnp.asarray(random.dirichlet(np.ones(4), size), jnp.float32) for size in (4, 5))

    @jax.jit
    def outputs(logits: jax.Array, chances: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        pairs = jax.nn.softmax((logits + logits.T).ravel()).reshape(4, 4)
        model = PairModel(pairs, *jax.nn.sigmoid(chances))
        return tuple(pair_alignment(model, x, y, jnp.array([3, 5])))

    logits, chances = jnp.asarray(random.normal(size=(4, 4)), jnp.float32), jnp.array([-1.0, 0.3, -0.5])
    check_grads(outputs, (logits, chances, x, y), order=1, modes=["rev"], eps=1e-2, atol=3e-2, rtol=3e-2)
    for scale in (0.0, 1e-8, 1e2):
        inputs = scale * logits, scale * chances, scale * x, scale * y
        slopes = jax.grad(lambda *given: sum(map(jnp.sum, outputs(*given)[1:])), argnums=(0, 1, 2, 3))(*inputs)
        assert all(np.isfinite(slope).all() for slope in slopes)


def simulated(model: PairModel, n_pairs: int, size: int, seed: int) -> dict[str, np.ndarray]:
    """Return pairs of sequences drawn from the model, as one-hot arrays and lengths; some are empty."""
    random, steps, pairs = np.random.default_rng(seed), transitions(model), np.asarray(model.pairs, float)
    background = pairs.sum(axis=1)
    letters, lengths = np.zeros((2, n_pairs, size, 4), np.float32), np.zeros((2, n_pairs), np.int32)
    for number in range(n_pairs):
        state = MATCH
        while (state := random.choice(4, p=steps[state])) != END:
            if state == MATCH:
                emitted = divmod(random.choice(16, p=pairs.ravel() / pairs.sum()), 4)
            else:
                letter = random.choice(4, p=background / background.sum())
                emitted = (letter, None) if state == ONLY_X else (None, letter)
            for side, letter in enumerate(emitted):
                if letter is not None:
                    letters[side, number, lengths[side, number], letter] = 1
                    lengths[side, number] += 1
    return dict(zip(("query", "target", "query_length", "target_length"), (*letters, *lengths), strict=True))


@pytest.mark.slow
def test_maximum_likelihood_finds_the_rates_of_simulated_pairs(certificate) -> None:
    planted = PairModel(
        jnp.where(jnp.eye(4) == 1, 0.8 / 4, 0.2 / 12), jnp.float32(0.06), jnp.float32(0.6), jnp.float32(0.1)
    )
    data = simulated(planted, 256, 80, seed=2)
    hmm = PairHMM(PairHMMConfig(alphabet=DNA, matrix="NUC.4.4", gap_open=0.2, gap_extend=0.3, end=0.2))
    optimizer = nnx.Optimizer(hmm, optax.adam(0.15), wrt=nnx.Param)

    @nnx.jit
    def step(hmm: PairHMM, optimizer: nnx.Optimizer) -> jax.Array:
        def loss(hmm: PairHMM) -> jax.Array:
            return -hmm.apply(data, {}, None)[0]["pair_log_likelihood"].mean()

        value, slopes = nnx.value_and_grad(loss)(hmm)
        optimizer.update(hmm, slopes)
        return value

    losses = [float(step(hmm, optimizer)) for _ in range(60)]
    found = hmm.model()
    substitutions = 1 - float(jnp.trace(found.pairs))
    rates = {
        "gap_open": (float(found.gap_open), 0.06),
        "gap_extend": (float(found.gap_extend), 0.6),
        "end": (float(found.end), 0.1),
        "substitution rate": (substitutions, 0.2),
    }
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}", rates)
    for name, (rate, wanted) in rates.items():
        certificate(
            operator="PairHMM",
            reference="the rates of the simulation",
            data="256 simulated pairs of DNA, of 10 letters on average",
            quantity=f"relative error of the {name} of maximum likelihood, {wanted}",
            value=abs(rate / wanted - 1),
            bar="<= 0.2",
        )
        assert abs(rate / wanted - 1) <= 0.2
    align = jax.vmap(lambda x, y, n, m: pair_alignment(planted, x, y, jnp.stack([n, m])).pair_log_likelihood)
    assert losses[-1] < -float(align(*data.values()).mean()) < losses[0]  # the planted rates are less likely than these


def test_wrong_settings_and_sequences_are_named() -> None:
    with pytest.raises(ConfigError, match="implies no chances of letters"):
        PairHMM(PairHMMConfig(matrix="PAM250"))
    with pytest.raises(ConfigError, match="gap_open"):
        PairHMMConfig(gap_open=1.0)
    with pytest.raises(ContractError, match="distributions over 4 and 3 letters, and the model has 4"):
        pair_weights(a_model(4), jnp.ones((2, 4)), jnp.ones((2, 3)), jnp.array([2, 2]))


def test_a_read_fits_into_a_haplotype_at_no_cost_for_its_ends() -> None:
    """With the ends of the target free, what is outside counts as unrelated: all alignments, written out."""
    model, ends = a_model(4), Ends(y_begin=True, y_end=True)
    query, target, lengths = jnp.eye(4)[jnp.array([1, 2])], jnp.eye(4)[jnp.array([0, 1, 2, 3])], jnp.array([2, 4])
    pair, once, _ = pair_weights(model, query, target, lengths)
    alignments = every_alignment(
        np.asarray(pair.scores, np.float64), float(pair.gap_open), float(pair.gap_extend), ends
    )
    expected = np.logaddexp.reduce([alignment.score for alignment in alignments]) + float(once)
    found = pair_alignment(model, query, target, lengths, ends=ends)
    assert float(found.pair_log_odds) * np.log(2) == pytest.approx(expected, abs=1e-5)
    hmm = PairHMM(PairHMMConfig(alphabet=DNA, identity=0.99, free_ends=("target_begin", "target_end")))
    data = {"query": query[None], "target": target[None]}
    within = hmm.apply(data, {}, None)[0]["pair_log_odds"]
    whole = PairHMM(PairHMMConfig(alphabet=DNA, identity=0.99)).apply(data, {}, None)[0]["pair_log_odds"]
    assert float(within[0]) > float(whole[0]) + 5
    equal = float(jnp.trace(hmm.model().pairs))
    assert equal == pytest.approx(0.99, abs=1e-5)


def test_an_end_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="name each end once"):
        PairHMMConfig(free_ends=("target_end", "target_end"))
