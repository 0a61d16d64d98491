"""Convolutions that apply the activation that follows them, for predictions on the CPU.

A ReLU is a pass over all outputs of a convolution; oneDNN's kernels apply it before they write the
outputs. The outputs are the same.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sklearn_rrr.backbones.block import Block, layer_names

# Names and bounds by which oneDNN knows activations.
NAMES = {nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0.0, 6.0])}


class ActivatedConv2d(nn.Conv2d):
    """Convolution that applies an activation, too, if `activation` is one of NAMES."""

    activation = None

    def forward(self, x):
        return self.convolve(x, self.weight, self.bias, self.groups)

    def convolve(self, x, weight, bias, groups):
        """Convolve with another weight or number of groups than the layer's own."""
        if self.activation is None:
            return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)
        form = self.padding, self.stride, self.dilation, groups
        kernel = torch.ops.mkldnn._convolution_pointwise
        return kernel(x, weight, bias, *form, *self.activation, "")


def fuse_activations(network):
    """Let the convolutions of a network on the CPU apply their activations, in place.

    Parameters
    ----------
    network : torch.nn.Module
        Network whose norms are folded and that is not trained. Activations between the
        convolutions of a block, and those that follow a convolution in an nn.Sequential, are fused.
        On other devices, in other precisions than float32, and where torch has no oneDNN, nothing
        is changed.

    Returns
    -------
    network : torch.nn.Module
        The same network.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklearn_rrr.networks.fused_activations import fuse_activations
    >>> layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6()).requires_grad_(False)
    >>> x = torch.randn(2, 3, 5, 5)
    >>> expected = layers(x)
    >>> torch.allclose(fuse_activations(layers)(x), expected, atol=1e-6)
    True
    """
    if torch.backends.mkldnn.is_available():
        for parent in list(network.modules()):
            if isinstance(parent, nn.Sequential):
                _fuse_neighbours(parent)
            elif isinstance(parent, Block):
                for name, norm in layer_names(parent)[:-1]:
                    is_usual = type(parent).residual is Block.residual
                    if is_usual and isinstance(getattr(parent, norm), nn.Identity):
                        _fuse(parent, name, parent.relu)
    return network


def has_hooks(module):
    """Tell whether anything else than its own code acts in a module."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)  # torch has no public question
    return any(hooks) or torch.nn.utils.parametrize.is_parametrized(module)


def _fuse_neighbours(layers):
    """Fuse convolutions of an nn.Sequential; folded norms may stand before the activation."""
    before = None
    for name, layer in list(layers.named_children()):
        if before is not None and type(layer) in NAMES and _fuse(layers, before, layer):
            setattr(layers, name, nn.Identity())
        if not isinstance(layer, nn.Identity):
            before = name if isinstance(layer, nn.Conv2d) else None


def _fuse(parent, name, activation):
    """Return whether a convolution of `parent` could take over the activation."""
    conv = getattr(parent, name)
    is_usual = type(conv) is nn.Conv2d or isinstance(conv, ActivatedConv2d)
    if not is_usual or type(activation) not in NAMES or has_hooks(conv) or has_hooks(activation):
        return False
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    weight = conv.weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.requires_grad:
        return False
    if not isinstance(conv, ActivatedConv2d):
        form = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
        fused = ActivatedConv2d(*form, conv.dilation, conv.groups, device="meta")
        fused.weight, fused.bias = weight, conv.bias
        setattr(parent, name, fused)
        conv = fused
    conv.activation = NAMES[type(activation)]
    return True
