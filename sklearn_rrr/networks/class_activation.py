"""Class activation maps: the logits of a network as sums over the pixels of an image.

Heads are linear, and the features that they read are pooled over the pixels. So a logit is exactly
a sum over the pixels of each level and a constant. Zhou et al. (2016), Learning deep features for
discriminative localization, arXiv:1512.04150, section 2, do so for means over the pixels. Pixel p
of a channel x with h·w pixels contributes to a feature with centre c (see ``BranchLinear``)

- (x(p) - c) / (h·w), if the feature is the mean over the pixels,
- the same with the number of pixels of a quadrant, inside it, if it is the mean over the quadrant,
- (((x(p) - m)² + EPS) / s - c) / (h·w), if it is the standard deviation s, which is the square root
  of the mean of (x(p) - m)² + EPS; m is the mean. This case is not in the paper.

Subtracting the centre, the mean over the training images, shows an image relative to them; the
constant is then the bias. B is the batch size, M the number of branches, K the number of classes,
K' the number of classes with maps, F the number of features.
"""

from typing import NamedTuple

import torch

from sklearn_rrr.backbones.backbone import HalfTurn
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.levels import EPS, halve
from sklearn_rrr.networks.stacked_net import Resize, StackedNet


class ClassActivations(NamedTuple):
    """Maps of some classes, and the logits that they explain.

    Attributes
    ----------
    maps : Tensor of shape (B, M, K', S, S)
        Contribution of each pixel to the logit.
    constants : Tensor of shape (B, M, K')
        Rest of the logit, which no pixel contributes.
    classes : Tensor of shape (B, K')
        Indices of the classes.
    logits : Tensor of shape (B, M, K)
        Output of the network for all classes.
    """

    maps: torch.Tensor
    constants: torch.Tensor
    classes: torch.Tensor
    logits: torch.Tensor


@torch.inference_mode()
def map_classes(network, images, classes=None, relative=True):
    """Compute class activation maps for a batch of images.

    Parameters
    ----------
    network : RRRNet, StackedNet or TailoredNet
        Network in eval mode, with norms folded or not. Hooks are added to it during the call.
    images : Tensor of shape (B, 3, S, S)
        RGB in [0, 1] or uint8, on the device of the network.
    classes : Tensor of shape (K',) or (B, K') or None, default=None
        Indices of the classes, which may differ from image to image. None means the class that the
        network predicts for each image.
    relative : bool, default=True
        Whether to subtract the mean over all K classes from maps and constants. This shows what
        speaks for a class rather than for the others, and does not change the softmax.

    Returns
    -------
    activations : ClassActivations
        For each map, ``maps.sum((-2, -1)) + constants`` is the logit of the class, minus the mean
        of all logits if `relative`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr import load_backbone
    >>> from sklearn_rrr.networks.class_activation import map_classes
    >>> from sklearn_rrr.networks.rrr_net import RRRNet
    >>> backbone, _ = load_backbone("synth50", weights=None)
    >>> network = RRRNet(backbone, 3, n_branches=2).eval()
    >>> map_classes(network, torch.rand(4, 3, 64, 64)).maps.shape
    torch.Size([4, 2, 1, 64, 64])
    """
    levels = _list_levels(network)
    outputs, logits = _run(network, images, [level.block for level in levels])
    if classes is None:
        classes = average_probabilities(logits).argmax(1, keepdim=True)
    classes = classes.to(images.device).expand(len(images), -1)  # (B, K')
    weight, bias, center = _read_head(network.head, relative)
    weight = weight[:, classes].transpose(0, 1)  # (B, M, K', F)
    maps, start = 0, 0
    for level, x in zip(levels, outputs, strict=True):
        n_features = level.n_statistics * level.n_channels
        part = slice(start, start + n_features)
        small = _map_level(x, weight[..., part], center[:, part], level)
        maps, start = maps + _enlarge(small, images.shape[-1]), start + n_features
    return ClassActivations(maps, bias[:, classes].transpose(0, 1), classes, logits)


class _Level(NamedTuple):
    """Block whose output the head reads; its maps may be turned by 180 degrees."""

    block: torch.nn.Module
    n_statistics: int
    n_channels: int  # of one branch
    is_turned: bool


def _list_levels(network):
    """Return the levels that the head reads, in the order of its features."""
    if isinstance(network, StackedNet):
        return _list_levels(network.main) + _list_levels(network.companion)
    is_turned = any(isinstance(layer, HalfTurn) for layer in network.stump.modules())
    return [_Level(*entry, is_turned) for entry in network.list_statistics()]


def _run(network, images, blocks):
    """Return the outputs of some blocks, in their order, and the logits."""
    outputs = []
    hooks = [block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in blocks]
    try:
        logits = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, logits


def _read_head(head, relative):
    """Return weights (M, K, F) and bias (M, K) of a head, and the centres (M, F) of features."""
    weight, bias, center = head.weight, head.bias, head.center
    if center is None:
        center = torch.zeros_like(weight[:, 0])
    else:
        weight = weight * head.factor[:, None]
    if relative:
        weight, bias = weight - weight.mean(1, keepdim=True), bias - bias.mean(1, keepdim=True)
    return weight, bias, center


def _map_level(x, weight, center, level):
    """Return the maps of one level: (B, C, h, w) or (B, M·C, h, w) -> (B, M, K', h, w).

    `weight` is (B, M, K', F) and `center` (M, F), for the features of this level.
    """
    x = x.to(weight.dtype).unflatten(1, (-1, level.n_channels))  # (B, 1 or M, C, h, w)
    n = level.n_statistics
    offsets = (weight * center[:, None]).unflatten(3, (n, -1)).sum(4).unbind(3)
    weights = weight.unflatten(3, (n, -1)).unbind(3)
    maps = _mix(x, weights[0], offsets[0])
    if n > 1:
        squares = (x - x.mean((3, 4), keepdim=True)).square() + EPS
        deviation = squares.mean((3, 4), keepdim=True).sqrt()
        maps += _mix(squares / deviation, weights[1], offsets[1])
    if n > 2:
        quadrants = [(i, j) for i in halve(x.shape[3]) for j in halve(x.shape[4])]
        for (i, j), w, offset in zip(quadrants, weights[2:], offsets[2:], strict=True):
            maps[..., i, j] += _mix(x[..., i, j], w, offset)
    return maps.flip((3, 4)) if level.is_turned else maps


def _mix(x, weight, offset):
    """Return contributions to weighted means: (B, 1 or M, C, h, w) -> (B, M, K', h, w).

    `weight` is (B, M, K', C). The `offset` of shape (B, M, K') is subtracted, evenly.
    """
    total = torch.einsum("bmchw,bmkc->bmkhw", x, weight)
    return (total - offset[..., None, None]) / (x.shape[3] * x.shape[4])


def _enlarge(maps, size):
    """Interpolate maps (..., h, w) to (..., size, size); their sums do not change."""
    rows, columns = (_spread(n, size).to(maps) for n in maps.shape[-2:])
    return rows @ maps @ columns.T


def _spread(n, size):
    """Return the weights (size, n) that distribute n values over more pixels, bilinearly."""
    weights = Resize(n, size).weights
    return weights / weights.sum(0)
