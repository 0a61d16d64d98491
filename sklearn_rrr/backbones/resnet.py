"""torchvision's ResNets, and synth50, whose weights are bundled with the package."""

from torch import nn

from sklearn_rrr.backbones.backbone import Backbone
from sklearn_rrr.backbones.basic_block import BasicBlock
from sklearn_rrr.backbones.block import Row
from sklearn_rrr.backbones.bottleneck import Bottleneck
from sklearn_rrr.backbones.fine_tuning import FineTuning
from sklearn_rrr.backbones.registry import register_backbone


def make_resnet(
    name,
    block,
    depths,
    planes=(64, 128, 256, 512),
    *,
    groups=1,
    width_per_group=64,
    **options,
):
    """Return a ResNet with random weights and the keys of torchvision's state dicts.

    Parameters
    ----------
    name : str
        Name shown in messages.
    block : {BasicBlock, Bottleneck}
        Kind of the blocks.
    depths : tuple of 4 int
        Number of blocks in conv2_x, conv3_x, conv4_x and conv5_x.
    planes : tuple of 4 int, default=(64, 128, 256, 512)
        Planes of each phase; a bottleneck has four times as many output channels.
    groups : int, default=1
        Groups of the 3x3 convolutions of bottlenecks (ResNeXt).
    width_per_group : int, default=64
        Base width of bottlenecks (Wide ResNet, ResNeXt).
    **options : dict
        Other parameters of :class:`Backbone`.

    Returns
    -------
    backbone : Backbone
        Backbone whose weights are drawn from torch's generator.

    References
    ----------
    He, Zhang, Ren and Sun (2016), Deep residual learning for image recognition.

    Examples
    --------
    >>> from sklearn_rrr import make_resnet
    >>> from sklearn_rrr.backbones.basic_block import BasicBlock
    >>> make_resnet("small", BasicBlock, (1, 1, 1, 1), planes=(8, 16, 32, 64)).n_features
    64
    """
    stem = {
        "conv1": nn.Conv2d(3, planes[0], 7, stride=2, padding=3, bias=False),
        "bn1": nn.BatchNorm2d(planes[0]),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    form = (
        {"groups": groups, "width_per_group": width_per_group}
        if issubclass(block, Bottleneck)
        else {}
    )
    rows = [
        [Row(block, width, depth, 1 if i == 0 else 2, form)]
        for i, (width, depth) in enumerate(zip(planes, depths, strict=True))
    ]
    return Backbone(name, stem, rows, **options)


@register_backbone("synth50")
def _synth50():
    return make_resnet(
        "synth50",
        Bottleneck,
        (3, 4, 6, 3),
        planes=(32, 64, 96, 192),
        image_size=96,
        # Selected by cross-validation, see docs/synth50.rst.
        fine_tuning=FineTuning(
            trainable="all",
            split="aligned",
            head_init="ridge",
            augmentation="geometric",
            steps=500,
            learning_rate=1e-3,
            lr_schedule="cosine",
        ),
    )


TORCHVISION = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), {}),
    "resnet34": (BasicBlock, (3, 4, 6, 3), {}),
    "resnet50": (Bottleneck, (3, 4, 6, 3), {}),
    "resnet101": (Bottleneck, (3, 4, 23, 3), {}),
    "resnet152": (Bottleneck, (3, 8, 36, 3), {}),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), {"width_per_group": 128}),
    "wide_resnet101_2": (Bottleneck, (3, 4, 23, 3), {"width_per_group": 128}),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), {"groups": 32, "width_per_group": 4}),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), {"groups": 32, "width_per_group": 8}),
    "resnext101_64x4d": (Bottleneck, (3, 4, 23, 3), {"groups": 64, "width_per_group": 4}),
}


def _torchvision_resnet(name, block, depths, form):
    return lambda: make_resnet(name, block, depths, **form)


for _name, (_block, _depths, _form) in TORCHVISION.items():
    register_backbone(_name)(_torchvision_resnet(_name, _block, _depths, _form))
