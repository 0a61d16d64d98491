"""Batches: every image once, never one alone, the same for the same seed."""

from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from sklearn_rrr.images.forms import sort_input
from sklearn_rrr.images.labelled_set import LabelledSet
from sklearn_rrr.images.sources import make_source
from sklearn_rrr.training import feature_cache
from sklearn_rrr.training.batches import EpochBatches, load_batches
from sklearn_rrr.training.feature_cache import keep_features


@pytest.mark.parametrize(("n", "size"), [(33, 32), (3, 2), (40, 16), (5, 8), (2, 2), (64, 32)])
def test_batches_hold_every_image_once_and_never_one_alone(n, size):  # fault 47
    batches = list(EpochBatches(n, size, seed=0))
    assert sorted(chain.from_iterable(batches)) == list(range(n))
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1


def test_a_single_image_is_doubled():
    assert list(EpochBatches(1, 32, seed=0)) == [[0, 0]]


def test_epochs_differ_and_repeat_with_the_seed():
    first, second, again = EpochBatches(50, 8, 3), EpochBatches(50, 8, 3), EpochBatches(50, 8, 3)
    epoch0, epoch1 = list(first), list(first)
    assert epoch0 == list(second)
    assert epoch0 != epoch1
    again.epoch = 1
    assert epoch1 == list(again)


def test_branches_have_their_own_order():
    batches = [np.array(batch) for batch in EpochBatches(20, 10, 0, n_branches=3)]
    assert [batch.shape for batch in batches] == [(3, 10), (3, 10)]
    orders = np.concatenate(batches, axis=1)
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert not np.array_equal(orders[0], orders[1])


@pytest.fixture
def images():
    """Nine gray images of 4x4 pixels, filled with its label but for one pixel."""
    labels = np.arange(9)
    pixels = labels.astype(np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    pixels[:, 3, 3] = 255  # the white level
    return LabelledSet(make_source("array", pixels), labels, labels, 4, weights=labels / 2)


@pytest.mark.parametrize("ahead", [False, True])
def test_images_come_with_their_labels_and_weights(images, ahead):
    for pixels, (labels, weights) in load_batches(images, EpochBatches(9, 4, 0), ahead):
        assert pixels.shape[1:] == (3, 4, 4)
        assert torch.equal(pixels[:, 0, 0, 0].long(), labels)
        assert torch.equal(weights, labels / 2)


def test_reading_ahead_keeps_one_batch_ready_and_raises_in_turn(images, monkeypatch):
    read = []

    def read_batch(indices):
        read.append(indices)
        if len(read) == 3:
            raise ValueError("third")
        return indices

    monkeypatch.setattr(images, "__getitems__", read_batch)
    loader = load_batches(images, [[0, 1], [2, 3], [4, 5]], ahead=True)
    batches_so_far = iter(loader)
    assert next(batches_so_far) == [0, 1]
    assert len(read) >= 1
    assert next(batches_so_far) == [2, 3]
    with pytest.raises(ValueError, match="third"):
        next(batches_so_far)
    assert len(read) == 3


def test_branches_get_their_images_one_after_the_other(images):
    for pixels, (labels, _) in load_batches(images, EpochBatches(9, 3, 0, n_branches=2)):
        assert labels.shape == (3, 2)  # (B, M)
        assert torch.equal(pixels[:, 0, 0, 0].long(), labels.T.flatten())


def test_subset_keeps_what_belongs_together(images):
    pixels, (labels, weights) = images.subset(np.array([5, 2])).__getitems__([0, 1])
    assert pixels[:, 0, 0, 0].tolist() == labels.tolist() == [5, 2]
    assert weights.tolist() == [2.5, 1]


# ------------------------------------------------------------------------- kept features


def first_pixel(images):
    """Return maps (B, 3, 2, 1) and features (B, 1, 5), or (B, 1, 0) where there are none."""
    first = images[:, :, 0, 0].float()
    return first[:, :, None, None].expand(-1, -1, 2, 1), -first[:, :1, None].expand(-1, 1, 5)


EXAMPLE = torch.zeros(1, 3, 2, 1), torch.zeros(1, 1, 5)


@pytest.mark.parametrize("in_memory", [True, False])
def test_kept_features_stand_in_for_the_images(images, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(feature_cache, "MEMORY_BYTES", 10)
    with keep_features([images, None], first_pixel, 4, EXAMPLE) as (kept, none):
        assert none is None
        assert len(kept) == 9
        for (maps, features), (labels, weights) in load_batches(kept, EpochBatches(9, 4, 0)):
            assert maps.shape[1:] == (3, 2, 1)
            assert features.shape[1:] == (1, 5)
            assert torch.equal(maps[:, 0, 1, 0], labels.float())
            assert torch.equal(features[:, 0, 4], -labels.float())
            assert torch.equal(weights, labels / 2)
        for parts, (labels, _) in load_batches(kept, EpochBatches(9, 3, 0, n_branches=2)):
            assert torch.equal(parts[0][:, 2, 0, 0], labels.T.flatten().float())
            assert torch.equal(parts[1][:, 0, 0], -labels.T.flatten().float())


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_stump_may_have_no_features(images, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(feature_cache, "MEMORY_BYTES", 10)
    example = torch.zeros(1, 3, 2, 1), torch.zeros(1, 1, 0)

    def compute(images):
        maps, features = first_pixel(images)
        return maps, features[:, :, :0]

    with keep_features([images], compute, 4, example) as (kept,):
        maps, features = kept.__getitems__([3, 0])[0]
        assert (maps.shape, features.shape) == ((2, 3, 2, 1), (2, 1, 0))


def test_features_that_do_not_fit_are_not_kept(images, monkeypatch):
    monkeypatch.setattr(feature_cache, "MEMORY_BYTES", 10)
    monkeypatch.setattr(feature_cache, "FILE_BYTES", 20)
    with keep_features([images], None, 4, EXAMPLE) as kept:
        assert kept is None


def test_a_full_disk_costs_time_only(images, monkeypatch):
    monkeypatch.setattr(feature_cache, "MEMORY_BYTES", 10)

    def refuse(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    with (
        pytest.warns(UserWarning, match="not cached: No space left"),
        keep_features([images], first_pixel, 4, EXAMPLE) as kept,
    ):
        assert kept is None


def test_a_dataset_is_read_in_its_own_thread(images):
    pairs = TensorDataset(torch.zeros(4, 3, 8, 8), torch.arange(4))
    source = make_source(*sort_input(pairs))
    assert LabelledSet(source, np.arange(4), np.arange(4), 8).reads_dataset
    assert not images.reads_dataset
