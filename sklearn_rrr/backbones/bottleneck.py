"""The bottleneck block of ResNet50 and larger ResNets, wide ResNets and ResNeXts."""

from torch import nn
from torchvision.models import resnet

from sklearn_rrr.backbones.block import SQUEEZE, Block


class Bottleneck(Block, resnet.Bottleneck):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution (He et al. 2016).

    Its form may have ``groups`` and ``width_per_group``, torchvision's ``base_width``.

    Examples
    --------
    >>> from sklearn_rrr.backbones.block import Row
    >>> from sklearn_rrr.backbones.bottleneck import Bottleneck
    >>> Row(Bottleneck, 8).make_block(0, in_channels=4).conv3.out_channels
    32
    """

    forward = Block.forward

    @classmethod
    def build(
        cls,
        in_channels,
        planes,
        *,
        stride,
        inputs,
        is_first,
        is_narrow,
        groups=1,
        width_per_group=64,
    ):
        outputs = cls.count_outputs(planes)
        shortcut = make_shortcut(in_channels, outputs, stride, is_first and is_narrow)
        return cls(in_channels, planes, stride, shortcut, groups, width_per_group)

    @classmethod
    def count_outputs(cls, planes):
        return planes * cls.expansion

    @classmethod
    def inner_width(cls, planes, inputs, groups=1, width_per_group=64):
        return int(planes * (width_per_group / 64)) * groups  # torchvision's rule

    @property
    def proxy_width(self):
        return max(self.conv2.out_channels // SQUEEZE, 1)


def make_shortcut(in_channels, out_channels, stride, is_narrow):
    """Return the 1x1 convolution of a ResNet's shortcut, or None where the identity fits.

    A narrower phase may have as many outputs as inputs, but the channels do not correspond.
    """
    if stride == 1 and in_channels == out_channels and not is_narrow:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )
