"""Interface between networks, training and prediction: a stump, branches and heads."""

import math

import numpy as np
import torch
from torch import nn


class ImageNetwork(nn.Module):
    """Base class of networks with a stump, branches and one head per branch.

    A subclass creates ``normalize``, ``stump``, ``branches`` and ``head``. It sets ``n_branches``,
    ``n_classes``, ``image_size``, ``backbone_name`` and ``arguments``, the constructor arguments
    that rebuild a network of this shape with other weights.
    """

    def forward(self, x):
        """Return the logits of every branch: (B, 3, H, W) -> (B, M, K).

        `x` is RGB, float in [0, 1] or uint8. If each branch sees different images, call
        :meth:`forward_stump` and then :meth:`forward_branches`.
        """
        return self.forward_branches(*self.forward_stump(x))

    def forward_stump(self, x):
        """Run the stump: (B, 3, H, W) -> maps (B, C, h, w) and features (B, 1, F)."""
        return self.stump(self.normalize(x))

    def forward_branches(self, maps, features):
        """Run branches and heads on the outputs of the stump -> (B, M, K).

        If each branch sees different images, they are (B, M·C, h, w) and (B, M, F).
        """
        return self.head(self.pool_branches(maps, features))

    def pool_branches(self, maps, features):
        """Run the branches on the outputs of the stump, and return what the heads read.

        Maps (B, C, h, w) and features (B, 1, F) -> (B, M, F').
        """
        own = self.branches(maps)
        if not features.shape[2]:
            return own
        return torch.cat([features.expand(-1, self.n_branches, -1), own], 2)

    def feature_kinds(self):
        """Return the kind of each feature that a head reads, F ints; see ``networks.levels``."""
        return [0] * self.head.weight.shape[2]

    def name_features(self):
        """Return the names of the features that the heads read, branch by branch: (M·F,) str."""
        names = self._name_features()
        if self.n_branches > 1:
            branches = range(1, self.n_branches + 1)
            names = [f"branch_{branch}_{name}" for branch in branches for name in names]
        return np.array(names, dtype=object)

    def _name_features(self):
        """Return the names of the features that one head reads, a list of F str."""
        return [f"feature_{i}" for i in range(self.head.weight.shape[2])]

    def hold(self, names):
        """Freeze the weights and norm statistics of modules, named as in `named_modules`."""
        self._frozen = tuple(names)
        for name in self._frozen:
            self.get_submodule(name).requires_grad_(False)
        return self.train(self.training)

    _frozen = ()
    is_reduced = False  # whether layer shapes differ from those that `arguments` produce

    @property
    def frozen_names(self):
        """Return the names of the frozen modules."""
        return self._frozen

    def is_frozen(self, name):
        """Tell whether a part, "stump" or "branches", is frozen."""
        return name in self._frozen

    def frozen_parts(self):
        """Return the frozen parts as one module that shares their weights."""
        return nn.ModuleList(map(self.get_submodule, self._frozen))

    def trainable_parts(self):
        """Return the trainable parts as one module that shares their weights."""
        names = ("stump", "branches", "head")
        return nn.ModuleList(getattr(self, name) for name in names if name not in self._frozen)

    def train(self, mode=True):
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).eval()
        return self

    def first_output_bytes(self, image_size):
        """Return the bytes of the first convolution's output for one image, in float32."""
        layer = next(m for m in self.stump.modules() if isinstance(m, nn.Conv2d))
        return 4 * layer.out_channels * math.ceil(image_size / layer.stride[0]) ** 2


def average_probabilities(logits):
    """Average the probabilities of the branches: logits (B, M, K) -> (B, K).

    No other function reduces the branch axis (section 3.3).
    """
    return logits.softmax(2).mean(1)


class Normalize(nn.Module):
    """Standardise RGB, float in [0, 1] or uint8, as in the training of the backbone."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, x):
        if x.dtype == torch.uint8:
            return x.float().div_(255).sub_(self.mean).div_(self.std)
        return (x - self.mean).div_(self.std)
