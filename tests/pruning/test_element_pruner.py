"""Element-wise pruning: the smallest weights are zero, and stay so."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import ChannelPruner, ElementPruner
from sklearn_rrr.networks.branch_layers import BranchLinear
from sklearn_rrr.pruning.run import PruningRun


@pytest.fixture
def fitted(small, digits):
    return small(max_epochs=3).fit(*digits)


def weights(network):
    kinds = (torch.nn.Conv2d, BranchLinear)
    modules = [m for m in network.modules() if isinstance(m, kinds)]
    return torch.cat([m.weight.detach().flatten() for m in modules])


def test_the_smallest_weights_of_all_layers_become_zero(fitted, digits):
    before = weights(fitted.module_)
    pruner = ElementPruner(FrozenEstimator(fitted), target=0.5, n_steps=1, epochs_per_step=0).fit(
        *digits
    )
    after = weights(pruner.estimator_.module_)
    start = sum(int(p.count_nonzero()) for p in fitted.module_.parameters())
    others = fitted.n_parameters_ - len(before)
    assert int(after.count_nonzero()) + others == int(start / 2)
    kept = after != 0
    assert before[kept].abs().min() >= before[~kept].abs().max()
    assert torch.equal(before[kept], after[kept])


def test_zeros_stay_zero_while_the_rest_learns(fitted, digits, monkeypatch):
    seen = []
    original = PruningRun.train

    def train(self, *args, **kwargs):
        seen.append(weights(self.network))
        original(self, *args, **kwargs)
        seen.append(weights(self.network))

    monkeypatch.setattr(PruningRun, "train", train)
    pruner = ElementPruner(FrozenEstimator(fitted), target=0.6, n_steps=2, epochs_per_step=2).fit(
        *digits
    )
    for before, after in zip(seen[::2], seen[1::2], strict=True):
        assert (after[before == 0] == 0).all()
        assert (after != before)[before != 0].float().mean() > 0.9
    assert (pruner.results_.nonzero.diff()[1:] < 0).all()
    assert pruner.results_.parameters.nunique() == 1


def test_another_pruner_may_follow_and_revives_weights(fitted, digits):
    quick = {"n_steps": 1, "epochs_per_step": 1}
    then = ChannelPruner(target=0.3, **quick)
    pruner = ElementPruner(FrozenEstimator(fitted), target=0.5, then=then, **quick).fit(*digits)
    assert pruner.results_.parameters.iloc[-1] <= 0.7 * fitted.n_parameters_
    nonzero = pruner.results_.nonzero.tolist()
    assert nonzero[2] == nonzero[1] < 0.9 * nonzero[3]


def test_impossible_shares(fitted, digits):
    with pytest.warns(UserWarning, match="removed all that it may"):
        pruner = ElementPruner(
            FrozenEstimator(fitted), target=0.99, n_steps=1, epochs_per_step=0
        ).fit(*digits)
    assert weights(pruner.estimator_.module_).count_nonzero() == 0
    assert np.isfinite(pruner.predict_proba(digits[0])).all()
