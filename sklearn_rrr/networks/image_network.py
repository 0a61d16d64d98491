"""Interface between networks, training and prediction: a stump, branches and heads."""

import math

import torch
from torch import nn


class ImageNetwork(nn.Module):
    """What training and prediction ask of a network: a stump, branches and a head for each.

    A child makes ``normalize``, ``stump``, ``branches`` and ``head``, and sets ``n_branches``,
    ``n_classes``, ``image_size``, ``backbone_name`` and ``arguments``, those that make a network
    of this shape again, with other weights.
    """

    def forward(self, x):
        """Return the logits of every branch: (B, 3, H, W) -> (B, M, K).

        `x` holds RGB in [0, 1], or uint8. Branches that each see images of their own take
        :meth:`forward_features` and :meth:`forward_branches`, one after the other.
        """
        return self.forward_branches(self.forward_features(x))

    def forward_features(self, x):
        """Run the stump: (B, 3, H, W) -> (B, C, h, w)."""
        return self.stump(self.normalize(x))

    def forward_branches(self, features):
        """Run the branches: (B, C, h, w), or (B, M·C, h, w) with a part for each -> (B, M, K)."""
        return self.head(self.pool_branches(features))

    def pool_branches(self, features):
        """Return what reaches the heads: (B, C, h, w) -> (B, M, F)."""
        features = self.branches(features)  # (B, M·F, h, w)
        return features.mean((2, 3)).unflatten(1, (self.n_branches, -1))

    def hold(self, names):
        """Let modules, named as `named_modules` does, learn nothing, and no statistics either."""
        self._frozen = tuple(names)
        for name in self._frozen:
            self.get_submodule(name).requires_grad_(False)
        return self.train(self.training)

    _frozen = ()
    is_reduced = False  # whether layers have other shapes than `arguments` make

    @property
    def frozen_names(self):
        """Return the names of the modules that learn nothing."""
        return self._frozen

    def is_frozen(self, name):
        """Tell whether a part, "stump" or "branches", does not learn."""
        return name in self._frozen

    def frozen_parts(self):
        """Return the parts that do not learn, as one module that shares their weights."""
        return nn.ModuleList(map(self.get_submodule, self._frozen))

    def trainable_parts(self):
        """Return the parts that learn, as one module that shares their weights."""
        names = ("stump", "branches", "head")
        return nn.ModuleList(getattr(self, name) for name in names if name not in self._frozen)

    def train(self, mode=True):
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).eval()
        return self

    def first_output_bytes(self, image_size):
        """Return the size of one image's largest layer in float32, the first one's output."""
        layer = next(m for m in self.stump.modules() if isinstance(m, nn.Conv2d))
        return 4 * layer.out_channels * math.ceil(image_size / layer.stride[0]) ** 2


def average_probabilities(logits):
    """Let the branches vote: (B, M, K) logits -> (B, K) mean of their softmax.

    The one place where the branch axis ends (section 3.3).
    """
    return logits.softmax(2).mean(1)


class Normalize(nn.Module):
    """RGB in [0, 1] (or uint8) to the range that the backbone was trained on."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, x):
        if x.dtype == torch.uint8:
            return x.float().div_(255).sub_(self.mean).div_(self.std)
        return (x - self.mean).div_(self.std)
