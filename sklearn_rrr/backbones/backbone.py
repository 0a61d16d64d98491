"""Backbones: pre-trained residual networks to reuse.

The "Reuse" step of RRR-Net (Sun et al. 2023, section 3.1). A backbone has a stem, four
phases of residual blocks (conv2_x to conv5_x), a head, and the input format it was
trained on. Its state dict has torchvision's keys, so that every torchvision ResNet
checkpoint loads strictly.
"""

from torch import nn
from torchvision.models.resnet import BasicBlock

from sklearn_rrr.backbones.fine_tuning import FineTuning

PHASES = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Residual network with four phases and the input format that it expects.

    Parameters
    ----------
    name : str
        Name shown in messages.
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
        Height and width in pixels of the resized images.
    mean, std : tuple of 3 float, default=ImageNet's
        Mean and standard deviation that normalise RGB in [0, 1].
    n_classes : int, default=1000
        Number of outputs of the pre-trained head.
    fine_tuning : FineTuning or None, default=None
        Settings recommended for this backbone; None recommends the defaults.

    Attributes
    ----------
    stem : torch.nn.Sequential
        First convolution, norm, ReLU and max-pooling.
    phases : tuple of 4 torch.nn.Sequential
        Residual blocks of each phase.
    fc : torch.nn.Linear
        Pre-trained head.
    n_features : int
        Number of input features of the head.

    References
    ----------
    He, Zhang, Ren and Sun (2016), Deep residual learning for image recognition.

    Examples
    --------
    >>> from torchvision.models.resnet import BasicBlock
    >>> from sklearn_rrr import Backbone
    >>> Backbone("small", BasicBlock, (1, 1, 1, 1), planes=(8, 16, 32, 64)).n_features
    64
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
        fine_tuning=None,
    ):
        super().__init__()
        self.name = name
        self.block, self.depths, self.planes = block, tuple(depths), tuple(planes)
        self.groups, self.width_per_group = groups, width_per_group
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        self.fine_tuning = FineTuning() if fine_tuning is None else fine_tuning

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
        """Return the number of input channels of a phase (0 to 3)."""
        return self.planes[phase - 1] * self.block.expansion if phase else self.planes[0]

    def inner_width(self, planes):
        """Return the width of a block's inner convolutions by torchvision's rule."""
        if self.block is BasicBlock:
            return planes
        return int(planes * (self.width_per_group / 64)) * self.groups

    def make_phase(self, phase, in_channels, planes, depth=None):
        """Build a phase of this architecture with the given width and depth."""
        depth = self.depths[phase] if depth is None else depth
        stride = 1 if phase == 0 else 2
        out_channels = planes * self.block.expansion
        shortcut = None
        # A narrower phase may have as many outputs as inputs, but the channels do not correspond.
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

        `x` must be normalised, as for torchvision's networks.
        """
        x = self.stem(x)
        for phase in self.phases:
            x = phase(x)
        return self.fc(x.mean((2, 3)))


def initialise(module):
    """Initialise the weights of `module` in place, as torchvision does for ResNets."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(m, nn.BatchNorm2d):
            m.reset_parameters()


def block_layers(block):
    """Return the (convolution, norm) pairs of a block in order."""
    names = [name for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
    return [(getattr(block, name), getattr(block, name.replace("conv", "bn"))) for name in names]
