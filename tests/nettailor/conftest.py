"""Classifiers that are fitted in a second."""

import pytest
import torch

from sklearn_rrr import (
    FineTuningClassifier,
    NetTailorClassifier,
    TailoringFineTuning,
)
from sklearn_rrr.backbones.registry import make_backbone
from tests.nettailor.small_settings import PLAIN, SMALL


@pytest.fixture
def make(weights, nest):
    """Return a maker of estimators that fit in a second."""

    def maker(**parameters):
        settings = SMALL | {"weights": weights, "n_removed": 2, "augmentation": "none"}
        return NetTailorClassifier(**nest(settings | parameters, TailoringFineTuning))

    return maker


@pytest.fixture(scope="module")
def fitted(digits):
    """A fitted classifier whose parameters are plain, and its images."""
    torch.manual_seed(0)
    settings = {**SMALL, "weights": make_backbone("tiny").state_dict(), "n_removed": [1, 3]}
    clf = NetTailorClassifier(**settings, fine_tuning=PLAIN).fit(*digits)
    return clf.set_params(weights=None)


@pytest.fixture(scope="module")
def teacher(digits):
    torch.manual_seed(0)
    settings = {k: v for k, v in SMALL.items() if k != "tolerance"}
    settings["weights"] = make_backbone("tiny").state_dict()
    return FineTuningClassifier(**settings).fit(*digits)
