"""Networks of inverted residual blocks: EfficientNet-Lite and MobileNetV2."""

import math
from functools import partial

from torch import nn

from sklearn_rrr.backbones.backbone import Backbone, HalfTurn
from sklearn_rrr.backbones.block import Row, layer_names
from sklearn_rrr.backbones.fine_tuning import FineTuning
from sklearn_rrr.backbones.inverted_residual import InvertedResidual, LastConvolution
from sklearn_rrr.backbones.registry import register_backbone

# Depth, kernel size, stride, expansion and channels of each row: EfficientNet-B0 without
# squeeze-and-excitation (Tan and Le 2019, table 1), and MobileNetV2 (Sandler et al. 2018, table 2).
EFFICIENTNET_LITE = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
MOBILENET_V2 = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (3, 3, 2, 6, 32),
    (4, 3, 2, 6, 64),
    (3, 3, 1, 6, 96),
    (3, 3, 2, 6, 160),
    (1, 3, 1, 6, 320),
]


def make_mobilenet(name, rows, *, stem=32, last=1280, turned=False, eps=1e-5, **options):
    """Return a network of inverted residual blocks with random weights.

    Parameters
    ----------
    name : str
        Name shown in messages.
    rows : sequence of (int, int, int, int, int)
        Depth, kernel size, stride, expansion and channels of each row of blocks, from stride 2 on.
        Four rows have stride 2: one in conv2_x, and the first one of each later phase.
    stem, last : int, default=32, 1280
        Channels of the first and of the last convolution.
    turned : bool, default=False
        Whether the network sees its images turned by 180 degrees, see :class:`HalfTurn`.
    eps : float, default=1e-5
        ε of the norms.
    **options : dict
        Other parameters of :class:`Backbone`.

    Returns
    -------
    backbone : Backbone
        Backbone whose weights are drawn from torch's generator.

    Examples
    --------
    >>> from sklearn_rrr import make_mobilenet
    >>> rows = [(1, 3, 1, 1, 8), (2, 3, 2, 6, 8), *[(2, 3, 2, 6, c) for c in (16, 16, 24)]]
    >>> make_mobilenet("small", rows, stem=8, last=64).depths
    (2, 2, 2, 2)
    """
    first = {"turn": HalfTurn()} if turned else {}
    first |= {
        "conv1": nn.Conv2d(3, stem, 3, 2, 1, bias=False),
        "bn1": nn.BatchNorm2d(stem, eps),
        "relu": nn.ReLU6(inplace=True),
    }
    phases, strides = [[]], 0
    for depth, kernel, stride, expansion, channels in rows:
        strides += stride == 2
        if stride == 2 and strides > 1:  # the first strided row ends at stride 4, as conv2_x does
            phases.append([])
        form = {"kernel": kernel, "expansion": expansion, "eps": eps}
        phases[-1].append(Row(InvertedResidual, channels, depth, stride, form))
    phases[-1].append(Row(LastConvolution, last, form={"eps": eps}))
    return Backbone(name, first, phases, **options)


def _scale(rows, width, depth):
    """Return the rows of a larger network; the first and the last row keep their depth."""
    last = len(rows) - 1
    return [
        (n if i in (0, last) else math.ceil(n * depth), *form, _round_channels(channels * width))
        for i, (n, *form, channels) in enumerate(rows)
    ]


def _round_channels(channels):
    """Round to a multiple of 8 that is at most 10 % smaller, as EfficientNet does."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _name_layers(backbone, stem, blocks, last, start=0):
    """Return {name of a layer: its published name} for the layers of all blocks and the head.

    `blocks` are the published names of the convolutions and norms in a block with and in one
    without expansion; {i} stands for its position, counted from `start`.
    """
    names, kinds = dict(stem), [block for phase in backbone.phases for block in phase]
    places = [
        f"layer{n}.{i}" for n, phase in enumerate(backbone.phases, 1) for i in range(len(phase))
    ]
    for position, (place, block) in enumerate(zip(places, kinds, strict=True)):
        layers = [name for pair in layer_names(block) for name in pair]
        published = last if position + 1 == len(places) else blocks[len(layers) == 4]
        pairs = zip(layers, published, strict=True)
        names |= {f"{place}.{own}": other.format(i=position + start) for own, other in pairs}
    return names


LITE_LAYERS = ("expand_conv", "bn0", "depthwise_conv", "bn1", "project_conv", "bn2")
LITE_BLOCK = [f"_blocks.{{i}}._{name}" for name in LITE_LAYERS]


def _efficientnet_lite(name, width, depth):
    backbone = make_mobilenet(
        name,
        _scale(EFFICIENTNET_LITE, width, depth),
        turned=True,
        eps=1e-3,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        # Selected by cross-validation, see docs/backbones.rst.
        image_size=128,
        image_size_whole=192,
        fine_tuning=FineTuning(
            trainable="branches",
            split="aligned",
            head_features="all",
            head_init="ridge",
            augmentation="geometric",
            steps=200,
            learning_rate=1e-3,
            lr_schedule="cosine",
        ),
        fine_tuning_whole=FineTuning(
            trainable="head",
            head_features="all",
            head_init="ridge",
            steps=0,
            augmentation="none",
            companion="synth50",
            flips=True,
        ),
    )
    stem = {"conv1": "_conv_stem", "bn1": "_bn0", "fc": "_fc"}
    blocks = (LITE_BLOCK, LITE_BLOCK[2:])
    backbone.published = _name_layers(backbone, stem, blocks, ("_conv_head", "_bn1"))
    return backbone


# Factors on width and depth, by name.
LITE = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
for _name, _form in LITE.items():
    register_backbone(_name)(partial(_efficientnet_lite, _name, *_form))


@register_backbone("mobilenet_v2")
def _mobilenet_v2():
    backbone = make_mobilenet("mobilenet_v2", MOBILENET_V2, image_size=160)
    stem = {"conv1": "features.0.0", "bn1": "features.0.1", "fc": "classifier.1"}
    names = [f"features.{{i}}.conv.{n}" for n in ("0.0", "0.1", "1.0", "1.1", "2", "3")]
    first = [f"features.{{i}}.conv.{n}" for n in ("0.0", "0.1", "1", "2")]
    last = ("features.{i}.0", "features.{i}.1")
    backbone.published = _name_layers(backbone, stem, (names, first), last, start=1)
    return backbone
