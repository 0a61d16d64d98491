"""The inverted residual block of MobileNetV2 and EfficientNet-Lite, and their last convolution."""

from torch import nn

from sklearn_rrr.backbones.block import SQUEEZE, Block


class InvertedResidual(Block):
    """Block of a 1x1 expansion, a depthwise and a 1x1 convolution without activation.

    The block has no expansion if `expansion` is 1. Its first and last channels are few, its inner
    channels many; only a block that repeats adds its input to its output.

    Parameters
    ----------
    in_channels, hidden, out_channels : int
        Width before, inside and after the block.
    kernel : int, default=3
        Kernel size of the depthwise convolution.
    stride : int, default=1
        Stride of the depthwise convolution.
    expansion : int, default=6
        Width inside the block over the width before it.
    eps : float, default=1e-5
        ε of the norms.

    References
    ----------
    Sandler et al. (2018), MobileNetV2: Inverted residuals and linear bottlenecks.
    Tan and Le (2019), EfficientNet: Rethinking model scaling for convolutional neural networks.

    Examples
    --------
    >>> from sklearn_rrr.backbones.block import Row
    >>> from sklearn_rrr.backbones.inverted_residual import InvertedResidual
    >>> block = Row(InvertedResidual, 24, form={"expansion": 6}).make_block(0, in_channels=16)
    >>> block.conv2.groups
    96
    """

    def __init__(
        self, in_channels, hidden, out_channels, kernel=3, stride=1, expansion=6, eps=1e-5
    ):
        super().__init__()
        self.stride, self.downsample = stride, None
        layers = [
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
        ]
        if expansion > 1:
            layers.insert(0, nn.Conv2d(in_channels, hidden, 1, bias=False))
        self._add_layers(layers, eps)
        self.relu = nn.ReLU6(inplace=True)

    @classmethod
    def build(cls, in_channels, planes, *, stride, inputs, is_first, is_narrow, **form):
        expansion = form.get("expansion", 6)
        # Without an expansion, the depthwise convolution reads all channels of the stump.
        hidden = expansion * inputs if expansion > 1 else in_channels
        return cls(in_channels, hidden, planes, stride=stride, **form)

    @classmethod
    def inner_width(cls, planes, inputs, expansion=6, **form):
        return expansion * min(planes, inputs)  # repeated blocks read their own planes

    @property
    def has_shortcut(self):
        return self.repeats

    def activate(self, x):
        return x


class LastConvolution(Block):
    """1x1 convolution with norm and activation, the last layer before pooling.

    Examples
    --------
    >>> from sklearn_rrr.backbones.block import Row
    >>> from sklearn_rrr.backbones.inverted_residual import LastConvolution
    >>> Row(LastConvolution, 1280).make_block(0, in_channels=320).conv1.in_channels
    320
    """

    def __init__(self, in_channels, out_channels, eps=1e-5):
        super().__init__()
        self.downsample = None
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels, eps)
        self.relu = nn.ReLU6(inplace=True)

    @classmethod
    def build(cls, in_channels, planes, *, stride, inputs, is_first, is_narrow, **form):
        return cls(in_channels, planes, **form)

    @property
    def has_shortcut(self):
        return False

    @property
    def proxy_width(self):
        return max(self.conv1.in_channels // SQUEEZE, 1)
