import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from training_toys import accuracy, cross_entropy, make_data, make_pipeline

from diffbio.core.errors import StorageError
from diffbio.training import fit, temperature_schedule

ADAM = optax.adam(3e-2)
EVERYTHING = {
    "batch_size": 32, "validation": 0.2, "metric": accuracy, "maximize": True, "anneal": temperature_schedule,
    "clip_norm": 1.0, "anchor": 0.1,
}  # fmt: skip


def run(epochs, seed=0, pipeline=None, optimizer=ADAM, **options):
    options = {"key": jax.random.key(seed), "progress": False} | options
    return fit(pipeline or make_pipeline(noise=0.3), make_data(), cross_entropy, optimizer=optimizer, epochs=epochs,
               **options)  # fmt: skip


def difference(first, second):
    """Return the largest difference of any recorded figure but the time."""
    columns = [result.history.columns() for result in (first, second)]
    return max(np.abs(np.subtract(columns[0][n], columns[1][n])).max() for n in columns[0] if n != "seconds")


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["full batch", "everything"])
def test_resuming_is_as_if_never_stopped(tmp_path, options):
    straight = run(20, **options)
    run(10, checkpoint=tmp_path, **options)
    resumed = run(20, checkpoint=tmp_path, resume=True, **options)
    print("largest difference of a figure after resuming:", difference(straight, resumed))
    assert difference(straight, resumed) <= 1e-6
    assert resumed.best_epoch == straight.best_epoch
    weights = [nnx.to_pure_dict(nnx.state(r.pipeline, nnx.Param)) for r in (straight, resumed)]
    jax.tree.map(np.testing.assert_array_equal, *weights)


KILLED = """
import os, sys; sys.path.insert(0, sys.argv[1])
import jax
from test_training_checkpoint import EVERYTHING, run
from diffbio.training import checkpoint
save = checkpoint.Checkpoints.save
def save_and_die(self, state, *, last):
    save(self, state, last=last)
    if len(state.history) == 7:
        os._exit(9)
checkpoint.Checkpoints.save = save_and_die
run(12, checkpoint=sys.argv[2], **EVERYTHING)
"""


def test_a_killed_run_resumes(tmp_path):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 9
    resumed = run(12, checkpoint=tmp_path, resume=True, **EVERYTHING)
    assert difference(run(12, **EVERYTHING), resumed) <= 1e-6


def test_resume_starts_where_nothing_is_stored_and_ends_where_all_is_done(tmp_path):
    first = run(4, checkpoint=tmp_path, resume=True, checkpoint_every=3)
    again = run(4, checkpoint=tmp_path, resume=True)
    assert difference(first, again) == 0
    assert again.compilations == 0


def test_another_run_is_refused(tmp_path):
    run(2, checkpoint=tmp_path, batch_size=32)
    with pytest.raises(StorageError, match="holds the checkpoint of another run: pass resume=True"):
        run(2, checkpoint=tmp_path, batch_size=32)
    with pytest.raises(StorageError, match="batch_size: 32 there, 16 here"):
        run(3, checkpoint=tmp_path, resume=True, batch_size=16)
    with pytest.raises(StorageError, match=r"key: \[0, 0\] there, \[0, 1\] here"):
        run(3, checkpoint=tmp_path, resume=True, batch_size=32, seed=1)
    with pytest.raises(StorageError, match=r"log_value.*resume with the pipeline"):
        run(3, checkpoint=tmp_path, resume=True, batch_size=32, pipeline=make_pipeline(learnable=True))
    with pytest.raises(StorageError, match="moments"):
        run(3, checkpoint=tmp_path, resume=True, batch_size=32, optimizer=optax.sgd(0.1))


def test_what_is_stored_is_of_the_epoch_that_it_was_stored_at(tmp_path, monkeypatch):
    stored = []

    def save_late(manager, epoch, *, args):
        """Stand for a slow disk: what was to be stored is looked at when the fit has ended."""
        stored.append((epoch, args.log.item))

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", save_late)
    run(3, checkpoint=tmp_path)
    assert [(epoch, len(log["history"])) for epoch, log in stored] == [(1, 1), (2, 2), (3, 3)]
