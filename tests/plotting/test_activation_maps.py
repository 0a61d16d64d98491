"""ActivationMapDisplay: sums, classes, branches, forms of images, panels and errors."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_rrr import BackboneFeatures, RRRNetClassifier
from sklearn_rrr.plotting import ActivationMapDisplay

NAMES = np.array(["zero", "one", "two", "three"])


@pytest.fixture(autouse=True)
def figures():
    """Draw into memory."""
    plt.switch_backend("Agg")


@pytest.fixture
def fitted(small, digits):
    """A classifier of two branches with heads on all levels, fitted on named digits."""
    X, y = digits
    return small(head_features="all", image_size=32).fit(X, NAMES[y])


def logits_of(probabilities):
    """Return logits minus their mean over the classes."""
    logits = np.log(probabilities)
    return logits - logits.mean(-1, keepdims=True)


def test_sums_are_the_mean_logits_of_the_branches(fitted, digits):
    X = digits[0][:5]
    display = ActivationMapDisplay.from_estimator(fitted, X, classes=NAMES)
    assert display.maps.shape == (5, 4, 32, 32)
    assert display.images.shape == (5, 32, 32, 3)
    wanted = logits_of(fitted.predict_branches(X)).mean(1)
    columns = np.searchsorted(fitted.classes_, NAMES)
    sums = display.maps.sum((2, 3)) + display.constants
    np.testing.assert_allclose(sums, wanted[:, columns], atol=1e-4)
    wanted = fitted.predict_proba(X)[:, columns]
    np.testing.assert_allclose(display.probabilities, wanted, atol=1e-5)
    assert display.labels[0].tolist() == NAMES.tolist()


def test_one_branch(fitted, digits):
    X = digits[0][:3]
    display = ActivationMapDisplay.from_estimator(fitted, X, classes=fitted.classes_, branch=1)
    probabilities = fitted.predict_branches(X)[:, 1]
    sums = display.maps.sum((2, 3)) + display.constants
    np.testing.assert_allclose(sums, logits_of(probabilities), atol=1e-4)
    np.testing.assert_allclose(display.probabilities, probabilities, atol=1e-5)


def test_a_network_with_a_companion(small, weights, digits):
    head = {"trainable": "head", "head_init": "ridge", "max_epochs": 0}
    form = {"n_branches": 1, "blocks": None, "image_size": 48, "companion": "synth50"}
    clf = small(**head, **form, weights=weights).fit(*digits)
    assert clf.companion_ == "synth50"
    display = ActivationMapDisplay.from_estimator(clf, digits[0][:3], classes=clf.classes_)
    sums = display.maps.sum((2, 3)) + display.constants
    wanted = logits_of(clf.predict_proba(digits[0][:3]))
    np.testing.assert_allclose(sums, wanted, atol=1e-4)


def test_logits_themselves(fitted, digits):
    options = {"classes": fitted.classes_, "relative": False}
    display = ActivationMapDisplay.from_estimator(fitted, digits[0][:3], **options)
    sums = display.maps.sum((2, 3)) + display.constants
    relative = ActivationMapDisplay.from_estimator(fitted, digits[0][:3], classes=fitted.classes_)
    wanted = relative.maps.sum((2, 3)) + relative.constants
    np.testing.assert_allclose(sums - sums.mean(1, keepdims=True), wanted, atol=1e-4)
    assert abs(sums.mean(1)).max() > 1e-3


def test_by_default_the_predicted_class_of_each_image(fitted, digits):
    X = digits[0][:7]
    display = ActivationMapDisplay.from_estimator(fitted, X)
    assert display.labels[:, 0].tolist() == fitted.predict(X).tolist()
    titles = [ax.get_title() for ax in display.axes_]
    pairs = zip(fitted.predict(X), fitted.predict_proba(X).max(1), strict=True)
    assert titles == [f"{label}: {p:.2f}" for label, p in pairs]


def test_panels_have_one_scale(fitted, digits):
    display = ActivationMapDisplay.from_estimator(fitted, digits[0][:2], classes=["one", "two"])
    assert display.axes_.shape == (4,)
    picture, image = display.axes_[1].images
    np.testing.assert_allclose(image.get_array(), display.maps[0, 1] * 32 * 32 / 100)
    limits = {ax.images[1].get_clim() for ax in display.axes_}
    ((low, high),) = limits
    assert high > 0 > low == -high
    assert display.colorbar_.norm is display.axes_[-1].images[1].norm
    assert picture.get_array().shape == (32, 32)
    grid = display.axes_[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (2, 2)  # a row per image
    display.figure_.canvas.draw()


def test_given_axes_and_style(fitted, digits):
    figure, axes = plt.subplots(2, 2)
    display = ActivationMapDisplay.from_estimator(fitted, digits[0][:3], axes=axes, cmap="PuOr")
    assert display.figure_ is figure
    assert display.axes_.tolist() == axes.ravel()[:3].tolist()
    assert not axes[1, 1].axison
    assert {ax.images[1].get_cmap().name for ax in display.axes_} == {"PuOr"}
    assert display.plot().figure_ is not figure


def test_the_object_is_found(small):
    """Horizontal or vertical stripes on a patch: contributions are densest on the patch."""
    rng = np.random.default_rng(0)
    X = rng.integers(100, 120, (40, 64, 64, 3)).astype(np.uint8)
    y = np.arange(40) % 2
    places = rng.integers(4, 44, (40, 2))
    for image, label, (i, j) in zip(X, y, places, strict=True):
        stripes = image[i : i + 16, j : j + 16]
        (stripes[::2] if label else stripes[:, ::2])[:] = 255
    clf = RRRNetClassifier(fine_tuning="one_pass", image_size=64).fit(X, y)
    display = ActivationMapDisplay.from_estimator(clf, X[:8])
    assert (display.labels[:, 0] == y[:8]).all()
    for scores, (i, j) in zip(display.maps[:, 0], places, strict=False):
        inside = scores[i : i + 16, j : j + 16]
        outside = (scores.sum() - inside.sum()) / (64**2 - 16**2)
        assert inside.mean() > 2 * outside


def test_any_form_of_images_and_estimators(small, digits, digit_paths):
    paths, y = digit_paths
    clf = small(image_size=32).fit(paths, y)
    wanted = ActivationMapDisplay.from_estimator(clf, paths[:3]).maps
    pictures = [Image.fromarray(image) for image in digits[0][:3]]
    search = GridSearchCV(clf, {"batch_size": [16]}, cv=2).fit(paths, y)
    for estimator, X in [(clf, pictures), (FrozenEstimator(clf), paths[:3]), (search, pictures)]:
        maps = ActivationMapDisplay.from_estimator(estimator, X).maps
        np.testing.assert_allclose(maps, wanted, atol=1e-6)


def test_preprocessing_comes_first(small, digits):
    X, y = digits
    pipeline = make_pipeline(FunctionTransformer(lambda X: 255 - X), small()).fit(X, y)
    display = ActivationMapDisplay.from_estimator(pipeline, X[:3])
    wanted = ActivationMapDisplay.from_estimator(pipeline[-1], 255 - X[:3])
    np.testing.assert_array_equal(display.images, wanted.images)
    np.testing.assert_array_equal(display.maps, wanted.maps)


def test_the_estimator_does_not_change(fitted, digits):
    module = fitted.module_
    ActivationMapDisplay.from_estimator(fitted, digits[0][:2])
    assert fitted.module_ is module
    assert not any(m._forward_hooks for m in module.modules())


def test_wrong_use(fitted, digits):
    X, y = digits
    draw = ActivationMapDisplay.from_estimator
    with pytest.raises(ValueError, match=r"`classes` must be labels .*'zero'\]; got \['four'\]"):
        draw(fitted, X[:2], classes="four")
    with pytest.raises(ValueError, match=r"`classes` must be labels .*; got \[\]"):
        draw(fitted, X[:2], classes=[])
    with pytest.raises(ValueError, match=r"`branch` must be an int in \[0, 1\]; got 2"):
        draw(fitted, X[:2], branch=2)
    with pytest.raises(TypeError, match="`relative` must be True or False; got 1"):
        draw(fitted, X[:2], relative=1)
    with pytest.raises(ValueError, match=r"`X` must be few enough .* 200 panels; got 240 panels"):
        draw(fitted, X[:60], classes=NAMES)
    with pytest.raises(ValueError, match=r"`axes` must be at least 3 Axes.*; got 2\. Use plt\.sub"):
        draw(fitted, X[:3], axes=plt.subplots(2)[1])
    with pytest.raises(TypeError, match=r"`axes` must be matplotlib Axes; got str\. Use plt\.sub"):
        draw(fitted, X[:1], axes=["left"])
    with pytest.raises(NotFittedError):
        draw(RRRNetClassifier(), X)
    other = make_pipeline(BackboneFeatures("tiny", weights=None), GaussianNB()).fit(X, y)
    with pytest.raises(TypeError, match=r"`estimator` must be .* torch network.*GaussianNB"):
        draw(other, X)


def test_without_matplotlib(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="Drawing needs matplotlib"):
        ActivationMapDisplay.from_estimator(fitted, ["no file.png"])
