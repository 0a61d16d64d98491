"""Companion: a second, small network, whose weight held-out images decide."""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from sklearn_rrr.images.labels import hold_out
from sklearn_rrr.networks.stacked_net import Resize

HELD_OUT = 0.2  # fraction of the images that decides the weights
FEWEST = 100  # images for a companion; fewer held-out ones say little
LARGEST = 5.0  # weight
PRIOR = 4.0  # strength of the pull towards equal weights, beside the log-likelihood
GAIN = 1.0  # log-likelihood that the companion's weight must add, Akaike's criterion


def stack(first, second, labels, weights):
    """Return the factors on the logits of two networks with the best likelihood.

    Parameters
    ----------
    first : Tensor of shape (n, M, K)
        Logits of the M branches of a network for held-out images.
    second : Tensor of shape (n, 1, K)
        Logits of its companion.
    labels : Tensor of shape (n,)
        Indices of classes.
    weights : Tensor of shape (n,)
        Weights of the images.

    Returns
    -------
    factors : tuple of (float, float) or None
        None if the second network adds nothing.

    References
    ----------
    Wolpert (1992), Stacked generalization. Akaike (1974), A new look at the statistical model
    identification.

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr.classifiers.companion import stack
    >>> labels = torch.arange(40) % 2
    >>> good, useless = 2.0 * torch.eye(2)[labels], torch.zeros(40, 2)
    >>> stack(good[:, None], useless[:, None], labels, torch.ones(40)) is None
    True
    """
    first, second = first.double().log_softmax(2), second.double().log_softmax(2)
    share = weights.double() / weights.sum()
    n = 1 / share.square().sum().item()  # equally weighted images that say as much

    def compute_loss(factors):
        votes = (factors[0] * first + factors[1] * second).log_softmax(2)
        logits = votes.logsumexp(1)  # of the mean probability, as in prediction
        smoothing = 1 / (n + 1)
        return share @ F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)

    def objective(values, prior):
        factors = torch.tensor(values, dtype=torch.double, requires_grad=True)
        pull = (factors - torch.tensor(prior, dtype=torch.double)).square().sum()
        value = compute_loss(factors) + PRIOR / n * pull
        (slope,) = torch.autograd.grad(value, factors)
        return value.item(), slope.numpy()

    def fit(prior, bounds):
        found = minimize(objective, prior, prior, jac=True, bounds=bounds, method="L-BFGS-B")
        return found.x, compute_loss(torch.tensor(found.x)).item()

    _, alone = fit([1.0, 0.0], [(0, LARGEST), (0, 0)])
    factors, both = fit([0.5, 0.5], [(0, LARGEST), (0, LARGEST)])
    if n * (alone - both) < GAIN:
        return None
    return tuple(map(float, factors))


def has_enough(images):
    """Tell whether a LabelledSet is large enough to train a companion and to weigh it."""
    counts = np.bincount(images.labels.numpy(), minlength=len(images.classes))
    held_out = math.ceil(HELD_OUT * len(images))
    return len(images) >= FEWEST and counts.min() >= 2 and held_out >= len(counts)


def train_companion(trial, companion, images, seed):
    """Train a companion on most images, and weigh it on the others.

    Parameters
    ----------
    trial, companion : RRRNetClassifier
        Unfitted classifiers, which are fitted to most of the images; `trial` with the settings of
        the classifier that the companion is for.
    images : LabelledSet
        Images in the size that `trial` uses.
    seed : int
        Seed of the split and of `trial`.

    Returns
    -------
    stacked : tuple of (RRRNetClassifier, tuple) or None
        The companion and the factors of :func:`stack`; None if the companion adds nothing.
    """
    alone = {"validation_fraction": None, "early_stopping": False, "random_state": seed}
    trial.set_params(**alone, fine_tuning__companion="none")
    used, rest = map(images.subset, hold_out(images.labels.numpy(), HELD_OUT, seed))
    trial._fit(partial(trial._adopt_weighed, used), is_inside=False)
    size = companion.image_size
    companion._fit_set(_resize(used, size))
    logits = [
        torch.from_numpy(estimator.predict_branches(held_out)).clamp(min=1e-12).log()
        for estimator, held_out in ((trial, rest), (companion, _resize(rest, size)))
    ]
    factors = stack(*logits, rest.labels, rest.weights)
    return None if factors is None else (companion, factors)


def _resize(images, size):
    """Return a LabelledSet in another size."""
    if size == images.image_size:
        return images
    return images.resize(size, Resize(images.image_size, size))
