"""Parts of a network that return statistics of the output of every block, for heads to read.

A head usually reads the mean of the last block's output over the pixels. With
``head_features="all"``, it also reads mean and standard deviation of each earlier block: edges and
textures of low levels tell much where images differ from those of the pre-training (Evci et al.
2022, Head2Toe: utilizing intermediate representations for better transfer learning). B is the batch
size, M the number of branches, F the number of features.
"""

import torch
from torch import nn

from sklearn_rrr.backbones.block import Block, block_layers

EPS = 1e-6  # added to variances, so that their square root has a gradient


class Stump(nn.Sequential):
    """Shared layers: images (B, 3, H, W) -> maps (B, C, h, w) and features (B, 1, F).

    `head_features` is "all" or "last"; with "last", F is 0.
    """

    head_features = "last"

    def forward(self, x):
        features = []
        for module in self:
            for layer in _list_layers(module):
                x = layer(x)
                if self.head_features == "all" and isinstance(layer, Block):
                    features += describe(x, 1)
        return x, torch.cat(features, 2) if features else x.new_empty(len(x), 1, 0)


class Branches(nn.Sequential):
    """Phases of M branches side by side: maps (B, C, h, w) -> features (B, M, F)."""

    head_features = "last"
    n_branches = 1

    def forward(self, x):
        blocks, features = [block for phase in self for block in phase], []
        for block in blocks:
            x = block(x)
            if self.head_features == "all" and block is not blocks[-1]:
                features += describe(x, self.n_branches)
        return torch.cat([*features, pool(x, self.n_branches)], 2)


def _list_layers(module):
    return module if isinstance(module, nn.Sequential) else (module,)


def pool(x, n_branches):
    """Return the means over the pixels of each branch: (B, M·C, h, w) -> (B, M, C)."""
    return x.mean((2, 3), dtype=_precise(x)).unflatten(1, (n_branches, -1))


def describe(x, n_branches):
    """Return means and standard deviations over the pixels: (B, M·C, h, w) -> two (B, M, C)."""
    x = x.to(_precise(x))
    mean = x.mean((2, 3), keepdim=True)  # torch.var_mean is 10 times slower in channels last
    deviation = (x - mean).square().mean((2, 3)).add(EPS).sqrt()
    return [v.unflatten(1, (n_branches, -1)) for v in (mean.flatten(1), deviation)]


def _precise(x):
    """Return the type in which statistics of `x` are computed: float32, or float64."""
    return torch.promote_types(x.dtype, torch.float32)


def list_levels(stump, phases, head_features):
    """Return the blocks that a head reads, as (block, number of statistics), in order.

    `stump` and `phases` are iterables of phases: before the split, and of one or all branches.
    """
    blocks = [block for phase in (*stump, *phases) for block in phase]
    earlier = [(block, 2) for block in blocks[:-1]] if head_features == "all" else []
    return [*earlier, (blocks[-1], 1)]


def count_features(stump, phases, head_features):
    """Return the number of features that the head of one branch reads; see :func:`list_levels`."""
    return sum(
        n * block_layers(block)[-1][0].out_channels
        for block, n in list_levels(stump, phases, head_features)
    )
