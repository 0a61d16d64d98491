"""Warnings show the user's line."""

import os
import warnings

import numpy as np
import pytest

from sklearn_rrr import ChannelPruner, NetTailorClassifier


def tailor(small, X, y):
    NetTailorClassifier("tiny", max_epochs=1, n_removed=1, random_state=0).fit(X, y)


def prune(small, X, y):
    clf = small(weights="pretrained", max_epochs=1)
    ChannelPruner(clf, n_steps=1, epochs_per_step=1).fit(X, y)


USES = {
    "fit": lambda small, X, y: small(weights="pretrained", max_epochs=1).fit(X, y),
    "partial_fit": lambda small, X, y: small(weights="pretrained").partial_fit(
        X, y, classes=np.unique(y)
    ),
    "tailor": tailor,
    "prune": prune,
}


@pytest.mark.parametrize("use", USES)
def test_missing_weights_are_reported_at_the_line_of_the_user(small, digits, use):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        USES[use](small, *digits)
    caught = [item for item in caught if "no pre-trained weights" in str(item.message)]
    assert caught
    assert {os.path.basename(item.filename) for item in caught} == {"test_warnings.py"}
