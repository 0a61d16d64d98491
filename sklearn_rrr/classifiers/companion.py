"""Companion: a second, small network whose weight in the vote held-out images decide."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

HELD_OUT = 0.2  # fraction of the images that decides the weights
FEWEST = 100  # images for a companion; fewer held-out ones say little
LARGEST = 5.0  # weight
PRIOR = 1e-3  # strength of the pull towards equal weights
GAIN = 1.0  # log-likelihood that the companion's weight must add, Akaike's criterion


def stack(first, second, labels, weights):
    """Return the factors on the logits of two networks with the best likelihood.

    Parameters
    ----------
    first, second : Tensor of shape (n, K)
        Logits of held-out images.
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
    >>> stack(good, useless, labels, torch.ones(40)) is None
    True
    """
    first, second = first.double().log_softmax(1), second.double().log_softmax(1)
    share, n = weights.double() / weights.sum(), len(labels)

    def fit(second):
        def loss(factors):
            factors = torch.tensor(factors, dtype=torch.double, requires_grad=True)
            logits = factors[0] * first + factors[1] * second
            losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=1 / (n + 1))
            value = share @ losses + PRIOR * (factors - 0.5).square().sum()
            (slope,) = torch.autograd.grad(value, factors)
            return value.item(), slope.numpy()

        return minimize(loss, [0.5, 0.5], jac=True, bounds=[(0, LARGEST)] * 2, method="L-BFGS-B")

    alone, both = fit(torch.zeros_like(second)), fit(second)
    if n * (alone.fun - both.fun) < GAIN:
        return None
    return tuple(map(float, both.x))


def is_worth_trying(labels, n_classes):
    """Tell whether there are enough images to train a companion and to weigh it."""
    return len(labels) >= FEWEST and np.bincount(labels, minlength=n_classes).min() >= 2
