"""Data for training: datasets of observations by rows, and the split into training and validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Int, Shaped

from diffbio.core.errors import ConfigError, DataError, MissingKeyError, listed, nearest

_CHUNK = 4096  # rows read at a time when only one column of a dataset is wanted


@runtime_checkable
class Dataset(Protocol):
    """What `fit` trains on: rows that can be taken by index, and what is known about them."""

    def __len__(self) -> int:
        """Return the number of observations (cells, reads, molecules)."""
        ...

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of those rows, in that order; observations lead every array."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """What can be written as JSON about the data: class names, gene names, the source."""
        ...


class ArrayDataset:
    """Arrays in memory, one row per observation.

    Args:
        arrays: Arrays by data key; all have the same number of rows.
        metadata: What can be written as JSON about the data.

    Raises:
        DataError: There is no array, one has no rows axis, or the arrays differ in their number
            of rows.

    Example:
        >>> data = ArrayDataset({"counts": np.ones((4, 3)), "labels": np.arange(4)})
        >>> len(data), data.take(np.array([2, 0]))["labels"].tolist()
        (4, [2, 0])
    """

    def __init__(
        self,
        arrays: Mapping[str, Shaped[np.ndarray | Array, "observations ..."]],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self.metadata = dict(metadata or {})
        self._length = _common_length(self.arrays)

    def __len__(self) -> int:
        """Return the number of observations."""
        return self._length

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` of each array, in that order."""
        return {name: array[indices] for name, array in self.arrays.items()}


class Subset:
    """Some rows of a dataset, read when they are asked for.

    Args:
        dataset: The dataset to take rows of.
        indices: The rows, in the order they shall have.

    Example:
        >>> data = ArrayDataset({"labels": np.arange(10)})
        >>> Subset(data, np.array([7, 8, 9])).take(np.array([0, 2]))["labels"].tolist()
        [7, 9]
    """

    def __init__(self, dataset: Dataset, indices: Int[np.ndarray, " rows"]) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices)

    def __len__(self) -> int:
        """Return the number of observations."""
        return len(self.indices)

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` of this subset, in that order."""
        return self.dataset.take(self.indices[indices])

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the whole dataset."""
        return self.dataset.metadata


class Feed:
    """Batches of a dataset on the device; the rows asked for last are kept there.

    Full-batch training asks for the same rows each epoch, and sends them once.

    Args:
        data: The dataset.
        place: Sends a batch to the device or devices.
    """

    def __init__(
        self, data: Dataset, place: Callable[[dict[str, np.ndarray]], dict[str, Array]] = jax.device_put
    ) -> None:
        self.data = data
        self.place = place
        self._rows: np.ndarray | None = None
        self._batch: dict[str, Array] = {}

    def __call__(self, rows: Int[np.ndarray, " batch"]) -> dict[str, Array]:
        """Return the arrays of these rows on the device."""
        if rows is not self._rows:
            self._rows, self._batch = rows, self.place(self.data.take(rows))
        return self._batch


class Split(NamedTuple):
    """Row indices of the two sides of a split, each in rising order."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]


def split(
    data: Dataset | int,
    *,
    fraction: float,
    key: jax.Array,
    by: str | np.ndarray | None = None,
    stratify: str | np.ndarray | None = None,
) -> Split:
    """Hold out a share of the observations for validation.

    Cells of one batch (a donor, a plate, a run) resemble each other, so that held-out cells of a
    batch that was trained on flatter a model; `by` holds out whole batches instead.

    Args:
        data: A dataset, or the number of observations.
        fraction: The share to hold out, between 0 and 1.
        key: Random key; the same key gives the same split.
        by: Hold out whole groups: the data key of the group of each observation, or an array of
            groups. Groups are drawn until their share comes closest to `fraction`.
        stratify: Hold out the same share of each class: a data key or an array of classes. A
            class always keeps one observation in training.

    Returns:
        The indices of the training and of the validation rows.

    Raises:
        ConfigError: `fraction` is not between 0 and 1, or both `by` and `stratify` are given.
        DataError: A side would be empty, or `by` names only one group.
        MissingKeyError: The dataset has no such array.

    Example:
        >>> train, validation = split(10, fraction=0.3, key=jax.random.key(0))
        >>> len(train), len(validation)
        (7, 3)
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction is {fraction!r}; the held-out share must be above 0 and below 1")
    if by is not None and stratify is not None:
        raise ConfigError("give by (whole groups) or stratify (a share of each class), not both")
    length = data if isinstance(data, int) else len(data)
    generator = generator_of(key)
    if by is not None:
        held_out = _whole_groups(_column(data, by, "by"), fraction, generator)
    elif stratify is not None:
        held_out = _share_of_each(_column(data, stratify, "stratify"), fraction, generator)
    else:
        held_out = generator.permutation(length)[: max(1, round(fraction * length))]
    return split_at(length, held_out)


def split_at(length: int, validation: np.ndarray) -> Split:
    """Return the split of `length` rows whose validation side is `validation`.

    Raises:
        DataError: An index is out of range or occurs twice, or one side is empty.
    """
    validation = np.sort(np.asarray(validation))
    if validation.dtype.kind not in "iu":
        raise DataError(f"validation rows must be integers, got an array of {validation.dtype}")
    if len(validation) and (validation[0] < 0 or validation[-1] >= length):
        raise DataError(
            f"validation rows run from {validation[0]} to {validation[-1]}; the dataset has rows 0 to {length - 1}"
        )
    if len(np.unique(validation)) < len(validation):
        raise DataError("a row stands twice among the validation rows; give each row once")
    train = np.setdiff1d(np.arange(length), validation, assume_unique=True)
    if not len(train) or not len(validation):
        raise DataError(
            f"of {length} observations, {len(train)} are left for training and {len(validation)} "
            "for validation; each side needs at least one"
        )
    return Split(train, validation)


def epoch_batches(
    rows: Int[np.ndarray, " rows"], batch_size: int | None, key: jax.Array, epoch: int
) -> list[Int[np.ndarray, " batch"]]:
    """Return the row indices of each batch of one epoch.

    The order depends on nothing but the rows, `key` and `epoch`, so that an interrupted run
    continues with the batches that it would have seen.

    Args:
        rows: The rows to train on.
        batch_size: The rows of one batch; what does not fill a batch waits for another epoch's
            order. `None`, or a size not below the number of rows: one batch of all rows, in order.
        key: Random key of the whole run.
        epoch: The number of the epoch, from 0.

    Returns:
        One index array per batch, all of the same length.

    Example:
        >>> [len(batch) for batch in epoch_batches(np.arange(10), 4, jax.random.key(0), epoch=0)]
        [4, 4]
    """
    if batch_size is None or batch_size >= len(rows):
        return [rows]
    order = generator_of(jax.random.fold_in(key, epoch)).permutation(rows)
    return list(order[: len(rows) // batch_size * batch_size].reshape(-1, batch_size))


def generator_of(key: jax.Array) -> np.random.Generator:
    """Return a NumPy generator seeded by a JAX key, for shuffling on the host."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _common_length(arrays: Mapping[str, np.ndarray]) -> int:
    """Return the number of rows that all arrays have."""
    if not arrays:
        raise DataError("a dataset needs at least one array, got none")
    scalars = [name for name, array in arrays.items() if array.ndim == 0]
    if scalars:
        raise DataError(f"{listed(scalars)} has no axis of observations; put what is not per row in metadata")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
        raise DataError(f"all arrays need the same number of rows, but {counts}")
    return next(iter(lengths.values()))


def _column(data: Dataset | int, column: str | np.ndarray, role: str) -> np.ndarray:
    """Return one value per observation: an array as given, or the named array of the dataset."""
    length = data if isinstance(data, int) else len(data)
    if isinstance(column, str):
        if isinstance(data, int):
            raise ConfigError(f"{role}={column!r} names an array, but data is a number; give the array")
        parts = []
        for start in range(0, length, _CHUNK):  # a chunk at a time: all arrays of all rows may not fit into memory
            chunk = data.take(np.arange(start, min(start + _CHUNK, length)))
            if column not in chunk:
                raise MissingKeyError(f"the dataset has no {column!r}{nearest(column, chunk)}; it has {listed(chunk)}")
            parts.append(np.array(chunk[column]))
        column = np.concatenate(parts)
    column = np.asarray(column)
    if column.shape != (length,):
        raise DataError(f"{role} needs one value per row, shape ({length},), got {column.shape}")
    return column


def _whole_groups(groups: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Draw groups until the share of their rows comes closest to `fraction`."""
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < 2:
        raise DataError(
            "holding out whole groups needs at least two groups, but all rows belong to "
            f"{names[0].item()!r}; leave out by to hold out single observations"
        )
    order = generator.permutation(len(names))
    shares = np.cumsum(sizes[order])[:-1] / len(groups)  # at least one group stays in training
    drawn = order[: 1 + np.argmin(np.abs(shares - fraction))]
    return np.flatnonzero(np.isin(groups, names[drawn]))


def _share_of_each(classes: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Draw `fraction` of the rows of each class, leaving at least one."""
    drawn = []
    for name in np.unique(classes):
        rows = generator.permutation(np.flatnonzero(classes == name))
        drawn.append(rows[: min(round(fraction * len(rows)), len(rows) - 1)])
    return np.concatenate(drawn)
