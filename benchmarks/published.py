"""Published training procedure, as a speed reference: one branch after the other, in float32.

RRR-Net (arXiv:2310.01157), section 4.2: every branch has its own pass through the frozen stump,
its own optimiser and its own pass over the data.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.backbones.block import block_layers, initialise
from sklearn_rrr.networks.branch_widths import branch_phases, fit_widths
from sklearn_rrr.networks.image_network import Normalize


class PublishedProcedure:
    """M branches of RRR-Net, each trained separately.

    Parameters
    ----------
    backbone : Backbone
    n_classes, n_branches : int
    blocks : tuple of 4 int
    channels_last : bool
        Memory format; the published code uses channels first.
    """

    def __init__(self, backbone, n_classes, n_branches, blocks, channels_last):
        at = PHASES.index("conv4_x")
        offset, _ = fit_widths(backbone, blocks, n_branches, at, n_classes, "last")
        kept = [phase[:depth] for phase, depth in zip(backbone.phases[:at], blocks, strict=False)]
        stump = nn.Sequential(Normalize(backbone.mean, backbone.std), *backbone.stem, *kept)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.stump = copy.deepcopy(stump).eval().requires_grad_(False)
        self.stump.to(memory_format=self.layout)
        self.branches = [
            self._branch(backbone, blocks, n_branches, offset, n_classes) for _ in range(n_branches)
        ]
        self.optimizers = [torch.optim.AdamW(b.parameters(), lr=1e-3) for b in self.branches]

    def _branch(self, backbone, blocks, n_branches, offset, n_classes):
        at = PHASES.index("conv4_x")
        phases = list(branch_phases(backbone, blocks, at, n_branches, offset))
        for phase in phases:
            initialise(phase.to_empty(device="cpu"))
        channels = block_layers(phases[-1][-1])[-1][0].out_channels
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)]
        return nn.Sequential(*phases, *head).to(memory_format=self.layout).train()

    def step(self, images, labels):
        """Train every branch on one batch (B, 3, S, S)."""
        for branch, optimizer in zip(self.branches, self.optimizers, strict=True):
            with torch.no_grad():
                features = self.stump(images.contiguous(memory_format=self.layout))
            loss = F.cross_entropy(branch(features), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # logged after every step
