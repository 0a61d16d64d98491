"""Blocks, of which phases consist, and rows of equal blocks.

A kind of block is a class that says how a block is built at another width, which convolutions and
norms it has in order, and which channels its shortcut ties. Every network and pruner of the package
works on such blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

SQUEEZE = 4  # width of a block over the width of its proxies in NetTailor


@dataclass(frozen=True)
class Row:
    """Row of blocks of equal width in a phase; all but the first repeat, with a shortcut.

    Parameters
    ----------
    block : type
        Kind of the blocks, a subclass of :class:`Block`.
    planes : int
        Width that the kind of block refers to: for most kinds, the number of output channels.
    depth : int, default=1
        Number of blocks.
    stride : int, default=1
        Stride of the first block.
    form : dict, default={}
        Further arguments of the block's constructor, such as the kernel size.

    Examples
    --------
    >>> from sklearn_rrr.backbones.block import Row
    >>> from sklearn_rrr.backbones.inverted_residual import InvertedResidual
    >>> Row(InvertedResidual, 24, depth=2, stride=2, form={"expansion": 6}).out_channels()
    24
    """

    block: type
    planes: int
    depth: int = 1
    stride: int = 1
    form: Mapping = field(default_factory=dict)

    def out_channels(self, planes=None):
        """Return the number of output channels of a block with the given planes."""
        return self.block.count_outputs(self.planes if planes is None else planes)

    def is_possible(self, planes, inputs):
        """Tell whether blocks of these planes, after a row of `inputs` channels, have channels."""
        return planes >= 1 and self.block.inner_width(planes, inputs, **self.form) >= 1

    def make_block(self, index, in_channels, planes=None, inputs=None):
        """Build a block with initial weights.

        Parameters
        ----------
        index : int
            0 for the first block of the row, which has its stride.
        in_channels : int
            Number of input channels.
        planes : int or None, default=None
            Planes; None builds the block at its own width.
        inputs : int or None, default=None
            Width of the preceding row in a branch. It differs from `in_channels` if the branch is
            narrower than the stump that it reads. None means `in_channels`.
        """
        planes = self.planes if planes is None else planes
        block = self.block.build(
            in_channels,
            planes,
            stride=1 if index else self.stride,
            inputs=in_channels if inputs is None else inputs,
            is_first=not index,
            is_narrow=planes != self.planes,
            **self.form,
        )
        block.repeats = bool(index)
        return block


class Block(nn.Module):
    """Base class of blocks: convolutions conv1, conv2, … with norms bn1, bn2, … in order.

    A subclass implements `build` and, where its answers differ, the other methods.
    The attribute ``relu`` is its activation, ``downsample`` the layers of its shortcut or None.

    Attributes
    ----------
    repeats : bool
        Whether the block repeats the preceding one, so that it can be left out.
    """

    stride = 1
    repeats = False

    def _add_layers(self, convs, eps=1e-5):
        """Add convolutions, each with a norm, as conv1, bn1, conv2, bn2, and so on."""
        for number, conv in enumerate(convs, 1):
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(conv.out_channels, eps))

    @classmethod
    def build(cls, in_channels, planes, *, stride, inputs, is_first, is_narrow, **form):
        """Build a block; see :meth:`Row.make_block`. `is_narrow`: not at the row's own width."""
        raise NotImplementedError

    @classmethod
    def count_outputs(cls, planes):
        """Return the number of output channels."""
        return planes

    @classmethod
    def inner_width(cls, planes, inputs, **form):
        """Return the width of the inner convolutions."""
        return planes

    def residual(self, x):
        """Run the convolutions and norms, without shortcut and last activation."""
        *first, (conv, norm) = block_layers(self)
        for earlier, its_norm in first:
            x = its_norm(earlier(x))
            if getattr(earlier, "activation", None) is None:  # else the convolution applied it
                x = self.relu(x)
        return norm(conv(x))

    @property
    def has_shortcut(self):
        """Whether the input, or its projection by ``downsample``, is added to the output."""
        return True

    def shortcut(self, x):
        """Return what is added to the output: the input or its projection."""
        return x if self.downsample is None else self.downsample(x)

    def activate(self, x):
        """Apply the activation after the addition, if the kind has one."""
        return self.relu(x)

    @property
    def proxy_width(self):
        """Inner width of NetTailor's proxies beside the block; None for a single convolution."""
        return None

    def before_activation(self, x, shortcut_scale=1.0):
        """Return the output before the last activation; the shortcut is scaled."""
        if not self.has_shortcut:
            return self.residual(x)
        return torch.add(self.residual(x), self.shortcut(x), alpha=shortcut_scale)

    def forward(self, x):
        return self.activate(self.before_activation(x))


def block_layers(block):
    """Return the (convolution, norm) pairs of a block in order."""
    return [(getattr(block, conv), getattr(block, norm)) for conv, norm in layer_names(block)]


def layer_names(block):
    """Return the names of the convolutions of a block and of their norms, as pairs in order."""
    numbers = [number for number in (1, 2, 3) if hasattr(block, f"conv{number}")]
    return [(f"conv{number}", f"bn{number}") for number in numbers]


def is_depthwise(conv):
    """Tell whether a convolution reads one channel for each of its outputs."""
    return conv.groups > 1 == conv.weight.shape[1] and conv.out_channels == conv.in_channels


def initialise(module):
    """Initialise the weights of `module` in place, as torchvision does for ResNets.

    Those on the meta device, which have no values, are left out: drawing them would import the
    compiler of torch.
    """
    for m in module.modules():
        if isinstance(m, nn.Conv2d) and not m.weight.is_meta:
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(m, nn.BatchNorm2d):
            m.reset_parameters()
