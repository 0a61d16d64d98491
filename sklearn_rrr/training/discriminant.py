"""From the predictions of a ridge regression on class indicators to logits.

A regression predicts small numbers for a class that it tells badly, and large ones for a class that
it tells well, so the largest prediction is not the best guess. Linear discriminant analysis of the
predictions corrects this (Hastie, Buja and Tibshirani 1995, Penalized discriminant analysis).
Predictions for left-out images show what to expect of new ones. n is the number of images, K the
number of classes.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

FACTORS = (0.5, 1000.0)  # range of the factor on the discriminants
# Chosen by cross-validation, see docs/backbones.rst: strength of the pull of the mean prediction of
# a class towards that of an average class, in images, and of the covariance towards a multiple of
# the identity matrix, relative to its own.
PULL_OF_MEANS = 10.0
PULL_OF_COVARIANCE = 3.0
N_FOLDS = 5
LEAST_RESPONSE = 1e-3  # of the predictions to the classes


class Discriminant:
    """Linear discriminants of predictions: (n, K) -> logits (n, K).

    Parameters
    ----------
    predictions : Tensor of shape (n, K)
        Predictions for left-out images.
    labels : Tensor of shape (n,)
        Indices of classes.
    weights : Tensor of shape (n,)
        Weights of the images, with a mean of about 1.
    prior : Tensor of shape (K,)
        Frequencies of the classes, which also are the predictions for an average image.
    n_images : int
        Number of images that determine the frequencies, n or more. Platt (1999): it limits how
        certain the logits may be.

    Attributes
    ----------
    matrix : Tensor of shape (K, K)
    offset : Tensor of shape (K,)
        Logits are ``(predictions - prior) @ matrix + offset``.
    score : float
        Mean log-likelihood of the images, with smoothed labels. Five folds, each with discriminants
        of the others, determine it and the scale of the logits. The matrix is a multiple of the
        identity where that scores better.
    n_scored : int
        Number of images.

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr.training.discriminant import Discriminant
    >>> labels = torch.arange(20) % 2
    >>> predictions = 0.5 + 0.2 * (torch.eye(2, dtype=torch.double)[labels] - 0.5)
    >>> prior = torch.full((2,), 0.5, dtype=torch.double)
    >>> found = Discriminant(predictions, labels, torch.ones(20).double(), prior, 20)
    >>> bool((found(predictions).argmax(1) == labels).all())
    True
    """

    def __init__(self, predictions, labels, weights, prior, n_images):
        self.prior, n_classes = prior, len(prior)
        # An image unlike all others may be predicted far outside the range of the indicators.
        centred = (predictions - prior).clamp(-1, 1)
        smoothing = 1 / (n_images + 1)
        base = ((1 - smoothing) * prior + smoothing / n_classes).log()
        # The scale is that of discriminants for images that did not determine them.
        crossed, folds = torch.empty_like(centred), _deal(centred, labels)
        for fold in folds.unique():
            rest = folds != fold
            matrix, offset = _discriminate(centred[rest], labels[rest], weights[rest], prior)
            crossed[~rest] = centred[~rest] @ matrix + offset
        forms = [(_discriminate(centred, labels, weights, prior), crossed)]
        plain = torch.eye(n_classes, dtype=torch.double), torch.zeros_like(prior)
        forms.append((plain, centred))  # few images may not tell how classes differ
        found = [fit_scale(values, labels, weights, smoothing, base) for _, values in forms]
        best = min(range(len(forms)), key=lambda i: found[i][1])
        (scale, loss), (matrix, offset) = found[best], forms[best][0]
        self.matrix, self.offset = scale * matrix, scale * offset + base
        self.score, self.n_scored = -loss, len(labels)

    def __call__(self, predictions):
        return (predictions - self.prior) @ self.matrix + self.offset


def fit_scale(values, labels, weights, smoothing, base=0.0):
    """Return the factor with which ``factor * values + base`` are the best logits, and their loss.

    The loss is the weighted mean of the cross-entropy with smoothed labels.
    """

    def lose(log_scale):
        logits = values * math.exp(log_scale) + base
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        return (weights @ losses / weights.sum()).item()

    found = minimize_scalar(lose, bounds=np.log(FACTORS), method="bounded")
    return math.exp(found.x), float(found.fun)


def _deal(centred, labels):
    """Return the fold of each image: each has as many of a class, well and badly predicted ones.

    It does not depend on the order of the images.
    """
    own = centred.gather(1, labels[:, None])[:, 0]
    folds = torch.empty_like(labels)
    folds[torch.from_numpy(np.lexsort((own.numpy(), labels.numpy())))] = (
        torch.arange(len(labels)) % N_FOLDS
    )
    return folds


def _discriminate(centred, labels, weights, prior):
    """Return the matrix (K, K) and the offset (K,) of linear discriminants, up to a factor."""
    n_classes = len(prior)
    indicators = F.one_hot(labels, n_classes).double()
    # The only image of a class, left out, says nothing about the class.
    told = weights * (indicators.sum(0) > 1)[labels]
    counts = told @ indicators
    ideal = torch.eye(n_classes, dtype=torch.double) - prior  # predictions without an error
    response = told @ (centred * ideal[labels]).sum(1)
    response = response / (told @ ideal[labels].square().sum(1)).clamp(min=1e-30)
    if response < LEAST_RESPONSE:  # left-out images tell nothing: assume equal classes
        response, counts = torch.full_like(response, LEAST_RESPONSE), torch.zeros_like(counts)
    means = indicators.T @ (told[:, None] * centred) / counts.clamp(min=1e-30)[:, None]
    share = (counts / (counts + PULL_OF_MEANS).clamp(min=1e-30))[:, None]
    means = share * means + (1 - share) * response * ideal
    rest = centred - means[labels]
    covariance = rest.T @ (told[:, None] * rest) / told.sum().clamp(min=1e-30)
    covariance = covariance / covariance.diagonal().mean().clamp(min=1e-30)
    pull = PULL_OF_COVARIANCE * torch.eye(n_classes, dtype=torch.double)
    mixed = (covariance + pull) / (1 + PULL_OF_COVARIANCE)
    matrix = torch.linalg.solve(mixed, means.T) / response
    return matrix, -(means * matrix.T).sum(1) / 2
