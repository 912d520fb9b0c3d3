"""Checkpoints: everything that a fit needs to go on as if it had never stopped, stored by orbax."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from diffbio.core.errors import StorageError
from diffbio.training.history import History
from diffbio.training.step import Carry, Weights


@dataclasses.dataclass
class FitState:
    """Everything that changes while a fit runs.

    Attributes:
        carry: What the training step changes.
        best: Parameters and buffers of the best epoch so far; empty without validation.
        history: One record per epoch.
        best_epoch: The epoch of `best`, from 1; 0 before there is one.
        best_score: Its score, lower is better; compared from the first number on.
    """

    carry: Carry
    best: tuple[Weights, PyTree] | tuple[()]
    history: History = dataclasses.field(default_factory=History)
    best_epoch: int = 0
    best_score: tuple[float, ...] = (math.inf,)


class Checkpoints:
    """The checkpoints of one fit in a directory; the newest is kept.

    Args:
        directory: Where to store them; it is created.
        every: Store after each so many epochs.
        resume: Whether to go on from what is stored there.
        settings: What has to be equal for a run to go on exactly (sizes, batch size, key), as JSON.

    Raises:
        StorageError: The directory holds a run and `resume` is false.
    """

    def __init__(self, directory: str | pathlib.Path, *, every: int, resume: bool, settings: dict[str, Any]) -> None:
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._every = every
        self._settings = settings
        self._directory = pathlib.Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        if self._manager.latest_step() is not None and not resume:
            self._manager.close()
            raise StorageError(
                f"{self._directory} holds the checkpoint of another run: pass resume=True to go on with "
                "it, or name another directory"
            )

    def __enter__(self) -> Self:
        """Return these checkpoints."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until what is being stored is on disk."""
        self._manager.close()

    def restore(self, state: FitState) -> FitState:
        """Return the newest stored state, or `state` where nothing is stored yet.

        Args:
            state: A state at its start, which says what the stored one has to look like.

        Raises:
            StorageError: What is stored belongs to another structure, key, batch size or data.
        """
        epoch = self._manager.latest_step()
        if epoch is None:
            return state
        json = self._ocp.args.JsonRestore()
        log = self._manager.restore(epoch, args=self._ocp.args.Composite(log=json))["log"]
        self._require_equal(log["settings"], self._settings | _layout(state))
        template = _to_numpy((state.carry, state.best))
        stored = self._manager.restore(
            epoch, args=self._ocp.args.Composite(arrays=self._ocp.args.StandardRestore(template))
        )["arrays"]
        carry, best = _like((state.carry, state.best), stored)
        history = History(log["history"])
        return FitState(carry, best, history, log["best_epoch"], tuple(log["best_score"]))

    def save(self, state: FitState, *, last: bool) -> None:
        """Store a state, where its epoch is one of those to store or the last one."""
        epoch = len(state.history)
        if epoch % self._every and not last:
            return
        log = {
            "settings": self._settings | _layout(state),
            "history": list(state.history.records),  # written in the background, while the next epoch adds its record
            "best_epoch": state.best_epoch,
            "best_score": list(state.best_score),
        }
        arrays = _to_numpy((state.carry, state.best))
        self._manager.save(
            epoch,
            args=self._ocp.args.Composite(arrays=self._ocp.args.StandardSave(arrays), log=self._ocp.args.JsonSave(log)),
        )

    def _require_equal(self, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
        names = sorted(stored.keys() | wanted.keys())
        differing = [name for name in names if stored.get(name) != wanted.get(name)]
        if differing:
            shown = "; ".join(
                f"{name}: {stored.get(name, 'absent')} there, {wanted.get(name, 'absent')} here"
                for name in differing[:5]
            )
            more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
            raise StorageError(
                f"the checkpoint in {self._directory} is of another run ({shown}{more}): resume with the "
                "pipeline, data, batch_size, optimizer and key that it was started with, or name another "
                "directory"
            )


def _layout(state: FitState) -> dict[str, str]:
    """Return dtype and shape of every array of a state, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path({"carry": state.carry._asdict(), "best": state.best})
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(tree: PyTree) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by number; random keys as the integers that they hold.

    They are copies: storing goes on in the background while the next step reuses the memory.
    """
    leaves = jax.tree.leaves(tree)
    return {str(i): np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf) for i, leaf in enumerate(leaves)}


def _like(tree: PyTree, stored: dict[str, np.ndarray]) -> PyTree:
    """Return stored arrays in the structure of `tree`, on the devices of its arrays."""
    leaves, structure = jax.tree.flatten(tree)

    def restored(leaf: Array, array: np.ndarray) -> Array:
        if _is_key(leaf):
            return jax.random.wrap_key_data(jnp.array(array), impl=jax.random.key_impl(leaf))
        return jax.device_put(jnp.array(array), leaf.sharding)

    return jax.tree.unflatten(structure, [restored(leaf, stored[str(i)]) for i, leaf in enumerate(leaves)])
