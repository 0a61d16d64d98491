"""Features of every level: means, standard deviations and quadrants, counted and in order."""

import math

import pytest
import torch
from torch import nn

from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.backbones.block import Block
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.branch_layers import put_branch, take_branch
from sklearn_rrr.networks.levels import EPS, count_features, describe, list_levels
from sklearn_rrr.networks.rrr_net import RRRNet

every_backbone = pytest.mark.parametrize("name", ["tiny", "tiny_basic", "tiny_mobile"])
every_split = pytest.mark.parametrize("split_at", PHASES)


def make_net(name, **options):
    torch.manual_seed(0)
    options = {"head_features": "all", "n_branches": 2, "width_offset": 0} | options
    return RRRNet(make_backbone(name), 3, **options).eval()


def watch(module, outputs):
    """Record a copy of the output of each block."""
    for block in module.modules():
        if isinstance(block, Block):
            block.register_forward_hook(lambda m, args, out: outputs.append(out.clone()))


def naive_features(outputs, end):
    """Return the statistics of (B, C, h, w), one number after the other.

    They are the mean, the population deviation and, for the block at `end`, the quadrants' means.
    """
    rows = []
    for i in range(len(outputs[0])):
        row = []
        for k, out in enumerate(outputs):
            channels = list(out[i].double())
            row += [channel.mean() for channel in channels]
            if k < len(outputs) - 1:
                row += [(c.square().mean() - c.mean() ** 2 + EPS).sqrt() for c in channels]
            if k == end:
                h, w = (math.ceil(size / 2) for size in channels[0].shape)
                row += [channel[:h, :w].mean() for channel in channels]
                row += [channel[:h, -w:].mean() for channel in channels]
                row += [channel[-h:, :w].mean() for channel in channels]
                row += [channel[-h:, -w:].mean() for channel in channels]
        rows.append(torch.stack(row))
    return torch.stack(rows)


@every_backbone
@every_split
def test_features_equal_a_naive_computation(name, split_at):
    net = make_net(name, split_at=split_at)
    outputs, inputs = [], []
    watch(net, outputs)
    net.head.register_forward_hook(lambda m, args, out: inputs.append(args[0]))
    with torch.no_grad():
        net(torch.rand(2, 3, 48, 40))
    n_stump = sum(len(phase) for phase in net.stump if isinstance(phase, nn.Sequential))
    end = len(outputs) - len(net.branches[-1]) - 1
    assert inputs[0].shape == (2, 2, net.head.weight.shape[2])
    for m in range(2):
        own = [out if i < n_stump else out.chunk(2, 1)[m] for i, out in enumerate(outputs)]
        torch.testing.assert_close(
            inputs[0][:, m].double(), naive_features(own, end), rtol=1e-4, atol=2e-5
        )


def test_each_level_is_one_block_in_order():
    """The last block has only means; the last one of conv4_x has quadrants."""
    net = make_net("tiny_mobile", n_branches=1)
    levels = list_levels(
        [p for p in net.stump if isinstance(p, nn.Sequential)], net.branches, "all"
    )
    stump = [block for phase in net.stump if isinstance(phase, nn.Sequential) for block in phase]
    branches = [block for phase in net.branches for block in phase]
    assert [block for block, _ in levels] == [*stump, *branches]
    end = len(levels) - len(net.branches[-1]) - 1
    assert [n for _, n in levels] == [6 if i == end else 2 for i in range(len(levels) - 1)] + [1]
    last = list_levels([], net.branches, "last")
    assert last == [(branches[-1], 1)]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [((2, 2, 5, 4), 5344), ((1, 1, 1, 1), 2 * (16 + 24 + 40 + 80 + 112 + 192 + 320) + 448 + 1280)],
)
def test_number_of_features_of_lite0(blocks, expected):
    with torch.device("meta"):
        backbone = make_backbone("efficientnet_lite0")
    phases = [backbone.reduce_phase(i, n) for i, n in enumerate(blocks)]
    for at in range(4):
        assert count_features(phases[:at], phases[at:], "all") == expected
    assert count_features(phases[:2], phases[2:], "last") == 1280


def test_unsplit_lite0_reads_every_level():
    net = RRRNet(make_backbone("efficientnet_lite0"), 5, head_features="all").eval()
    maps, features = net.forward_stump(torch.rand(1, 3, 64, 64))
    assert net.pool_branches(maps, features).shape == (1, 1, 5344)
    assert features.shape == (1, 1, 2 * (16 + 2 * 24 + 2 * 40))
    assert net.head.center.shape == net.head.factor.shape == (1, 5344)


@every_split
def test_the_last_features_are_those_of_a_head_that_reads_no_others(split_at):
    nets = [make_net("tiny_mobile", split_at=split_at, head_features=f) for f in ("all", "last")]
    nets[1].load_state_dict(
        {k: v for k, v in nets[0].state_dict().items() if "head" not in k}, strict=False
    )
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        features = [net.pool_branches(*net.forward_stump(x)) for net in nets]
    n = features[1].shape[2]
    assert nets[1].forward_stump(x)[1].shape == (2, 1, 0)
    torch.testing.assert_close(features[0][:, :, -n:], features[1])


@every_split
def test_features_of_the_stump_are_shared(split_at):
    net = make_net("tiny_mobile", split_at=split_at, n_branches=3)
    maps, features = net.forward_stump(torch.rand(4, 3, 32, 32))
    read = net.pool_branches(maps, features)
    assert features.shape[:2] == (4, 1)
    for m in range(3):
        assert torch.equal(read[:, m, : features.shape[2]], features[:, 0])
    if split_at != "conv2_x":
        assert features.shape[2] > 0


@every_split
def test_each_branch_may_see_its_own_images(split_at):
    net = make_net("tiny_mobile", split_at=split_at, n_branches=3)
    images = torch.rand(3, 4, 3, 32, 32)  # (M, B, …)
    with torch.no_grad():
        expected = torch.stack([net(images[m])[:, m] for m in range(3)], 1)
        parts = [net.forward_stump(images[m]) for m in range(3)]
        maps = torch.cat([maps for maps, _ in parts], 1)
        features = torch.cat([features for _, features in parts], 1)
        torch.testing.assert_close(net.forward_branches(maps, features), expected)


def test_deviations_have_a_gradient_where_maps_are_constant():
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    mean, deviation = describe(x, 1, 2)
    assert (mean == 0).all()
    torch.testing.assert_close(deviation, torch.full_like(deviation, EPS**0.5))
    sum(part.sum() for part in (mean, deviation)).backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_deviations_keep_their_digits_beside_a_large_mean(offset):
    x = torch.rand(2, 6, 5, 5) + offset
    _, deviation = describe(x, 2, 2)
    expected = x.double().var((2, 3), correction=0).add(EPS).sqrt().view(2, 2, 3)
    torch.testing.assert_close(deviation.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_statistics_are_at_least_in_float32(dtype):
    x = (torch.rand(2, 4, 3, 3) + 8).to(dtype)
    mean, deviation, *quadrants = describe(x, 1, 6)
    precise = torch.promote_types(dtype, torch.float32)
    assert {part.dtype for part in (mean, deviation, *quadrants)} == {precise}
    torch.testing.assert_close(mean, x.double().mean((2, 3))[:, None].to(precise))


@every_backbone
def test_layouts_and_precisions_agree(name, shake):
    net = shake(make_net(name, n_branches=3))
    x = torch.rand(4, 3, 33, 32)
    with torch.no_grad():
        maps, features = net.forward_stump(x)
        read = net.pool_branches(maps, features)
        net.to(memory_format=torch.channels_last)
        last = net.pool_branches(
            *net.forward_stump(x.contiguous(memory_format=torch.channels_last))
        )
        torch.testing.assert_close(last, read, atol=1e-5, rtol=1e-4)
        one_by_one = torch.cat([net.pool_branches(*net.forward_stump(part)) for part in x.split(1)])
        torch.testing.assert_close(one_by_one, read, atol=1e-5, rtol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = net.pool_branches(*net.forward_stump(x))
        double = net.double()
        exact = double.pool_branches(*double.forward_stump(x.double()))
    assert coarse.dtype == torch.float32
    assert exact.dtype == torch.float64
    torch.testing.assert_close(read.double(), exact, atol=1e-5, rtol=1e-4)
    assert (coarse - exact).norm() < 0.03 * exact.norm()


def test_a_branch_can_be_taken_and_put_back():
    net = make_net("tiny_mobile", n_branches=3, split_at="conv2_x")
    for buffer in (net.head.center, net.head.factor):
        buffer.uniform_(0.5, 1.5)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(x)
        for m in range(3):
            member = take_branch(net, m)
            assert member.branches.n_branches == 1
            torch.testing.assert_close(member(x)[:, 0], expected[:, m])
        put_branch(net, 0, member)
        torch.testing.assert_close(net(x), expected[:, [2, 1, 2]])
