"""Channels and blocks taken out: what was zero before is gone after, and nothing else."""

import copy

import pytest
import torch
from torch import nn

from sklearn_rrr.backbones.basic_block import BasicBlock
from sklearn_rrr.backbones.block import is_depthwise
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import make_resnet
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.pruning.channel_groups import find_groups, list_blocks
from sklearn_rrr.pruning.convolution_pairs import ConvPair, ScaledPair
from sklearn_rrr.pruning.removal import (
    drop_blocks,
    keep_channels,
    list_columns,
    removable_blocks,
    reshape_like,
)

FORMS = ["tiny", "tiny_basic", "tiny_next", "tiny_wide", "tiny_mobile"]
FAMILIES = ("resnet18", "resnext50_32x4d", "efficientnet_lite0", "mobilenet_v2")
FAMILIES = [pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]


def make_network(name, n_branches, pairs=False, **form):
    """Return a network of up to two blocks a phase whose norms differ in every channel."""
    torch.manual_seed(0)
    backbone = make_backbone(name)
    blocks = tuple(min(2, depth) for depth in backbone.depths)
    net = RRRNet(backbone, 5, blocks=blocks, n_branches=n_branches, **form).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    if net.head.center is not None:
        net.head.center.normal_()
        net.head.factor.uniform_(0.5, 2)
    if pairs:
        for path, module in list(net.named_modules()):
            if isinstance(module, nn.Conv2d) and not is_depthwise(module):
                split = ScaledPair.split(module)
                net.set_submodule(path, ConvPair(split.basis, split.mix))
    return net


def every_second(group):
    size = group.size // group.parts
    starts = size * torch.arange(group.parts)[:, None]
    return (torch.arange(0, size, 2) + starts).flatten()


def without(net, groups):
    """Return a copy of a network whose norms give zeros for every other channel of groups.

    Heads ignore the columns of these channels: deviations of zeros are not zero.
    """
    zeroed = copy.deepcopy(net)
    for group in groups:
        gone = torch.ones(group.size, dtype=torch.bool)
        gone[every_second(group)] = False
        for path in group.norms + group.follower_norms:
            norm = zeroed.get_submodule(path)
            gates = gone.repeat(norm.num_features // group.size)
            norm.weight[gates] = norm.bias[gates] = 0
        first = 0
        for name, n_statistics, channels in list_columns(net):
            for start in range(first, first + n_statistics * channels, channels):
                if name in group.levels:
                    columns = zeroed.head.weight[:, :, start : start + channels].movedim(1, 2)
                    columns[gone.view(-1, channels).expand(net.n_branches, -1)] = 0
            first += n_statistics * channels
    assert first == net.head.weight.shape[2]
    return zeroed


HEADS = ["last", "all"]
SPLITS = [(1, "conv4_x"), (2, "conv4_x"), (2, "conv2_x")]


@pytest.mark.parametrize("head_features", HEADS)
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("n_branches", "split_at"), SPLITS)
@pytest.mark.parametrize("name", [*FORMS, *FAMILIES])
@torch.no_grad()
def test_removed_channels_are_as_channels_of_zeros(
    name, n_branches, split_at, pairs, head_features
):
    net = make_network(name, n_branches, pairs, split_at=split_at, head_features=head_features)
    cut, groups = copy.deepcopy(net), find_groups(net)
    for group in groups:
        keep_channels(cut, group, every_second(group))
    x = torch.rand(2, 3, 64, 64)
    expected = without(net, groups)(x)
    close = {"rtol": 1e-4, "atol": 1e-4 * expected.abs().max().item()}
    torch.testing.assert_close(cut(x), expected, **close)
    torch.testing.assert_close(fold_norms(cut)(x), expected, **close)
    assert not torch.allclose(net(x), expected, rtol=0.1)
    again = RRRNet(make_backbone(name), **net.arguments)
    reshape_like(again, cut.state_dict())
    again.load_state_dict(cut.state_dict())
    assert torch.equal(again.eval()(x), cut(x))
    if not pairs:  # those that are left can be removed again
        for group in find_groups(cut):
            keep_channels(cut, group, every_second(group))
        reshape_like(again, cut.state_dict())
        again.load_state_dict(cut.state_dict())
        assert torch.equal(again.eval()(x), cut(x))


@pytest.mark.parametrize("n_branches", [1, 2])
@pytest.mark.parametrize("name", FORMS)
def test_every_channel_belongs_to_one_group(name, n_branches):
    for form in ({}, {"split_at": "conv2_x"}, {"head_features": "all"}):
        net = make_network(name, n_branches, **form)
        groups = find_groups(net)
        norms = [path for group in groups for path in group.norms + group.follower_norms]
        assert sorted(norms) == sorted(
            path for path, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)
        )
        readers = [path for group in groups for path in group.readers + group.followers]
        convolutions = [p for p, m in net.named_modules() if isinstance(m, nn.Conv2d)]
        assert sorted({*readers}) == sorted([*convolutions[1:], "head"])
        levels = [name for group in groups for name in group.levels]
        assert levels == [name for name, _, _ in list_columns(net)]
        assert readers.count("head") == len([group for group in groups if group.levels])


def test_groups_of_inverted_residuals():
    net = make_network("tiny_mobile", 2, head_features="all")
    groups = {group.name: group for group in find_groups(net)}
    stem = groups["stump.1"]  # after the padding; the first block has no expansion
    assert (stem.followers, stem.readers) == (["stump.4.0.conv1"], ["stump.4.0.conv2"])
    assert stem.gates == ["stump.4.0.bn1"]
    assert (stem.levels, stem.parts) == ([], 1)
    stream = groups["stump.4.1.conv3"]
    assert stream.writers == ["stump.4.1.conv3", "stump.4.2.conv3"]
    assert stream.readers == ["stump.4.2.conv1", "stump.5.0.conv1", "head"]
    assert stream.levels == ["stump.4.1", "stump.4.2"]
    assert stream.gates == stream.norms == ["stump.4.1.bn3", "stump.4.2.bn3"]
    inside = groups["branches.0.0.conv1"]
    assert inside.followers == ["branches.0.0.conv2"]
    assert (inside.readers, inside.parts) == (["branches.0.0.conv3"], 2)
    last = groups["branches.1.3.conv1"]
    assert (last.writers, last.readers) == (["branches.1.3.conv1"], ["head"])
    (first,) = [
        group
        for group in find_groups(make_network("tiny_mobile", 2, split_at="conv2_x"))
        if group.name == "stump.1"
    ]
    assert first.shared == ["branches.0.0.conv1", "branches.0.0.conv2"]
    assert (first.size, first.parts) == (8, 1)


def test_groups_of_a_basic_network():
    groups = {group.name: group for group in find_groups(make_network("resnet18", 2))}
    first = groups["stump.0"]  # the stem writes to the stream of conv2_x, which has no shortcut
    assert first.writers == ["stump.0", "stump.4.0.conv2", "stump.4.1.conv2"]
    assert first.readers == [
        "stump.4.0.conv1",
        "stump.4.1.conv1",
        "stump.5.0.conv1",
        "stump.5.0.downsample.0",
    ]
    assert first.gates == first.norms
    assert (first.size, first.parts, first.is_stream) == (64, 1, True)
    stump = groups["stump.5.0.conv2"]
    assert stump.shared == ["branches.0.0.conv1", "branches.0.0.downsample.0"]
    assert stump.readers == ["stump.5.1.conv1", *stump.shared]
    inside = groups["branches.0.0.conv1"]
    assert (inside.parts, inside.readers) == (2, ["branches.0.0.conv2"])
    assert groups["branches.1.0.conv2"].readers == ["branches.1.1.conv1", "head"]
    inner = find_groups(make_network("resnet18", 2), streams=False)
    assert [group.is_stream for group in inner] == 8 * [False]


@pytest.mark.parametrize("head_features", HEADS)
@pytest.mark.parametrize(
    ("name", "gone", "left"),
    [
        ("tiny", ["stump.4.1", "branches.0.1"], (("0",), ("0",), ("0",), ("0",))),
        (
            "tiny_mobile",
            ["stump.4.2", "stump.5.1", "branches.0.1", "branches.1.1"],
            (("0", "1"), ("0",), ("0", "2"), ("0", "2", "3")),
        ),
    ],
)
@torch.no_grad()
def test_dropped_blocks_are_as_blocks_that_add_nothing(name, gone, left, head_features):
    net = make_network(name, 2, head_features=head_features)
    assert removable_blocks(net) == gone
    silent, cut = copy.deepcopy(net), copy.deepcopy(net)
    for path in gone:
        norm = silent.get_submodule(path).bn3
        norm.weight.zero_()
        norm.bias.zero_()
    first = 0
    for path, n_statistics, channels in list_columns(net):
        stop = first + n_statistics * channels
        if path in gone:  # its quadrants are those of the block before
            silent.head.weight[:, :, first : first + min(n_statistics, 2) * channels] = 0
        first = stop
    drop_blocks(cut, gone)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-4, atol=1e-4)
    assert cut.blocks == (1, 1, 1, 1)
    assert cut.arguments["blocks"] == tuple(tuple(map(int, names)) for names in left)
    assert net.arguments["blocks"] == net.blocks
    phases = ["stump.4", "stump.5", "branches.0", "branches.1"]
    names = [f"{phase}.{i}" for phase, kept in zip(phases, left, strict=True) for i in kept]
    assert [path for path, _ in list_blocks(cut)] == names
    again = RRRNet(make_backbone(name), **cut.arguments)
    again.load_state_dict(cut.state_dict())
    assert torch.equal(again.eval()(x), cut(x))
    assert again.blocks == cut.blocks


@pytest.mark.parametrize("head_features", HEADS)
@torch.no_grad()
def test_the_last_block_may_be_dropped(head_features):
    """Then the heads read the means of the block before, and no longer its deviations."""
    torch.manual_seed(0)
    backbone = make_resnet("deep", BasicBlock, (1, 1, 1, 2), (4, 8, 8, 16))
    net = RRRNet(backbone, 3, n_branches=2, head_features=head_features).eval()
    before = copy.deepcopy(net)
    drop_blocks(net, ["branches.1.1"])
    again = RRRNet(backbone, **net.arguments)
    again.load_state_dict(net.state_dict())
    if head_features == "all":
        *_, (name, number, channels), (_, _, last) = list_columns(before)
        kept = before.head.weight[:, :, : -(channels + last)]
        assert (name, number, channels) == ("branches.1.0", 2, last)
        assert torch.equal(net.head.weight, kept)
    else:
        assert torch.equal(net.head.weight, before.head.weight)
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 2, 3)


def test_what_is_held_stays_held():
    net = make_network("tiny", 2).freeze("branches")
    group = find_groups(net)[0]
    keep_channels(net, group, every_second(group))
    assert not any(p.requires_grad for p in net.stump.parameters())
    assert all(p.requires_grad for p in net.branches.parameters())
    assert not any(m.training for m in net.train().stump.modules())
