"""Ridge regression in closed form, with the penalty that exact leave-one-out chooses.

The regression predicts from standardised features which class an image has, as numbers 1 and 0.
One eigendecomposition gives the solution and the leave-one-out predictions for a whole path of
penalties (Hastie, Tibshirani and Friedman 2009, The elements of statistical learning, 7.10).
A :class:`Discriminant` turns predictions into logits. B is the batch size, F the number of
features, K the number of classes, n the number of images.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from sklearn_rrr.training.discriminant import Discriminant, fit_scale
from sklearn_rrr.training.kind_weights import LEAST_REST, MOST, weigh_kinds

PENALTIES = 10.0 ** np.arange(-4, 4.5, 0.5)  # for eigenvalues whose mean is about 1
SCORED = 2**20  # numbers, images times classes, in a leave-one-out score
FEWEST_SCORED = 256  # images
CONSTANT = 1e-4  # deviation over root mean square below which a feature counts as constant
FLOOR = 0.3  # of the median deviation, added to each in squares
LARGEST_MATRIX = 16_384  # rows; its decomposition takes minutes and 6 GB
BUFFER = 512  # images whose products are summed at once


@dataclass
class Ridge:
    """Predictions and logits of standardised features z = (x - center) · factor.

    Parameters
    ----------
    center, factor : Tensor of shape (F,)
    slopes : Tensor of shape (K, F)
    prior : Tensor of shape (K,)
        Predictions are z @ slopes.T + prior.
    weight : Tensor of shape (K, F)
    bias : Tensor of shape (K,)
        Logits are z @ weight.T + bias.
    penalty : float
        Penalty with the best leave-one-out likelihood.
    score : float
        Mean log-likelihood of left-out images, with smoothed labels.
    n_scored : int
        Number of left-out images.
    """

    center: torch.Tensor
    factor: torch.Tensor
    slopes: torch.Tensor
    prior: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    penalty: float
    score: float
    n_scored: int


class RidgeSums:
    """Ridge regression of features and labels that are added batch by batch.

    Up to as many images as features are kept as they are. Above that, only sums of their products
    are, and the images on which penalties are scored, so that memory does not grow with n.

    Parameters
    ----------
    n_images : int
        n, the largest number of images to come.
    n_features, n_classes : int
        F and K.
    kinds : sequence of int or None, default=None
        Kind of each feature. Leave-one-out also chooses a weight for each kind, a part of the
        factors; see :func:`weigh_kinds`. None treats all features alike.

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr.training.ridge import RidgeSums
    >>> sums = RidgeSums(n_images=4, n_features=2, n_classes=2)
    >>> x = torch.tensor([[0.0, 1.0], [0.2, 0.0], [1.0, 1.0], [0.8, 0.0]])
    >>> sums.update(x, torch.tensor([0, 0, 1, 1]), torch.ones(4))
    >>> sums.solve().weight[1].round(decimals=1)
    tensor([0.6000, 0.0000], dtype=torch.float64)
    """

    def __init__(self, n_images, n_features, n_classes, kinds=None):
        self.kinds = torch.zeros(n_features) if kinds is None else torch.as_tensor(kinds)
        self.n_images, self.n_classes = n_images, n_classes
        self.keeps_all = n_images <= n_features
        if min(n_images, n_features) > LARGEST_MATRIX:
            raise ValueError(
                f"The heads read {n_features} features of {n_images} images; a closed-form start "
                f"would decompose a matrix with more than {LARGEST_MATRIX} rows. Use "
                'FineTuning(head_features="last") or head_init="random".'
            )
        scored = min(n_images, max(FEWEST_SCORED, SCORED // n_classes))
        self.n_kept = n_images if self.keeps_all else min(scored, max(n_features, 4096))
        self.n_scored = scored
        self.kept, self.buffer, self.shift = [], [], None
        self.n, self.total = 0, 0.0
        self.counts = torch.zeros(n_classes, dtype=torch.double)
        self.sums = torch.zeros(n_classes, n_features, dtype=torch.double)
        self.products = None

    def update(self, features, labels, weights):
        """Add a batch: features (B, F), labels (B,) in 0 to K - 1, weights (B,)."""
        used = weights > 0
        batch = features[used].float(), labels[used], weights[used].double()
        room = self.n_kept - self.n
        if room > 0:
            self.kept.append([part[:room].clone() for part in batch])
        self.n += len(batch[0])
        self.total += batch[2].sum().item()
        self.counts.index_add_(0, batch[1], batch[2])
        if not self.keeps_all:
            self.buffer.append(batch)
            if sum(len(x) for x, _, _ in self.buffer) >= BUFFER:
                self._sum_products()

    def _sum_products(self):
        """Add the buffered images to the sums, around a guess of the mean, to lose no digits."""
        if not self.buffer:
            return
        x, labels, weights = map(torch.cat, zip(*self.buffer, strict=True))
        self.buffer = []
        if self.shift is None:
            self.shift = x.double().mean(0)
            self.products = torch.zeros(x.shape[1], x.shape[1], dtype=torch.double)
        x = x.double() - self.shift
        weighted = x * weights[:, None]
        self.sums.index_add_(0, labels, weighted)
        self.products.addmm_(weighted.T, x)

    def select(self, n_features):
        """Return the sums of the first features alone."""
        self._sum_products()
        part = RidgeSums(self.n_images, n_features, self.n_classes, self.kinds[:n_features])
        part.keeps_all, part.n_scored, part.n = self.keeps_all, self.n_scored, self.n
        part.total, part.counts = self.total, self.counts
        part.kept = [(x[:, :n_features], *rest) for x, *rest in self.kept]
        if not self.keeps_all:
            part.sums, part.shift = self.sums[:, :n_features], self.shift[:n_features]
            part.products = self.products[:n_features, :n_features]
        return part

    def solve(self):
        """Return the Ridge with the best leave-one-out score."""
        center, deviation = self._measure()
        factor = _invert(center, deviation)
        x, labels, weights = self.kept_images()
        if len(self.kinds.unique()) > 1:
            z = (x[:MOST].double() - center) * factor
            kinds = self.kinds, labels[:MOST], weights[:MOST], self.n_classes
            factor = factor * weigh_kinds(z, *kinds)
        prior = self.counts / self.total
        root = max(math.sqrt((deviation * factor).square().sum()), 1e-30)  # mean eigenvalue 1
        z = (x.double() - center) * (factor / root)
        y = F.one_hot(labels, self.n_classes).double() - prior
        if self.keeps_all:
            system = decompose_kernel(z, y, weights)
        else:
            system = self._decompose_products(z, center, factor / root)
        loo = LeaveOneOut(*system[:3], y, labels, weights, prior, self.n)
        penalty, discriminant = loo.choose(self.n_scored)
        slopes = system[3](penalty).T / root
        weight, bias = discriminant.matrix.T @ slopes, discriminant.offset
        scores = penalty, discriminant.score, discriminant.n_scored
        return Ridge(center, factor, slopes, prior, weight, bias, *scores)

    def kept_images(self):
        """Return features, labels and weights of the kept images; all weights have the mean 1."""
        x, labels, weights = map(torch.cat, zip(*self.kept, strict=True))
        return x, labels, weights * (self.n / self.total)

    def standardise(self):
        """Return the center and the factor of each feature.

        The factor is 1 over the deviation, or 0 for a constant feature. A small deviation is
        increased: otherwise a channel that is almost never active would outweigh all others in
        an image that activates it, and leave-one-out, which uses the same statistics for every
        image, would not notice.
        """
        center, deviation = self._measure()
        return center, _invert(center, deviation)

    def _measure(self):
        """Return mean and standard deviation of each feature."""
        self._sum_products()
        if self.keeps_all:
            x, _, weights = self.kept_images()
            x, share = x.double(), weights / len(x)
            center = share @ x
            variance = share @ (x - center).square()
        else:
            mean = self.sums.sum(0) / self.total
            center = mean + self.shift
            variance = self.products.diagonal() / self.total - mean.square()
        return center, variance.clamp(min=0).sqrt()

    def _decompose_products(self, z, center, factor):
        """Decompose the weighted products (F, F) of all images; see :func:`decompose_kernel`."""
        mean, size = self.sums.sum(0) / self.total, self.n / self.total
        products = self.products - self.total * torch.outer(mean, mean)
        values, vectors = _decompose(products * torch.outer(factor, factor) * size)
        common = (self.sums - self.counts[:, None] * mean) * (factor * size)  # (K, F)
        targets = vectors.T @ common.T
        return values, z @ vectors, targets, lambda p: vectors @ (targets / (values + p)[:, None])


def _invert(center, deviation):
    """Return 1 over the deviations, bounded by their median, or 0 for constant features."""
    varies = deviation > CONSTANT * torch.hypot(deviation, center)
    if not varies.any():
        return torch.zeros_like(deviation)
    bounded = torch.hypot(deviation, FLOOR * deviation[varies].median())
    return torch.where(varies, 1 / bounded, 0.0)


def decompose_kernel(z, y, weights):
    """Decompose the weighted products (n, n) of images.

    Returns
    -------
    values : Tensor of shape (R,)
        Eigenvalues E.
    scores : Tensor of shape (n, R)
        Images Q in the basis of the eigenvectors.
    targets : Tensor of shape (R, K)
        T; predictions are Q (E + λ)⁻¹ T for a penalty λ.
    solve : callable
        Function from λ to the slopes of the features, (F, K).
    """
    root = weights.sqrt()[:, None]
    z, y = z * root, y * root
    values, vectors = _decompose(z @ z.T)
    projected, lengths = vectors.T @ y, values.sqrt()
    return (
        values,
        vectors * lengths / root,
        lengths[:, None] * projected,
        lambda p: z.T @ (vectors @ (projected / (values + p)[:, None])),
    )


def _decompose(matrix):
    """Return eigenvalues and eigenvectors of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp(min=0), vectors


class LeaveOneOut:
    """Exact leave-one-out predictions of kept images, for any penalty."""

    def __init__(self, values, scores, targets, y, labels, weights, prior, n):
        self.values, self.scores, self.targets = values, scores, targets
        self.y, self.labels, self.weights, self.prior, self.n = y, labels, weights, prior, n
        # Platt (1999): certainty is limited by the number of images, so the factor is finite.
        self.smoothing = 1 / (n + 1)

    def predict(self, penalty):
        """Return the prediction of each image by a regression on all others: (n, K)."""
        damped = 1 / (self.values + penalty)
        leverage = self.weights * (self.scores.square() @ damped + 1 / self.n)
        residual = self.y - self.scores @ (self.targets * damped[:, None])
        left_out = residual / (1 - leverage).clamp(min=LEAST_REST)[:, None]
        return self.prior + self.y - left_out

    def choose(self, n_scored):
        """Return the best penalty, and the Discriminant of its predictions."""
        self.scores, self.y = self.scores[:n_scored], self.y[:n_scored]
        self.labels, self.weights = self.labels[:n_scored], self.weights[:n_scored]
        form = self.labels, self.weights
        losses = [fit_scale(self.predict(p), *form, self.smoothing)[1] for p in PENALTIES]
        penalty = PENALTIES[int(np.argmin(losses))]
        return float(penalty), Discriminant(self.predict(penalty), *form, self.prior, self.n)
