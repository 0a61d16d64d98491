"""Widths of branches: Eq. (1) on every backbone, counted on networks that are built."""

import math

import pytest
import torch

from sklearn_rrr import count_parameters, list_backbones
from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.backbones.block import is_depthwise
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.branch_widths import MAX_BRANCHES, branch_phases, fit_widths
from sklearn_rrr.networks.levels import count_features
from sklearn_rrr.networks.rrr_net import RRRNet

SMALLEST = (1, 1, 1, 1)
N_CLASSES = 20


def on_meta(name):
    with torch.device("meta"):
        return make_backbone(name)


def count_branches(backbone, blocks, n_branches, at, head_features, offset):
    """Return the number of parameters of all branches and heads, built phase by phase."""
    phases = list(branch_phases(backbone, blocks, at, n_branches, offset))
    stump = [backbone.reduce_phase(i, blocks[i]) for i in range(at)]
    n_features = count_features(stump, phases, head_features)
    return n_branches * (sum(map(count_parameters, phases)) + (n_features + 1) * N_CLASSES)


@pytest.mark.parametrize("name", list_backbones())
@pytest.mark.parametrize("head_features", ["last", "all"])
def test_every_backbone_splits_within_its_parameters(name, head_features):
    backbone = on_meta(name)
    offset, _ = fit_widths(backbone, SMALLEST, 2, 2, N_CLASSES, head_features)
    unsplit = count_branches(backbone, SMALLEST, 1, 2, head_features, 0)
    assert count_branches(backbone, SMALLEST, 2, 2, head_features, offset) <= unsplit
    if offset:
        assert count_branches(backbone, SMALLEST, 2, 2, head_features, offset - 1) > unsplit


@pytest.mark.parametrize("n_branches", [2, 3, 8])
@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("head_features", ["last", "all"])
@pytest.mark.parametrize("blocks", [SMALLEST, (2, 2, 5, 4)])
def test_lite0_with_the_smallest_offset(n_branches, at, head_features, blocks):
    backbone = on_meta("efficientnet_lite0")
    form = backbone, blocks, n_branches, at
    unsplit = count_branches(backbone, blocks, 1, at, head_features, 0)
    if blocks == (2, 2, 5, 4) and head_features == "last":
        parts = [*backbone.phases[at:], torch.nn.Linear(1280, N_CLASSES)]
        assert unsplit == sum(map(count_parameters, parts))
    if (n_branches, at, head_features) == (8, 0, "all"):
        return  # the first row is too narrow
    offset, planes = fit_widths(*form, N_CLASSES, head_features)
    rows = [row for phase in backbone.rows[at:] for row in phase]
    assert planes == tuple(
        math.floor(row.planes / math.sqrt(n_branches) + 1e-9) - offset for row in rows
    )
    assert count_branches(*form, head_features, offset) <= unsplit
    if offset:
        assert count_branches(*form, head_features, offset - 1) > unsplit


@pytest.mark.parametrize("split_at", PHASES)
@pytest.mark.parametrize("head_features", ["last", "all"])
def test_a_network_has_at_most_as_many_parameters_as_unsplit(split_at, head_features):
    backbone = make_backbone("tiny_mobile")
    options = {"split_at": split_at, "head_features": head_features}
    unsplit = count_parameters(RRRNet(backbone, 3, **options))
    for n_branches in range(2, 5):
        net = RRRNet(backbone, 3, n_branches=n_branches, **options)
        at = PHASES.index(split_at)
        counted = count_parameters(net.branches) + count_parameters(net.head)
        phases = list(branch_phases(backbone, net.blocks, at, n_branches, net.width_offset))
        n_features = count_features(backbone.phases[:at], phases, head_features)
        own = sum(map(count_parameters, phases)) + 3 * (n_features + 1)
        assert counted == n_branches * own
        assert count_parameters(net) <= unsplit
        if net.width_offset:
            wider = RRRNet(
                backbone, 3, n_branches=n_branches, width_offset=net.width_offset - 1, **options
            )
            assert count_parameters(wider) > unsplit


def test_a_depthwise_convolution_of_the_stump_reads_all_its_channels():
    net = RRRNet(make_backbone("tiny_mobile"), 3, n_branches=3, split_at="conv2_x", width_offset=0)
    first, second = net.branches[0][:2]
    assert not is_depthwise(first.conv2)
    assert first.conv1.weight.shape == (3 * 8, 1, 3, 3)  # the stem's 8 channels in each branch
    assert first.conv2.weight.shape == (3 * 4, 8, 1, 1)
    assert second.conv1.weight.shape == (3 * 3 * 4, 4, 1, 1)  # expanded three times
    assert net.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("split_at", "offset"), [*((phase, 2) for phase in PHASES), ("conv2_x", None)]
)
def test_the_largest_number_of_branches_is_possible(split_at, offset):
    backbone = make_backbone("tiny_mobile")
    options = {"split_at": split_at, "width_offset": offset, "head_features": "all"}
    with pytest.raises(ValueError, match="the largest possible is ") as error:
        RRRNet(backbone, 3, n_branches=MAX_BRANCHES, **options)
    largest = int(str(error.value).rstrip(".").rsplit(" ", 1)[1])
    net = RRRNet(backbone, 3, n_branches=largest, **options).eval()
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, largest, 3)
    assert min(conv.weight.numel() for conv in net.modules() if hasattr(conv, "groups")) > 0
    with pytest.raises(ValueError, match=f"`n_branches`={largest + 1} "):
        RRRNet(backbone, 3, n_branches=largest + 1, **options)
