"""torchvision's ResNets, and synth50, whose weights are bundled with the package."""

from torchvision.models.resnet import BasicBlock, Bottleneck

from sklearn_rrr.backbones.backbone import Backbone
from sklearn_rrr.backbones.fine_tuning import FineTuning
from sklearn_rrr.backbones.registry import register_backbone


@register_backbone("synth50")
def _synth50():
    return Backbone(
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


def _torchvision_backbone(name, block, depths, form):
    return lambda: Backbone(name, block, depths, **form)


for _name, (_block, _depths, _form) in TORCHVISION.items():
    register_backbone(_name)(_torchvision_backbone(_name, _block, _depths, _form))
