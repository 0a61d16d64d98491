"""Fitted networks made ready to predict: norms folded into the convolutions before them."""

import copy
import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_norms(network):
    """Return a copy of a network in eval mode, its norms folded into convolutions.

    A convolution and a norm with fixed statistics are one convolution with a bias; the copy
    gives the same numbers, but for rounding, and passes over them once.

    Parameters
    ----------
    network : torch.nn.Module
        Each norm follows its convolution: conv1 and bn1 of one block, and so on, or
        neighbours of an nn.Sequential. Parts with a method ``fuse`` are made faster by it.

    Returns
    -------
    folded : torch.nn.Module
        Shares no weight with the network.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklearn_rrr.networks.norm_folding import fold_norms
    >>> pair = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)).eval()
    >>> x = torch.rand(2, 3, 5, 5)
    >>> torch.allclose(fold_norms(pair)(x), pair(x), atol=1e-6)
    True
    """
    folded = copy.deepcopy(network).eval()
    for parent in list(folded.modules()):
        for conv, name in _pairs(parent):
            norm = getattr(parent, name)
            conv.weight, conv.bias = fuse_conv_bn_weights(
                *(conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps),
                *(norm.weight, norm.bias),
            )
            setattr(parent, name, nn.Identity())
    folded.requires_grad_(False)
    for module in list(folded.modules()):
        if hasattr(module, "fuse"):
            module.fuse()
    return folded


def _pairs(parent):
    """Yield the convolutions of a module that a norm follows, and the names of the norms."""
    children = dict(parent.named_children())
    if isinstance(parent, nn.Sequential):
        names = list(children)
        followers = dict(itertools.pairwise(names))
    else:
        followers = {name: name.replace("conv", "bn") for name in children if "conv" in name}
    for name, follower in followers.items():
        conv = getattr(children[name], "mix", children[name])  # the second of a ConvPair
        is_pair = isinstance(conv, nn.Conv2d) and conv.bias is None
        if is_pair and isinstance(children.get(follower), nn.BatchNorm2d):
            yield conv, follower
