"""The network that corrects errors learns from one genome what it does on another part of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from planted_errors import Planted, bacillus, planted

from diffbio.core.errors import MissingKeyError
from diffbio.losses.alignment.correction import true_base_cross_entropy
from diffbio.operators.preprocessing.learned_correction import LearnedErrorCorrection, LearnedErrorCorrectionConfig


def as_data(reads: Planted) -> dict[str, jax.Array]:
    true = jnp.eye(4)[reads.true]
    return {"reads": jnp.asarray(reads.reads), "qualities": jnp.asarray(reads.qualities), "true_reads": true}


@pytest.mark.slow
def test_what_is_learned_on_some_reads_corrects_others(certificate) -> None:
    learned, other = (planted(bacillus(at, 400), rate=0.01, length=50) for at in (20_000, 60_000))
    config = LearnedErrorCorrectionConfig(k=11, n_kmers=2_000)
    corrector = LearnedErrorCorrection(config, rngs=nnx.Rngs(0))
    corrector.initialize(jnp.asarray(learned.reads))
    optimizer = nnx.Optimizer(corrector, optax.adam(0.03), wrt=nnx.Param)
    data = as_data(learned)

    @nnx.jit
    def step(corrector: LearnedErrorCorrection, optimizer: nnx.Optimizer) -> jax.Array:
        def loss(corrector: LearnedErrorCorrection) -> jax.Array:
            return true_base_cross_entropy(corrector.apply(data, {}, None)[0])

        value, slopes = nnx.value_and_grad(loss)(corrector)
        optimizer.update(corrector, slopes)
        return value

    losses = [float(step(corrector, optimizer)) for _ in range(45)]
    threshold = corrector.log_threshold[...]
    corrector.initialize(jnp.asarray(other.reads))  # the words of the other reads ...
    corrector.log_threshold[...] = threshold  # ... and what has been learned of counts
    found = corrector.apply(as_data(other), {}, None)[0]
    wrong = np.asarray(found["corrected_reads"]).argmax(-1) != other.true
    made = int((wrong & ~other.wrong).sum())
    print(
        f"loss {losses[0]:.3f} -> {losses[-1]:.5f}; {other.wrong.sum()} errors -> {wrong.sum()}, of which {made} made"
    )
    certificate(
        operator="LearnedErrorCorrection",
        reference="planted errors",
        data="reads of 400 bases of Bacillus, 1 % substitutions; trained on another 400",
        quantity="errors left, as a share of those planted",
        value=wrong.sum() / other.wrong.sum(),
        bar="<= 0.2",
    )
    assert losses[-1] < 0.05 * losses[0]
    assert wrong.sum() <= other.wrong.sum() / 5


def test_the_loss_names_what_it_lacks_and_counts_only_what_is_known() -> None:
    with pytest.raises(MissingKeyError, match="'corrected_reads'"):
        true_base_cross_entropy({"true_reads": jnp.zeros((1, 2, 4))})
    data = {"corrected_reads": jnp.zeros((1, 2, 4)), "true_reads": jnp.zeros((1, 2, 4))}
    assert float(true_base_cross_entropy(data)) == 0
    data["true_reads"] = jnp.eye(4)[None, :2]
    slope = jax.grad(lambda x: true_base_cross_entropy({**data, "corrected_reads": x}))(data["corrected_reads"])
    assert np.isfinite(slope).all()
