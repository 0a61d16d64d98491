"""Backbones: torchvision's networks, digit for digit, and the registry."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.transforms.v2.functional import normalize

from sklearn_rrr import (
    Backbone,
    RRRNetClassifier,
    count_macs,
    count_parameters,
    list_backbones,
    load_backbone,
    register_backbone,
)
from sklearn_rrr.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from sklearn_rrr.backbones.basic_block import BasicBlock
from sklearn_rrr.backbones.block import Row
from sklearn_rrr.backbones.bottleneck import Bottleneck
from sklearn_rrr.backbones.fine_tuning import DEFAULTS, LR_SCHEDULES, FineTuning
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.resnet import make_resnet
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.training.settings import SCHEDULES

TORCHVISION = sorted(set(list_backbones()) & set(torchvision.models.list_models()))


# docs: new backbone
@register_backbone("narrow18")
def narrow18():
    return make_resnet("narrow18", BasicBlock, (2, 2, 2, 2), planes=(8, 16, 32, 64), image_size=32)


# docs: end


def on_meta(name):
    with torch.device("meta"):
        return make_backbone(name)


def randomise_norms(module):
    """Give the norms statistics that no confusion of them survives."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor in (m.weight.data, m.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (m.bias.data, m.running_mean):
                tensor.uniform_(-0.5, 0.5)
    return module


# ------------------------------------------------------------------ against torchvision


def test_torchvision_families_are_registered():
    assert {"resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"} <= set(TORCHVISION)


LARGE = ("wide_resnet101_2", "resnext101_32x8d", "resnext101_64x4d")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in TORCHVISION]
)
def test_checkpoint_gives_torchvision_logits(name, tmp_path):
    torch.manual_seed(0)
    theirs = randomise_norms(torchvision.models.get_model(name)).eval()
    path = tmp_path / f"{name}.pth"
    torch.save(theirs.state_dict(), path)
    backbone, pretrained = load_backbone(name, weights=path)
    path.unlink()  # half a gigabyte
    ours = RRRNet(backbone, 1000, blocks=None, n_branches=1, head="pretrained").eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        normalised = normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD))
        expected = theirs(normalised)
        assert_close(backbone(normalised), expected)
        assert_close(ours(images)[:, 0], expected)
        odd = F.interpolate(normalised, (61, 75))
        assert_close(backbone(odd), theirs(odd))
    assert pretrained
    named = {key.rpartition(".") for key in backbone.state_dict()}
    published = {f"{backbone.published.get(layer, layer)}.{leaf}" for layer, _, leaf in named}
    assert published == theirs.state_dict().keys()


def assert_close(logits, expected):
    assert logits.shape == expected.shape == (2, 1000)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", TORCHVISION)
def test_published_costs(name):
    backbone = on_meta(name)
    published = next(iter(torchvision.models.get_model_weights(name))).meta
    assert count_parameters(backbone) == published["num_params"]
    assert round(count_macs(backbone, 224) / 1e9, 3) == published["_ops"]


def test_resnet152_of_the_paper():
    backbone = on_meta("resnet152")
    assert count_parameters(backbone) == 60_192_808
    assert math.prod(backbone.depths) == 2592  # members of the space
    backbone.fc = nn.Linear(backbone.n_features, 20, device="meta")
    assert count_parameters(backbone) == 58_184_788
    assert round(count_macs(backbone, 128) / 1e6) == 3759


# ----------------------------------------------------------------------------- any backbone


def test_forward_and_structure():
    backbone = make_resnet("b", Bottleneck, (1, 2, 1, 1), (4, 8, 16, 32), n_classes=5).eval()
    assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert [len(phase) for phase in backbone.phases] == [1, 2, 1, 1]
    assert [backbone.in_channels(i) for i in range(4)] == [4, 16, 32, 64]
    assert backbone.n_features == 128
    assert backbone.stem(torch.rand(2, 3, 32, 32)).shape == (2, 4, 8, 8)


@pytest.mark.parametrize(
    ("form", "expected"),
    [({}, 20), ({"width_per_group": 128}, 40), ({"groups": 32, "width_per_group": 4}, 32)],
)
def test_inner_width_is_torchvisions_rule(form, expected):
    assert Bottleneck.inner_width(20, inputs=64, **form) == expected
    with torch.device("meta"):
        block = Row(Bottleneck, 20, form=form).make_block(0, 64)
    assert block.conv2.out_channels == expected


def test_narrower_phase_has_its_own_shortcut():
    """16 planes make 64 outputs, as many as conv2_x has inputs, but other channels."""
    with torch.device("meta"):
        backbone = make_resnet("b", Bottleneck, (1, 1, 1, 1))
        basic = make_resnet("b", BasicBlock, (1, 1, 1, 1))
        assert backbone.make_phase(0, 64, [16])[0].downsample is not None
    assert basic.layer1[0].downsample is None


def test_a_stem_may_have_several_layers_and_parts(digits):
    """The last convolution of the stem says how many channels the first phase reads."""
    first = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    stem = {"first": first, "conv2": nn.Conv2d(4, 6, 3, 2, 1, bias=False)}
    rows = [[Row(BasicBlock, 6)], *[[Row(BasicBlock, width, 2, 2)] for width in (6, 8, 10)]]
    backbone = Backbone("deep stem", stem, rows, image_size=32).eval()
    assert [backbone.in_channels(i) for i in range(5)] == [6, 6, 6, 8, 10]
    x = torch.rand(2, 3, 32, 32)
    assert backbone(x).shape == (2, 1000)
    net = RRRNet(backbone, 3, n_branches=2, head_features="all").eval()
    maps, features = net.forward_stump(x)
    assert (maps.shape, features.shape) == ((2, 6, 4, 4), (2, 1, 2 * (6 + 6 + 6)))
    assert net(x).shape == (2, 2, 3)


# --------------------------------------------------------------------------------- registry


def test_a_new_backbone_works_everywhere(digits):
    X, y = digits
    backbone, _ = load_backbone("narrow18", weights=None)
    net = RRRNet(backbone, 4, blocks=(1, 1, 1, 1), n_branches=3).eval()
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 3, 4)
    clf = RRRNetClassifier(backbone="narrow18", weights=None, max_epochs=1, random_state=0)
    assert clf.fit(X[:20], y[:20]).predict_proba(X[:3]).shape == (3, 4)


def test_registering_twice_raises():
    with pytest.raises(ValueError, match="'resnet50' is already registered"):
        register_backbone("resnet50")(narrow18)
    assert make_backbone("resnet50").name == "resnet50"
    assert isinstance(narrow18(), Backbone)  # the decorator returns the function unchanged


@pytest.mark.parametrize("name", ["resnet51", "", None, 50, ["resnet50"]])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ValueError, match="`backbone` must be one of") as error:
        load_backbone(name)
    assert all(known in str(error.value) for known in list_backbones())
    assert str(error.value).endswith(f"got {name!r}.")


def test_names_are_sorted_and_a_copy():
    names = list_backbones()
    assert names == sorted(names)
    names.clear()
    assert "synth50" in list_backbones()


def test_fine_tuning_is_checked():
    assert tuple(SCHEDULES) == LR_SCHEDULES
    scratch = FineTuning(augmentation="geometric", learning_rate=0.1).from_scratch()
    expected = FineTuning(trainable="all", augmentation="geometric", steps=3750)
    assert scratch.fill(DEFAULTS) == expected.fill(DEFAULTS)
    for wrong in ({"head_init": "rigde"}, {"steps": -1}, {"stump_lr_factor": 2.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            FineTuning(**wrong).check()
