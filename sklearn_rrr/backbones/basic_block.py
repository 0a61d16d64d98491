"""The basic block of ResNet18 and ResNet34."""

from torchvision.models import resnet

from sklearn_rrr.backbones.block import Block
from sklearn_rrr.backbones.bottleneck import make_shortcut


class BasicBlock(Block, resnet.BasicBlock):
    """Residual block of two 3x3 convolutions (He et al. 2016).

    Examples
    --------
    >>> from sklearn_rrr.backbones.basic_block import BasicBlock
    >>> from sklearn_rrr.backbones.block import Row
    >>> Row(BasicBlock, 8, stride=2).make_block(0, in_channels=4).conv1.stride
    (2, 2)
    """

    forward = Block.forward

    @classmethod
    def build(cls, in_channels, planes, *, stride, inputs, is_first, is_narrow):
        shortcut = make_shortcut(in_channels, planes, stride, is_first and is_narrow)
        return cls(in_channels, planes, stride, shortcut)
