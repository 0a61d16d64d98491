"""ErrorGalleryDisplay: which errors it shows, in which order, and what it says about them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from sklearn_rrr import RRRNetClassifier
from sklearn_rrr.plotting import ErrorGalleryDisplay


@pytest.fixture(autouse=True)
def figures():
    """Draw into memory."""
    plt.switch_backend("Agg")


@pytest.fixture
def images():
    """Five gray pictures; picture i has the value 50 * i."""
    return np.arange(5, dtype=np.uint8)[:, None, None] * np.full((20, 30), 50, np.uint8)


LABELS = ["cat", "cat", "dog", "dog", "owl"]
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.1, 0.4], [0.2, 0.7, 0.1], [0.9, 0.05, 0.05]]
)


def test_worst_errors_first(images):
    display = ErrorGalleryDisplay.from_predictions(images, LABELS, PROBABILITIES)
    assert display.indices.tolist() == [4, 2, 1]
    assert display.true_labels.tolist() == ["owl", "dog", "cat"]
    assert display.predicted_labels.tolist() == ["cat", "cat", "dog"]
    assert display.true_probabilities.tolist() == [0.05, 0.1, 0.3]
    assert display.predicted_probabilities.tolist() == [0.9, 0.5, 0.6]
    assert (display.n_images, display.n_errors) == (5, 3)
    titles = [ax.get_title() for ax in display.axes_]
    assert titles[0] == "true: owl (0.05)\npredicted: cat (0.90)"
    assert titles[2] == "true: cat (0.30)\npredicted: dog (0.60)"
    assert display.pictures.shape == (3, 30, 30, 3)
    drawn = [ax.images[0].get_array().max() for ax in display.axes_]
    assert drawn == [200, 100, 50]


def test_at_most_n(images):
    display = ErrorGalleryDisplay.from_predictions(images, LABELS, PROBABILITIES, n=2)
    assert display.indices.tolist() == [4, 2]
    assert (len(display.axes_), display.n_errors) == (2, 3)


def test_classes_name_the_columns(images):
    order = [2, 0, 1]
    columns = np.array(["cat", "dog", "owl"])[order]
    display = ErrorGalleryDisplay.from_predictions(images, LABELS, PROBABILITIES[:, order], columns)
    assert display.indices.tolist() == [4, 2, 1]
    assert display.predicted_labels.tolist() == ["cat", "cat", "dog"]


def test_branches_are_averaged(images):
    shift = np.array([0.05, -0.05, 0])
    branches = np.stack([PROBABILITIES + shift, PROBABILITIES - shift], axis=1)
    display = ErrorGalleryDisplay.from_predictions(images, LABELS, branches)
    assert display.indices.tolist() == [4, 2, 1]
    np.testing.assert_allclose(display.true_probabilities, [0.05, 0.1, 0.3])


def test_no_errors_are_said_to_be_none(images):
    perfect = np.eye(3)[[0, 0, 1, 1, 2]]
    display = ErrorGalleryDisplay.from_predictions(images, LABELS, perfect)
    assert (display.n_errors, len(display.indices), len(display.axes_)) == (0, 0, 1)
    (text,) = display.axes_[0].texts
    assert text.get_text() == "no errors\namong 5 images"
    display.figure_.canvas.draw()


def test_long_names_are_shortened(images):
    names = ["a" * 30 if label == "cat" else label for label in LABELS]
    display = ErrorGalleryDisplay.from_predictions(images, names, PROBABILITIES)
    assert display.axes_[0].get_title().endswith(f"predicted: {'a' * 19}… (0.90)")


def test_paths_and_pillow_images_without_an_estimator(digits, digit_paths):
    paths, y = digit_paths
    pictures = [Image.fromarray(image) for image in digits[0][:40]]
    wrong = np.eye(4)[(y + 1) % 4]
    of_paths = ErrorGalleryDisplay.from_predictions(paths, y, wrong, n=3)
    of_pillow = ErrorGalleryDisplay.from_predictions(pictures, y, wrong, n=3)
    assert of_paths.indices.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(of_paths.pictures, of_pillow.pictures)
    assert of_paths.pictures.shape == (3, 128, 128, 3)


def test_errors_of_a_fitted_classifier(small, digits):
    X, y = digits
    clf = small(max_epochs=1).fit(X, y)
    display = ErrorGalleryDisplay.from_estimator(clf, X, y, n=5)
    probabilities = clf.predict_proba(X)
    of_truth = probabilities[np.arange(len(y)), y]
    wrong = np.flatnonzero(clf.predict(X) != y)
    assert display.n_errors == len(wrong)
    worst = wrong[np.argsort(of_truth[wrong], kind="stable")][:5]
    assert display.indices.tolist() == worst.tolist()
    np.testing.assert_allclose(display.true_probabilities, of_truth[worst])
    assert display.pictures.shape == (5, 16, 16, 3)  # as the network reads them
    given = ErrorGalleryDisplay.from_predictions(X, y, probabilities, n=5)
    assert given.indices.tolist() == worst.tolist()
    assert given.pictures.shape == (5, 8, 8, 3)


def test_a_pipeline_shows_what_its_classifier_reads(small, digits):
    X, y = digits
    negative = FunctionTransformer(lambda X: 255 - X)
    pipeline = make_pipeline(negative, small(max_epochs=1)).fit(X, y)
    wrong = (y + 1) % 4
    display = ErrorGalleryDisplay.from_estimator(pipeline, X, wrong, n=1)
    plain = pipeline[-1]._read(255 - X, reset=False).load(display.indices, 16)
    np.testing.assert_array_equal(display.pictures[0], plain[0].movedim(0, 2))


def test_any_classifier_with_probabilities(digits):
    X, y = digits
    rows = X.reshape(len(X), -1) / 255
    clf = LogisticRegression().fit(rows, y)
    display = ErrorGalleryDisplay.from_estimator(clf, rows, (y + 1) % 4, n=2)
    assert display.n_errors == len(y)
    assert display.pictures.shape == (2, 8, 8, 3)
    probabilities = cross_val_predict(clf, rows, y, cv=2, method="predict_proba")
    display = ErrorGalleryDisplay.from_predictions(rows, y, probabilities, clf.classes_)
    assert display.n_errors == (clf.classes_[probabilities.argmax(1)] != y).sum()


def test_wrong_use(images):
    draw = ErrorGalleryDisplay.from_predictions
    with pytest.raises(ValueError, match=r"one image for each label .*; got 4 images and 5 labels"):
        draw(images[:4], LABELS, PROBABILITIES)
    with pytest.raises(ValueError, match="`y_true` must have one label per image"):
        draw(images, LABELS[:4], PROBABILITIES)
    with pytest.raises(ValueError, match=r"labels \['owl'\], which are not in `classes`"):
        draw(images, LABELS, np.full((5, 2), 0.5), ["cat", "dog"])
    with pytest.raises(ValueError, match=r"`n` must be an int in \[1, 200\]; got 0"):
        draw(images, LABELS, PROBABILITIES, n=0)
    other = LinearSVC().fit([[0], [1]], [0, 1])
    with pytest.raises(TypeError, match=r"with `predict_proba`; got a LinearSVC\. .*Calibrated"):
        ErrorGalleryDisplay.from_estimator(other, images, LABELS)
    with pytest.raises(NotFittedError):
        ErrorGalleryDisplay.from_estimator(RRRNetClassifier(), images, LABELS)
