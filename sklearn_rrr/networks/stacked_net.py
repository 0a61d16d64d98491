"""A network and a companion of another backbone, whose features one head reads."""

import torch
from torch import nn

from sklearn_rrr.networks.branch_layers import BranchLinear
from sklearn_rrr.networks.image_network import ImageNetwork

KINDS = 3  # of features of one network


class StackedNet(ImageNetwork):
    """Network of two backbones, side by side, with one head on the features of both.

    Networks that were pre-trained on different images know different things, so that together they
    are often better than either. The companion sees the same images, resized. Only the head learns.

    Parameters
    ----------
    main : RRRNet
        Network with one branch. It loses its head.
    companion : RRRNet
        Network of another backbone with one branch. It loses its head, too.
    image_size : int
        Height and width, in pixels, of the images that `main` gets.
    companion_size : int
        Height and width, in pixels, to which they are resized for the companion.

    Attributes
    ----------
    main, companion : RRRNet
        The two networks, without heads.
    n_main : int
        Number of features of `main`, the first ones that the head reads.
    has_companion : bool
        Whether the companion is used; :meth:`drop_companion` sets it to False.

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr import load_backbone
    >>> from sklearn_rrr.networks.rrr_net import RRRNet
    >>> from sklearn_rrr.networks.stacked_net import StackedNet
    >>> backbone, _ = load_backbone("synth50", weights=None)
    >>> main, companion = (RRRNet(backbone, 3, blocks=(1, 1, 1, 1)) for _ in range(2))
    >>> StackedNet(main, companion, 96, 64).eval()(torch.rand(2, 3, 96, 96)).shape
    torch.Size([2, 1, 3])
    """

    n_branches = 1
    has_companion = True

    def __init__(self, main, companion, image_size, companion_size):
        super().__init__()
        self.n_classes, self.head_features = main.n_classes, main.head_features
        self.backbone_name, self.blocks = main.backbone_name, main.blocks
        self.image_size, self.companion_size = image_size, companion_size
        kinds, its_kinds = main.feature_kinds(), companion.feature_kinds()
        self._kinds, self.n_main = [*kinds, *(kind + KINDS for kind in its_kinds)], len(kinds)
        self._standardises = main.head.center is not None
        self.normalize, self.branches = nn.Identity(), nn.Identity()
        self.head = self._make_head(len(self._kinds))
        for network in (main, companion):
            network.head = nn.Identity()
            network.hold(())
        self.stump = _Features(main, companion, Resize(image_size, companion_size))
        self.to(next(main.parameters()).device).freeze()

    @property
    def main(self):
        return self.stump.main

    @property
    def companion(self):
        return self.stump.companion

    def freeze(self, trainable="head"):
        """Freeze both networks; only "head" can be trained."""
        return self.hold(["stump", "branches"])

    def pool_branches(self, maps, features):
        return features

    def feature_kinds(self):
        return self._kinds

    def _name_features(self):
        parts = self.main, self.companion
        return [f"{net.backbone_name}_{name}" for net in parts for name in net.name_features()]

    def drop_companion(self):
        """Give `main` a head of its own, and return it."""
        self.has_companion = False
        self.main.head = self._make_head(self.n_main).to(self.head.weight.device)
        return self.main.freeze("head")

    def _make_head(self, n_features):
        return BranchLinear(1, n_features, self.n_classes, self._standardises)


class _Features(nn.Module):
    """Features of both networks: images (B, 3, S, S) -> the images and features (B, 1, F)."""

    def __init__(self, main, companion, resize):
        super().__init__()
        self.main, self.companion, self.resize = main, companion, resize

    def forward(self, x):
        parts = (self.main, x), (self.companion, self.resize(x))
        return x, torch.cat([net.pool_branches(*net.forward_stump(y)) for net, y in parts], 2)


class Resize(nn.Module):
    """Resize images by an antialiased bilinear filter: (B, 3, S, S) -> float (B, 3, s, s).

    Two products with one matrix, which every export format supports.
    """

    def __init__(self, size, target):
        super().__init__()
        ratio = size / target
        centers = (torch.arange(target, dtype=torch.double)[:, None] + 0.5) * ratio
        distances = (torch.arange(size, dtype=torch.double) + 0.5 - centers).abs() / max(ratio, 1)
        weights = (1 - distances).clamp(min=0)
        weights = (weights / weights.sum(1, keepdim=True)).float()
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, x):
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        return x if len(self.weights) == x.shape[3] else self.weights @ x @ self.weights.T
