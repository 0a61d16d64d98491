"""A network and a companion of another backbone, whose logits are added with weights."""

import torch
from torch import nn

from sklearn_rrr.networks.image_network import ImageNetwork


class StackedNet(ImageNetwork):
    """Network whose branches each add the weighted logits of a companion to their own.

    Networks that were pre-trained on different images err differently, so that together they are
    often better than either (Wolpert 1992, Stacked generalization). The companion sees the same
    images, resized.

    Parameters
    ----------
    main : RRRNet
        Network with M branches.
    companion : RRRNet
        Unsplit network of another backbone.
    image_size : int
        Height and width, in pixels, of the images that `main` gets.
    companion_size : int
        Height and width, in pixels, to which they are resized for the companion.
    weights : tuple of (float, float), default=(0.5, 0.5)
        Factors on the logits of the two networks.

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

    def __init__(self, main, companion, image_size, companion_size, weights=(0.5, 0.5)):
        super().__init__()
        self.main, self.companion = main, companion
        self.n_branches, self.n_classes = main.n_branches, main.n_classes
        self.backbone_name, self.blocks = main.backbone_name, main.blocks
        self.image_size, self.companion_size = image_size, companion_size
        self.resize = Resize(image_size, companion_size)
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        self.to(next(main.parameters()).device)
        self.requires_grad_(False)  # the two networks are trained one by one

    def forward(self, x):
        """Return the logits of every branch: (B, 3, S, S) -> (B, M, K)."""
        first, second = self.weights
        return first * self.main(x) + second * self.companion(self.resize(x))

    def freeze(self, trainable):
        """Do nothing: all weights are frozen."""
        return self

    def first_output_bytes(self, image_size):
        """Return the bytes of the first layer's output for an image."""
        return self.main.first_output_bytes(image_size)


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
