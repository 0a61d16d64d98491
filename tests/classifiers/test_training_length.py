"""Number of epochs of a fit by default, and the warning that they were too few."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklearn_rrr import FineTuning, RRRNetClassifier, register_backbone
from sklearn_rrr.backbones.bottleneck import Bottleneck
from sklearn_rrr.backbones.resnet import make_resnet


@register_backbone("tiny_steps")
def tiny_steps():
    sizes = {"planes": (4, 8, 8, 16), "image_size": 16}
    tuning = FineTuning(steps=200)
    return make_resnet("tiny_steps", Bottleneck, (1, 1, 1, 1), **sizes, fine_tuning=tuning)


@pytest.fixture
def fit(nest):
    """Return a function that trains only the head, on cached features, as long as recommended."""

    def fit(X, y, **parameters):
        settings = {
            "backbone": "tiny_steps",
            "weights": None,
            "trainable": "head",
            "head_init": "random",
            "augmentation": "none",
            "batch_size": 50,
            "random_state": 0,
        }
        return RRRNetClassifier(**nest(settings | parameters)).fit(X, y)

    return fit


@pytest.mark.parametrize(
    ("n", "epochs"),
    [
        (500, 40),  # 200 steps of 100 images
        (2500, 10),  # at least one epoch for 20 steps
        (6250, 8),  # fewer above 4,000 images: 10 * sqrt(4000 / 6250)
    ],
)
def test_epochs_follow_the_images(fit, n, epochs):
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (n, 8, 8), dtype=np.uint8), np.arange(n) % 2
    assert len(fit(X, y, batch_size=100).history_) == epochs


@pytest.mark.parametrize(
    ("n", "epochs"), [(20, 300), (400, 80), (1000, 32), (2640, 25), (16_000, 13), (10**6, 5)]
)
def test_epochs_follow_the_work(n, epochs):
    clf = RRRNetClassifier()  # private, as it would take hours
    clf.fine_tuning_ = FineTuning(steps=1000)
    assert clf._resolve_epochs(n) == epochs


def test_the_papers_epochs():
    clf = RRRNetClassifier("resnet18")
    clf.fine_tuning_ = FineTuning.published()
    assert [clf._resolve_epochs(n) for n in (400, 4000)] == [300, 30]


def test_own_steps_have_no_smallest_number_of_epochs(fit, digits):
    assert len(fit(*digits, steps=5).history_) == 3  # 5 steps of 50 of 120 images


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine"])
def test_loss_that_still_falls_warns_at_the_call(fit, digits, lr_schedule):
    message = r"still falling, from \d\.\d\d in the second quarter of 8 epochs to \d\.\d\d in"
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        fit(*digits, trainable="all", steps=19, lr_schedule=lr_schedule)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    "parameters",
    [
        {"learning_rate": 1e-6},  # the loss does not fall
        {"steps": 80},  # the loss comes close to 0
        {"max_epochs": 8},  # the user's choice
    ],
)
def test_no_warning_of_a_falling_loss(fit, digits, parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        fit(*digits, **{"trainable": "all", "steps": 19} | parameters)
