"""Backbones: residual networks to reuse, and the registry that names them.

The "Reuse" of RRR-Net (Sun et al. 2023, section 3.1). A backbone is data: a stem,
four phases of residual blocks (conv2_x to conv5_x), a head, and the input it was
trained for. The keys of its state dict are torchvision's, so that every torchvision
ResNet checkpoint loads strictly.
"""

from torch import nn
from torchvision.models.resnet import BasicBlock

from sklearn_rrr.backbones.fine_tuning import FineTuning

PHASES = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    fine_tuning : FineTuning or None, default=None
        The settings recommended with this backbone; None recommends the paper's.

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


def block_layers(block):
    """Return the (convolution, norm) pairs of a block in order."""
    names = [name for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
    return [(getattr(block, name), getattr(block, name.replace("conv", "bn"))) for name in names]
