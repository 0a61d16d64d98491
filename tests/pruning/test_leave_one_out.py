"""Leave-one-out relevance against brute force, and activation maps against the layers by hand."""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from sklearn_rrr.pruning import leave_one_out
from sklearn_rrr.pruning.activation_maps import activation_maps
from sklearn_rrr.pruning.channel_groups import find_groups
from sklearn_rrr.pruning.leave_one_out import score_leave_one_out, score_without
from sklearn_rrr.pruning.removal import mask_levels


@pytest.fixture
def fitted(small, digits):
    """Return a maker of fitted classifiers, good enough for scores to differ."""

    def make(backbone="tiny", n_branches=2, **more):
        settings = {"max_epochs": 6, "learning_rate": 0.01, "trainable": "all", **more}
        return small(backbone=backbone, n_branches=n_branches, **settings).fit(*digits)

    return make


@pytest.fixture
def held_out(digits):
    """Return a reader of the last 48 digits, as a classifier reads them."""
    X, y = digits[0][72:], digits[1][72:]
    return lambda clf: clf._read_set(X, y, None, None, clf.classes_)


def zero(network, group, channels):
    """Return a copy without some channels, by the factors and shifts of their norms.

    Heads that read statistics of the channels have weights of zero for them.
    """
    network = copy.deepcopy(network)
    kept = torch.tensor([i for i in range(group.size) if i not in channels], dtype=torch.long)
    with torch.no_grad():
        for name in group.norms + group.follower_norms:
            norm = network.get_submodule(name)
            for first in range(0, norm.num_features, group.size):
                places = [first + i for i in channels]
                norm.weight[places] = norm.bias[places] = 0
        network.head.weight.mul_(mask_levels(network, group, kept)[:, None])
    return network


def accuracy(clf, network, X, y):
    """Return the balanced accuracy of a classifier with another network."""
    other = copy.deepcopy(clf)
    other.module_, other._folded = network, {}
    return balanced_accuracy_score(y, other.predict(X))


@pytest.mark.parametrize(
    ("backbone", "n_branches", "form"),
    [
        ("tiny", 2, {}),
        ("tiny_basic", 3, {"head_features": "all", "max_epochs": 0}),
        ("tiny_mobile", 2, {"head_features": "all", "max_epochs": 0}),
        ("tiny_mobile", 2, {"split_at": "conv2_x", "head_init": "ridge"}),
    ],
)
def test_leave_one_out_is_brute_force(
    fitted, held_out, digits, backbone, n_branches, form, monkeypatch
):
    clf = fitted(backbone, n_branches=n_branches, **form)
    images, (X, y) = held_out(clf), (digits[0][72:], digits[1][72:])
    monkeypatch.setattr(leave_one_out, "BATCH", 20)
    full, values = accuracy(clf, clf.module_, X, y), []
    groups = find_groups(clf.module_)
    for group in [*groups[:3], groups[-2]]:  # of streams and blocks, before and after the split
        (scores,) = score_leave_one_out(clf.module_, [group], images)
        some = range(0, group.size, 1 + group.size // 9)
        without = [accuracy(clf, zero(clf.module_, group, [i]), X, y) for i in some]
        np.testing.assert_allclose(scores[some], full - np.array(without), atol=1e-12)
        values += without
    assert full > 0.3
    assert len(np.unique(np.round(values, 6))) > 3  # or nothing was compared


def test_several_channels_and_none(fitted, held_out, digits):
    clf = fitted()
    group = find_groups(clf.module_, streams=False)[2]
    X, y = digits[0][72:], digits[1][72:]
    gone = [[], [0, 3, 5], list(range(group.size))]
    expected = [accuracy(clf, zero(clf.module_, group, channels), X, y) for channels in gone]
    scores = score_without(clf.module_, group, gone, held_out(clf))
    np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_classes_weigh_alike():
    right = np.array([[True, True, True, False], [False, True, True, True]])
    balanced = leave_one_out._balance(right, np.array([0, 0, 0, 2]))
    assert balanced == pytest.approx([0.5, 5 / 6])


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("backbone", ["tiny", "tiny_mobile"])
def test_activations_are_what_the_next_layer_reads(fitted, digits, place, backbone):
    network = fitted(backbone, max_epochs=1, head_features=["last", "all"][place % 2]).module_
    groups = find_groups(network)
    block = network.stump[4][0] if backbone == "tiny" else network.stump[4][1]
    inner = next(g for g in groups if network.get_submodule(g.name) is block.conv1)
    read = next(g for g in groups if "branches.0.0.conv1" in g.shared)
    group = [groups[0], inner, groups[-1], read][place]
    images = torch.as_tensor(digits[0][:5])[:, None].expand(-1, 3, -1, -1)
    images = nn.functional.interpolate(images.float() / 255, 16)
    maps = activation_maps(network, group, images)
    with torch.no_grad():
        stem = nn.Sequential(*network.stump[:4])(network.normalize(images))
        if backbone == "tiny":
            inside = block.relu(block.bn1(block.conv1(stem)))
        else:
            inside = block.relu(block.bn1(block.conv1(network.stump[4][0](stem))))
            inside = block.relu(block.bn2(block.conv2(inside)))
        first, _ = network.forward_stump(images)
        end = nn.Sequential(*network.branches)(first)
    expected = [stem, inside, end, first][place]
    if backbone == "tiny_mobile":  # the network sees turned images
        expected = expected.flip((2, 3))
    expected = expected.abs().transpose(0, 1).numpy()
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    assert maps.shape[:2] == (group.size, 5)
    assert maps.min() == 0 or (backbone == "tiny_mobile" and maps.min() > 0)
