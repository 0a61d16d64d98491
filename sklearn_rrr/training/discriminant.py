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
        Mean log-likelihood of the images, with smoothed labels.

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
        centred, total = (predictions - prior).clamp(-1, 1), weights.sum()
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
        offset = -(means * matrix.T).sum(1) / 2
        smoothing = 1 / (n_images + 1)
        base = ((1 - smoothing) * prior + smoothing / n_classes).log()
        discriminants = centred @ matrix + offset

        def loss(log_scale):
            logits = discriminants * math.exp(log_scale) + base
            options = {"reduction": "none", "label_smoothing": smoothing}
            return (weights @ F.cross_entropy(logits, labels, **options) / total).item()

        found = minimize_scalar(loss, bounds=np.log(FACTORS), method="bounded")
        scale = math.exp(found.x)
        self.matrix, self.offset = scale * matrix, scale * offset + base
        self.score = -float(found.fun)

    def __call__(self, predictions):
        return (predictions - self.prior) @ self.matrix + self.offset
