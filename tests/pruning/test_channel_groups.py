"""Channels and blocks taken out: what was zero before is gone after, and nothing else."""

import copy

import pytest
import torch
from torch import nn

from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.pruning.channel_groups import find_groups, list_blocks
from sklearn_rrr.pruning.convolution_pairs import ConvPair, ScaledPair
from sklearn_rrr.pruning.removal import drop_blocks, keep_channels, removable_blocks, reshape_like

FORMS = ["tiny", "tiny_basic", "tiny_next", "tiny_wide"]
FAMILIES = [pytest.param(f, marks=pytest.mark.slow) for f in ("resnet18", "resnext50_32x4d")]


def make_network(name, n_branches, pairs=False):
    """Return a network of up to two blocks a phase whose norms differ in every channel."""
    torch.manual_seed(0)
    backbone = make_backbone(name)
    blocks = tuple(min(2, depth) for depth in backbone.depths)
    net = RRRNet(backbone, 5, blocks=blocks, n_branches=n_branches).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    if pairs:
        for path, module in list(net.named_modules()):
            if isinstance(module, nn.Conv2d):
                split = ScaledPair.split(module)
                net.set_submodule(path, ConvPair(split.basis, split.mix))
    return net


def every_second(group):
    size = group.size // group.parts
    starts = size * torch.arange(group.parts)[:, None]
    return (torch.arange(0, size, 2) + starts).flatten()


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("n_branches", [1, 2])
@pytest.mark.parametrize("name", [*FORMS, *FAMILIES])
@torch.no_grad()
def test_removed_channels_are_as_channels_of_zeros(name, n_branches, pairs):
    net = make_network(name, n_branches, pairs)
    zeroed, cut = copy.deepcopy(net), copy.deepcopy(net)
    groups = find_groups(net)
    for group in groups:
        kept = every_second(group)
        gone = torch.ones(group.size, dtype=torch.bool)
        gone[kept] = False
        for path in group.norms:
            norm = zeroed.get_submodule(path)
            norm.weight[gone] = norm.bias[gone] = 0
        keep_channels(cut, group, kept)
    x = torch.rand(2, 3, 64, 64)
    expected = zeroed(x)
    torch.testing.assert_close(cut(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fold_norms(cut)(x), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(net(x), expected, rtol=0.1)
    again = RRRNet(make_backbone(name), **net.arguments)
    reshape_like(again, cut.state_dict())
    again.load_state_dict(cut.state_dict())
    assert torch.equal(again.eval()(x), cut(x))


def test_every_channel_belongs_to_one_group():
    for name, n_branches in [("tiny_basic", 1), ("tiny_next", 2)]:
        net = make_network(name, n_branches)
        norms = [path for group in find_groups(net) for path in group.norms]
        assert sorted(norms) == sorted(
            path for path, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)
        )
        readers = [path for group in find_groups(net) for path in group.readers]
        convolutions = [p for p, m in net.named_modules() if isinstance(m, nn.Conv2d)]
        assert sorted(readers) == sorted([*convolutions[1:], "head"])


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
    assert (first.size, first.parts, first.is_stream) == (64, 1, True)
    stump = groups["stump.5.0.conv2"]
    assert stump.shared == ["branches.0.0.conv1", "branches.0.0.downsample.0"]
    assert stump.readers == ["stump.5.1.conv1", *stump.shared]
    inside = groups["branches.0.0.conv1"]
    assert (inside.parts, inside.readers) == (2, ["branches.0.0.conv2"])
    assert groups["branches.1.0.conv2"].readers == ["branches.1.1.conv1", "head"]
    inner = find_groups(make_network("resnet18", 2), streams=False)
    assert [group.is_stream for group in inner] == 8 * [False]


@torch.no_grad()
def test_dropped_blocks_are_as_blocks_that_add_nothing():
    net = make_network("tiny", 2)
    assert removable_blocks(net) == ["stump.4.1", "branches.0.1"]
    silent, cut = copy.deepcopy(net), copy.deepcopy(net)
    for path in removable_blocks(net):
        norm = silent.get_submodule(path).bn3
        norm.weight.zero_()
        norm.bias.zero_()
    drop_blocks(cut, removable_blocks(net))
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(cut(x), silent(x))
    assert cut.blocks == cut.arguments["blocks"] == (1, 1, 1, 1)
    assert net.arguments["blocks"] == (2, 1, 2, 1)
    assert [path for path, _ in list_blocks(cut)] == [
        "stump.4.0",
        "stump.5.0",
        "branches.0.0",
        "branches.1.0",
    ]
    again = RRRNet(make_backbone("tiny"), **cut.arguments)
    again.load_state_dict(cut.state_dict())


def test_what_is_held_stays_held():
    net = make_network("tiny", 2).freeze("branches")
    group = find_groups(net)[0]
    keep_channels(net, group, every_second(group))
    assert not any(p.requires_grad for p in net.stump.parameters())
    assert all(p.requires_grad for p in net.branches.parameters())
    assert not any(m.training for m in net.train().stump.modules())
