"""The skorch net of a fitted classifier, used directly."""

import pickle

import numpy as np
import pytest
import torch

from sklearn_rrr import BasisScalingPruner, NetTailorClassifier, RRRNetClassifier


@pytest.fixture
def without_epochs(small, digits):
    """A classifier whose fit only computed the heads, and its images."""
    clf = small(max_epochs=0, stump_lr_factor=0.5, learning_rate=0.01).fit(*digits)
    return clf, clf._read_set(*digits, None, None, clf.classes_)


def test_no_optimiser_until_training_starts(without_epochs):
    clf, images = without_epochs
    assert not hasattr(clf.net_, "optimizer_")
    before = clf.module_.head.weight.clone()
    clf.net_.run(images, epochs=1)
    assert len(clf.net_.history) == 1
    assert not torch.equal(clf.module_.head.weight, before)
    rates = {group["lr"] for group in clf.net_.optimizer_.param_groups}
    assert rates == {0.01, 0.005}
    optimizer = clf.net_.optimizer_
    clf.net_.run(images, epochs=1)
    assert clf.net_.optimizer_ is optimizer
    assert len(clf.net_.history) == 2


@pytest.fixture
def replaced_parameters():
    """A setting of torch with which conversions replace parameters instead of their values."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def test_training_does_not_depend_on_how_modules_are_converted(small, digits, weights, request):
    X, y = digits[0][:40], digits[1][:40]
    tailor = {"weights": weights, "n_removed": 1, "max_epochs": 1, "image_size": 16}

    def fit():
        clf = small(validation_fraction=0.2, ema_epochs=1).fit(X, y)
        yield clf.predict_proba(X)
        yield clf.partial_fit(X, y).predict_proba(X)
        again = pickle.loads(pickle.dumps(clf))
        again.net_.run(again._read_set(X, y, None, None, again.classes_), epochs=1)
        yield again.predict_proba(X)
        yield small(ensemble="fge", max_epochs=4).fit(X, y).predict_proba(X)
        yield NetTailorClassifier("tiny", **tailor, random_state=0).fit(X, y).predict_proba(X)
        pruner = BasisScalingPruner(small(), n_steps=1, epochs_per_step=1)
        yield pruner.fit(X, y).predict_proba(X)

    expected = [*fit()]
    request.getfixturevalue("replaced_parameters")
    for found, other in zip(fit(), expected, strict=True):
        np.testing.assert_array_equal(found, other)


def test_partial_fit_of_skorch(without_epochs):
    clf, images = without_epochs
    clf.net_.partial_fit(images, epochs=2)
    assert np.isfinite(clf.net_.history[:, "train_loss"]).tolist() == [True, True]
    assert len(clf.net_.optimizer_.state)


def test_training_after_a_fit_without_epochs_is_that_of_partial_fit(small, digits):
    one, other = (small(max_epochs=0).fit(*digits) for _ in range(2))
    one.net_.run(one._read_set(*digits, None, None, one.classes_), epochs=1)
    other.partial_fit(*digits)
    assert len(other.history_) == 1
    for key, value in other.module_.state_dict().items():
        torch.testing.assert_close(one.module_.state_dict()[key], value, msg=key)


def test_learning_rate_can_be_set_once_it_trains(without_epochs):
    clf, images = without_epochs
    clf.net_.run(images, epochs=1)
    clf.net_.set_params(lr=0.0)
    before = clf.module_.head.weight.clone()
    clf.net_.run(images, epochs=1)
    torch.testing.assert_close(clf.module_.head.weight, before)


@pytest.mark.parametrize(("verbose", "shown"), [(0, False), (1, True), (2, True)])
def test_progress_of_the_default_fit(digits, capsys, verbose, shown):
    X, y = digits[0][:40], digits[1][:40]
    RRRNetClassifier("tiny", weights=None, max_epochs=0, verbose=verbose).fit(X, y)
    error = capsys.readouterr().err
    assert ("RRRNet features: 100%" in error) == shown
    assert (" 40/40 " in error) == shown


def test_progress_of_the_heads_comes_before_that_of_the_epochs(small, digits, capsys):
    small(verbose=1, head_init="ridge").fit(*digits)
    error = capsys.readouterr().err
    assert np.all(np.diff([error.index(name) for name in ("features:", "RRRNet:")]) > 0)
