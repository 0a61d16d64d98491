"""Backbones: residual networks to reuse, and the registry that names them.

The "Reuse" of RRR-Net (Sun et al. 2023, section 3.1). A backbone is data: a stem,
four phases of residual blocks (conv2_x to conv5_x), a head, and the input it was
trained for. The keys of its state dict are torchvision's, so that every torchvision
ResNet checkpoint loads strictly.
"""

from dataclasses import dataclass

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from sklearn_rrr._validation import check_choice, check_int, check_real

PHASES = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

TRAINABLE = ("head", "branches", "all")
SPLITS = ("paper", "aligned")
HEAD_INITS = ("random", "ridge")
AUGMENTATIONS = ("paper", "geometric", None)
LR_SCHEDULES = ("constant", "linear", "cosine", "steps", "onecycle")

_REGISTRY = {}


@dataclass(frozen=True)
class FineTuning:
    """How a network is best trained on top of a backbone: what "auto" means to estimators.

    The defaults are the settings of RRR-Net (section 4.2 and appendix C).

    Parameters
    ----------
    trainable : {"head", "branches", "all"}, default="branches"
        What learns.
    split : {"paper", "aligned"}, default="paper"
        How branches take their kernels.
    head_init : {"random", "ridge"}, default="random"
        How the heads start.
    augmentation : {"paper", "geometric"} or None, default="paper"
        Random transformations of the training images.
    steps : int, default=3750
        Optimiser steps. The paper's budget is 300 epochs of 12.5 batches.
    learning_rate : float, default=1e-3
        Step size of AdamW.
    stump_lr_factor : float, default=1.0
        Factor on the learning rate of the stump, where it learns.
    lr_schedule : {"constant", "linear", "cosine", "onecycle", "steps"}, default="constant"
        Course of the learning rate; "steps" divides it by ten at 40 % and at 80 %.
    """

    trainable: str = "branches"
    split: str = "paper"
    head_init: str = "random"
    augmentation: str | None = "paper"
    steps: int = 3750
    learning_rate: float = 1e-3
    stump_lr_factor: float = 1.0
    lr_schedule: str = "constant"

    def __post_init__(self):
        check_choice("trainable", self.trainable, TRAINABLE)
        check_choice("split", self.split, SPLITS)
        check_choice("head_init", self.head_init, HEAD_INITS)
        check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        check_int("steps", self.steps, 1)
        check_real("learning_rate", self.learning_rate, 0, open_low=True)
        check_real("stump_lr_factor", self.stump_lr_factor, 0, 1, open_low=True)
        check_choice("lr_schedule", self.lr_schedule, LR_SCHEDULES)

    def from_scratch(self):
        """Return the settings for random weights: everything learns, at the paper's rate."""
        return FineTuning(trainable="all", augmentation=self.augmentation, steps=self.steps)


class Backbone(nn.Module):
    """A residual network of four phases, and the images it expects.

    Parameters
    ----------
    name : str
        Name for messages.
    block : {torchvision.models.resnet.BasicBlock, torchvision.models.resnet.Bottleneck}
        Type of the residual blocks.
    depths : tuple of 4 int
        Number of blocks in conv2_x, conv3_x, conv4_x and conv5_x.
    planes : tuple of 4 int, default=(64, 128, 256, 512)
        Planes of each phase; a block has ``planes * block.expansion`` output channels.
    groups : int, default=1
        Groups of the 3x3 convolutions (ResNeXt).
    width_per_group : int, default=64
        Base width of the bottlenecks (Wide ResNet, ResNeXt).
    image_size : int, default=128
        Height and width in pixels that images are resized to.
    mean, std : tuple of 3 float
        Normalisation of RGB in [0, 1].
    n_classes : int, default=1000
        Outputs of the pre-trained head.
    fine_tuning : FineTuning, default=FineTuning()
        What "auto" means to an estimator with this backbone.

    Attributes
    ----------
    stem : torch.nn.Sequential
        First convolution, norm, ReLU and max-pool.
    phases : tuple of 4 torch.nn.Sequential
        The residual blocks.
    fc : torch.nn.Linear
        The pre-trained head.
    n_features : int
        Channels that reach the head.

    References
    ----------
    He, Zhang, Ren and Sun (2016), Deep residual learning for image recognition.
    """

    def __init__(
        self,
        name,
        block,
        depths,
        planes=(64, 128, 256, 512),
        groups=1,
        width_per_group=64,
        image_size=128,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        n_classes=1000,
        fine_tuning=FineTuning(),
    ):
        super().__init__()
        self.name = name
        self.block, self.depths, self.planes = block, tuple(depths), tuple(planes)
        self.groups, self.width_per_group = groups, width_per_group
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        self.fine_tuning = fine_tuning

        self.conv1 = nn.Conv2d(3, planes[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for i in range(4):
            self.add_module(f"layer{i + 1}", self.make_phase(i, self.in_channels(i), planes[i]))
        self.n_features = planes[3] * block.expansion
        self.fc = nn.Linear(self.n_features, n_classes)
        initialise(self)

    @property
    def stem(self):
        return nn.Sequential(self.conv1, self.bn1, self.relu, self.maxpool)

    @property
    def phases(self):
        return (self.layer1, self.layer2, self.layer3, self.layer4)

    def in_channels(self, phase):
        """Return the number of channels that enter a phase (0 to 3)."""
        return self.planes[phase - 1] * self.block.expansion if phase else self.planes[0]

    def inner_width(self, planes):
        """Return the width of a block's inner convolutions (torchvision's rule)."""
        if self.block is BasicBlock:
            return planes
        return int(planes * (self.width_per_group / 64)) * self.groups

    def make_phase(self, phase, in_channels, planes, depth=None):
        """Build a phase of this architecture, of other width or depth if wanted."""
        depth = self.depths[phase] if depth is None else depth
        stride = 1 if phase == 0 else 2
        out_channels = planes * self.block.expansion
        shortcut = None
        # A narrower phase may have as many outputs as inputs by chance; they are others.
        if stride != 1 or in_channels != out_channels or planes != self.planes[phase]:
            shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        form = {"groups": self.groups, "base_width": self.width_per_group}
        first = self.block(in_channels, planes, stride, shortcut, **form)
        rest = [self.block(out_channels, planes, **form) for _ in range(depth - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, x):
        """Return the logits of the pre-trained head: (B, 3, H, W) -> (B, n_classes).

        `x` is normalised, as torchvision's networks expect it.
        """
        x = self.stem(x)
        for phase in self.phases:
            x = phase(x)
        return self.fc(x.mean((2, 3)))


def initialise(module):
    """Draw the weights of `module` as torchvision's ResNets do, in place."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(m, nn.BatchNorm2d):
            m.reset_parameters()


# --------------------------------------------------------------------------- registry


def register_backbone(name):
    """Register a function that returns a `Backbone` with random weights under `name`.

    Parameters
    ----------
    name : str
        The value of `backbone` that users write.

    Returns
    -------
    decorator : callable
        Takes the function and returns it unchanged.

    Raises
    ------
    ValueError
        If the name is taken.

    Examples
    --------
    >>> from torchvision.models.resnet import BasicBlock
    >>> from sklearn_rrr import register_backbone
    >>> from sklearn_rrr.backbones import Backbone
    >>> @register_backbone("tiny10")
    ... def tiny10():
    ...     return Backbone("tiny10", BasicBlock, (1, 1, 1, 1), planes=(8, 8, 16, 16))
    """

    def decorate(function):
        if name in _REGISTRY:
            raise ValueError(f"The backbone {name!r} is registered already; choose another name.")
        _REGISTRY[name] = function
        return function

    return decorate


def list_backbones():
    """List the names that `backbone` accepts.

    Returns
    -------
    names : list of str
        Sorted.

    Examples
    --------
    >>> from sklearn_rrr import list_backbones
    >>> "resnet152" in list_backbones()
    True
    """
    return sorted(_REGISTRY)


@register_backbone("synth50")
def _synth50():
    return Backbone(
        "synth50",
        Bottleneck,
        (3, 4, 6, 3),
        planes=(32, 64, 96, 192),
        image_size=96,
        # Chosen by cross-validation, see docs/synth50.rst.
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


def make_backbone(name):
    """Build a registered backbone with random weights.

    Raises
    ------
    ValueError
        If the name is not registered; lists those that are.
    """
    if not isinstance(name, str) or name not in _REGISTRY:
        raise ValueError(f"`backbone` must be one of {', '.join(list_backbones())}; got {name!r}.")
    backbone = _REGISTRY[name]()
    backbone.name = name  # by which it is made again
    return backbone
