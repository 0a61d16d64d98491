"""RRRNet: the paper's numbers, freezing, dropout, widths that do not fit."""

import re

import pytest
import torch
from torch import nn

from sklearn_rrr import count_macs, count_parameters
from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.backbones.basic_block import BasicBlock
from sklearn_rrr.backbones.bottleneck import Bottleneck
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import make_resnet
from sklearn_rrr.networks.branch_widths import MAX_BRANCHES
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.rrr_net import RRRNet

SMALLEST = (1, 1, 1, 1)


@pytest.fixture(scope="module")
def resnet152():
    with torch.device("meta"):
        backbone = make_backbone("resnet152")
    backbone.layer1, backbone.layer2 = backbone.layer1[:1], backbone.layer2[:1]
    backbone.layer3, backbone.layer4 = backbone.layer3[:1], backbone.layer4[:1]
    return backbone.to_empty(device="cpu")


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    backbone = make_backbone("tiny").eval()
    for name, buffer in backbone.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return backbone


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def images(n=2):
    return torch.rand(n, 3, 16, 16)


# ------------------------------------------------------------------------ the paper's numbers

TABLE = """
    1  0  256 512 1
    2  6  175 356 .995344
    4  9  119 247 .999244
    8  11 79  170 .996998
    16 13 51  115 .982250
    32 13 32  77  .969101
    64 12 20  52  .994367
    128 11 11 34  .942024
    256 10 6  22  .913686
"""


@pytest.mark.parametrize("row", TABLE.split("\n")[1:-1])
def test_widths_of_equation_1(resnet152, row):
    n_branches, offset, conv4, conv5, ratio = map(float, row.split())
    net = RRRNet(resnet152, 20, blocks=SMALLEST, n_branches=int(n_branches))
    assert (net.width_offset, net.branch_planes) == (offset, (conv4, conv5))
    unsplit = count_parameters(resnet152.layer3) + count_parameters(resnet152.layer4) + 2049 * 20
    split = count_parameters(net.branches) + count_parameters(net.head)
    assert round(split / unsplit, 6) == ratio


@pytest.mark.parametrize(
    ("offset", "conv4", "conv5", "heads", "total"),
    [(1, 332_593, 745_200, 115_360, 9_201_640), (None, 284_953, 647_700, 108_960, 8_034_120)],
)
def test_figure_1_and_the_network_that_is_trained(resnet152, offset, conv4, conv5, heads, total):
    net = RRRNet(resnet152, 20, blocks=SMALLEST, n_branches=8, width_offset=offset)
    assert [count_parameters(phase) for phase in net.branches] == [8 * conv4, 8 * conv5]
    assert count_parameters(net.head) == heads
    assert count_parameters(net) == total
    if offset == 1:  # the figure counts no heads
        assert round((total - heads) / 1e6, 2) == 9.09


def test_unsplit_resnet152():
    net = RRRNet(make_backbone("resnet152"), 20)
    assert count_parameters(net) == 58_184_788
    assert round(count_macs(net, 128) / 1e6) == 3759
    assert net.blocks == (3, 8, 36, 3)


# ----------------------------------------------------------------------------------- contents


@pytest.mark.parametrize("split_at", PHASES)
@pytest.mark.parametrize("split", ["paper", "aligned"])
@pytest.mark.parametrize("backbone", ["tiny", "tiny_basic", "tiny_mobile"])
@pytest.mark.parametrize("size", [16, 33])
def test_one_branch_is_the_backbone(backbone, split, split_at, size):
    backbone = make_backbone(backbone).eval()
    for buffer in backbone.buffers():
        buffer += 1
    options = {"split": split, "split_at": split_at, "width_offset": 0}
    net = RRRNet(backbone, len(backbone.fc.bias), head="pretrained", **options)
    x = torch.rand(2, 3, size, size)
    expected = backbone.phases[0](backbone.stem(net.normalize(x)))
    for phase in backbone.phases[1:]:
        expected = phase(expected)
    torch.testing.assert_close(net.eval()(x)[:, 0], backbone.fc(expected.mean((2, 3))))


@pytest.mark.parametrize(
    ("options", "fresh"),
    [
        ({"n_branches": 2}, True),
        ({"n_branches": 1}, False),
        ({"n_branches": 1, "fresh_norms": True}, True),
        ({"n_branches": 2, "split": "aligned"}, False),
        ({"n_branches": 2, "split": "aligned", "fresh_norms": True}, True),
    ],
)
def test_stump_is_untouched_and_norms_fresh_where_wanted(tiny, options, fresh):
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    net = RRRNet(tiny, 3, blocks=(2, 1, 1, 1), **options)
    reused = [tiny.conv1, tiny.bn1, tiny.relu, tiny.maxpool, tiny.layer1, tiny.layer2]
    reused = nn.Sequential(*reused).state_dict()
    assert net.stump.state_dict().keys() == reused.keys()
    assert all(torch.equal(value, reused[key]) for key, value in net.stump.state_dict().items())
    for norm in norms(net.branches):
        state = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        is_fresh = [
            torch.equal(value, torch.full_like(value, start))
            for value, start in zip(state, (1, 0, 0, 1), strict=True)
        ]
        assert is_fresh == [True, True, fresh, fresh]
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.zero_()
    assert all(torch.equal(value, before[key]) for key, value in tiny.state_dict().items())


def test_blocks_are_the_first_of_each_phase(tiny):
    net = RRRNet(tiny, 3, blocks=(1, 1, 2, 1))
    assert [len(phase) for phase in (*net.stump[4:], *net.branches)] == [1, 1, 2, 1]
    assert torch.equal(net.stump[4][0].conv1.weight, tiny.layer1[0].conv1.weight)
    assert torch.equal(net.branches[0][1].conv2.weight, tiny.layer3[1].conv2.weight)


def test_a_reduced_phase_keeps_every_row():
    backbone = make_backbone("tiny_mobile")
    net = RRRNet(backbone, 3, blocks=(1, 2, 1, (0, 2, 3)), n_branches=2)
    assert net.blocks == (1, 2, 1, 1)
    assert [len(phase) for phase in (*net.stump[4:], *net.branches)] == [2, 2, 2, 3]
    assert list(dict(net.branches[0].named_children())) == ["0", "2"]
    states = [net.state_dict(), RRRNet(backbone, **net.arguments).state_dict()]
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    assert shapes[0] == shapes[1]
    assert torch.equal(net.stump[5][1].conv2.weight, backbone.layer2[1].conv2.weight)


def test_images_are_normalised_inside(tiny):
    net = RRRNet(tiny, 3).eval()
    x = torch.arange(256, dtype=torch.uint8).repeat(3)[: 3 * 256].view(1, 3, 16, 16)
    expected = (x[0, 0, 0, 5] / 255 - 0.485) / 0.229, (x[0, 2, 1, 0] / 255 - 0.406) / 0.225
    torch.testing.assert_close(net.normalize(x)[0, 0, 0, 5], expected[0])
    torch.testing.assert_close(net.normalize(x)[0, 2, 1, 0], expected[1])
    torch.testing.assert_close(net(x), net(x / 255))
    torch.testing.assert_close(net(x), net.forward_branches(*net.forward_stump(x)))


# ------------------------------------------------------------------------- freezing, dropout


@pytest.mark.parametrize(
    ("trainable", "learning"),
    [
        ("head", {"head"}),
        ("branches", {"branches", "head"}),
        ("all", {"stump", "branches", "head"}),
    ],
)
def test_freeze(tiny, trainable, learning):
    net = RRRNet(tiny, 3, n_branches=2).freeze("head").freeze(trainable)
    frozen = {"stump", "branches"} - learning
    state = {key: value.clone() for key, value in net.state_dict().items()}
    assert {n.split(".")[0] for n, p in net.named_parameters() if p.requires_grad} == learning
    parts = net.trainable_parts()
    expected = [p for p in net.parameters() if p.requires_grad]
    assert [id(p) for p in parts.parameters()] == [id(p) for p in expected]
    for mode in (True, False, True):
        assert net.train(mode) is net
        assert [m.training for m in parts.modules()][1:] == [mode] * (len([*parts.modules()]) - 1)
        assert not any(m.training for name in frozen for m in getattr(net, name).modules())
    net(images()).sum().backward()
    changed = {k.split(".")[0] for k, v in net.state_dict().items() if not torch.equal(v, state[k])}
    assert changed == learning - {"head"}  # statistics of the norms that learn
    assert all(p.grad is not None for p in expected)


@pytest.mark.parametrize(
    ("backbone", "split_at", "n_modules", "n_calls"),
    [
        ("tiny", "conv4_x", 2, 6),
        ("tiny", "conv5_x", 1, 3),
        ("tiny_basic", "conv4_x", 2, 4),
        ("tiny_mobile", "conv4_x", 2, 3),  # no activation after the block, one of the last layer
    ],
)
def test_dropout_after_each_activation_of_the_last_two_blocks(
    backbone, split_at, n_modules, n_calls
):
    backbone = make_backbone(backbone)
    net = RRRNet(backbone, 3, split_at=split_at, dropout=0.5).eval()
    dropouts = [m for m in net.modules() if isinstance(m, nn.Dropout)]
    calls = []
    for m in dropouts:
        m.register_forward_hook(lambda *_: calls.append(1))
    x = images()
    assert torch.equal(net(x), net(x))
    assert ([m.p for m in dropouts], len(calls)) == ([0.5] * n_modules, 2 * n_calls)
    net.freeze("branches").train()
    assert not torch.equal(net(x), net(x))
    assert not any(isinstance(m, nn.Dropout) for m in RRRNet(backbone, 3).modules())


def test_average_probabilities_by_hand():
    logits = torch.tensor([[[1.0, 1.0], [3.0, 1.0]], [[1.0, 4.0], [2.0, 2.0]]]).log()  # (B, M, K)
    expected = torch.tensor([[(0.5 + 0.75) / 2, (0.5 + 0.25) / 2], [0.35, 0.65]])
    torch.testing.assert_close(average_probabilities(logits), expected)


# ------------------------------------------------------------------------ widths that do not fit


def largest_in(error):
    return int(re.search(r"the largest possible is (\d+)\.$", str(error.value))[1])


@pytest.mark.parametrize("split_at", PHASES)
@pytest.mark.parametrize("offset", [None, 1])
@pytest.mark.parametrize(
    ("block", "planes"), [(BasicBlock, (6, 4, 15, 15)), (Bottleneck, (8, 8, 8, 8))]
)
def test_too_many_branches_name_the_largest_possible(block, planes, offset, split_at):  # fault 52
    backbone = make_resnet("b", block, SMALLEST, planes)
    options = {"split_at": split_at, "width_offset": offset}
    with pytest.raises(ValueError, match=rf"=256 .* of 'b' .* split at '{split_at}'") as error:
        RRRNet(backbone, 5, n_branches=MAX_BRANCHES, **options)
    largest = largest_in(error)
    net = RRRNet(backbone, 5, n_branches=largest, **options)
    assert net.eval()(images()).shape == (2, largest, 5)
    with pytest.raises(ValueError, match=f"`n_branches`={largest + 1} ") as error:
        RRRNet(backbone, 5, n_branches=largest + 1, **options)
    assert largest_in(error) == largest


def test_the_largest_is_right_where_a_smaller_number_is_impossible():
    """Widths fall in steps, one phase after the other."""
    backbone = make_resnet("b", BasicBlock, SMALLEST, (6, 4, 16, 16))
    with pytest.raises(ValueError, match="`n_branches`=7 ") as error:
        RRRNet(backbone, 2, n_branches=7, split_at="conv2_x")
    assert largest_in(error) == 14
    assert RRRNet(backbone, 2, n_branches=14, split_at="conv2_x").branch_planes == (1, 1, 4, 4)


def test_offset_that_no_number_of_branches_allows(tiny):
    with pytest.raises(ValueError, match=r"`width_offset`=8 .* the largest possible is 0\."):
        RRRNet(tiny, 3, n_branches=2, width_offset=8)
