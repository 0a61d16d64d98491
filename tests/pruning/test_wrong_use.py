"""What every pruner refuses, before the first epoch where that is possible."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sklearn_rrr import BlockPruner, ChannelPruner, ElementPruner, RRRNetClassifier

QUICK = {"n_steps": 2, "epochs_per_step": 1}


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"target": 1.0}, ValueError, r"`target` must be a number in \[0, 0.999\]; got 1.0"),
        ({"target": "half"}, TypeError, "`target` must be a number"),
        ({"cost": "seconds"}, ValueError, "`cost` must be one of 'parameters', 'macs'"),
        ({"random_state": np.random}, TypeError, "`random_state` must be None, an int"),
        ({"n_steps": 0}, ValueError, "`n_steps` must be an int of at least 1; got 0"),
        ({"epochs_per_step": -1}, ValueError, "`epochs_per_step` must be an int of at least 0"),
        ({"tolerance": -0.1}, ValueError, "`tolerance` must be a number"),
        (
            {"tolerance": 0.1, "validation_fraction": None},
            ValueError,
            "`tolerance`=0.1 needs images to score on",
        ),
        ({"then": "channel"}, TypeError, "`then` must be another pruner or None; got 'channel'"),
        ({"then": ChannelPruner(target=3)}, ValueError, "`target` must be a number"),
        ({"estimator": LogisticRegression()}, TypeError, "`estimator` must be an RRRNetClassifier"),
        ({"criterion": "best"}, ValueError, "`criterion` must be one of 'taylor', 'norm', 'l1'"),
        ({"streams": 1}, TypeError, "`streams` must be True or False; got 1"),
        ({"scoring": ["accuracy"]}, TypeError, "`scoring` must be one scorer"),
        ({"scoring": "accurracy"}, ValueError, "`scoring` must name .* Similar names: accuracy"),
        ({"then": ElementPruner(RRRNetClassifier())}, ValueError, "got its own `estimator`"),
    ],
)
def test_wrong_parameters_are_refused_before_the_fit(digits, monkeypatch, parameters, error, match):
    monkeypatch.setattr(RRRNetClassifier, "_fit", None)
    with pytest.raises(error, match=match):
        ChannelPruner().set_params(**parameters).fit(*digits)


def test_wrong_data(small, digits):
    X, y = digits
    fitted = FrozenEstimator(small(max_epochs=1).fit(X, y))
    with pytest.raises(ValueError, match="requires y to be passed"):
        ChannelPruner(fitted).fit(X)
    with pytest.raises(
        ValueError, match=r"y holds the labels \[9\], but `estimator` was fitted on"
    ):
        ChannelPruner(fitted).fit(X, np.full(len(X), 9))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ChannelPruner(fitted).fit(X, y[:-1])
    with pytest.raises(ValueError, match="`criterion` gave numbers that are NaN"):
        ChannelPruner(fitted, criterion=lambda network, groups, batches: [
            torch.full((g.size,), torch.nan) for g in groups
        ]).fit(X, y)  # fmt: skip


def test_what_has_no_block_to_remove_is_refused_before_the_fit(small, digits, monkeypatch):
    monkeypatch.setattr(RRRNetClassifier, "_fit", None)
    for pruner in (BlockPruner(small()), ChannelPruner(small(), then=BlockPruner())):
        with pytest.raises(ValueError, match=r"has the blocks \(1, 1, 1, 1\), of which none can"):
            pruner.fit(*digits)


def test_fit_that_was_interrupted_counts_as_none(small, digits, monkeypatch):
    clf = small(max_epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(RRRNetClassifier, "_make_module", None)
        with pytest.raises(TypeError):
            clf.fit(*digits)
    assert hasattr(clf, "classes_")
    assert ChannelPruner(clf, **QUICK).fit(*digits).estimator_.n_parameters_ > 0
