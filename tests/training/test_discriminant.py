"""Logits from predictions of class indicators, against scikit-learn's discriminant analysis."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from sklearn_rrr.training import discriminant
from sklearn_rrr.training.discriminant import Discriminant


def draw(n=400, response=(0.5, 0.5, 0.5), noise=0.1, frequencies=(1 / 3, 1 / 3, 1 / 3)):
    """Return predictions of three classes, and labels; each class responds as strongly as given."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, n, p=frequencies)
    prior = np.bincount(labels, minlength=3) / n
    centred = (np.eye(3) - prior)[labels] * np.array(response)[labels, None]
    predictions = prior + centred + noise * rng.normal(size=(n, 3))
    return predictions, labels, np.ones(n), prior


def fit(predictions, labels, weights, prior, n=None):
    parts = map(torch.as_tensor, (predictions, labels, weights, prior))
    return Discriminant(*parts, n or len(labels))


def test_without_shrinkage_it_is_linear_discriminant_analysis(monkeypatch):
    monkeypatch.setattr(discriminant, "PULL_OF_MEANS", 0.0)
    monkeypatch.setattr(discriminant, "PULL_OF_COVARIANCE", 0.0)
    data = draw(response=(0.5, 0.3, 0.2), noise=0.1, frequencies=(0.6, 0.3, 0.1))
    predictions, labels, _, prior = data
    lda = LinearDiscriminantAnalysis(solver="lsqr", priors=prior).fit(predictions, labels)
    logits = fit(*data)(torch.as_tensor(predictions)).numpy()
    np.testing.assert_allclose(softmax(logits, 1), lda.predict_proba(predictions), atol=0.03)
    assert (logits.argmax(1) == lda.predict(predictions)).mean() > 0.98


def test_a_class_that_responds_weakly_is_found():
    """Its predictions are below those of others even where they are the highest it ever gets."""
    predictions, labels, *rest = draw(response=(0.9, 0.9, 0.12), noise=0.1)
    new = np.array([[1 / 3 - 0.05, 1 / 3 - 0.05, 1 / 3 + 0.1], [0.4, 0.27, 0.33]])
    found = fit(predictions, labels, *rest)
    logits = found(torch.as_tensor(predictions)).numpy()
    weak = labels == 2
    assert (logits.argmax(1) == labels)[weak].mean() > 0.95
    assert (predictions.argmax(1) == labels)[weak].mean() < 0.9
    assert found(torch.as_tensor(new)).argmax(1).tolist() == [2, 2]


def test_score_is_the_likelihood():
    predictions, labels, _, prior = draw(frequencies=(0.6, 0.3, 0.1))
    weights = np.random.default_rng(1).uniform(0.1, 2, len(labels))
    found = fit(predictions, labels, weights, prior)
    log_p, smooth = log_softmax(found(torch.as_tensor(predictions)).numpy(), 1), 1 / 401
    own = log_p[np.arange(400), labels]
    expected = np.average((1 - smooth) * own + smooth * log_p.mean(1), weights=weights)
    assert found.score == pytest.approx(expected, rel=0.05)  # of images that did not determine it
    assert found.n_scored == 400


def test_probabilities_are_calibrated():
    predictions, labels, *rest = draw(n=4000, noise=0.3, frequencies=(0.6, 0.3, 0.1))
    found = fit(predictions[:2000], labels[:2000], rest[0][:2000], rest[1])
    p = softmax(found(torch.as_tensor(predictions[2000:])).numpy(), 1)
    for low, high in [(0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9)]:
        rows, columns = np.nonzero((p > low) & (p < high))
        hits = labels[2000:][rows] == columns
        assert abs(hits.mean() - p[rows, columns].mean()) < 0.06


def test_few_images_of_a_class_hardly_move_its_mean():
    """A class with one image, which is predicted wrongly, behaves as an average class would."""
    predictions, labels, weights, _ = draw(n=100, frequencies=(0.5, 0.5, 0))
    labels[0], predictions[0] = 2, [0.9, 0.1, 0.0]
    found = fit(predictions, labels, weights, np.bincount(labels, minlength=3) / 100)
    assert found(torch.tensor([[0.1, 0.0, 0.9]]).double()).argmax() == 2


def test_the_order_of_images_has_no_effect():
    predictions, labels, weights, prior = draw(n=60, noise=0.3)
    order = np.random.default_rng(1).permutation(60)
    first = fit(predictions, labels, weights, prior)
    second = fit(predictions[order], labels[order], weights, prior)
    torch.testing.assert_close(first.matrix, second.matrix)
    assert first.score == pytest.approx(second.score)


def test_noise_is_not_overrated():
    """Without a signal, no image that is left out is told better than by the frequencies."""
    rng = np.random.default_rng(0)
    labels, prior = np.arange(100) % 10, np.full(10, 0.1)
    predictions = prior + 0.05 * rng.normal(size=(100, 10))
    found = fit(predictions, labels, np.ones(100), prior)
    assert -1.1 * np.log(10) < found.score < -0.97 * np.log(10)
    new = softmax(found(torch.as_tensor(prior + 0.05 * rng.normal(size=(500, 10)))).numpy(), 1)
    assert new.max(1).mean() < 0.25


@pytest.mark.parametrize(
    "case", ["perfect", "constant", "reversed", "one class", "unlike", "one image of a class"]
)
def test_extreme_predictions_are_finite(case):
    predictions, labels, weights, prior = draw(n=30)
    if case == "perfect":
        predictions = np.eye(3)[labels]
    elif case == "constant":
        predictions = np.tile(prior, (30, 1))
    elif case == "one image of a class":
        predictions, labels, weights = predictions[:3], np.arange(3), weights[:3]
        predictions, prior = 0.5 * (1 - np.eye(3)), np.full(3, 1 / 3)
    elif case == "reversed":
        predictions = 2 * prior - predictions
    elif case == "one class":
        labels[:], prior = 1, np.array([0.0, 1.0, 0.0])
        predictions = np.tile(prior, (30, 1))
    else:
        predictions[4] = [1e9, -1e9, 0]
    found = fit(predictions, labels, weights, prior)
    assert found.matrix.isfinite().all()
    assert found.offset.isfinite().all()
    if case == "one image of a class":  # left out, it looks like the others; assume equal classes
        assert found(torch.eye(3).double()).argmax(1).tolist() == [0, 1, 2]
    logits = found(torch.as_tensor(predictions))
    if case == "one class":
        assert (logits.argmax(1) == 1).all()
    elif case in ("perfect", "unlike"):
        right = (logits.argmax(1) == torch.as_tensor(labels)).double()
        assert right.mean() > 0.9


def test_only_the_ratio_of_weights_counts():
    predictions, labels, weights, _ = draw(n=60)
    weights[:20] = 2
    prior = np.bincount(labels, weights, minlength=3) / weights.sum()
    first = fit(predictions, labels, weights, prior)
    even = fit(predictions, labels, np.ones(60), prior)
    second = fit(predictions, labels, 1024 * weights, prior)
    assert not torch.allclose(first.matrix, even.matrix)
    assert first.score == pytest.approx(second.score)
    assert torch.equal(
        first(torch.as_tensor(predictions)).argmax(1),
        second(torch.as_tensor(predictions)).argmax(1),
    )
