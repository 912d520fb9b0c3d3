"""Weights of duplicates: the groups of the directional method and of Picard, what was planted, derivatives, speed."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core.errors import ConfigError
from diffbio.io.sequence import DNA, encode
from diffbio.operators.preprocessing.duplicates import DuplicateWeighting, DuplicateWeightingConfig, duplicate_shares
from diffbio.operators.preprocessing.examples.duplicates import molecules
from diffbio.operators.preprocessing.molecules import mismatches, same_molecule

HARD = {"temperature": 1e-2, "count_temperature": 1e-2}
LETTERS = np.array(list(DNA))


def weights_of(data: dict, **options) -> np.ndarray:
    operator = DuplicateWeighting(DuplicateWeightingConfig(**(HARD | options)))
    return np.asarray(operator.apply(data, {}, None)[0]["duplicate_weights"])


def amplified(n_molecules: int, n_places: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return UMIs, places and true molecules of reads; molecules are copied in 10 cycles, with errors, and sampled."""
    random = np.random.default_rng(seed)
    umis, places, origins = [], [], []
    for molecule in range(n_molecules):
        pool = [random.integers(4, size=8)]
        for _ in range(10):
            copies = []
            for umi in pool:
                if random.uniform() < 0.8:
                    wrong = random.uniform(size=8) < 5e-4
                    copies.append(np.where(wrong, random.integers(4, size=8), umi))
            pool += copies
        place = random.integers(n_places)
        for read in random.choice(len(pool), random.geometric(0.12)):
            letters = np.where(random.uniform(size=8) < 1e-3, random.integers(4, size=8), pool[read])
            umis.append("".join(LETTERS[letters]))
            places.append(place)
            origins.append(molecule)
    order = random.permutation(len(umis))
    return [umis[read] for read in order], np.array(places, np.int32)[order], np.array(origins)[order]


def test_molecules_are_those_of_the_directional_method_and_those_that_were_planted(certificate) -> None:
    umis, places, origins = amplified(150, 40, seed=0)
    n_reads = len(umis)
    data = {
        "reads": np.zeros((n_reads, 4, 4), np.float32),
        "umis": encode(umis, DNA).letters,
        "positions": places,
    }
    found = weights_of(data, max_group_size=128)
    expected = np.zeros(n_reads)
    groups = molecules(umis, places)
    for group in groups:
        expected[group] = 1 / len(group)
    assert len(set(umis)) > 160  # errors made new ones
    differing = float((np.abs(found - expected) > 1e-3).mean())
    shared = {"operator": "DuplicateWeighting", "data": f"{n_reads} reads of 150 molecules, UMIs with errors"}
    certificate(
        **shared,
        reference="the directional method (NumPy)",
        quantity="share of reads with another weight",
        value=differing,
        bar="= 0",
    )
    assert differing == 0
    error = abs(found.sum() / len(np.unique(origins)) - 1)
    certificate(
        **shared, reference="planted molecules", quantity="relative error of their number", value=error, bar="<= 0.02"
    )
    assert error <= 0.02
    wrong = float((np.abs(found - 1 / np.bincount(origins)[origins]) > 1e-3).mean())
    certificate(
        **shared,
        reference="planted molecules",
        quantity="share of reads in a group of another size",
        value=wrong,
        bar="<= 0.05",
    )
    assert wrong <= 0.05


def test_directional_edges_need_twice_the_reads() -> None:
    """Three of AAA absorb two of AAC and the chain to one of ACC; four of TTT and three of TTG stay apart."""
    umis = ["AAA"] * 3 + ["AAC"] * 2 + ["ACC"] + ["TTT"] * 4 + ["TTG"] * 3
    letters = jnp.asarray(encode(umis, DNA).letters)
    n_reads = len(umis)
    alike = same_molecule(letters, jnp.zeros((n_reads, n_reads)), jnp.ones(n_reads), softness=1e-2, count_softness=1e-2)
    expected = np.zeros((n_reads, n_reads))
    for group in molecules(umis, [0] * n_reads):
        expected[np.ix_(group, group)] = 1
    assert [len(group) for group in molecules(umis, [0] * n_reads)] == [4, 6, 3]
    np.testing.assert_allclose(alike, expected, atol=1e-4)


def test_the_best_copy_of_each_place_is_kept(certificate) -> None:
    random = np.random.default_rng(1)
    n_reads = 500
    positions = random.integers(0, 200, n_reads).astype(np.int32)
    qualities = random.integers(2, 41, (n_reads, 20)).astype(np.float32)
    lengths = random.integers(5, 21, n_reads).astype(np.int32)
    reads = random.dirichlet(np.ones(4), (n_reads, 20)).astype(np.float32)
    data = {"reads": reads, "positions": positions, "qualities": qualities, "read_lengths": lengths}
    kept = weights_of(data, quality_temperature=1e-2)
    sums = (qualities * (np.arange(20) < lengths[:, None])).sum(1)
    expected = np.zeros(n_reads)
    for place in np.unique(positions):
        best = (positions == place) & (sums == sums[positions == place].max())
        expected[best] = 1 / best.sum()
    differing = float((np.abs(kept - expected) > 1e-3).sum())
    certificate(
        operator="DuplicateWeighting",
        reference="Picard's rule (NumPy)",
        data="500 reads at 200 places",
        quantity="reads with another weight",
        value=differing,
        bar="= 0",
    )
    assert differing == 0


def planted(n_originals: int, seed: int, size: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return reads of which some are copies, and the number of the original of each."""
    random = np.random.default_rng(seed)
    originals = random.integers(4, size=(n_originals, size))
    origins = random.permutation(np.repeat(np.arange(n_originals), random.integers(1, 6, n_originals)))
    return np.eye(4, dtype=np.float32)[originals[origins]], origins


def test_copies_without_places_are_reads_of_the_same_letters() -> None:
    reads, origins = planted(100, seed=2)
    sizes = np.bincount(origins)[origins]
    np.testing.assert_allclose(weights_of({"reads": reads}, max_group_size=8), 1 / sizes, rtol=1e-5)
    worn = reads.copy()
    worn[0, 30] = np.roll(worn[0, 30], 1)  # an error behind the prefix
    others = np.where(origins == origins[0], sizes - 1, sizes)
    others[0] = 1
    np.testing.assert_allclose(weights_of({"reads": worn}, max_group_size=8), 1 / others, rtol=1e-5)
    np.testing.assert_allclose(weights_of({"reads": worn}, max_group_size=8, n_mismatches=1), 1 / sizes, rtol=1e-5)


def test_masks_weights_and_lengths_count() -> None:
    reads = np.eye(4, dtype=np.float32)[np.zeros((5, 6), int)]
    lengths = np.array([6, 6, 4, 6, 6], np.int32)  # the third read is another one
    mask = np.array([True, True, True, True, False])
    given = np.array([1, 1, 1, 0, 1], np.float32)
    data = {"reads": reads, "read_lengths": lengths, "read_mask": mask, "read_weights": given}
    operator = DuplicateWeighting(DuplicateWeightingConfig(**HARD))
    found = operator.apply(data, {}, None)[0]
    np.testing.assert_allclose(found["duplicate_weights"][:3], [0.5, 0.5, 1], rtol=1e-5)
    np.testing.assert_allclose(found["read_weights"], [0.5, 0.5, 1, 0, 0], rtol=1e-5)


def test_groups_that_are_too_large_are_cut() -> None:
    reads = np.eye(4, dtype=np.float32)[np.zeros((10, 6), int)]
    found = weights_of({"reads": reads}, max_group_size=4)
    assert sorted(found.round(3).tolist()) == [0.25] * 8 + [0.5] * 2


def test_mismatches_are_the_hamming_distance() -> None:
    reads, _ = planted(8, seed=3, size=100)
    codes = reads.argmax(-1)
    np.testing.assert_allclose(mismatches(jnp.asarray(reads)), (codes[:, None] != codes[None]).sum(-1), atol=1e-4)


def test_derivatives_are_right_and_finite() -> None:
    random = np.random.default_rng(4)
    reads = random.dirichlet(np.full(4, 0.2), (6, 5)).astype(np.float32)
    reads[1] = reads[0]
    umis = random.dirichlet(np.full(4, 0.2), (6, 3)).astype(np.float32)
    lengths = jnp.array([5, 5, 5, 4, 5, 0])
    fixed = {"softness": 0.7, "count_softness": 0.5, "prefix_length": 1, "positions": jnp.array([1, 1, 1, 1, 2, 1])}

    def shares(reads, umis, weights, scores):
        return duplicate_shares(reads, lengths, weights, umis=umis, scores=scores, **fixed)

    arguments = (reads, umis, jnp.linspace(0.4, 0.9, 6), jnp.linspace(-1, 1, 6))
    check_grads(shares, arguments, order=1, modes=("rev",), atol=2e-2, rtol=2e-2, eps=1e-3)
    slopes = jax.jit(jax.grad(lambda *x: shares(*x).sum(), argnums=(0, 1, 2, 3)))
    for scale in (0.0, 1e-20, 1e8):
        for weights in (jnp.zeros(6), jnp.ones(6)):
            found = slopes(scale * reads, scale * umis, weights, scale * jnp.ones(6))
            assert all(np.isfinite(slope).all() for slope in found)


def test_softness_does_not_recompile() -> None:
    reads, _ = planted(10, seed=5)
    before = duplicate_shares._cache_size()
    for softness in (0.1, 1.0, 10.0):
        duplicate_shares(reads, jnp.full(len(reads), 60), jnp.ones(len(reads)), softness=softness)
    assert duplicate_shares._cache_size() == before + 1


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="max_group_size"):
        DuplicateWeightingConfig(max_group_size=0)


@pytest.mark.slow
def test_twenty_thousand_reads_take_seconds(certificate) -> None:
    reads, origins = planted(6700, seed=6)
    lengths = jnp.full(len(reads), 60)
    share = jax.jit(lambda reads: duplicate_shares(reads, lengths, jnp.ones(len(reads)), softness=1e-2))
    np.testing.assert_allclose(share(reads), 1 / np.bincount(origins)[origins], rtol=1e-4)
    start = time.perf_counter()
    share(reads).block_until_ready()
    certificate(
        operator="DuplicateWeighting",
        reference="a clock",
        data=f"{len(reads)} reads of 60 bases",
        quantity="seconds",
        value=time.perf_counter() - start,
        bar="linear in the reads",
    )
