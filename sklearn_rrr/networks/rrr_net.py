"""RRR-Net: a reduced backbone with its last phases recycled into branches that vote.

Sun, Guyon, Mohr and Tabia (2023), RRR-Net: Reusing, Reducing, and Recycling a Deep
Backbone Network, arXiv:2310.01157. Reduce: section 3.2. Recycle: section 3.3, Eq. (1),
Algorithm 2. B is the batch size, M the number of branches, K the number of classes.
"""

import copy

import torch
from torch import nn

from sklearn_rrr._validation import check_choice
from sklearn_rrr.backbones.backbone import PHASES, HalfTurn
from sklearn_rrr.backbones.block import initialise
from sklearn_rrr.networks.branch_layers import FORMS, BranchConv2d, BranchLinear, widen
from sklearn_rrr.networks.branch_split import split_aligned, split_kernels
from sklearn_rrr.networks.branch_widths import branch_phases, fit_widths
from sklearn_rrr.networks.image_network import ImageNetwork, Normalize
from sklearn_rrr.networks.levels import (
    KINDS,
    LAST,
    Branches,
    Stump,
    count_features,
    list_statistics,
    name_statistics,
)


class RRRNet(ImageNetwork):
    """Network with one stump, M branches and one head per branch.

    Parameters
    ----------
    backbone : Backbone
        Source of the kernels; it is copied, never changed.
    n_classes : int
        K, the number of classes.
    blocks : tuple of 4 int or of 4 tuples of int, or None, default=None
        How many blocks of conv2_x to conv5_x to use, counted as in :attr:`Backbone.depths`, or
        their positions; None uses all.
    n_branches : int, default=1
        M, the number of branches; 1 leaves the network unsplit.
    split_at : {"conv2_x", "conv3_x", "conv4_x", "conv5_x"}, default="conv4_x"
        First phase of the branches.
    split : {"paper", "aligned"}, default="paper"
        How branches copy their kernels from the backbone. "paper": by Algorithm 2. "aligned":
        as true sub-networks, norms included.
    width_offset : int or None, default=None
        a in Eq. (1); None uses the smallest value that does not add parameters.
    fresh_norms : bool, default=False
        Whether the norms of the branches start from their initial state. After a split by
        Algorithm 2 they always do.
    dropout : float, default=0.0
        Probability of dropout after each activation of the last two blocks.
    head_features : {"last", "all"}, default="last"
        Features that the heads read: means over the pixels of the last block's output, or also
        means and standard deviations of each earlier block, standardised by statistics that are
        part of the head.
    head : {"new", "pretrained"}, default="new"
        "pretrained" copies the backbone's head; it requires M = 1, the backbone's number of
        classes and head_features="last".
    generator : torch.Generator or None, default=None
        Random generator of the split. Fresh weights come from torch's global generator.

    Attributes
    ----------
    backbone_name : str
    arguments : dict
        Constructor arguments that rebuild a network of this shape with other weights.
    blocks : tuple of 4 int
        Number of blocks in each phase.
    width_offset : int
    branch_planes : tuple of int
        Planes of each row of blocks of one branch.

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
        width_offset=None,
        fresh_norms=False,
        dropout=0.0,
        head_features="last",
        head="new",
        generator=None,
    ):
        super().__init__()
        self.n_branches, self.n_classes = n_branches, n_classes
        blocks = tuple(backbone.depths if blocks is None else blocks)
        kept = [backbone.reduce_phase(i, entry) for i, entry in enumerate(blocks)]
        self.blocks = tuple(map(count_blocks, kept))
        is_whole = self.blocks == tuple(backbone.depths) and n_branches == 1
        self.image_size = backbone.image_size_whole if is_whole else backbone.image_size
        self.head_features = head_features
        at = PHASES.index(split_at)
        self.width_offset, self.branch_planes = fit_widths(
            backbone, blocks, n_branches, at, n_classes, head_features, width_offset
        )
        self.backbone_name = backbone.name
        self.arguments = {
            "n_classes": n_classes,
            "blocks": blocks,
            "n_branches": n_branches,
            "split_at": split_at,
            "width_offset": self.width_offset,
            "dropout": dropout,
            "head_features": head_features,
        }
        self.normalize = Normalize(backbone.mean, backbone.std)
        self.stump = copy.deepcopy(Stump(*backbone.stem, *kept[:at]))
        phases = list(branch_phases(backbone, blocks, at, n_branches, self.width_offset))
        n_features = count_features(kept[:at], phases, head_features)
        self.branches = Branches(*(_make_branches(phase, n_branches) for phase in phases))
        self.branches.n_branches, self.stump.n_later = n_branches, len(kept) - at
        self.stump.head_features = self.branches.head_features = head_features
        splitter = {"paper": split_kernels, "aligned": split_aligned}[split]
        splitter(nn.Sequential(*kept[at:]), self.branches, n_branches, generator)
        if fresh_norms:
            _reset_norms(self.branches)
        if dropout:
            _add_dropout(self.branches, dropout)
        self.head = BranchLinear(n_branches, n_features, n_classes, head_features == "all")
        if head == "pretrained":
            self.head.load_linear(backbone.fc)

    def freeze(self, trainable):
        """Set the trainable parts: "head", "branches" (with heads) or "all"; freeze the rest.

        Frozen parts stay in eval mode even after a call of :meth:`train`.
        """
        parts = {"head": ["stump", "branches"], "branches": ["stump"], "all": []}[trainable]
        self.requires_grad_(True)
        return self.hold(parts)

    def feature_kinds(self):
        kinds = []
        for _, n, channels in self.list_statistics():
            kinds += [kind for kind in (KINDS[:n] if n > 1 else (LAST,)) for _ in range(channels)]
        return kinds

    def _name_features(self):
        phases = [*self.stump.phases, *self.branches]
        places = zip(PHASES[-len(phases) :], phases, strict=True)
        blocks = {b: f"{phase}_{i}" for phase, of in places for i, b in enumerate(of, 1)}
        turned = any(isinstance(layer, HalfTurn) for layer in self.stump.modules())
        return [
            f"{blocks[block]}_{statistic}_{channel}"
            for block, n, channels in self.list_statistics()
            for statistic in name_statistics(n, turned)
            for channel in range(channels)
        ]

    def list_statistics(self):
        """Return what the heads read: a list of (block, statistics, channels of one branch)."""
        form = self.branches, self.head_features, self.n_branches
        return list_statistics(self.stump.phases, *form)

    def set_branch_form(self, form):
        """Choose how the branches' convolutions run, one of FORMS; outputs agree up to rounding.

        "auto" runs one grouped convolution; when training in bfloat16 on the CPU, it computes
        some products as matrix products, where this is faster. "matrix" does so for all.
        """
        check_choice("form", form, FORMS)
        for module in self.branches.modules():
            if isinstance(module, BranchConv2d):
                module.form = form
        return self


# ------------------------------------------------------------------------------ branches


def _make_branches(phase, n_branches):
    """Return a phase of one branch, on the meta device, as one of all branches side by side."""
    widen(phase, n_branches)
    # As phase.to_empty, which imports the compiler of torch, does.
    for layer in phase.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            setattr(layer, name, nn.Parameter(empty, parameter.requires_grad))
        for name, buffer in list(layer.named_buffers(recurse=False)):
            setattr(layer, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    initialise(phase)
    return phase


def count_blocks(phase):
    """Return the number of blocks of a phase as in :attr:`Backbone.depths`."""
    return 1 + sum(block.repeats for block in phase)


def _reset_norms(module):
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.reset_parameters()


def _add_dropout(branches, probability):
    """Add dropout after each activation of the last two blocks, in place (model [D])."""
    blocks = [block for phase in branches for block in phase]
    for block in blocks[-2:]:
        block.relu = nn.Sequential(block.relu, nn.Dropout(probability))
