"""Ridge regressions of images and of mirrored or turned copies of them, weighed by likelihood.

Mirrored copies help with most photographs, and turned ones with views from above, but both are
wrong for characters and signs. So each image is left out together with its copies, and the logits
of the regressions are averaged, weighed by the likelihoods of the left-out images (Burnham and
Anderson 2002, Model selection and multimodel inference, section 2.9). The mean of linear functions
is linear, so predictions take no longer.

If a group of rows is left out, their residuals change from r to (I - H)⁻¹ r, where H is the group's
part of the hat matrix (Cook and Weisberg 1982, Residuals and influence in regression, section 3.6).
n is the number of images, F the number of features, K the number of classes, C the number of copies
of an image.
"""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from sklearn_rrr.training.kind_weights import LEAST_REST
from sklearn_rrr.training.ridge import LeaveOneOut, decompose_kernel

FLIPS = ((3,), (2,), (2, 3))  # axes (B, C, H, W): mirrored, upside down, turned by 180 degrees
TRIALS = 1, 3  # numbers of copies of a regression, the first ones in FLIPS
SHARE = 0.5  # share of an image's weight that its copies get; see docs/backbones.rst
MOST_ROWS = 1000  # images and copies; the time to compute their features grows with them


def count_copies(n_images):
    """Return the number of copies of each image that :func:`weigh_copies` can use."""
    if n_images == 1:  # left out, nothing is left that could predict it
        return 0
    return max((n for n in TRIALS if (1 + n) * n_images <= MOST_ROWS), default=0)


def weigh_copies(plain, kept, copies):
    """Return `plain` with logits that are a mean over regressions without and with copies.

    Parameters
    ----------
    plain : Ridge
        Solution without copies. All regressions use its factors and its prior.
    kept : tuple of Tensor of shape (n, F), (n,) and (n,)
        Features, labels and weights of all images; the mean weight is 1.
    copies : Tensor of shape (n, C, F)
        Features of the copies, in the order of FLIPS; C is one of TRIALS.

    Returns
    -------
    ridge : Ridge
        Only `weight` and `bias` differ from those of `plain`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr.training.copies import weigh_copies
    >>> from sklearn_rrr.training.ridge import RidgeSums
    >>> labels, generator = torch.arange(40) % 2, torch.Generator().manual_seed(0)
    >>> x = torch.randn(40, 50, generator=generator) + 2 * labels[:, None]
    >>> sums = RidgeSums(n_images=40, n_features=50, n_classes=2)
    >>> sums.update(x, labels, torch.ones(40))
    >>> plain, harmful = sums.solve(), x.flip(0)  # copies look like the other class
    >>> ridge = weigh_copies(plain, sums.kept_images(), harmful[:, None])
    >>> torch.allclose(ridge.weight, plain.weight, atol=1e-3)
    True
    """
    found = [(plain.score, plain.weight, plain.bias)]
    trials = [n for n in TRIALS if n <= copies.shape[1]]
    found += [_solve(plain, kept, copies[:, :n]) for n in trials]
    scores, weights, biases = zip(*found, strict=True)
    shares = (plain.n_scored * torch.tensor(scores, dtype=torch.double)).softmax(0)
    weight, bias = (torch.tensordot(shares, torch.stack(part), 1) for part in (weights, biases))
    return replace(plain, weight=weight, bias=bias)


def _solve(plain, kept, copies):
    """Return score, weight and bias of the regression of images and all copies."""
    x, labels, weights = kept
    n, n_copies, n_features = copies.shape
    rows = torch.cat([x[:, None], copies], 1).double().view(-1, n_features)  # image by image
    parts = [1 - SHARE, *[SHARE / n_copies] * n_copies]
    weights_of_rows = (weights[:, None] * torch.tensor(parts, dtype=torch.double)).flatten()
    z = (rows - plain.center) * plain.factor
    mean = weights_of_rows @ z / n
    z -= mean
    root = max(math.sqrt(weights_of_rows @ z.square().sum(1) / n), 1e-30)  # mean eigenvalue 1
    y = F.one_hot(labels, len(plain.prior)).double() - plain.prior
    system = decompose_kernel(z / root, y.repeat_interleave(1 + n_copies, 0), weights_of_rows)
    loo = _LeaveGroupsOut(*system[:3], y, labels, weights, plain.prior, n, weights_of_rows)
    penalty, discriminant = loo.choose(n)
    weight = discriminant.matrix.T @ (system[3](penalty).T / root)
    return discriminant.score, weight, discriminant.offset - weight @ mean


class _LeaveGroupsOut(LeaveOneOut):
    """Exact predictions of images that are left out together with their copies."""

    def __init__(self, values, scores, targets, y, labels, weights, prior, n, weights_of_rows):
        self.root = weights_of_rows.view(n, -1, 1).sqrt()  # (n, 1 + C, 1)
        scores = scores.view(n, -1, len(values)) * self.root
        super().__init__(values, scores, targets, y, labels, weights, prior, n)

    def predict(self, penalty):
        damped = 1 / (self.values + penalty)
        y = self.root * self.y[:, None]
        residual = y - self.scores @ (self.targets * damped[:, None])  # (n, 1 + C, K)
        hat = (self.scores * damped) @ self.scores.mT + self.root @ self.root.mT / self.n
        rest = (1 + LEAST_REST) * torch.eye(hat.shape[1], dtype=torch.double) - hat
        left_out = torch.cholesky_solve(residual, torch.linalg.cholesky(rest))[:, 0]
        return self.prior + self.y - left_out / self.root[:, 0]
