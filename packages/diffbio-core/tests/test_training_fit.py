import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from toy_operators import Jitter, JitterConfig
from training_toys import Head, HeadConfig, accuracy, cross_entropy, make_data, make_pipeline

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, DataError, MissingKeyError
from diffbio.training import evaluate, fit, temperature_schedule

KEY = jax.random.key(0)
ADAM = optax.adam(3e-2)
COOLING = functools.partial(temperature_schedule, initial=2.0, final=0.5, decay_steps=50)


def run(pipeline=None, data=None, loss=cross_entropy, **options):
    options = {"optimizer": ADAM, "epochs": 5, "key": KEY, "progress": False} | options
    return fit(pipeline or make_pipeline(), data or make_data(), loss, **options)


def params(pipeline):
    return nnx.to_pure_dict(nnx.state(pipeline, nnx.Param))["steps"]


def test_learns_and_leaves_the_given_pipeline_alone():
    pipeline = make_pipeline()
    before = jax.tree.map(np.array, params(pipeline))
    result = run(pipeline, epochs=30, batch_size=32, validation=0.2)
    jax.tree.map(np.testing.assert_array_equal, before, params(pipeline))
    assert not pipeline["center"].mean[...].any()
    score = evaluate(result.pipeline, make_data(seed=1), {"accuracy": accuracy}, key=KEY)["accuracy"]
    print(f"accuracy on new cells {score:.3f}")
    assert score > 0.9
    losses = result.history.columns()["train_loss"]
    assert losses[-1] < 0.3 * losses[0]


def test_one_compilation_for_a_run_and_for_all_equal_runs():
    def loss(data):  # an object that no other test has compiled for
        return cross_entropy(data)

    options = {"batch_size": 32, "validation": 0.2, "epochs": 20, "anneal": COOLING}
    assert run(loss=loss, **options).compilations == 1
    assert run(make_pipeline(seed=5), loss=loss, **options).compilations == 0
    changed = {"anchor": 3.0, "clip_norm": 0.1, "trainable": ("head",), "key": jax.random.key(9)}
    assert run(loss=loss, **options | changed).compilations == 0


def test_is_a_function_of_its_key():
    options = {"batch_size": 32, "validation": 0.2}
    first, again, other = (run(make_pipeline(noise=0.5), key=jax.random.key(k), **options) for k in (1, 1, 2))
    losses = [result.history.columns()["train_loss"] for result in (first, again, other)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_step_is_plain_optax():
    data = make_data()
    result = run(data=data, epochs=3, optimizer=optax.sgd(0.1))
    batch = jax.tree.map(jnp.asarray, data.arrays)
    graphdef, weights, rest = nnx.split(make_pipeline(), nnx.Param, ...)
    rest = nnx.to_pure_dict(rest)

    def objective(weights, rest):
        pipeline = nnx.merge(graphdef, weights, rest)
        loss = cross_entropy(pipeline.apply(batch, {}, None, key=KEY)[0])
        return loss, nnx.to_pure_dict(nnx.state(pipeline, nnx.Not(nnx.Param)))

    losses = []
    for _ in range(3):
        (loss, rest), gradient = jax.value_and_grad(objective, has_aux=True)(weights, rest)
        weights = jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradient)
        losses.append(float(loss))
    np.testing.assert_allclose(result.history.columns()["train_loss"], losses, rtol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        params(result.pipeline),
        nnx.to_pure_dict(weights)["steps"],
    )


def test_frozen_stage_stays_bit_for_bit_even_under_weight_decay():
    start = params(make_pipeline())
    result = run(optimizer=optax.adamw(1e-1, weight_decay=0.1), trainable=("head",))
    trained = params(result.pipeline)
    np.testing.assert_array_equal(trained[1]["basis"], start[1]["basis"])
    assert not np.allclose(trained[2]["weights"], start[2]["weights"])
    assert result.history.columns()["grad_norm/projection"] == [0.0] * 5


def test_anchor_pulls_to_the_start():
    start = params(make_pipeline())[1]["basis"]
    moved = []
    for strength in (0.0, 1.0, 100.0):
        result = run(epochs=40, optimizer=optax.sgd(3e-3), anchor={"projection": strength})
        moved.append(float(jnp.linalg.norm(params(result.pipeline)[1]["basis"] - start)))
    print("distance from the start at strengths 0, 1, 100:", moved)
    assert moved[0] > moved[1] > 3 * moved[2]
    assert "anchor" in result.history[0]


def test_clipping_limits_the_whole_gradient():
    weights = [params(run(epochs=1, optimizer=optax.sgd(1.0), clip_norm=c).pipeline) for c in (1e-3, None)]
    start = params(make_pipeline())
    lengths = [float(optax.tree.norm(jax.tree.map(jnp.subtract, moved, start))) for moved in weights]
    np.testing.assert_allclose(lengths[0], 1e-3, rtol=1e-2)
    assert lengths[1] > 1e-2


def test_early_stopping_gives_back_the_best_weights():
    data = make_data(cells=60, spread=6.0)  # noise to overfit
    result = run(data=data, epochs=300, validation=0.5, patience=5, optimizer=optax.adam(0.1))
    losses = result.history.columns()["validation_loss"]
    assert result.stopped == "patience"
    assert len(result.history) == result.best_epoch + 5
    assert losses[result.best_epoch - 1] == min(losses)
    rows = np.arange(30)
    given = run(data=data, epochs=30, validation=rows, optimizer=optax.adam(0.1))
    again = evaluate(given.pipeline, data, {"loss": cross_entropy}, key=KEY, rows=rows)["loss"]
    np.testing.assert_allclose(again, min(given.history.columns()["validation_loss"]), rtol=1e-5)


def test_metric_chooses_the_epoch():
    result = run(epochs=10, validation=0.3, metric=accuracy, maximize=True)
    scores = result.history.columns()["validation_metric"]
    losses = result.history.columns()["validation_loss"]
    tied = [epoch for epoch, score in enumerate(scores, start=1) if score == max(scores)]
    assert result.best_epoch == min(tied, key=lambda epoch: losses[epoch - 1])


def test_what_is_worse_on_held_out_rows_than_the_start_is_not_given_back():
    learned = run(epochs=30, batch_size=32, validation=0.2)
    spoiled = run(learned.pipeline, epochs=3, batch_size=32, validation=0.2, optimizer=optax.sgd(-10.0))
    assert (spoiled.best_epoch, len(spoiled.history)) == (0, 3)
    jax.tree.map(np.testing.assert_array_equal, params(learned.pipeline), params(spoiled.pipeline))
    assert run(learned.pipeline, validation=0.2, patience=2, optimizer=optax.sgd(-10.0)).stopped == "patience"


def test_validation_in_batches_is_the_weighted_mean():
    data = make_data()
    whole, parts = (
        evaluate(make_pipeline(), data, {"loss": lambda d: jnp.mean(d["counts"] ** 2)}, key=KEY, batch_size=size)
        for size in (None, 64)
    )
    np.testing.assert_allclose(parts["loss"], whole["loss"], rtol=1e-6)


def test_annealing_follows_the_schedule_and_spares_learnable_softness():
    result = run(epochs=4, anneal={"head": COOLING})
    expected = [float(COOLING(step)) for step in range(4)]
    np.testing.assert_allclose(result.history.columns()["temperature/head"], expected, rtol=1e-5)
    np.testing.assert_allclose(result.pipeline["head"].softness(), expected[-1], rtol=1e-5)
    learned = run(make_pipeline(learnable=True), epochs=4)
    assert float(learned.pipeline["head"].softness()) != 1.0


def test_other_state_is_carried():
    data = make_data()
    result = run(data=data, epochs=3)
    mean = data.arrays["counts"].mean(0)
    np.testing.assert_allclose(result.pipeline["center"].mean[...], (1 - 0.9**3) * mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"anneal": {"haed": COOLING}}, ConfigError, "'haed'.*did you mean 'head'.*'center', 'projection', 'head'"),
        ({"anneal": {"projection": COOLING}}, ConfigError, "'projection' holds no Softness.*'head'"),
        ({"trainable": "head"}, ConfigError, r"one string.*\('head',\)"),
        ({"trainable": ("center",)}, ConfigError, "'center', which has no parameters.*'projection', 'head'"),
        ({"anchor": {"head": -1.0}}, ConfigError, "strength is 0 or more"),
        ({"clip_norm": 0.0}, ConfigError, "norm above 0"),
        ({"epochs": 0}, ConfigError, "epochs is 0"),
        ({"patience": 3}, ConfigError, "need held-out rows"),
        ({"validation": np.array([1, 1])}, DataError, "stands twice"),
        ({"validation": np.array([500])}, DataError, "rows 0 to 199"),
        ({"loss": lambda data: data["celltypes"].sum()}, MissingKeyError, "loss reads 'celltypes'.*'labels'"),
        ({"loss": lambda data: data["cell_type_logits"]}, ConfigError, r"shape \(200, 3\).*scalar"),
        ({"pipeline": Head(HeadConfig(), rngs=nnx.Rngs(0))}, ConfigError, r"Pipeline\(operator\)"),
        ({"pipeline": Pipeline(Jitter(JitterConfig(), rngs=nnx.Rngs(0)))}, ConfigError, "no stage.*parameters"),
        ({"pipeline": make_pipeline(learnable=True), "anneal": {"head": COOLING}}, ConfigError, "is learnable"),
    ],
)
def test_options_that_can_not_be(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


MESH = """
import sys; sys.path.insert(0, sys.argv[1])
import jax, numpy as np, optax
from training_toys import cross_entropy, make_data, make_pipeline
from diffbio.core.errors import DataError
from diffbio.training import fit
assert len(jax.devices()) == 2
losses = []
for mesh in (None, jax.make_mesh((2,), ("cells",))):
    result = fit(make_pipeline(noise=0.3), make_data(), cross_entropy, optimizer=optax.adam(3e-2), epochs=10,
                 key=jax.random.key(0), batch_size=32, validation=0.2, mesh=mesh)
    assert result.compilations == 1, result.compilations
    columns = result.history.columns()
    losses.append(columns["train_loss"] + columns["validation_loss"])
difference = np.abs(np.subtract(*losses)).max()
print("largest difference of a loss between one and two devices", difference)
assert difference < 1e-5
try:
    fit(make_pipeline(), make_data(), cross_entropy, optimizer=optax.adam(3e-2), epochs=1, key=jax.random.key(0),
        batch_size=33, mesh=mesh)
except DataError as error:
    assert "33 rows can't be shared by 2 devices" in str(error)
else:
    raise AssertionError("33 rows were shared by 2 devices")
"""


def test_two_devices_train_like_one():
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", MESH, str(Path(__file__).parent)]
    done = subprocess.run(command, env=os.environ | two, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


def test_overhead_of_a_step():
    run(epochs=1, batch_size=8)
    began = time.process_time()
    result = run(epochs=20, batch_size=8)
    spent = time.process_time() - began
    steps = result.history[-1]["step"]
    print(f"{1e3 * spent / steps:.2f} CPU-ms per step of a tiny pipeline ({steps} steps)")
    assert spent / steps < 0.01
