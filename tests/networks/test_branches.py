"""Branches: grouped against looped, Algorithm 2 against its own words, true sub-networks."""

import copy
from functools import cache

import pytest
import torch
from torch import nn

from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.backbones.basic_block import BasicBlock
from sklearn_rrr.backbones.block import Block, block_layers, is_depthwise, layer_names
from sklearn_rrr.backbones.bottleneck import Bottleneck
from sklearn_rrr.backbones.mobilenet import make_mobilenet
from sklearn_rrr.backbones.resnet import make_resnet
from sklearn_rrr.networks.branch_layers import BranchConv2d, BranchLinear, widen
from sklearn_rrr.networks.branch_split import split_kernels
from sklearn_rrr.networks.rrr_net import RRRNet

FORMS = {
    "basic": (BasicBlock, {}),
    "bottleneck": (Bottleneck, {}),
    "wide": (Bottleneck, {"width_per_group": 128}),
    "next": (Bottleneck, {"groups": 4, "width_per_group": 32}),
    "mobile": (None, {"stem": 16, "turned": True, "eps": 1e-3}),
}
every_form = pytest.mark.parametrize("form", FORMS)
every_split = pytest.mark.parametrize("split_at", PHASES)


@cache
def make_backbone(form, planes=(16, 16, 16, 32)):
    """Return a backbone whose norms differ in every channel."""
    torch.manual_seed(0)
    block, options = FORMS[form]
    if form == "mobile":
        a, b, c, d = planes
        rows = [(1, 3, 1, 1, a), (2, 3, 2, 2, a), (2, 5, 2, 2, b), (1, 3, 2, 2, c), (2, 5, 1, 2, c)]
        rows += [(2, 5, 2, 2, c)]
        backbone = make_mobilenet(form, rows, last=d, image_size=32, **options)
    else:
        backbone = make_resnet(form, block, (2, 2, 1, 2), planes, image_size=32, **options)
    for m in backbone.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor in (m.weight.data, m.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (m.bias.data, m.running_mean):
                tensor.uniform_(-0.5, 0.5)
    return backbone.eval()


def make_net(backbone, n_branches, split_at, **options):
    options = {"split": "paper", "width_offset": 0} | options
    return RRRNet(backbone, 3, n_branches=n_branches, split_at=split_at, **options)


def sources_of(backbone, split_at):
    return nn.Sequential(*backbone.phases[PHASES.index(split_at) :])


# ----------------------------------------------------------------------- grouped and looped


@every_form
@every_split
@pytest.mark.parametrize("shared", [True, False])
def test_grouped_and_looped_agree(form, split_at, shared):
    net = make_net(make_backbone(form), 3, split_at, head_features="all").double().train()
    with torch.no_grad():
        maps, features = net.forward_stump(torch.rand(4, 3, 32, 32, dtype=torch.double))
    if not shared:
        maps, features = maps.repeat(1, 3, 1, 1), features.repeat(1, 3, 1)
        maps, features = torch.rand_like(maps), torch.rand_like(features)
    results = {}
    for kind in ("grouped", "looped"):
        net.set_branch_form(kind).zero_grad()
        x = maps.clone().requires_grad_()
        logits = net.forward_branches(x, features)
        (logits * torch.arange(36).view(4, 3, 3)).sum().backward()
        parameters = [*net.branches.parameters(), *net.head.parameters()]
        results[kind] = [logits, x.grad, *(p.grad for p in parameters)]
    for grouped, looped in zip(*results.values(), strict=True):
        torch.testing.assert_close(grouped, looped, rtol=1e-9, atol=1e-9)
    assert results["looped"][1].abs().sum() > 0


@every_form
@every_split
def test_shared_features_equal_repeated_ones(form, split_at):
    net = make_net(make_backbone(form), 3, split_at, head_features="all").eval()
    with torch.inference_mode():
        maps, features = net.forward_stump(torch.rand(2, 3, 32, 32))
        logits = net.forward_branches(maps, features)
        repeated = maps.repeat(1, 3, 1, 1), features.repeat(1, 3, 1)
        torch.testing.assert_close(net.forward_branches(*repeated), logits)
        for changed_part in (0, 1):
            if not (maps, features)[changed_part].numel():
                continue  # without phases, the stump has no features
            own = list(repeated)
            own[changed_part] = own[changed_part].clone()
            own[changed_part].chunk(3, 1)[1].zero_()
            changed = (net.forward_branches(*own) - logits).abs().amax((0, 2))
            assert changed[1] > 1e-4 > 1e-6 > changed[[0, 2]].max()  # each sees its own part
    assert logits.shape == (2, 3, 3)


@pytest.mark.parametrize(("n_branches", "offset"), [(4, 4), (5, 3)])
def test_as_many_outputs_as_shared_inputs_by_chance(n_branches, offset):
    net = make_net(make_backbone("bottleneck"), n_branches, "conv2_x", width_offset=offset)
    assert 4 * net.branch_planes[0] == net.stump[0].out_channels == 16
    assert net.eval()(torch.rand(2, 3, 32, 32)).shape == (2, n_branches, 3)


def test_linear_heads_by_hand():
    heads = BranchLinear(2, 3, 4)
    x = torch.rand(5, 2, 3)
    for m in range(2):
        torch.testing.assert_close(heads(x)[:, m], x[:, m] @ heads.weight[m].T + heads.bias[m])
    linear, head = nn.Linear(3, 4), BranchLinear(1, 3, 4)
    head.load_linear(linear)
    torch.testing.assert_close(head(x[:, :1])[:, 0], linear(x[:, 0]))


# ------------------------------------------------------------------------------- Algorithm 2


def convolutions(backbone, net, split_at):
    """Yield the name, the pre-trained kernels and those of all branches."""
    targets = dict(net.branches.named_modules())
    for name, conv in sources_of(backbone, split_at).named_modules():
        if isinstance(conv, nn.Conv2d):
            yield name, conv.weight, targets[name].weight


@every_form
@every_split
@pytest.mark.parametrize(("n_branches", "offset"), [(2, 3), (2, 5), (4, 4)])
def test_split_without_permutations(form, split_at, n_branches, offset):
    backbone = make_backbone(form, (16, 16, 16, 16))
    net = make_net(backbone, n_branches, split_at, width_offset=offset)
    for name, P, T in convolutions(backbone, net, split_at):
        n_out, n_in = T.shape[0] // n_branches, T.shape[1]
        if (form, split_at, name) == ("mobile", "conv2_x", "0.0.conv1"):
            continue  # a depthwise convolution of the stump's channels is as wide in each branch
        assert P.shape[0] >= n_out * n_branches, name
        expected = torch.zeros_like(T)
        for x in range(n_in):
            index = range(n_out * n_branches)
            for i in range(n_branches):
                for row in range(n_out):
                    expected[i * n_out + row, x] = P[index[i * n_out + row], x]
        assert torch.equal(T, expected), name


@every_form
@every_split
@pytest.mark.parametrize("n_branches", [2, 3, 5])
def test_split_with_permutations(form, split_at, n_branches):
    backbone = copy.deepcopy(make_backbone(form, (16, 16, 16, 16)))
    with torch.no_grad():
        for conv in backbone.modules():
            if isinstance(conv, nn.Conv2d):  # every number of a kernel says where it stood
                conv.weight.copy_(torch.arange(conv.weight.numel()).view_as(conv.weight))
    net = make_net(backbone, n_branches, split_at)
    for name, P, T in convolutions(backbone, net, split_at):
        total, n_in = P.shape[0], T.shape[1]
        drawn = (T[:, :, 0, 0] // P[0].numel()).long()  # (M * C_b,out, C_b,in)
        assert T.shape[0] > total, name
        assert (drawn[:total] == torch.arange(total)[:, None]).all()
        for x in range(n_in):
            assert torch.equal(T[:, x], P[drawn[:, x], x]), name
            for part in drawn[:, x].split(total):
                assert len(part.unique()) == len(part)
        new = (drawn[total:, 1:] != drawn[total:, :1]).any(0)  # a permutation per channel
        assert new.all()


def test_permutations_are_uniform_and_come_from_the_generator():
    source = nn.Sequential(nn.Conv2d(2400, 4, 1, bias=False))
    source[0].weight.data.copy_(torch.arange(4.0).view(4, 1, 1, 1).expand(4, 2400, 1, 1))
    before = torch.get_rng_state()
    draws = []
    for seed in (0, 0, 1):
        target = nn.Sequential(nn.Conv2d(2400, 4, 1, bias=False, device="meta"))
        widen(target, 2)
        target.to_empty(device="cpu")
        split_kernels(source, target, 2, torch.Generator().manual_seed(seed))
        draws.append(target[0].weight[4:, :, 0, 0].T)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    permutations, counts = draws[0].unique(dim=0, return_counts=True)
    assert len(permutations) == 24
    assert (counts - 100).abs().max() < 40  # four standard deviations


# ---------------------------------------------------------------------------- sub-networks


@cache
def align(form, split_at, n_branches, offset):
    """Return the pre-trained phases, an aligned network, and the channels of each norm."""
    backbone = make_backbone(form)
    options = {"split": "aligned", "width_offset": offset}
    net = make_net(backbone, n_branches, split_at, **options).eval()
    source = sources_of(backbone, split_at)
    targets = dict(net.branches.named_modules())
    channels = {
        name: trace(norm, targets[name], n_branches)
        for name, norm in source.named_modules()
        if isinstance(norm, nn.BatchNorm2d)
    }
    return source, net, channels


def trace(old, new, n_branches):
    """Return the channels (M, width) a norm took: its running means are unmistakable."""
    equal = new.running_mean.view(n_branches, -1, 1) == old.running_mean
    assert (equal.sum(2) == 1).all()
    return equal.int().argmax(2)


def keep_only(module, channels):
    """Hold all other output channels of a module at zero."""

    def hook(module, args, out):
        return out * torch.zeros(out.shape[1], 1, 1).index_fill(0, channels, 1)

    module.register_forward_hook(hook)


def outputs_of(name, block):
    return f"{name}.{layer_names(block)[-1][1]}"


every_width = pytest.mark.parametrize(
    ("n_branches", "offset"), [(1, 3), (2, 0), (3, 0), (4, 4), (5, 1)]
)


@every_form
@every_split
@every_width
def test_every_branch_is_a_sub_network(form, split_at, n_branches, offset):
    """It computes what the pre-trained phases do while all other channels are silent."""
    source, net, channels = align(form, split_at, n_branches, offset)
    maps = torch.rand(2, source[0][0].conv1.in_channels, 8, 8)
    with torch.inference_mode():
        ours = nn.Sequential(*net.branches)(maps).chunk(n_branches, 1)
    for m in range(n_branches):
        full = copy.deepcopy(source)
        for name, module in full.named_modules():
            if isinstance(module, Block):
                taken = channels[outputs_of(name, module)][m]
                keep_only(module, taken)
            elif name in channels:
                keep_only(module, channels[name][m])
        with torch.inference_mode():
            expected = full(maps)[:, taken]
        assert (expected > 0).float().mean() > 0.1
        assert (ours[m] - expected).abs().max() <= 1e-5 * expected.abs().max()


@every_form
@every_split
@every_width
def test_channels_are_dealt_fairly(form, split_at, n_branches, offset):
    source, _, channels = align(form, split_at, n_branches, offset)
    norms = dict(source.named_modules())
    for name, taken in channels.items():
        assert all(len(row.unique()) == len(row) for row in taken), name
        counts = taken.flatten().bincount(minlength=norms[name].num_features)
        assert counts.max() - counts.min() <= 1, name  # a partition where it is possible
        if form == "next" and name.endswith("bn2"):
            group = taken // (norms[name].num_features // 4)
            assert torch.equal(taken, channels[name.replace("bn2", "bn1")])
            assert torch.equal(group[0], torch.arange(4).repeat_interleave(taken.shape[1] // 4))


@every_split
@every_width
def test_depthwise_kernels_follow_their_channels(split_at, n_branches, offset):
    source, net, channels = align("mobile", split_at, n_branches, offset)
    before, n_kernels = None, 0
    for name, block in source.named_modules():
        pairs = (
            zip(layer_names(block), block_layers(block), strict=True)
            if isinstance(block, Block)
            else ()
        )
        for (conv_name, norm_name), (conv, _) in pairs:
            taken = channels[f"{name}.{norm_name}"]
            if is_depthwise(conv):
                kernels = net.branches.get_submodule(f"{name}.{conv_name}").weight
                everything = torch.arange(16).expand(n_branches, -1)  # of the stump
                assert torch.equal(taken, everything if before is None else before)
                assert torch.equal(kernels, conv.weight[taken.flatten()])
                n_kernels += 1
            before = taken
    assert n_kernels == 10 - [0, 3, 5, 8][PHASES.index(split_at)]


def test_partition():
    _, _, channels = align("next", "conv4_x", 4, 4)  # 4 branches of 4 planes out of 16
    for name in ("0.0.bn1", "0.0.bn2", "0.0.bn3", "0.0.downsample.1"):
        taken = channels[name].flatten()
        assert torch.equal(taken.sort().values, torch.arange(len(taken)))
        assert not torch.equal(taken, torch.arange(len(taken)))  # drawn, not in order


def test_identity_shortcut_becomes_a_selection():
    source, net, channels = align("basic", "conv2_x", 3, 0)
    shortcut, x = net.branches[0][0].downsample, torch.rand(2, 16, 8, 8)
    assert source[0][0].downsample is None
    assert torch.equal(shortcut[0].weight.unique(), torch.tensor([0.0, 1.0]))
    assert (shortcut[0].weight.sum((1, 2, 3)) == 1).all()
    torch.testing.assert_close(shortcut(x), x[:, channels["0.0.bn2"].flatten()])


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    "form",
    [
        {"out_channels": 10, "kernel_size": 3, "stride": 2, "padding": 1},
        {"out_channels": 5, "kernel_size": 5, "padding": 2, "groups": 5},
        {"out_channels": 5, "kernel_size": 5, "stride": 2, "padding": 2, "groups": 5},
    ],
)
def test_gradient_of_few_pixels_holds_no_leftovers(form, size):
    """In bfloat16 torch leaves memory as it was where taps see nothing but the padding."""
    conv = BranchConv2d(2, nn.Conv2d(5, **form, bias=False))
    nn.init.normal_(conv.to_empty(device="cpu").weight)
    conv.to(memory_format=torch.channels_last)
    x = torch.randn(16, 10, size, size).contiguous(memory_format=torch.channels_last)
    conv(x).sum().backward()
    expected, conv.weight.grad = conv.weight.grad, None
    for _ in range(20):
        leftovers = [torch.full((n,), torch.nan) for n in (100, 450, 900, 1000)]
        del leftovers
        with torch.autocast("cpu", torch.bfloat16):
            conv(x).sum().backward()
        torch.testing.assert_close(conv.weight.grad, expected, rtol=0.05, atol=0.05)
        conv.weight.grad = None
