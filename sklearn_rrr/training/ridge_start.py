"""Initialisation of heads by ridge regression on the features, before training.

A random head sends large, random gradients into pre-trained features; a head that already
classifies does not (Kumar et al. 2022, Fine-tuning can distort pretrained features and
underperform out-of-distribution). B is the batch size, M the number of branches, F of features,
K of classes.
"""

import torch
import torch.nn.functional as F

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
