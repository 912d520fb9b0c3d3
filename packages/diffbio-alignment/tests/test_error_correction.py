"""Error correction, on reads of real genomes with planted errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from planted_errors import Planted, bacillus, human, planted

from diffbio.core.errors import ConfigError, DataError
from diffbio.operators.preprocessing.error_correction import (
    KmerErrorCorrection,
    KmerErrorCorrectionConfig,
    corrected,
)
from diffbio.operators.preprocessing.kmer_spectrum import (
    Spectrum,
    counted_words,
    least_solid_count,
    log_counts_of,
)


def letters_after(reads: Planted, n_kmers: int, **options) -> np.ndarray:
    """Return the likeliest letters of corrected reads."""
    corrector = KmerErrorCorrection(KmerErrorCorrectionConfig(n_kmers=n_kmers, **options))
    corrector.initialize(jnp.asarray(reads.reads))
    correct = jax.jit(lambda part: corrector.apply({"reads": part}, {}, None)[0]["corrected_reads"])
    parts = [np.asarray(correct(reads.reads[i : i + 1000])).argmax(-1) for i in range(0, len(reads.reads), 1000)]
    return np.concatenate(parts)


def errors(reads: Planted, letters: np.ndarray) -> tuple[int, int, int]:
    """Return the errors before, those left, and those made."""
    wrong = letters != reads.true
    return int(reads.wrong.sum()), int((wrong & reads.wrong).sum()), int((wrong & ~reads.wrong).sum())


def test_most_planted_errors_are_corrected() -> None:
    reads = planted(bacillus(20_000, 2_000), rate=0.01)
    before, left, made = errors(reads, letters_after(reads, 8_000))
    print(f"{before} errors, {left} left, {made} made")
    assert left + made <= before / 5
    assert made == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "genome", "size", "rate"),
    [
        ("Bacillus", bacillus, 20_000, 0.01),
        ("Bacillus", bacillus, 20_000, 0.005),
        ("human chromosome 1", human, 50_000, 0.01),
        ("human chromosome 1", human, 50_000, 0.005),
    ],
)
def test_real_genomes(name: str, genome, size: int, rate: float, certificate) -> None:
    reads = planted(genome(20_000, size), rate=rate)
    before, left, made = errors(reads, letters_after(reads, 4 * size))
    data = f"{size // 1000} kb of {name}, 30x, {100 * rate:g} % planted substitutions"
    clean = int((~reads.wrong).sum())
    print(f"{data}: {before} errors, {left} left, {made} made among {clean} clean bases")
    certificate(
        operator="KmerErrorCorrection",
        reference="planted errors",
        data=data,
        quantity="errors before / errors after",
        value=before / (left + made),
        bar=">= 5",
    )
    certificate(
        operator="KmerErrorCorrection",
        reference="planted errors",
        data=data,
        quantity="share of clean bases changed",
        value=made / clean,
        bar="<= 2e-5",
    )
    assert left + made <= before / 5
    assert made <= 2e-5 * clean


def test_reads_without_errors_stay_and_so_do_short_and_unknown_ones() -> None:
    reads = planted(bacillus(20_000, 1_000), rate=0.0)
    corrector = KmerErrorCorrection(KmerErrorCorrectionConfig(n_kmers=4_000, temperature=0.01))
    corrector.initialize(jnp.asarray(reads.reads))
    found = corrector.apply({"reads": reads.reads[:50]}, {}, None)[0]
    assert float(found["base_changed"].max()) < 1e-6
    data = {"reads": reads.reads[:5], "read_lengths": np.array([0, 3, 14, 15, 100], np.int32)}
    found = corrector.apply(data, {}, None)[0]
    np.testing.assert_allclose(found["corrected_reads"], data["reads"], atol=1e-6)
    unknown = reads.reads[:50].copy()
    unknown[:, 50] = 0.25
    found = corrector.apply({"reads": unknown}, {}, None)[0]
    assert (np.asarray(found["corrected_reads"]).argmax(-1)[:, 50] == reads.true[:50, 50]).all()


def test_words_are_counted_on_both_strands() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 4, (30, 40))
    reads = np.concatenate([codes, 3 - codes[:, ::-1]])
    spectrum = counted_words(jnp.asarray(reads), jnp.ones(reads.shape, bool), 15, size=2_000)
    real = np.asarray(spectrum.words) < np.iinfo(np.int32).max
    assert real.sum() == 30 * 26
    np.testing.assert_allclose(np.exp(np.asarray(spectrum.log_counts)[real]), 2, rtol=1e-6)
    counts = np.exp(log_counts_of(spectrum, jnp.asarray([spectrum.words[3], spectrum.words[3] + 1, 0])))
    np.testing.assert_allclose(counts, [2, 0.5, 0.5], rtol=1e-6)


def test_the_threshold_is_the_valley() -> None:
    random = np.random.default_rng(0)
    counts = np.concatenate([random.geometric(0.7, 3_000) + 1, random.poisson(26, 1_000)])
    spectrum = Spectrum(jnp.arange(len(counts)), jnp.log(jnp.asarray(counts, jnp.float32)))
    assert 5 <= least_solid_count(spectrum) <= 12


def test_gradients() -> None:
    random = np.random.default_rng(0)
    genome = jnp.asarray(random.integers(0, 4, 12))
    spectrum = counted_words(jnp.stack([genome] * 6), jnp.ones((6, 12), bool), 5, size=10)
    read = 0.9 * np.eye(4)[np.asarray(genome.at[5].set((genome[5] + 1) % 4))] + 0.1 * random.dirichlet(np.ones(4), 12)

    def letters(read: jax.Array, log_threshold: float) -> jax.Array:
        options = {"k": 5, "softness": 1.0, "count_softness": 0.5}
        return corrected(read, jnp.ones(12), spectrum, log_threshold, **options).corrected_reads

    with jax.enable_x64(True):
        check_grads(letters, (read, 1.5), order=1, modes=["rev"], rtol=1e-3)
    for value in (jnp.zeros((12, 4)), jnp.full((12, 4), 0.25)):
        assert np.isfinite(jax.grad(lambda x: letters(x, 1.0)[:, 0].sum())(value)).all()


def test_settings_and_reads_are_checked() -> None:
    with pytest.raises(ConfigError, match="k"):
        KmerErrorCorrectionConfig(k=16)
    reads = jnp.asarray(np.eye(4)[np.random.default_rng(0).integers(0, 4, (4, 20))].repeat(2, 0))
    with pytest.raises(DataError, match="room for 3"):
        KmerErrorCorrection(KmerErrorCorrectionConfig(n_kmers=3)).initialize(reads)
    with pytest.raises(DataError, match="reads of 10 positions have no word of 15"):
        KmerErrorCorrection(KmerErrorCorrectionConfig(n_kmers=100)).initialize(reads[:, :10])
