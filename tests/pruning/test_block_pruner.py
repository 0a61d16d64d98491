"""Backward elimination of blocks: the one that is missed least goes first."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from sklearn_rrr import BlockPruner, RRRNetClassifier, load, save
from sklearn_rrr.pruning.removal import drop_blocks, removable_blocks


@pytest.fixture
def fitted(small, digits):
    return small(blocks=None, max_epochs=6, trainable="all").fit(*digits)


def losses_without(fitted, X, y):
    """Return the loss of the votes of both branches without each block."""
    found = {}
    for name in removable_blocks(fitted.module_):
        copied = RRRNetClassifier.__new__(RRRNetClassifier)
        copied.__setstate__(fitted.__getstate__())
        drop_blocks(copied.module_, [name])
        branches = copied.predict_branches(X)
        found[name] = sum(log_loss(y, branches[:, m]) for m in range(2))
    return found


def test_the_block_missed_least_goes_first(fitted, digits):
    X, y = digits
    losses = losses_without(fitted, X, y)
    assert set(losses) == {"stump.4.1", "branches.0.1"}
    pruner = BlockPruner(
        FrozenEstimator(fitted),
        target=0.001,
        n_steps=1,
        epochs_per_step=0,
        validation_fraction=None,
    ).fit(X, y)
    gone = min(losses, key=losses.get)
    expected = (1, 1, 2, 1) if gone.startswith("stump") else (2, 1, 1, 1)
    assert pruner.estimator_.blocks_ == expected
    copied = RRRNetClassifier.__new__(RRRNetClassifier)
    copied.__setstate__(fitted.__getstate__())
    drop_blocks(copied.module_, [gone])
    np.testing.assert_array_equal(pruner.predict_proba(X), copied.predict_proba(X))


def test_block_that_adds_nothing_goes(fitted, digits):
    for silent, expected in [("stump.4.1", (1, 1, 2, 1)), ("branches.0.1", (2, 1, 1, 1))]:
        copied = RRRNetClassifier.__new__(RRRNetClassifier)
        copied.__setstate__(fitted.__getstate__())
        norm = copied.module_.get_submodule(silent).bn3
        torch.nn.init.zeros_(norm.weight)
        torch.nn.init.zeros_(norm.bias)
        pruner = BlockPruner(
            FrozenEstimator(copied), target=0.001, n_steps=1, epochs_per_step=0
        ).fit(*digits)
        assert pruner.estimator_.blocks_ == expected


def test_default_takes_all_blocks():
    assert BlockPruner()._make_estimator().blocks is None  # all are kept by default
    assert BlockPruner().estimator is None


def test_file_has_the_blocks_that_stay(fitted, digits, tmp_path):
    pruner = BlockPruner(FrozenEstimator(fitted), target=0.09, n_steps=2, epochs_per_step=1).fit(
        *digits
    )
    assert pruner.estimator_.blocks_ == (1, 1, 1, 1)
    save(pruner.estimator_, tmp_path / "a")
    again = load(tmp_path / "a")
    assert again.blocks_ == again.module_.blocks == (1, 1, 1, 1)
    np.testing.assert_array_equal(again.predict_proba(digits[0]), pruner.predict_proba(digits[0]))
