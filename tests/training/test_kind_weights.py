"""Weights of kinds of features, against scikit-learn's ridge refitted without each image."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import Ridge

from sklearn_rrr.training.kind_weights import PRIOR, weigh_kinds
from sklearn_rrr.training.ridge import RidgeSums

N, K = 30, 3


@pytest.fixture
def data():
    """Three kinds: two that tell the class, one more clearly, and one that does not."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(N) % K)
    centres = rng.normal(size=(K, 9)) * np.repeat([1.5, 0.5, 0], 3)
    z = centres[labels] + rng.normal(size=(N, 9))
    weights = rng.uniform(0.2, 2, N)
    weights /= weights.mean()
    z -= weights @ z / N
    return z / np.sqrt(weights @ z**2 / N), np.repeat([0, 1, 2], 3), labels, weights


def weigh(z, kinds, labels, weights):
    tensors = map(torch.as_tensor, (z, kinds, labels, weights))
    return weigh_kinds(*tensors, K).numpy()


def lose(z, factors, labels, weights):
    """Return the loss of left-out images with the best scale, and the pull to equal weights."""
    x, targets = z * factors, np.eye(K)[labels]
    predictions = np.empty((N, K))
    for i in range(N):
        rest = np.arange(N) != i
        model = Ridge(alpha=1).fit(x[rest], targets[rest], sample_weight=weights[rest])
        predictions[i] = model.predict(x[i : i + 1])
    smooth = targets + (1 / K - targets) / (N + 1)

    def loss(scale):
        return -weights @ (smooth * log_softmax(scale * predictions, 1)).sum(1) / N

    logs = 2 * np.log(factors[::3])
    pull = PRIOR / N * ((logs - logs.mean()) ** 2).sum()
    return minimize_scalar(loss, bounds=(0.5, 100), method="bounded").fun + pull


@pytest.mark.parametrize("weighted", [False, True])
def test_no_other_weights_have_a_better_likelihood(data, weighted):
    z, kinds, labels, weights = data
    weights = weights if weighted else np.ones(N)
    z = z - weights @ z / N
    sizes = np.sqrt((weights @ z**2 / N).reshape(3, 3).sum(1))
    z /= np.repeat(sizes, 3)  # each kind has the mean square sum 1
    factors = weigh(z, kinds, labels, weights)
    best = lose(z, factors, labels, weights)
    for kind in range(3):
        for change in (0.8, 1.25):
            other = np.where(kinds == kind, change * factors, factors)
            assert lose(z, other, labels, weights) > best - 1e-5
    assert (factors > 0).all()


def test_factors_are_those_of_the_kinds(data):
    z, kinds, labels, weights = data
    order = np.random.default_rng(1).permutation(9)
    factors = weigh(z, kinds, labels, weights)
    assert len(set(factors)) == 3
    np.testing.assert_allclose(
        weigh(z[:, order], kinds[order], labels, weights), factors[order], rtol=1e-3
    )
    np.testing.assert_allclose(weigh(7 * z, kinds, labels, weights), factors / 7, rtol=1e-3)


def test_a_kind_without_variance_has_no_effect(data):
    z, kinds, labels, weights = data
    some = weigh(z[:, :6], kinds[:6], labels, weights)
    constant = np.where(kinds == 2, 0, z)
    np.testing.assert_allclose(weigh(constant, kinds, labels, weights)[:6], some, rtol=1e-3)


def test_a_ridge_uses_the_weights(data):
    """Kinds that tell nothing lose their influence, however many features they have."""
    z, kinds, labels, _ = data
    noise = np.random.default_rng(2).normal(size=(N, 200))
    x = torch.as_tensor(np.concatenate([z, noise], 1)).float()
    kinds = np.concatenate([kinds, np.full(200, 2)])
    for n_images in (N, 1000):  # kept, and summed
        scores = {}
        for name, given in {"alike": None, "by kind": kinds}.items():
            sums = RidgeSums(n_images, x.shape[1], K, given)
            sums.update(x, torch.as_tensor(labels), torch.ones(N))
            solution = sums.solve()
            scores[name] = solution.score
        influence = (solution.weight * solution.factor).abs().sum(0)
        assert influence[:3].min() > 10 * influence[6:].max()
        assert scores["by kind"] > scores["alike"] + 0.1


def test_few_images_of_few_classes_have_finite_weights():
    z, kinds = torch.randn(4, 6).double(), torch.tensor([0, 0, 1, 1, 2, 2])
    for labels in ([0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 2, 2], [2, 2, 2, 2]):
        factors = weigh_kinds(z, kinds, torch.tensor(labels), torch.ones(4).double(), K)
        assert factors.isfinite().all()
        assert (factors > 0).all()


def test_weights_are_found_in_inference_mode(data):
    expected = weigh(*data)
    with torch.inference_mode():
        np.testing.assert_array_equal(weigh(*data), expected)
