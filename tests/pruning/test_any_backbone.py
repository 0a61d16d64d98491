"""All pruners on blocks of every kind, with heads that read the last or all blocks."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import (
    BasisScalingPruner,
    BlockPruner,
    ChannelPruner,
    ElementPruner,
    FineTuning,
    OnnxClassifier,
    ProgressiveKernelPruner,
    RRRNetClassifier,
    export_onnx,
    load,
    save,
)
from sklearn_rrr.pruning.channel_groups import find_groups
from sklearn_rrr.pruning.criteria import CRITERIA, score_channels

FORMS = [("tiny_mobile", "all"), ("tiny_mobile", "last"), ("tiny", "all")]
QUICK = {"n_steps": 1, "epochs_per_step": 1}
PRUNERS = {
    "basis": BasisScalingPruner(target=0.3, **QUICK),
    "channel": ChannelPruner(target=0.3, **QUICK),
    "block": BlockPruner(target=0.01, **QUICK),
    "element": ElementPruner(target=0.5, **QUICK),
    "kernel": ProgressiveKernelPruner(criterion="l1", amount=0.3, streams=True, epochs_per_step=0),
    "block, channel": BlockPruner(
        target=0.01,
        then=ChannelPruner(target=0.2, then=BasisScalingPruner(target=0.2, **QUICK), **QUICK),
        **QUICK,
    ),
}


@pytest.fixture(scope="module", params=FORMS, ids="-".join)
def fitted(request, digits):
    backbone, head_features = request.param
    tuning = FineTuning(augmentation="none", head_features=head_features, head_init="ridge")
    form = {"blocks": None, "n_branches": 2, "max_epochs": 1, "batch_size": 16}
    clf = RRRNetClassifier(
        backbone, weights=None, fine_tuning=tuning, precision="fp32", random_state=0, **form
    )
    return clf.fit(*digits)


CHAIN = pytest.param("block, channel", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [*[name for name in PRUNERS if "," not in name], CHAIN])
def test_pruned_networks_predict_train_and_are_saved(fitted, digits, name, tmp_path):
    X, y = digits[0][:60], digits[1][:60]
    before = copy.deepcopy(fitted.module_.state_dict())
    pruner = clone(PRUNERS[name]).set_params(estimator=FrozenEstimator(fitted)).fit(X, y)
    clf, results = pruner.estimator_, pruner.results_
    cost = "nonzero" if name == "element" else "parameters"
    assert results[cost].iloc[-1] < results[cost].iloc[0]
    assert results.parameters.iloc[-1] == clf.n_parameters_
    after = fitted.module_.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    expected = clf.predict_proba(X)
    save(clf, tmp_path / "a")
    again = load(tmp_path / "a")
    np.testing.assert_allclose(again.predict_proba(X), expected, rtol=1e-4, atol=1e-6)
    assert again.blocks_ == clf.blocks_ == clf.module_.blocks
    again.partial_fit(X, y)
    if name == "block, channel":
        export_onnx(clf, tmp_path / "a.onnx")
        light = OnnxClassifier(tmp_path / "a.onnx")
        np.testing.assert_allclose(light.predict_proba(X), expected, atol=1e-4)


def test_retraining_keeps_the_heads_and_their_statistics(fitted, digits):
    pruner = ChannelPruner(FrozenEstimator(fitted), target=0.0, n_steps=1, epochs_per_step=1)
    pruner.fit(*digits)
    still = pruner.set_params(epochs_per_step=0).fit(*digits).estimator_.module_.head
    if fitted.module_.head.center is not None:
        assert torch.equal(still.center, fitted.module_.head.center)
        pruner = ElementPruner(FrozenEstimator(fitted), target=0.01, **QUICK).fit(*digits)
        assert torch.equal(pruner.estimator_.module_.head.center, fitted.module_.head.center)
    assert torch.equal(still.weight, fitted.module_.head.weight)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_criteria_score_every_group(fitted, digits, criterion):
    seen = []

    class Spy(ChannelPruner):
        def _prune(self, run):
            seen.append(run)

    Spy(FrozenEstimator(fitted), random_state=0).fit(*digits)
    (run,) = seen
    groups = find_groups(run.network)
    scores = score_channels(criterion, run.network, groups, run.batches)
    assert all(score.min() >= 0 for score in scores)
    assert sum(score.count_nonzero() for score in scores) > 0.8 * sum(g.size for g in groups)


@pytest.mark.slow
def test_kernels_are_chosen_by_leave_one_out(fitted, digits):
    X, y = digits[0][:40], digits[1][:40]
    pruner = ProgressiveKernelPruner(FrozenEstimator(fitted), streams=True, epochs_per_step=0)
    table = pruner.fit(X, y).results_
    assert (table.channels[1:] <= table.channels_before[1:]).all()
    assert table.parameters.iloc[-1] <= table.parameters.iloc[0]
    assert table.score.iloc[-1] >= table.score.iloc[0] - 0.2
