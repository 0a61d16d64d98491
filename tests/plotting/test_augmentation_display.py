"""AugmentationDisplay: originals, copies as training sees them, and fits without augmentation."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from sklearn_rrr import RRRNetClassifier, load, save
from sklearn_rrr.images.augmentation import GEOMETRIC, PaperAugmentation
from sklearn_rrr.plotting import AugmentationDisplay


@pytest.fixture(autouse=True)
def figures():
    """Draw into memory."""
    plt.switch_backend("Agg")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3)).astype(np.uint8)


def flip(image):
    return image.flip(2)


def test_rows_begin_with_the_original(images):
    display = AugmentationDisplay.from_augmentation(flip, images, n=2, image_size=24)
    assert display.copies.shape == (3, 2, 24, 24, 3)
    np.testing.assert_array_equal(display.images, images.astype(np.float32) / 255)
    np.testing.assert_array_equal(display.copies[:, 1], display.images[:, :, ::-1])
    assert display.axes_.shape == (9,)
    np.testing.assert_array_equal(display.axes_[3].images[0].get_array(), display.images[1])
    np.testing.assert_array_equal(display.axes_[5].images[0].get_array(), display.copies[1, 1])
    assert [ax.get_title() for ax in display.axes_[:3]] == ["original", "augmented", ""]
    grid = display.axes_[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (3, 3)


def test_the_augmentation_of_a_training(small, digits):
    X, y = digits
    clf = small(augmentation="geometric", max_epochs=1, image_size=32).fit(X, y)
    display = AugmentationDisplay.from_estimator(clf, X[:2], n=3, random_state=5)
    assert display.copies.shape == (2, 3, 32, 32, 3)
    pictures = torch.tensor(display.images).movedim(3, 1).repeat_interleave(3, 0)
    seed = np.random.RandomState(5).randint(np.iinfo(np.int32).max)
    augment = PaperAugmentation(transformations=GEOMETRIC)
    wanted = augment(pictures, torch.Generator().manual_seed(int(seed)))
    np.testing.assert_allclose(display.copies.reshape(6, 32, 32, 3), wanted.movedim(1, 3))


def test_seeds_repeat(images):
    same, again, other = (
        AugmentationDisplay.from_augmentation("paper", images, random_state=seed).copies
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()
    assert same.min() >= 0
    assert same.max() <= 1


def test_a_function_of_the_user(small, digits):
    X, y = digits
    clf = small(augmentation=flip, max_epochs=1).fit(X, y)
    pipeline = make_pipeline(clf)
    display = AugmentationDisplay.from_estimator(pipeline, X[:2], n=1)
    np.testing.assert_array_equal(display.copies[:, 0], display.images[:, :, ::-1])


def test_files_keep_names_but_no_functions(small, digits, tmp_path):
    X, y = digits
    clf = small(augmentation="paper", max_epochs=1).fit(X, y)
    save(clf, tmp_path / "named.safetensors")
    loaded = load(tmp_path / "named.safetensors")
    wanted, found = (AugmentationDisplay.from_estimator(c, X[:2]).copies for c in (clf, loaded))
    np.testing.assert_array_equal(wanted, found)


def test_given_axes(images):
    axes = plt.subplots(2, 3)[1]
    display = AugmentationDisplay.from_augmentation("paper", images[:2], n=2, axes=axes)
    assert display.axes_.tolist() == axes.ravel().tolist()


def test_fits_without_augmentation(small, digits):
    X, y = digits
    plain = small(max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=r"fitted without augmentation\. Draw .*from_augmentation"):
        AugmentationDisplay.from_estimator(plain, X[:2])
    form = {"n_branches": 1, "blocks": None, "max_epochs": 0, "trainable": "head"}
    closed = small(augmentation="paper", norm_warmup_epochs=0, **form).fit(X, y)
    with pytest.raises(ValueError, match="heads were computed in closed form, without epochs"):
        AugmentationDisplay.from_estimator(closed, X[:2])


def test_wrong_use(images):
    draw = AugmentationDisplay.from_augmentation
    with pytest.raises(ValueError, match="`augmentation` must be one of 'paper', 'geometric'; got"):
        draw("none", images)
    with pytest.raises(ValueError, match=r"`n` must be an int in \[1, 200\]; got 0"):
        draw("paper", images, n=0)
    with pytest.raises(ValueError, match=r"`X` must be few enough for .*; got 300 panels"):
        draw("paper", images, n=99)
    with pytest.raises(ValueError, match=r"`image_size` must be an int in \[8, 4096\]; got 4"):
        draw("paper", images, image_size=4)
    with pytest.raises(NotFittedError):
        AugmentationDisplay.from_estimator(RRRNetClassifier(), images)
    other = LinearSVC().fit([[0], [1]], [0, 1])
    with pytest.raises(TypeError, match=r"`estimator` must be .*; got a LinearSVC\."):
        AugmentationDisplay.from_estimator(other, images)
