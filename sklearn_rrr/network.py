"""RRR-Net: a reduced backbone whose last phases are recycled into branches that vote.

Sun, Guyon, Mohr and Tabia (2023), RRR-Net: Reusing, Reducing, and Recycling a Deep
Backbone Network, arXiv:2310.01157. Reduce: section 3.2. Recycle: section 3.3, Eq. (1),
Algorithm 2. B is the batch, M the number of branches, K the number of classes.
"""

import copy
import math
from bisect import bisect_left
from functools import cache, partial
from itertools import takewhile

import torch
from torch import nn

from sklearn_rrr._validation import check_choice
from sklearn_rrr.backbones import PHASES, initialise
from sklearn_rrr.branching import (
    FORMS,
    BranchConv2d,
    BranchLinear,
    split_aligned,
    split_kernels,
    widen,
)

MAX_BRANCHES = 256


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


class RRRNet(ImageNetwork):
    """Stump, branches side by side, and one head per branch.

    Parameters
    ----------
    backbone : Backbone
        Where the kernels come from; it is copied, never changed.
    n_classes : int
        K, the number of classes.
    blocks : tuple of 4 int or None, default=None
        Blocks kept in conv2_x to conv5_x, the first ones of each phase; None keeps all.
    n_branches : int, default=1
        M. One branch leaves the network unsplit.
    split_at : {"conv2_x", "conv3_x", "conv4_x", "conv5_x"}, default="conv4_x"
        First phase of the branches.
    split : {"paper", "aligned"}, default="paper"
        How branches take their kernels from the backbone. "paper": Algorithm 2. "aligned":
        every branch is a true sub-network, norms included.
    width_offset : int or "auto", default="auto"
        a of Eq. (1); "auto" takes the smallest that does not add parameters.
    fresh_norms : bool, default=False
        Whether the norms of the branches start at their initial state, which they always
        do where Algorithm 2 splits.
    dropout : float, default=0.0
        Probability of dropout after each activation of the last two blocks.
    head : {"new", "pretrained"}, default="new"
        "pretrained" keeps the backbone's head, for M = 1 and its own number of classes.
    generator : torch.Generator or None, default=None
        Source of the permutations of the split. Fresh weights come from torch's own
        generator.

    Attributes
    ----------
    backbone_name : str
    arguments : dict
        Those that make a network of this shape again, with other weights.
    blocks : tuple of 4 int
    width_offset : int
    branch_planes : tuple of int
        Planes of each phase of one branch.

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr import load_backbone
    >>> backbone, _ = load_backbone("synth50", weights=None)
    >>> net = RRRNet(backbone, n_classes=3, blocks=(1, 1, 1, 1), n_branches=4).eval()
    >>> net(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 4, 3])
    """

    def __init__(
        self,
        backbone,
        n_classes,
        *,
        blocks=None,
        n_branches=1,
        split_at="conv4_x",
        split="paper",
        width_offset="auto",
        fresh_norms=False,
        dropout=0.0,
        head="new",
        generator=None,
    ):
        super().__init__()
        self.n_branches, self.n_classes = n_branches, n_classes
        self.blocks = tuple(backbone.depths if blocks is None else blocks)
        self.image_size = backbone.image_size
        at = PHASES.index(split_at)
        self.width_offset, self.branch_planes = fit_widths(
            backbone, self.blocks, n_branches, at, n_classes, width_offset
        )
        self.backbone_name = backbone.name
        self.arguments = {
            "n_classes": n_classes,
            "blocks": self.blocks,
            "n_branches": n_branches,
            "split_at": split_at,
            "width_offset": self.width_offset,
            "dropout": dropout,
        }
        kept = [phase[:depth] for phase, depth in zip(backbone.phases, self.blocks, strict=True)]

        self.normalize = Normalize(backbone.mean, backbone.std)
        self.stump = copy.deepcopy(nn.Sequential(*backbone.stem, *kept[:at]))
        self.branches = nn.Sequential(
            *_make_branches(backbone, self.blocks, at, self.branch_planes, n_branches)
        )
        splitter = {"paper": split_kernels, "aligned": split_aligned}[split]
        splitter(nn.Sequential(*kept[at:]), self.branches, n_branches, generator)
        if fresh_norms:
            _reset_norms(self.branches)
        if dropout:
            _add_dropout(self.branches, dropout)
        self.head = BranchLinear(
            n_branches, self.branch_planes[-1] * backbone.block.expansion, n_classes
        )
        if head == "pretrained":
            self.head.load_linear(backbone.fc)

    def freeze(self, trainable):
        """Choose what learns: "head", "branches" (with heads) or "all".

        Frozen parts stay in eval mode whatever :meth:`train` says.
        """
        parts = {"head": ["stump", "branches"], "branches": ["stump"], "all": []}[trainable]
        self.requires_grad_(True)
        return self.hold(parts)

    def set_branch_form(self, form):
        """Choose how the branches' convolutions run, one of FORMS; same numbers, but for rounding.

        "auto": as one grouped convolution, but in training in bfloat16 on the CPU with those
        of its products as matrix products that are faster so. "matrix": all of them.
        """
        check_choice("form", form, FORMS)
        for module in self.branches.modules():
            if isinstance(module, BranchConv2d):
                module.form = form
        return self


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


# ------------------------------------------------------------------------ widths, Eq. (1)


def fit_widths(backbone, blocks, n_branches, at, n_classes, width_offset="auto"):
    """Return a and the planes of the branches' phases, Eq. (1).

    C_b = floor(C_o / sqrt(b)) - a, with a the smallest integer for which all branches
    together have at most the parameters (convolutions, norms, heads) of the unsplit part.

    Raises
    ------
    ValueError
        If a phase would have no channel left; says the largest possible number of branches.
    """

    count = cache(partial(_count_branch, backbone, blocks, at, n_classes))

    def find(number):
        if width_offset == "auto":
            return _smallest_offset(backbone, number, at, count)
        planes = _widths(backbone, number, at, width_offset)
        return planes and (width_offset, planes)

    found = find(n_branches)
    if found is None:
        # No bisection: widths fall in steps, so that a smaller number may be impossible.
        largest = next(filter(find, range(MAX_BRANCHES, 0, -1)), 0)
        raise ValueError(
            f"`n_branches`={n_branches} with `width_offset`={width_offset!r} would leave the "
            f"branches of {backbone.name!r} without channels when split at {PHASES[at]!r}; "
            f"the largest possible is {largest}."
        )
    return found


def _smallest_offset(backbone, n_branches, at, count):
    def widths(offset):
        return _widths(backbone, n_branches, at, offset)

    def fits(offset):  # so do all larger ones
        return n_branches * count(widths(offset)) <= count(backbone.planes[at:])

    possible = list(takewhile(widths, range(backbone.planes[at])))
    index = bisect_left(possible, True, key=fits)
    return (possible[index], widths(possible[index])) if index < len(possible) else None


def _widths(backbone, n_branches, at, offset):
    # isqrt(C² // b) is floor(C / sqrt(b)) without rounding.
    planes = tuple(math.isqrt(p * p // n_branches) - offset for p in backbone.planes[at:])
    possible = min(planes) >= 1 and min(map(backbone.inner_width, planes)) >= 1
    return planes if possible else None


def _branch_phases(backbone, blocks, at, planes):
    """Yield the phases of one branch, on the meta device."""
    channels = backbone.in_channels(at)
    for i, width in enumerate(planes, at):
        with torch.device("meta"):
            phase = backbone.make_phase(i, channels, width, blocks[i])
        yield phase
        channels = width * backbone.block.expansion


def _count_branch(backbone, blocks, at, n_classes, planes):
    phases = _branch_phases(backbone, blocks, at, planes)
    n_parameters = sum(p.numel() for phase in phases for p in phase.parameters())
    return n_parameters + (planes[-1] * backbone.block.expansion + 1) * n_classes


# ------------------------------------------------------------------------------ branches


def _make_branches(backbone, blocks, at, planes, n_branches):
    """Yield the phases of all branches side by side, with initial weights."""
    for phase in _branch_phases(backbone, blocks, at, planes):
        widen(phase, n_branches)
        phase.to_empty(device="cpu")
        initialise(phase)
        yield phase


def _reset_norms(module):
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.reset_parameters()


def _add_dropout(branches, probability):
    """Model [D]: dropout after each activation of the last two blocks, in place."""
    blocks = [block for phase in branches for block in phase]
    for block in blocks[-2:]:
        block.relu = nn.Sequential(block.relu, nn.Dropout(probability))
