"""Initialisation of heads by ridge regression on the features, before training.

A random head sends large, random gradients into pre-trained features; a head that already
classifies does not (Kumar et al. 2022, Fine-tuning can distort pretrained features and
underperform out-of-distribution). B is the batch size, M the number of branches, F of features,
K of classes.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from sklearn_rrr.training.batches import EpochBatches
from sklearn_rrr.training.devices import explained_memory

PENALTY = 1.0  # on standardised features
SCALE = 8.0  # from regression targets 0 and 1 to logits


class RidgeHeads:
    """Ridge regression from sums that are accumulated over batches of features.

    Computes on the CPU in float64, whatever the network's device, and stores M · F² numbers.

    Parameters
    ----------
    n_classes : int
        K, the number of classes.
    """

    def __init__(self, n_classes):
        self.n_classes = n_classes
        self.total = self.sum_x = self.sum_xx = self.sum_xy = self.sum_y = 0.0

    def update(self, features, labels, weights):
        """Add a batch: features (B, M, F), labels (B,) in 0 to K - 1, weights (B,) or (B, M)."""
        x = features.detach().cpu().double().transpose(0, 1)  # (M, B, F)
        share = weights.cpu().double().view(len(weights), -1).T[..., None]  # (1 or M, B, 1)
        y = F.one_hot(labels.cpu(), self.n_classes).double()
        self.total += share.sum(1)  # (1 or M, 1)
        self.sum_x += (x * share).sum(1)  # (M, F)
        self.sum_xx += x.transpose(1, 2) @ (x * share)  # (M, F, F)
        self.sum_y += (y * share).sum(1)  # (1 or M, K)
        self.sum_xy += x.transpose(1, 2) @ (y * share)  # (M, F, K)

    @torch.no_grad()
    def write(self, head):
        """Write the solution into a BranchLinear head of M branches, F features, K classes."""
        mean, prior = self.sum_x / self.total, self.sum_y / self.total
        total = self.total[..., None]
        covariance = self.sum_xx / total - mean[:, :, None] * mean[:, None]
        variance = covariance.diagonal(dim1=1, dim2=2)
        deviation = variance.clamp(min=1e-12).sqrt()  # (M, F)
        correlation = covariance / (deviation[:, :, None] * deviation[:, None])
        correlation.diagonal(dim1=1, dim2=2).add_(PENALTY)
        common = self.sum_xy / total - mean[:, :, None] * prior[:, None]  # (M, F, K)
        slopes = torch.linalg.solve(correlation, common / deviation[:, :, None])
        slopes = SCALE * (slopes / deviation[:, :, None]).transpose(1, 2)  # (M, K, F)
        head.weight.copy_(slopes)
        head.bias.copy_(SCALE * prior - (slopes @ mean[:, :, None])[..., 0])


def start_heads(net, images):
    """Initialise the heads as ridge regressions on the features of one pass.

    The pass also sets the statistics of the trainable norms, so the network can predict
    before its first step.
    """
    sampler = EpochBatches(len(images), net.settings.batch_size, net.settings.seed + 2)
    net.module_.train()
    heads = RidgeHeads(net.module_.n_classes)
    with (
        averaging_norms(net.module_),
        explained_memory(net.settings.batch_size),
        torch.no_grad(),
        net.autocast(),
    ):
        for batch, targets in net.load(images, sampler):
            stump = net.module_.forward_features(net.prepare(batch, training=False))
            heads.update(net.module_.pool_branches(stump), *targets)
    heads.write(net.module_.head)


@contextmanager
def averaging_norms(module):
    """Reset the statistics of norms in training mode, and average them over batches."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
