"""The basic block of ResNet18 and ResNet34."""

from torch import nn

from sklearn_rrr.backbones.block import Block
from sklearn_rrr.backbones.bottleneck import make_shortcut


class BasicBlock(Block):
    """Residual block of two 3x3 convolutions (He et al. 2016), with torchvision's names of layers.

    Parameters
    ----------
    in_channels, planes : int
        Width before the block, and in and after it.
    stride : int, default=1
        Stride of the first convolution.
    downsample : torch.nn.Module or None, default=None
        Layers of the shortcut; None is the identity.

    Examples
    --------
    >>> from sklearn_rrr.backbones.basic_block import BasicBlock
    >>> from sklearn_rrr.backbones.block import Row
    >>> Row(BasicBlock, 8, stride=2).make_block(0, in_channels=4).conv1.stride
    (2, 2)
    """

    def __init__(self, in_channels, planes, stride=1, downsample=None):
        super().__init__()
        first = nn.Conv2d(in_channels, planes, 3, stride, padding=1, bias=False)
        second = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self._add_layers([first, second])
        self.relu = nn.ReLU(inplace=True)
        self.downsample, self.stride = downsample, stride

    @classmethod
    def build(cls, in_channels, planes, *, stride, inputs, is_first, is_narrow):
        shortcut = make_shortcut(in_channels, planes, stride, is_first and is_narrow)
        return cls(in_channels, planes, stride, shortcut)
