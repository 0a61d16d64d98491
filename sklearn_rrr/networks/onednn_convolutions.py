"""Convolutions that run oneDNN's kernels directly, for predictions on the CPU.

The kernels also apply the activation that follows, which would otherwise need another pass over
the outputs. Weights are cached in the layout that oneDNN reads, which depends on the shape of the
input; otherwise they would be converted in each call. torch itself runs some convolutions of small
batches without oneDNN. Those kernels round differently, so that predictions would depend on the
number of images in the batch.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sklearn_rrr.backbones.block import Block, layer_names

# oneDNN's names of activations, and their bounds.
NAMES = {nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0.0, 6.0])}
NO_ACTIVATION = ("none", [])


class OneDNNConv2d(nn.Conv2d):
    """Convolution that runs oneDNN's kernel directly unless `packed` is None.

    Attributes
    ----------
    packed : tuple or None
        Cache of the weight in oneDNN's layout: (groups and shape of the last input, weight), or an
        empty tuple. The kernel would convert another layout, very slowly, in each call.
    activation : tuple or None
        Activation that the kernel also applies, one of NAMES.
    """

    packed = activation = None

    def forward(self, x):
        return self.convolve(x, self.weight, self.bias, self.groups)

    def convolve(self, x, weight, bias, groups):
        """Convolve with another weight or number of groups than the layer's own."""
        if self.packed is None:
            return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)
        if weight is self.weight:
            weight = self._pack(x, groups)
        form = self.padding, self.stride, self.dilation, groups
        kernel = torch.ops.mkldnn._convolution_pointwise
        return kernel(x, weight, bias, *form, *(self.activation or NO_ACTIVATION), "")

    def _pack(self, x, groups):
        """Return the weight in the layout that oneDNN's kernel for inputs like `x` reads."""
        key, packed = (groups, x.shape), self.packed  # which other threads may replace
        if not packed or packed[0] != key:
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            form = self.padding, self.stride, self.dilation, groups
            self.packed = packed = key, reorder(self.weight, *form, x.shape)
        return packed[1]

    def __getstate__(self):  # torch cannot copy weights in oneDNN's layout
        state = self.__dict__
        return state if self.packed is None else {**state, "packed": ()}


def use_onednn(network):
    """Let the convolutions of a network on the CPU run oneDNN's kernels directly, in place.

    Parameters
    ----------
    network : torch.nn.Module
        Network whose norms are folded and that is not trained. Activations between the
        convolutions of a block, and those that follow a convolution in an nn.Sequential, are fused
        with it. On other devices, in other precisions than float32, and where torch has no oneDNN,
        nothing is changed.

    Returns
    -------
    network : torch.nn.Module
        The same network.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklearn_rrr.networks.onednn_convolutions import use_onednn
    >>> layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6()).requires_grad_(False)
    >>> x = torch.randn(2, 3, 5, 5)
    >>> expected = layers(x)
    >>> torch.allclose(use_onednn(layers)(x), expected, atol=1e-6)
    True
    """
    if torch.backends.mkldnn.is_available():
        for parent in list(network.modules()):
            for name, layer in list(parent.named_children()):
                if _is_convertible(layer):
                    _convert(parent, name)
            if isinstance(parent, nn.Sequential):
                _fuse_neighbours(parent)
            elif isinstance(parent, Block) and type(parent).residual is Block.residual:
                for name, norm in layer_names(parent)[:-1]:
                    if isinstance(getattr(parent, norm), nn.Identity):
                        _fuse(getattr(parent, name), parent.relu)
    return network


def uses_onednn(network):
    """Tell whether :func:`use_onednn` has changed all convolutions of a network.

    Its outputs for an image then do not depend on the number of images in the batch.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return all(getattr(layer, "packed", None) is not None for layer in layers)


def has_hooks(module):
    """Tell whether a module has forward hooks or parametrizations."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)  # torch has no public test
    return any(hooks) or torch.nn.utils.parametrize.is_parametrized(module)


def _is_convertible(layer):
    """Tell whether a layer is a usual convolution in float32 on the CPU that is not trained."""
    is_usual = type(layer) is nn.Conv2d or isinstance(layer, OneDNNConv2d)
    if not is_usual or has_hooks(layer):
        return False
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    weight = layer.weight
    is_float = weight.device.type == "cpu" and weight.dtype == torch.float32
    return is_float and not weight.requires_grad


def _convert(parent, name):
    """Let a convolution of `parent` run oneDNN's kernels."""
    conv = getattr(parent, name)
    if not isinstance(conv, OneDNNConv2d):
        form = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
        converted = OneDNNConv2d(*form, conv.dilation, conv.groups, device="meta")
        converted.weight, converted.bias = conv.weight, conv.bias
        setattr(parent, name, converted)
        conv = converted
    conv.packed = ()


def _fuse_neighbours(layers):
    """Fuse convolutions of an nn.Sequential; folded norms may stand before the activation."""
    before = None
    for name, layer in list(layers.named_children()):
        if before is not None and _fuse(before, layer):
            setattr(layers, name, nn.Identity())
        if not isinstance(layer, nn.Identity):
            before = layer


def _fuse(conv, activation):
    """Return whether a convolution could take over the activation that follows it."""
    if getattr(conv, "packed", None) is None:
        return False
    if type(activation) not in NAMES or has_hooks(activation):
        return False
    conv.activation = NAMES[type(activation)]
    return True
