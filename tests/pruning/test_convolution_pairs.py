"""Pairs of convolutions: exact at s = 1, for every convolution of every family."""

import pytest
import torch
from torch import nn

from sklearn_rrr.backbones.block import is_depthwise
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.branch_layers import BranchConv2d
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.pruning.convolution_pairs import ConvPair, ScaledPair

# The forms of all backbones; deeper members of a family have the convolutions of the others.
FORMS = ["tiny", "tiny_basic", "tiny_next", "tiny_wide", "tiny_mobile"]
FAMILIES = ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "synth50"]
FAMILIES += ["resnext101_32x8d", "resnext101_64x4d", "efficientnet_lite0", "mobilenet_v2"]
slow = pytest.mark.slow


def relative_gap(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def see_inputs(network, images):
    """Return the input and output of each convolution, by name."""
    seen, hooks = {}, []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(
                module.register_forward_hook(
                    lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)})
                )
            )
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("n_branches", [1, 3])
@pytest.mark.parametrize("name", [*FORMS, *(pytest.param(f, marks=slow) for f in FAMILIES)])
@torch.no_grad()
def test_pair_equals_every_convolution_of_every_family(name, n_branches):
    torch.manual_seed(0)
    backbone = make_backbone(name)
    blocks = tuple(min(2, depth) for depth in backbone.depths)
    net = RRRNet(backbone, 5, blocks=blocks, n_branches=n_branches).eval()
    seen = see_inputs(net, torch.rand(2, 3, 64, 64))
    convolutions = {n for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    assert seen.keys() == convolutions
    for name, (inputs, expected) in seen.items():
        conv = net.get_submodule(name)
        if is_depthwise(conv):  # is not pruned
            continue
        pair = ScaledPair.split(conv)
        assert relative_gap(pair(inputs), expected) < 1e-5, name
        pair.scale.uniform_(0.5, 2)
        folded = pair.fold()
        assert isinstance(folded, type(conv)), name  # of full rank: one convolution is smaller
        assert relative_gap(folded(inputs), pair(inputs)) < 1e-5, name
        filters = pair.basis.weight.reshape(conv.groups, -1, conv.weight[0].numel())
        identity = torch.eye(filters.shape[1]).expand(conv.groups, -1, -1)
        torch.testing.assert_close(filters @ filters.mT, identity, atol=1e-5, rtol=0)


@torch.no_grad()
def make_pair(groups=2):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=groups)
    return conv, ScaledPair.split(conv)


@torch.no_grad()
def test_kept_vectors_are_those_named():
    _, pair = make_pair()
    x = torch.randn(2, 8, 7, 7)
    assert pair.rank == 12  # 6 of each group
    pair.scale.copy_(torch.arange(12.0) + 1)
    kept = torch.tensor([0, 4, 7, 8])
    gone = [i for i in range(12) if i not in kept]
    smaller = pair.keep(kept)
    assert smaller.scale.tolist() == [1, 5, 8, 9]
    pair.scale[gone] = 0
    torch.testing.assert_close(smaller(x), pair(x))


@torch.no_grad()
@pytest.mark.parametrize(("rank", "kind"), [(4, ConvPair), (8, nn.Conv2d)])
def test_pair_is_merged_where_it_is_larger(rank, kind):
    """A group of 4 inputs, 3x3, and 6 outputs: a pair is smaller below 36·6 / (36 + 6) = 5.1."""
    _, pair = make_pair()
    index = torch.tensor([i for i in range(12) if i % 6 < rank // 2 + (rank == 8) * 2])
    smaller = pair.keep(index)
    folded = smaller.fold()
    assert type(folded) is kind
    x = torch.randn(2, 8, 7, 7)
    torch.testing.assert_close(folded(x), smaller(x))
    weights = sum(p.numel() for p in folded.parameters()) - 12  # without the bias
    assert weights == min(12 * 36, len(index) * (36 + 6))


@torch.no_grad()
def test_branches_share_an_input_through_a_pair():
    conv = BranchConv2d(3, nn.Conv2d(4, 5, 3, padding=1)).to_empty(device="cpu")
    nn.init.normal_(conv.weight)
    pair = ScaledPair.split(conv)
    assert isinstance(pair.basis, BranchConv2d)
    for channels in (4, 12):  # one input for all, and one for each
        x = torch.randn(2, channels, 5, 5)
        torch.testing.assert_close(pair(x), conv(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_split_takes_any_memory_format():
    conv, _ = make_pair()
    expected = conv(torch.ones(1, 8, 5, 5))
    pair = ScaledPair.split(conv.to(memory_format=torch.channels_last))
    torch.testing.assert_close(pair(torch.ones(1, 8, 5, 5)), expected)
    pair.to(memory_format=torch.channels_last)
    torch.testing.assert_close(pair.fold()(torch.ones(1, 8, 5, 5)), expected)
