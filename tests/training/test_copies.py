"""Ridge regressions of images and flipped copies of them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from sklearn_rrr.training import copies, ridge_start
from sklearn_rrr.training.copies import SHARE, count_copies, weigh_copies
from sklearn_rrr.training.discriminant import Discriminant, fit_scale
from sklearn_rrr.training.ridge import PENALTIES, RidgeSums

N, F, K = 30, 50, 3


@pytest.fixture
def data():
    """Features, labels and weights, and features of three copies."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % K
    x = torch.randn(K, F, generator=generator)[labels] + torch.randn(N, F, generator=generator)
    flipped = x[:, None] + 0.5 * torch.randn(N, 3, F, generator=generator)
    return x, labels, 0.1 + torch.rand(N, generator=generator), flipped


def solve(x, labels, weights, flipped):
    sums = RidgeSums(N, F, K)
    sums.update(x, labels, weights)
    plain = sums.solve()
    return plain, weigh_copies(plain, sums.kept_images(), flipped)


def logits(ridge, x):
    z = (x.double() - ridge.center) * ridge.factor
    return z @ ridge.weight.T + ridge.bias


@pytest.fixture
def left_out(monkeypatch):
    """Predictions of left-out images by number of copies and penalty."""
    found, original = {}, copies._LeaveGroupsOut.predict

    def record(self, penalty):
        predictions = original(self, penalty)
        return found.setdefault((self.scores.shape[1] - 1, penalty), predictions)

    monkeypatch.setattr(copies._LeaveGroupsOut, "predict", record)
    return found


def stack(plain, data, n_copies):
    """Return rows of images, then of each copy, targets, and weights whose sum is N."""
    x, labels, weights, flipped = data
    rows = torch.cat([x, *flipped[:, :n_copies].unbind(1)]).double()
    weights = weights.double() * N / weights.double().sum()
    shares = torch.cat([(1 - SHARE) * weights, *[SHARE / n_copies * weights] * n_copies])
    z = (rows - plain.center) * plain.factor
    z = z - shares @ z / N
    z = z / (shares @ z.square().sum(1) / N).sqrt()
    return z.numpy(), np.eye(K)[labels.repeat(1 + n_copies)], shares.numpy()


@pytest.mark.parametrize("n_copies", [1, 3])
def test_left_out_predictions_are_those_of_refits_without_image_and_copies(
    data, left_out, n_copies
):
    plain, _ = solve(*data)
    z, y, shares = stack(plain, data, n_copies)
    for penalty in PENALTIES[::4]:
        for i in range(N):
            rest = np.arange(len(z)) % N != i
            model = Ridge(alpha=penalty, solver="svd").fit(z[rest], y[rest], shares[rest])
            np.testing.assert_allclose(
                left_out[n_copies, penalty][i], model.predict(z[[i]])[0], rtol=1e-5, atol=1e-6
            )


def test_logits_are_a_mean_by_likelihood(data, left_out):
    x, labels, weights, flipped = data
    plain, mixed = solve(x, labels, weights, flipped[:, :1])
    z, y, shares = stack(plain, data, 1)
    form = labels, weights.double() * N / weights.double().sum()
    losses = {p: fit_scale(left_out[1, p], *form, 1 / (N + 1))[1] for p in PENALTIES}
    penalty = min(losses, key=losses.get)
    discriminant = Discriminant(left_out[1, penalty], *form, plain.prior, N)
    predictions = Ridge(alpha=penalty).fit(z, y, shares).predict(z[:N])
    odds = np.exp(N * (discriminant.score - plain.score))
    assert 0.1 < odds < 1000
    expected = (logits(plain, x) + odds * discriminant(torch.from_numpy(predictions))) / (1 + odds)
    torch.testing.assert_close(logits(mixed, x), expected, rtol=1e-4, atol=1e-4)


def test_copies_that_look_like_other_classes_change_little(data):
    x, labels, weights, _ = data
    x = 3 * x
    plain, mixed = solve(x, labels, weights, x.roll(1, 0)[:, None])
    own, ours = (logits(ridge, x).softmax(1) for ridge in (plain, mixed))
    assert (own.argmax(1) == labels).all()
    torch.testing.assert_close(ours, own, rtol=0, atol=0.1)


def test_copies_equal_to_their_images_change_nothing(data):
    x, labels, weights, _ = data
    plain, mixed = solve(x, labels, weights, x[:, None].expand(-1, 3, -1))
    torch.testing.assert_close(logits(mixed, x), logits(plain, x), rtol=1e-4, atol=1e-4)


def test_few_images_get_more_copies():
    assert [count_copies(n) for n in (1, 2, 250, 251, 500, 501)] == [0, 3, 3, 1, 1, 0]


def fit_sides(small, **settings):
    """Fit to images of which one half is bright: the left one is class 0, the right one 1."""
    rng = np.random.default_rng(0)
    X, y = 0.5 * rng.random((40, 32, 32), dtype=np.float32), np.arange(40) % 2
    X[y == 0, :, :16] += 0.5
    X[y == 1, :, 16:] += 0.5
    form = {"head_features": "all", "head_init": "ridge", "trainable": "head", "max_epochs": 0}
    form |= {"flips": True}
    form |= {"backbone": "tiny_mobile", "image_size": 32, "n_branches": 1}
    return small(**form | settings).fit(X, y), X, y


def test_sides_are_told_apart(small):
    clf, X, y = fit_sides(small)
    assert clf.score(X, y) == 1
    assert clf.score(X[:, :, ::-1].copy(), y) < 0.2


def test_one_image_has_no_copies(small):
    clf, X, y = fit_sides(small)
    clf.fit(X, y, sample_weight=np.eye(1, len(X))[0])  # all others have no weight
    assert np.isfinite(clf.predict_proba(X)).all()


@pytest.mark.parametrize(("rows", "n_copies"), [(160, 3), (159, 1), (79, 0)])
def test_a_frozen_network_gets_flipped_copies(small, monkeypatch, rows, n_copies):
    found = []

    def record(plain, kept, copies):
        found.append((kept, copies))
        return plain

    monkeypatch.setattr(copies, "MOST_ROWS", rows)
    monkeypatch.setattr(ridge_start, "weigh_copies", record)
    clf, X, _ = fit_sides(small)
    assert len(found) == (n_copies > 0)
    views = X[:, :, ::-1], X[:, ::-1], X[:, ::-1, ::-1]
    for (x, _, _), flipped in found:
        assert flipped.shape == (40, n_copies, x.shape[1])
        order = torch.cdist(x, torch.from_numpy(clf.transform(X))).argmin(1)
        for view, ours in zip(views, flipped.unbind(1), strict=False):
            expected = torch.from_numpy(clf.transform(view.copy()))[order]
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
    fit_sides(small, trainable="branches", max_epochs=1)
    fit_sides(small, flips=False)
    assert len(found) == (n_copies > 0)
