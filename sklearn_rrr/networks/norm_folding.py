"""Prepare fitted networks for prediction: fold norms into the preceding convolutions."""

import copy
import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_norms(network):
    """Return a copy of a network in eval mode, with norms folded into convolutions.

    A convolution and a norm with fixed statistics equal one convolution with a bias. The
    copy gives the same outputs up to rounding, with one pass over the data instead of two.

    Parameters
    ----------
    network : torch.nn.Module
        Each norm follows its convolution: as conv1 and bn1 of one block, and so on, or as
        neighbours in an nn.Sequential. If a submodule has a method ``fuse``, it is called.

    Returns
    -------
    folded : torch.nn.Module
        Copy that shares no weights with `network`.

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
    """Yield each convolution that precedes a norm in a module, and the name of the norm."""
    children = dict(parent.named_children())
    if isinstance(parent, nn.Sequential):
        names = list(children)
        followers = dict(itertools.pairwise(names))
    else:
        followers = {name: name.replace("conv", "bn") for name in children if "conv" in name}
    for name, follower in followers.items():
        conv = getattr(children[name], "mix", children[name])  # second layer of a ConvPair
        is_pair = isinstance(conv, nn.Conv2d) and conv.bias is None
        if is_pair and isinstance(children.get(follower), nn.BatchNorm2d):
            yield conv, follower
