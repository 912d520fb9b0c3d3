import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_toys import make_data

from diffbio.core.errors import ConfigError, DataError, MissingKeyError
from diffbio.training import ArrayDataset, Dataset, Subset, split, temperature_schedule
from diffbio.training.data import epoch_batches

KEY = jax.random.key(0)


def test_array_dataset_takes_rows_in_order():
    data = ArrayDataset({"counts": jnp.arange(6.0).reshape(3, 2), "labels": np.arange(3)}, {"classes": ["a"]})
    taken = data.take(np.array([2, 0]))
    np.testing.assert_array_equal(taken["counts"], [[4, 5], [0, 1]])
    np.testing.assert_array_equal(taken["labels"], [2, 0])
    assert len(data) == 3
    assert data.metadata == {"classes": ["a"]}
    assert isinstance(data, Dataset)
    assert isinstance(Subset(data, np.array([1])), Dataset)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"counts": np.ones((4, 2)), "labels": np.ones(3)}, "'counts' has 4, 'labels' has 3"),
        ({"counts": np.ones((4, 2)), "size": np.float32(1)}, "'size' has no axis of observations"),
        ({}, "at least one array"),
    ],
)
def test_array_dataset_names_offenders(arrays, message):
    with pytest.raises(DataError, match=message):
        ArrayDataset(arrays)


def test_subset_of_a_subset():
    data = ArrayDataset({"labels": np.arange(10)})
    subset = Subset(Subset(data, np.array([9, 8, 7])), np.array([2, 0]))
    assert len(subset) == 2
    assert subset.take(np.array([0, 1]))["labels"].tolist() == [7, 9]


def test_split_is_a_partition_that_the_key_decides():
    first, again, other = (split(100, fraction=0.2, key=jax.random.key(seed)) for seed in (0, 0, 1))
    assert len(first.validation) == 20
    np.testing.assert_array_equal(np.sort(np.concatenate(first)), np.arange(100))
    np.testing.assert_array_equal(first.validation, again.validation)
    assert first.validation.tolist() != other.validation.tolist()


def test_split_by_batch_holds_out_whole_batches():
    data = make_data()
    batches = data.arrays["batch_labels"]
    for seed in range(5):
        train, validation = split(data, fraction=0.25, key=jax.random.key(seed), by="batch_labels")
        assert not set(batches[train]) & set(batches[validation])
        assert len(set(batches[validation])) == 1
        assert len(train) + len(validation) == 200
    donors = np.array(["d1", "d2"]).repeat(100)
    validation = split(data, fraction=0.9, key=KEY, by=donors).validation
    assert len(set(donors[validation])) == 1  # never all groups


def test_split_stratified_keeps_shares_and_rare_classes():
    labels = np.repeat([0, 1, 2], [100, 40, 1])
    train, validation = split(141, fraction=0.2, key=KEY, stratify=labels)
    np.testing.assert_array_equal(np.bincount(labels[validation], minlength=3), [20, 8, 0])
    assert 2 in labels[train]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fraction": 0}, ConfigError, "above 0 and below 1"),
        ({"fraction": 0.2, "by": "batch_labels", "stratify": "labels"}, ConfigError, "not both"),
        ({"fraction": 0.2, "by": "batchlabels"}, MissingKeyError, "'batch_labels'"),
        ({"fraction": 0.2, "by": np.zeros(200)}, DataError, "at least two groups"),
        ({"fraction": 0.2, "by": np.zeros(7)}, DataError, r"shape \(200,\), got \(7,\)"),
        ({"fraction": 0.2, "stratify": np.arange(200)}, DataError, "200 are left for training and 0"),
    ],
)
def test_split_says_what_is_wrong(options, error, message):
    with pytest.raises(error, match=message):
        split(make_data(), key=KEY, **options)


def test_batches_of_an_epoch_depend_on_key_and_epoch_alone():
    rows = np.arange(50, 150)
    first, again = (epoch_batches(rows, 32, KEY, epoch=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert [len(batch) for batch in first] == [32, 32, 32]
    assert len(np.unique(first)) == 96
    assert np.array(epoch_batches(rows, 32, KEY, epoch=4)).tolist() != np.array(first).tolist()
    assert epoch_batches(rows, 1000, KEY, epoch=0)[0] is rows


def test_schedule_is_exponential_then_constant():
    steps = [0, 2_500, 5_000, 10_000, 50_000]
    eager = [float(temperature_schedule(step)) for step in steps]
    np.testing.assert_allclose(eager, [10, 10**0.5, 1, 0.1, 0.1], rtol=1e-5)
    traced = jax.jit(jax.vmap(temperature_schedule))(jnp.array(steps))
    np.testing.assert_allclose(traced, eager, rtol=1e-5)
    with pytest.raises(ConfigError, match="above 0, got initial=0"):
        temperature_schedule(0, initial=0)
    with pytest.raises(ConfigError, match="decay_steps is 0"):
        temperature_schedule(0, decay_steps=0)
