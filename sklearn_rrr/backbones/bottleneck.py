"""The bottleneck block of ResNet50 and larger ResNets, wide ResNets and ResNeXts."""

from torch import nn

from sklearn_rrr.backbones.block import SQUEEZE, Block

EXPANSION = 4  # width after the block over its planes


class Bottleneck(Block):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution (He et al. 2016).

    Layers have torchvision's names. The stride is that of the 3x3 convolution, as there.

    Parameters
    ----------
    in_channels, inner, out_channels : int
        Width before, inside and after the block.
    stride : int, default=1
        Stride of the second convolution.
    downsample : torch.nn.Module or None, default=None
        Layers of the shortcut; None is the identity.
    groups : int, default=1
        Groups of the second convolution.

    Examples
    --------
    >>> from sklearn_rrr.backbones.block import Row
    >>> from sklearn_rrr.backbones.bottleneck import Bottleneck
    >>> Row(Bottleneck, 8).make_block(0, in_channels=4).conv3.out_channels
    32
    """

    def __init__(self, in_channels, inner, out_channels, stride=1, downsample=None, groups=1):
        super().__init__()
        middle = {"stride": stride, "padding": 1, "groups": groups, "bias": False}
        self._add_layers(
            [
                nn.Conv2d(in_channels, inner, 1, bias=False),
                nn.Conv2d(inner, inner, 3, **middle),
                nn.Conv2d(inner, out_channels, 1, bias=False),
            ]
        )
        self.relu = nn.ReLU(inplace=True)
        self.downsample, self.stride = downsample, stride

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
        inner = cls.inner_width(planes, inputs, groups, width_per_group)
        return cls(in_channels, inner, outputs, stride, shortcut, groups)

    @classmethod
    def count_outputs(cls, planes):
        return EXPANSION * planes

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
