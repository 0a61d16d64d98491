"""Ridge regression in closed form, against scikit-learn's and against refits without each image."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import Ridge

from sklearn_rrr.training import ridge
from sklearn_rrr.training.discriminant import Discriminant
from sklearn_rrr.training.ridge import PENALTIES, RidgeSums


def draw(n, n_features, n_classes=3, seed=0):
    """Return features (n, F) that depend on the labels, the labels, and weights."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    centres = rng.normal(size=(n_classes, n_features))
    scales = 10.0 ** rng.uniform(-2, 2, n_features)
    x = (centres[labels] + rng.normal(size=(n, n_features)) + rng.normal(size=n_features)) * scales
    return x.astype(np.float32), labels, rng.uniform(0.1, 3, n).astype(np.float32)


def solve(x, labels, weights, n_classes=3, batch=16, n_images=None):
    """Return the solution; `n_images` > F leads to sums of products, whatever n is."""
    sums = RidgeSums(n_images or len(x), x.shape[1], n_classes)
    for start in range(0, len(x), batch):
        rows = slice(start, start + batch)
        sums.update(*(torch.from_numpy(part[rows]) for part in (x, labels, weights)))
    return sums.solve()


def standardise(x, weights):
    """Return features of bounded scales, with a mean square sum of 1, and weights with mean 1."""
    x, share = x.astype(float), weights.astype(float) / weights.sum()
    center = share @ x
    deviation = np.sqrt(share @ (x - center) ** 2)
    varies = deviation > 1e-4 * np.sqrt(deviation**2 + center**2)
    bounded = np.hypot(deviation, 0.3 * np.quantile(deviation[varies], 0.5, method="lower"))
    z = np.where(varies, (x - center) / np.where(varies, bounded, 1), 0)
    return z / math.sqrt((share @ z**2).sum()), share * (weights > 0).sum()


def predict(solution, x):
    z = (torch.from_numpy(x).double() - solution.center) * solution.factor
    return (z @ solution.weight.T + solution.bias).numpy()


def predict_indicators(solution, x):
    z = (torch.from_numpy(x).double() - solution.center) * solution.factor
    return (z @ solution.slopes.T + solution.prior).numpy()


def leave_one_out(x, labels, weights, penalty, n_classes):
    """Fit scikit-learn's ridge to all images but one, for each, and predict the one."""
    z, weights = standardise(x, weights)
    targets = np.eye(n_classes)[labels]
    predictions = np.zeros((len(x), n_classes))
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        model = Ridge(alpha=penalty, solver="svd" if penalty > 1e-3 else "cholesky")
        model.fit(z[rest], targets[rest], sample_weight=weights[rest])
        predictions[i] = model.predict(z[i : i + 1])
    return predictions


@pytest.fixture
def left_out(monkeypatch):
    """Predictions of left-out images by penalty, of the regressions that are solved."""
    found, original = {}, ridge.LeaveOneOut.predict

    def record(self, penalty):
        found[penalty] = original(self, penalty)
        return found[penalty]

    monkeypatch.setattr(ridge.LeaveOneOut, "predict", record)
    return found


def spoil(case, x, labels, weights):
    """Return the data with a difficulty."""
    x, labels, weights = x.copy(), labels.copy(), weights.copy()
    if case == "equal weights":
        weights[:] = 1
    elif case == "constant features":
        x[:, ::3] = 7.0
    elif case == "duplicated features":
        x[:, 1::2] = x[:, ::2][:, : x.shape[1] // 2]
    elif case == "a single image of a class":
        labels[labels == 2] = 1
        labels[4] = 2
    elif case == "an image unlike all others":
        x[:] = 1
        x[3] = 2 + np.arange(x.shape[1])
    elif case == "very different weights":
        weights[:] = 10.0 ** np.linspace(-2, 2, len(weights))
    elif case == "duplicated images":
        x[5], x[6], labels[5], labels[6] = x[4], x[4], labels[4], labels[4]
    return x, labels, weights


CASES = (
    *("weights", "equal weights", "constant features", "duplicated features"),
    *("a single image of a class", "an image unlike all others", "very different weights"),
    "duplicated images",
)
FORMS = {"kept": (20, 30, None), "summed, n < F": (20, 30, 31), "summed, n > F": (40, 9, None)}
every_form = pytest.mark.parametrize("form", FORMS)


# ------------------------------------------------------------------------------ solutions


@every_form
@pytest.mark.parametrize("case", CASES)
def test_solution_is_scikit_learns(form, case):
    n, n_features, n_images = FORMS[form]
    x, labels, weights = spoil(case, *draw(n, n_features))
    solution = solve(x, labels, weights, n_images=n_images)
    z, normalised = standardise(x, weights)
    assert solution.penalty in PENALTIES
    model = Ridge(alpha=solution.penalty, solver="cholesky")
    expected = model.fit(z, np.eye(3)[labels], sample_weight=normalised).predict(z)
    np.testing.assert_allclose(predict_indicators(solution, x), expected, atol=1e-8)


@every_form
@pytest.mark.parametrize("case", CASES)
def test_left_out_predictions_are_those_of_refits(form, case, left_out):
    n, n_features, n_images = FORMS[form]
    x, labels, weights = spoil(case, *draw(n, n_features))
    solve(x, labels, weights, n_images=n_images)
    assert list(left_out) == list(PENALTIES)
    for penalty in PENALTIES[::4]:
        expected = leave_one_out(x, labels, weights, penalty, 3)
        np.testing.assert_allclose(left_out[penalty], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_images", [None, 300])
def test_an_image_that_alone_determines_a_slope_is_left_out(n_images, left_out):
    """Its leverage is 1 but for 3e-7, and the other images predict their mean."""
    n_features = 4 if n_images else 300
    x, labels = np.ones((300, n_features), np.float32), np.arange(300) % 3
    x[7] = 2
    solve(x, labels, np.ones(300, np.float32), n_images=n_images)
    expected = np.eye(3)[np.delete(labels, 7)].mean(0)
    np.testing.assert_allclose(left_out[PENALTIES[0]][7], expected, atol=1e-4)


@pytest.mark.parametrize("n_classes", [2, 7, 50])
@pytest.mark.parametrize(("n", "n_features"), [(100, 120), (100, 12)])
def test_score_is_the_likelihood_of_left_out_images(monkeypatch, n, n_features, n_classes):
    monkeypatch.setattr(ridge, "PENALTIES", (0.01, 1, 10, 100))
    x, labels, weights = draw(n, n_features, n_classes)
    solution = solve(x, labels, weights, n_classes)
    losses = {}
    for penalty in ridge.PENALTIES:
        predictions = leave_one_out(x, labels, weights, penalty, n_classes)

        def loss(log_scale, predictions=predictions):
            logits = math.exp(log_scale) * predictions
            log_p = log_softmax(logits, axis=1)
            smooth = 1 / (n + 1)
            likelihood = (1 - smooth) * log_p[np.arange(n), labels] + smooth * log_p.mean(1)
            return -np.average(likelihood, weights=weights)

        grid = np.linspace(math.log(0.5), math.log(1000), 100)
        start = grid[np.argmin([loss(s) for s in grid])]
        bounds = np.clip((start - 0.1, start + 0.1), grid[0], grid[-1])
        losses[penalty] = minimize_scalar(loss, bounds=bounds, method="bounded").fun
    best = min(losses, key=losses.get)
    assert solution.penalty == best
    predictions = leave_one_out(x, labels, weights, best, n_classes)
    normalised = n * weights.astype(float) / weights.sum()
    parts = predictions, labels, normalised, solution.prior
    assert solution.score == pytest.approx(
        Discriminant(*map(torch.as_tensor, parts), n).score, rel=1e-5
    )
    assert solution.score < 0


# ---------------------------------------------------------------------------- agreements


def check_equal(solution, other, rtol=1e-8):
    """Compare solutions, apart from the factor to logits, which a search finds to 5 digits."""
    assert solution.penalty == other.penalty
    assert solution.score == pytest.approx(other.score, rel=max(rtol, 1e-6))
    for name in ("center", "factor", "slopes", "prior", "weight", "bias"):
        ours, theirs = (getattr(s, name) for s in (solution, other))
        exact = rtol if name not in ("weight", "bias") else max(rtol, 1e-3)
        atol = exact * theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=exact, atol=atol)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "n_features"), [(20, 30), (30, 30)])
def test_kept_and_summed_forms_agree(case, n, n_features):
    data = spoil(case, *draw(n, n_features))
    kept, summed = solve(*data), solve(*data, n_images=n_features + 1)
    check_equal(kept, summed)


@every_form
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_batches_of_any_size_agree(form, batch):
    n, n_features, n_images = FORMS[form]
    data = draw(n, n_features)
    check_equal(
        solve(*data, batch=batch, n_images=n_images), solve(*data, n_images=n_images), 1e-10
    )


def test_many_images_are_summed_in_parts(monkeypatch):
    data = draw(200, 12)
    whole = solve(*data)
    monkeypatch.setattr(ridge, "BUFFER", 30)
    check_equal(solve(*data, batch=20), whole, 1e-10)


@every_form
def test_one_and_two_threads_agree(monkeypatch, form):
    monkeypatch.setattr(ridge, "PENALTIES", (1, 10))
    n, n_features, n_images = FORMS[form]
    data, before, solutions = draw(n, n_features), torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            solutions.append(solve(*data, n_images=n_images))
    finally:
        torch.set_num_threads(before)
    check_equal(*solutions)


@every_form
def test_images_without_weight_have_no_effect(form):
    n, n_features, n_images = FORMS[form]
    x, labels, weights = draw(n, n_features)
    weights[::4] = 0
    used = weights > 0
    few = solve(x[used], labels[used], weights[used], n_images=n_images)
    x[~used] = np.nan
    check_equal(solve(x, labels, weights, n_images=n_images), few, 1e-10)


@every_form
def test_only_the_ratio_of_weights_counts(form):
    n, n_features, n_images = FORMS[form]
    x, labels, weights = draw(n, n_features)
    check_equal(
        solve(x, labels, 1024 * weights, n_images=n_images),
        solve(x, labels, weights, n_images=n_images),
    )


@every_form
def test_a_large_mean_costs_no_digits(form):
    """In float32, the features vary by a thousandth of their means."""
    n, n_features, n_images = FORMS[form]
    x, labels, weights = draw(n, n_features)
    x = (1e4 + 10 * x / np.abs(x).max(0)).astype(np.float32)
    solution = solve(x, labels, weights, n_images=n_images)
    z, normalised = standardise(x, weights)
    expected = Ridge(alpha=solution.penalty).fit(z, np.eye(3)[labels], normalised).predict(z)
    np.testing.assert_allclose(predict_indicators(solution, x), expected, atol=1e-7)
    exact = (x - np.float32(1e4)).astype(np.float32)
    check_equal(solution, _shift(solve(exact, labels, weights, n_images=n_images), 1e4), 1e-7)


def _shift(solution, offset):
    solution.center += offset
    return solution


def test_a_feature_that_is_almost_never_active_does_not_explode():
    """A dead channel that a new image activates is not thousands of deviations off."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 20)).astype(np.float32), np.arange(60) % 3
    x[:, 0] = 0
    x[7, 0] = 1e-4
    solution = solve(x, labels, np.ones(60, np.float32))
    assert 0 < solution.factor[0] < 5
    assert solution.factor[1:].numpy() == pytest.approx(1, rel=0.4)


# --------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("n_images", [None, 5])
def test_one_image_and_one_class_are_finite(n_images):
    x, weights = np.ones((1, 4), np.float32), np.ones(1, np.float32)
    solution = solve(x, np.array([1]), weights, 2, n_images=n_images)
    assert all(
        getattr(solution, name).isfinite().all() for name in ("center", "factor", "weight", "bias")
    )
    assert predict(solution, x).argmax() == 1
    x, _, weights = draw(12, 20)
    solution = solve(x, np.ones(12, int), weights, n_images=n_images and 21)
    assert (predict(solution, x).argmax(1) == 1).all()


def test_constant_features_get_no_weight():
    x, labels, weights = draw(40, 9)
    x[:, 2] = 3.0
    x[:, 5] = 1000 + np.arange(40) * 1e-3  # the rounding of another type would look like this
    solution = solve(x, labels, weights)
    assert (solution.factor == 0).nonzero().flatten().tolist() == [2, 5]
    smallest = solution.weight[:, solution.factor > 0].abs().min()
    assert solution.weight[:, [2, 5]].abs().max() < 1e-9 * smallest


def test_memory_does_not_grow_with_the_number_of_images(monkeypatch):
    monkeypatch.setattr(ridge, "SCORED", 0)
    sums = RidgeSums(n_images=10_000, n_features=5, n_classes=3)
    x, labels, weights = draw(10_000, 5)
    for rows in np.array_split(np.arange(10_000), 20):
        sums.update(*(torch.from_numpy(part[rows]) for part in (x, labels, weights)))
    assert sum(len(part[0]) for part in sums.kept) == ridge.FEWEST_SCORED
    assert sum(len(part[0]) for part in sums.buffer) < ridge.BUFFER
    solution = sums.solve()
    z, normalised = standardise(x, weights)
    model = Ridge(alpha=solution.penalty).fit(z, np.eye(3)[labels], sample_weight=normalised)
    np.testing.assert_allclose(predict_indicators(solution, x), model.predict(z), atol=1e-8)


def test_scored_images_are_left_out_of_all(monkeypatch, left_out):
    """The images that are scored are left out of a regression on all, not on the scored ones."""
    monkeypatch.setattr(ridge, "SCORED", 0)
    monkeypatch.setattr(ridge, "FEWEST_SCORED", 10)
    data = draw(40, 9)
    solve(*data)
    expected = leave_one_out(*data, PENALTIES[4], 3)
    np.testing.assert_allclose(left_out[PENALTIES[4]], expected[:10], rtol=1e-6, atol=1e-8)


def test_noise_is_predicted_with_little_certainty():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 100)).astype(np.float32)
    labels = np.arange(80) % 4
    solution = solve(x, labels, np.ones(80, np.float32), 4)
    assert solution.penalty >= 10
    assert -math.log(4) * 1.02 < solution.score < -math.log(4) * 0.95
