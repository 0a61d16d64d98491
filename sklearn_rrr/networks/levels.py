"""Parts of a network that return statistics of the output of every block, for heads to read.

A head usually reads the mean of the last block's output over the pixels. With
``head_features="all"``, it also reads mean and standard deviation of each earlier block: edges and
textures of low levels tell much where images differ from those of the pre-training (Evci et al.
2022, Head2Toe: utilizing intermediate representations for better transfer learning). Of the last
block before the last phase, it reads the means of the four quadrants, too: they tell where
something is. B is the batch size, M the number of branches, F the number of features.
"""

import torch
from torch import nn

from sklearn_rrr.backbones.block import Block, block_layers

EPS = 1e-6  # added to variances, so that their square root has a gradient
EARLIER, QUADRANTS, LAST = range(3)  # kinds of features
# Kinds of the statistics that a head reads of a block: mean, deviation, and four quadrants.
KINDS = (EARLIER, EARLIER, *[QUADRANTS] * 4)


class Stump(nn.Sequential):
    """Shared layers: images (B, 3, H, W) -> maps (B, C, h, w) and features (B, 1, F).

    `head_features` is "all" or "last"; with "last", F is 0. `n_later` is the number of phases that
    follow.
    """

    head_features = "last"
    n_later = 2

    @property
    def phases(self):
        """Return the phases of blocks, without the stem."""
        return [module for module in self if isinstance(module, nn.Sequential)]

    def forward(self, x):
        features = []
        for module in self:
            for layer in _list_layers(module):
                x = layer(x)
                if self.head_features == "all" and isinstance(layer, Block):
                    is_end = self.n_later == 1 and layer is self[-1][-1]
                    features += describe(x, 1, 6 if is_end else 2)
        return x, torch.cat(features, 2) if features else x.new_empty(len(x), 1, 0)


class Branches(nn.Sequential):
    """Phases of M branches side by side: maps (B, C, h, w) -> features (B, M, F)."""

    head_features = "last"
    n_branches = 1

    def forward(self, x):
        features = []
        for block, n in list_levels((), self, "all"):
            x = block(x)
            if self.head_features == "all" or n == 1:
                features += describe(x, self.n_branches, n)
        return torch.cat(features, 2)


def _list_layers(module):
    return module if isinstance(module, nn.Sequential) else (module,)


def describe(x, n_branches, n):
    """Return statistics over the pixels: (B, M·C, h, w) -> list of `n` (B, M, C).

    They are, in order, the means; the standard deviations; and the means of the quadrants of the
    maps above left, above right, below left and below right. `n` is 1, 2 or 6.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = x.mean((2, 3), keepdim=True)  # torch.var_mean is 10 times slower in channels last
    statistics = [mean.flatten(1)]
    if n > 1:
        rest = x - mean
        squares = rest.square() if rest.requires_grad else rest.square_()  # saves memory and time
        statistics.append(squares.mean((2, 3)).add(EPS).sqrt())
    if n > 2:
        (above, below), (left, right) = map(halve, x.shape[2:])
        statistics += [x[:, :, i, j].mean((2, 3)) for i in (above, below) for j in (left, right)]
    return [v.unflatten(1, (n_branches, -1)) for v in statistics]


def name_statistics(n, turned=False):
    """Return the names of the first `n` statistics of :func:`describe`.

    `turned`: whether the maps are those of images turned by 180 degrees.
    """
    quadrants = [f"{y}_{x}" for y in ("upper", "lower") for x in ("left", "right")]
    return ["mean", "std", *(quadrants[::-1] if turned else quadrants)][:n]


def halve(size):
    """Return slices of both halves of an axis; both contain the middle of an odd one."""
    return slice(0, (size + 1) // 2), slice(size // 2, size)


def list_levels(stump, phases, head_features):
    """Return the blocks that a head reads, as (block, number of statistics), in order.

    `stump` and `phases` are iterables of phases: before the split, and of one or all branches.
    """
    phases = [list(phase) for phase in (*stump, *phases)]
    end = phases[-2][-1] if len(phases) > 1 else None
    *earlier, last = [block for phase in phases for block in phase]
    levels = [(block, 6 if block is end else 2) for block in earlier]
    return [*(levels if head_features == "all" else ()), (last, 1)]


def list_statistics(stump, phases, head_features, n_branches=1):
    """Return what the head of one branch reads: a list of (block, statistics, channels).

    `n_branches` is the number of branches that `phases` contains. All channels of a statistic come
    before those of the next one.
    """
    own, found = {block for phase in phases for block in phase}, []
    for block, n in list_levels(stump, phases, head_features):
        channels = block_layers(block)[-1][0].out_channels
        found.append((block, n, channels // n_branches if block in own else channels))
    return found


def count_features(stump, phases, head_features):
    """Return the number of features that the head of one branch reads."""
    return sum(n * channels for _, n, channels in list_statistics(stump, phases, head_features))
