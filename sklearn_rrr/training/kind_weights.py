"""Weights of kinds of features in a ridge regression, by the likelihood of left-out images.

A ridge regression whose features are scaled kind by kind is one with a penalty for each kind, or a
sum of kernels with a weight for each (Lanckriet et al. 2004, Learning the kernel matrix with
semidefinite programming). Leave-one-out predictions have a closed form and a gradient for any
weights (Rasmussen and Williams 2006, Gaussian processes for machine learning, section 5.4).
n is the number of images, K the number of classes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from sklearn_rrr.training.discriminant import FACTORS

MOST = 1000  # images; a step takes time that grows with their cube
STARTS = (0.01, 0.1, 1.0, 10.0)  # signal to noise
SCALE = 5.0  # of predictions, at the start
BOUNDS = np.log([1e-5, 1e4])  # of the logarithms of the weights
PRIOR = 0.3  # strength of the pull towards equal weights, beside the log-likelihood
LEAST_REST = 1e-10  # least share of an image's prediction that other images determine
OPTIONS = {"maxiter": 30, "ftol": 1e-6}


def weigh_kinds(z, kinds, labels, weights, n_classes):
    """Return the factor on each feature that gives the kinds their weights.

    Parameters
    ----------
    z : Tensor of shape (n, F)
        Standardised features of at most MOST images.
    kinds : Tensor of shape (F,)
        Kind of each feature, an int.
    labels : Tensor of shape (n,)
        Indices of classes.
    weights : Tensor of shape (n,)
        Positive weights of the images.
    n_classes : int
        K.

    Returns
    -------
    factors : Tensor of shape (F,)
        Equal for all features of a kind.

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr.training.kind_weights import weigh_kinds
    >>> generator = torch.Generator().manual_seed(0)
    >>> labels, noise = torch.arange(60) % 2, torch.randn(60, 3, generator=generator)
    >>> z = torch.column_stack([labels - 0.5, noise]).double()
    >>> factors = weigh_kinds(z, torch.tensor([0, 1, 1, 1]), labels, torch.ones(60).double(), 2)
    >>> bool(factors[0] > 3 * factors[1])
    True
    """
    weights = weights / weights.mean()
    z = z - weights @ z / len(z)
    root, factors, kernels, used = weights.sqrt(), torch.ones(z.shape[1]).double(), [], []
    for kind in kinds.unique():
        part = root[:, None] * z[:, kinds == kind]
        size = part.square().sum() / len(z)
        if size > 0:
            kernels.append(part @ part.T / size)
            used.append((kinds == kind, size))
    if len(kernels) > 1:
        found = _maximise(torch.stack(kernels), labels, weights, n_classes)
        for (columns, size), weight in zip(used, found, strict=True):
            factors[columns] = (weight / size).sqrt()
    return factors


def _maximise(kernels, labels, weights, n_classes):
    """Return the weights of kernels (G, n, n) with the best leave-one-out likelihood: (G,).

    Rows and columns of the kernels are multiplied by the roots of the images' weights.
    """
    n, n_kernels = len(labels), len(kernels)
    root, noise = weights.sqrt()[:, None], torch.eye(n, dtype=torch.double)
    y = F.one_hot(labels, n_classes).double()
    prior = weights @ y / n
    centred, smooth = y - prior, y.lerp(torch.full_like(y, 1 / n_classes), 1 / (n + 1))

    def objective(values):
        logs, scale = torch.tensor(values[:-1]), np.exp(values[-1])
        mixed = noise + torch.tensordot(logs.exp(), kernels, 1)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(mixed))
        residual = inverse @ (root * centred) / root
        rest = (inverse.diagonal() - weights / n).clamp(min=LEAST_REST)[:, None]
        logits = scale * (prior + centred - residual / rest)
        logs_of = logits.log_softmax(1)
        distance = logs - logs.mean()
        value = -weights @ (smooth * logs_of).sum(1) / n + PRIOR / n * distance.square().sum()
        # Derivatives: of the inverse B by log w, -w B K B.
        slope = weights[:, None] / n * (logs_of.exp() - smooth)  # by the logits
        by_residual = -scale * slope / rest
        by_rest = -(by_residual * residual / rest).sum(1)
        left, right = inverse @ (by_residual / root), inverse @ (root * centred)
        outer = left @ right.T + inverse * by_rest @ inverse
        by_logs = -logs.exp() * torch.tensordot(kernels, outer, 2) + 2 * PRIOR / n * distance
        return value.item(), np.append(by_logs, (slope * logits).sum())

    starts = [np.append(np.full(n_kernels, np.log(s / n_kernels)), np.log(SCALE)) for s in STARTS]
    start = min(starts, key=lambda values: objective(values)[0])
    bounds = [BOUNDS] * n_kernels + [np.log(FACTORS)]
    found = minimize(objective, start, jac=True, bounds=bounds, options=OPTIONS, method="L-BFGS-B")
    return torch.tensor(found.x[:-1]).exp()
