"""Trimming by running sums of qualities, against cutadapt."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads
from real_reads import ERR127302, Record, arrays, cutadapt, load, save, some_reads

from diffbio.core.errors import ConfigError
from diffbio.operators.preprocessing.kept_bases import kept_interval
from diffbio.operators.preprocessing.quality_trimming import QualityTrimming, QualityTrimmingConfig, quality_kept

pytest.importorskip("cutadapt")


def differing(records: list[Record], folder: Path, front: float | None, tail: float) -> int:
    """Return how many reads cutadapt trims in another way."""
    option = f"{tail:.0f}" if front is None else f"{front:.0f},{tail:.0f}"
    expected = cutadapt(save(folder / "reads.fastq", records), "-q", option)
    operator = QualityTrimming(QualityTrimmingConfig(front=front, tail=tail, temperature=1e-4))
    begin, end = kept_interval(operator.apply(arrays(records), {}, None)[0]["base_weights"])
    kept = [r.sequence[b:e] for r, b, e in zip(records, np.asarray(begin), np.asarray(end), strict=True)]
    return sum(expected[r.name].sequence != sequence for r, sequence in zip(records, kept, strict=True))


@pytest.mark.parametrize(("front", "tail"), [(None, 20.0), (25.0, 30.0), (10.0, 3.0)])
def test_real_reads_are_trimmed_where_cutadapt_does(front: float | None, tail: float, tmp_path: Path) -> None:
    assert differing(some_reads(), tmp_path, front, tail) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("front", "tail"), [(None, 20.0), (25.0, 30.0)])
def test_all_real_reads(front: float | None, tail: float, tmp_path: Path, certificate) -> None:
    for end in (1, 2):
        records = load(ERR127302 / f"ERR127302_{end}_subset.fastq.gz")
        share = differing(records, tmp_path, front, tail) / len(records)
        option = f"-q {tail:.0f}" if front is None else f"-q {front:.0f},{tail:.0f}"
        certificate(
            operator="QualityTrimming",
            reference="cutadapt 5.2",
            data=f"ERR127302_{end}, {len(records)} reads, {option}",
            quantity="share of reads trimmed elsewhere",
            value=share,
            bar="0",
        )
        assert share == 0


def test_random_qualities_with_many_ties(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    records = [
        Record(f"r{i}", "A" * 40, "".join(chr(33 + q) for q in random.choice([10, 15, 20, 25, 30], 40)))
        for i in range(200)
    ]
    assert differing(records, tmp_path, 20.0, 20.0) == 0


def test_what_an_earlier_trimmer_dropped_is_as_if_it_were_not_there() -> None:
    trimmer = QualityTrimming(QualityTrimmingConfig(front=20.0, tail=20.0, temperature=2.0))
    qualities = np.asarray(np.random.default_rng(0).integers(2, 40, (5, 30)), np.float32)
    whole = {"qualities": qualities, "base_weights": np.tile((np.arange(30) < 18).astype(np.float32), (5, 1))}
    short = trimmer.apply({"qualities": qualities[:, :18]}, {}, None)[0]["base_weights"]
    by_weights = trimmer.apply(whole, {}, None)[0]["base_weights"]
    lengths = {"qualities": qualities, "read_lengths": np.full(5, 18, np.int32)}
    by_lengths = trimmer.apply(lengths, {}, None)[0]["base_weights"]
    assert np.asarray(by_weights[:, 18:]).max() == 0
    np.testing.assert_allclose(by_lengths, by_weights, atol=1e-6)
    # the cost of a base dropped, which decides between ties, depends on the number of positions
    np.testing.assert_allclose(by_weights[:, :18], short, atol=5e-3)


@pytest.mark.slow
def test_gradients() -> None:
    random = np.random.default_rng(0)
    qualities = jnp.asarray(random.uniform(2, 40, 12), jnp.float32)
    weights = jnp.asarray(random.uniform(0.3, 0.9, 12), jnp.float32)
    with jax.enable_x64(True):
        arguments = [np.asarray(x, np.float64) for x in (qualities, weights, 20.0)]
        check_grads(lambda *x: quality_kept(*x, softness=3.0), arguments, order=1, modes=["rev"], rtol=1e-4)

    @jax.jit
    @jax.grad
    def slopes(qualities: jax.Array, softness: float, weight: float) -> jax.Array:
        return quality_kept(qualities, jnp.full((2, 6), weight), 20.0, softness=softness).sum()

    for values in (0.0, 1e4, 20.0):
        for softness in (1e-4, 1.0, 1e4):
            for weight in (0.0, 1e-6, 1.0):
                assert np.isfinite(slopes(jnp.full((2, 6), values), softness, weight)).all()


def test_the_cutoff_is_learned_from_trimmed_reads() -> None:
    """Reads trimmed at 25 teach a trimmer that starts at 12."""
    data = arrays(some_reads())
    teacher = QualityTrimming(QualityTrimmingConfig(tail=25.0, temperature=0.01))
    student = QualityTrimming(QualityTrimmingConfig(tail=12.0, temperature=5.0, learnable=True))
    wanted = teacher.apply(data, {}, None)[0]["base_weights"]
    optimizer = nnx.Optimizer(student, optax.adam(0.5), wrt=nnx.Param)

    @nnx.jit
    def step(student: QualityTrimming, optimizer: nnx.Optimizer) -> jax.Array:
        def loss(student: QualityTrimming) -> jax.Array:
            return jnp.square(student.apply(data, {}, None)[0]["base_weights"] - wanted).mean()

        value, slopes = nnx.value_and_grad(loss)(student)
        optimizer.update(student, slopes)
        return value

    losses = [float(step(student, optimizer)) for _ in range(60)]
    assert student.tail is not None
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, cutoff 12 -> {float(student.tail[...]):.1f}")
    assert losses[-1] < 0.2 * losses[0]
    assert 20 < float(student.tail[...]) < 30


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="give the cutoff of an end"):
        QualityTrimmingConfig(tail=None)
