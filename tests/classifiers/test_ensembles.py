"""Ensemble strategies: bootstrap frequencies, published rates, branches from cycles."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from sklearn_rrr import (
    BaggingEnsemble,
    EnsembleStrategy,
    FastGeometricEnsemble,
    NaiveEnsemble,
    RRRNetClassifier,
    SnapshotEnsemble,
    load,
    save,
)
from sklearn_rrr.classifiers.ensembles import ENSEMBLES
from sklearn_rrr.networks.branch_layers import put_branch, take_branch
from sklearn_rrr.training.branch_net import BranchNet
from sklearn_rrr.training.loss import BranchLoss
from sklearn_rrr.training.settings import Settings

CYCLIC = ("snapshot", "fge")


def settings(**parameters):
    return Settings(**{"max_epochs": 10, "learning_rate": 1e-2} | parameters)


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


# ------------------------------------------------------------------------------- bagging


def test_bootstrap_frequencies():
    n, m = 400, 64
    counts = BaggingEnsemble().weigh(n, m, np.random.default_rng(0))
    assert counts.shape == (n, m)
    assert (counts.sum(0) == n).all()
    left_out = (counts == 0).mean(0)
    assert left_out.mean() == pytest.approx((1 - 1 / n) ** n, abs=0.01)  # .3674
    assert counts.var() == pytest.approx(1 - 1 / n, abs=0.05)
    assert len(np.unique(counts, axis=1).T) == m  # no two branches alike
    half = BaggingEnsemble(max_samples=0.5).weigh(n, m, np.random.default_rng(0))
    assert (half.sum(0) == n / 2).all()


@pytest.mark.parametrize("sampling", ["shared", "independent"])
def test_bagging_weights_reach_each_branchs_loss(small, digits, sampling, monkeypatch):
    """The epoch's weights, summed over batches, are the counts that were drawn, once a fit."""
    drawn, totals = [], []
    weigh, loss = BaggingEnsemble.weigh, BranchLoss.forward

    def record(self, *args):
        drawn.append(weigh(self, *args))
        return drawn[-1]

    def count(self, logits, labels, weights):
        totals.append(weights.sum(0).tolist())
        assert weights.shape == logits.shape[:2]
        return loss(self, logits, labels, weights)

    monkeypatch.setattr(BaggingEnsemble, "weigh", record)
    monkeypatch.setattr(BranchLoss, "forward", count)
    small(ensemble="bagging", sampling=sampling, max_epochs=3).fit(*digits)
    assert len(drawn) == 1
    n_batches = len(totals) // 3
    for epoch in range(3):
        part = np.sum(totals[epoch * n_batches :][:n_batches], axis=0)
        np.testing.assert_allclose(part, drawn[0].sum(0), rtol=1e-5)


def test_an_image_that_was_not_drawn_has_no_gradient():
    logits = torch.randn(4, 2, 3, requires_grad=True)
    weights = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    BranchLoss()(logits, torch.tensor([0, 1, 2, 0]), weights).backward()
    np.testing.assert_array_equal(logits.grad.abs().sum(2) > 0, weights > 0)


def test_weights_of_images_count_in_each_branch(small, digits):
    """A sample weight and the branch's own are multiplied."""
    X, y = digits
    weights = np.where(y == 0, 3.0, 1.0)
    clf = small(ensemble="bagging")
    images = clf._read_set(X, y, weights, clf._load_backbone().image_size)
    counts = np.random.default_rng(0).integers(0, 3, (len(y), 2))
    product = weights[:, None] * counts
    np.testing.assert_allclose(
        images.weigh_branches(counts).weights, product / product.mean(0), rtol=1e-6
    )


def test_bagged_branches_start_their_heads_on_their_samples(small, digits):
    fits = [
        small(ensemble=e, head_init="ridge", learning_rate=1e-9).fit(*digits)
        for e in ("naive", "bagging")
    ]
    assert not torch.allclose(*(clf.module_.head.weight for clf in fits), atol=1e-3)


# --------------------------------------------------------------------------------- rates


@pytest.mark.parametrize("m", [1, 3, 8])
def test_snapshot_rates_are_the_published(m):
    """Huang et al. (2017), eq. (2)."""
    total = 24 * m
    rate, taken = SnapshotEnsemble()._plan(total, m, settings())
    length = math.ceil(total / m)
    for t in range(1, total + 1):
        published = (math.cos(math.pi * ((t - 1) % length) / length) + 1) / 2
        assert rate(t - 1) == pytest.approx(published, abs=1e-12)
    assert taken == {length * (i + 1): i for i in range(m)}


def test_snapshots_of_more_cycles_than_branches_are_the_last():
    _, taken = SnapshotEnsemble(n_cycles=5)._plan(50, 2, settings())
    assert taken == {40: 0, 50: 1}


@pytest.mark.parametrize(("total", "m"), [(1000, 8), (64, 8), (300, 5)])
def test_fast_geometric_rates_are_the_published(total, m):
    """Garipov et al. (2018), section 4: triangles from alpha_1 to alpha_2 and back."""
    strategy, lr = FastGeometricEnsemble(), 1e-2
    rate, taken = strategy._plan(total, m, settings(learning_rate=lr, lr_schedule="cosine"))
    start, c = strategy._split(total, m)
    assert c % 2 == 0
    assert start + m * c == total
    for step in range(start):
        cosine = (1 + math.cos(math.pi * step / start)) / 2
        assert rate(step) == pytest.approx(cosine)
    for i in range(1, total - start + 1):
        t = ((i - 1) % c + 1) / c
        a1, a2 = strategy.alpha_1, strategy.alpha_2
        published = (
            (1 - 2 * t) * a1 + 2 * t * a2 if t <= 0.5 else (2 - 2 * t) * a2 + (2 * t - 1) * a1
        )
        assert lr * rate(start + i - 1) == pytest.approx(published)
        if t == 0.5:
            assert start + i in taken
    assert len(taken) == m


def test_pretraining_gives_way_until_a_cycle_has_two_steps():
    assert FastGeometricEnsemble()._split(1000, 8) == (808, 24)
    assert FastGeometricEnsemble()._split(20, 8) == (4, 2)
    assert FastGeometricEnsemble()._split(16, 8) == (0, 2)
    assert FastGeometricEnsemble(pretraining=0.95)._split(16, 8) == (0, 2)


def test_rates_of_a_fit(small, digits):
    """One step an epoch: the history holds the whole trace."""
    clf = small(ensemble="snapshot", max_epochs=8, batch_size=120, learning_rate=0.01)
    trace = clf.fit(*digits).history_.learning_rate
    np.testing.assert_allclose(
        trace, [0.005 * (math.cos(math.pi * (t % 4) / 4) + 1) for t in range(8)]
    )


# ------------------------------------------------------------------------------ branches


def test_a_branch_alone_predicts_as_inside(small, digits):
    X, y = digits
    clf = small(n_branches=3, trainable="all").fit(X, y)
    images = torch.rand(4, 3, 16, 16)
    whole = clf.module_(images)
    for i in range(3):
        member = take_branch(clf.module_, i)
        torch.testing.assert_close(member(images), whole[:, i : i + 1])
    put_branch(clf.module_, 0, take_branch(clf.module_, 2))
    torch.testing.assert_close(clf.module_(images)[:, 0], whole[:, 2])
    torch.testing.assert_close(clf.module_(images)[:, 1:], whole[:, 1:])


@pytest.mark.parametrize("ensemble", CYCLIC)
@pytest.mark.parametrize("trainable", ["head", "branches", "all"])
def test_branches_are_the_weights_along_the_way(small, digits, ensemble, trainable, monkeypatch):
    taken = []

    def record(module, index, member):
        taken.append(state(member))
        put_branch(module, index, member)

    monkeypatch.setattr("sklearn_rrr.classifiers.ensembles.put_branch", record)
    clf = small(ensemble=ensemble, n_branches=3, trainable=trainable, max_epochs=5).fit(*digits)
    assert len(taken) == 3
    for i, expected in enumerate(taken):
        member = take_branch(clf.module_, i).state_dict()
        for name, tensor in expected.items():  # one stump: it no longer moves
            if name.startswith("branches.") and not tensor.ndim:
                continue  # of batches seen there is one count
            torch.testing.assert_close(member[name], tensor, msg=f"{i}: {name}")
    assert not torch.equal(taken[0]["head.weight"], taken[2]["head.weight"])
    assert len(clf.history_) == 5


@pytest.mark.parametrize("ensemble", CYCLIC)
def test_validation_watches_the_branch_that_is_trained(small, digits, ensemble):
    clf = small(ensemble=ensemble, validation_fraction=0.25, max_epochs=8).fit(*digits)
    assert clf.history_.valid_acc.between(0, 1).all()
    assert clf.history_.valid_loss.iloc[-1] < clf.history_.valid_loss.iloc[0]


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_every_strategy_ends_in_the_same_network(small, digits, ensemble):
    X, y = digits
    clf = small(ensemble=ensemble, n_branches=4, max_epochs=8).fit(X, y)
    plain = small(n_branches=4, max_epochs=1).fit(X, y)
    assert clf.n_parameters_ == plain.n_parameters_
    P = clf.predict_branches(X)
    assert P.shape == (len(X), 4, 4)
    assert len({P[:, i].tobytes() for i in range(4)}) == 4
    again = small(ensemble=ensemble, n_branches=4, max_epochs=8).fit(X, y)
    np.testing.assert_array_equal(P, again.predict_branches(X))


# ----------------------------------------------------------------------------- as users


# docs: new strategy
class Halves(EnsembleStrategy):
    """Train every branch on a random half of the images."""

    def __init__(self, share=0.5):
        self.share = share

    def weigh(self, n_images, n_branches, rng):
        return rng.random((n_images, n_branches)) < self.share


# docs: end


def test_own_strategies_and_their_parameters_in_a_search(small, digits):
    search = GridSearchCV(
        small(ensemble=Halves()), {"ensemble__share": [0.5, 0.9]}, cv=2, error_score="raise"
    )
    search.fit(*digits)
    assert search.best_estimator_.ensemble.share == search.best_params_["ensemble__share"]
    cycles = small(ensemble=SnapshotEnsemble(), max_epochs=4)
    grid = {"ensemble__n_cycles": [2, 3]}
    GridSearchCV(cycles, grid, cv=2, error_score="raise").fit(*digits)


def test_strategies_are_saved_without_pickle(small, digits, tmp_path):
    clf = small(ensemble=FastGeometricEnsemble(alpha_1=2e-3), max_epochs=4).fit(*digits)
    save(clf, tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.ensemble.get_params() == clf.ensemble.get_params()
    np.testing.assert_array_equal(again.predict(digits[0]), clf.predict(digits[0]))
    with pytest.raises(TypeError, match="`ensemble` contains a Halves"):
        save(small(ensemble=Halves()).fit(*digits), tmp_path / "model")


@pytest.mark.parametrize(
    ("ensemble", "error", "words"),
    [
        ("boosting", ValueError, "`ensemble` must be one of 'naive', 'bagging', .*got 'boosting'"),
        (SnapshotEnsemble, TypeError, "or an EnsembleStrategy"),
        (SnapshotEnsemble(0), ValueError, r"`n_cycles` must be an int.*got 0.*None uses"),
        (SnapshotEnsemble(1), ValueError, "`n_cycles`=1 is less than `n_branches`=2"),
        (SnapshotEnsemble(100), ValueError, "100 snapshot cycles need .* there are 16"),
        (BaggingEnsemble(0), ValueError, r"`max_samples` must be a number in \(0, 1\]"),
        (
            FastGeometricEnsemble(1e-4),
            ValueError,
            "`alpha_1` must .* be smaller than `alpha_2`",
        ),
        (FastGeometricEnsemble(pretraining=1), ValueError, "`pretraining` must be"),
    ],
)
def test_wrong_strategies(small, digits, ensemble, error, words):
    with pytest.raises(error, match=words):
        small(ensemble=ensemble).fit(*digits)


@pytest.mark.parametrize(
    "factors", [np.zeros((120, 2)), -np.ones((120, 2)), np.ones(120), np.full((120, 2), np.nan)]
)
def test_factors_of_own_strategies_are_checked(small, digits, factors):
    class Own(EnsembleStrategy):
        def weigh(self, n_images, n_branches, rng):
            return factors

    with pytest.raises(ValueError, match=r"Own.weigh must return .*\(120, 2\).*got"):
        small(ensemble=Own()).fit(*digits)


def test_fewer_steps_than_cycles(small, digits):  # fault 53
    clf = small(ensemble="fge", n_branches=8, max_epochs=1)
    with pytest.raises(ValueError, match=r"8 fast geometric cycles need 16 .* there are 8.*epochs"):
        clf.fit(*digits)


@pytest.mark.parametrize("ensemble", CYCLIC)
def test_cycles_are_whole(small, digits, ensemble):
    X, y = digits
    assert not hasattr(small(ensemble=ensemble), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit") as error:
        small(ensemble=ensemble).partial_fit(X, y, classes=np.unique(y))
    assert "does not support partial_fit; use" in str(error.value.__cause__)
    stopping = small(ensemble=ensemble, early_stopping=True, validation_fraction=0.2)
    with pytest.raises(ValueError, match="`early_stopping`=True would interrupt the cycles"):
        stopping.fit(X, y)


@pytest.mark.parametrize("ensemble", ["snapshot", "fge"])
def test_interrupted_cycles_keep_the_trained_stump(small, digits, ensemble, monkeypatch):
    original, stumps = BranchNet.train_step_single, []

    def interrupt(net, batch, **_):
        stumps.append({k: v.clone() for k, v in net.module_.stump.state_dict().items()})
        if len(net.history) == 3:
            raise KeyboardInterrupt
        return original(net, batch)

    monkeypatch.setattr(BranchNet, "train_step_single", interrupt)
    clf = small(ensemble=ensemble, trainable="all", max_epochs=8)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*digits)
    assert clf.interrupted_
    assert len(clf.history_) == 2
    assert clf.net_.module_ is clf.module_
    assert not all(torch.equal(v, stumps[0][k]) for k, v in stumps[-1].items())
    for name, value in clf.module_.stump.state_dict().items():
        assert torch.equal(value, stumps[-1][name])


def test_an_unknown_strategy_is_no_missing_method(small, digits):
    X, y = digits
    with pytest.raises(ValueError, match="`ensemble` must be one of"):
        small(ensemble="boosting").partial_fit(X, y, classes=np.unique(y))


def test_bagging_goes_on_in_partial_fit(small, digits):
    X, y = digits
    still = {"head_init": "ridge", "learning_rate": 1e-9}
    heads = [
        small(ensemble=e, **still).partial_fit(X, y, classes=np.unique(y)).module_.head.weight
        for e in ("naive", "bagging")
    ]
    assert not torch.allclose(*heads, atol=1e-3)  # they start on the samples, too
    clf = small(ensemble=BaggingEnsemble()).partial_fit(X, y, classes=np.unique(y))
    assert len(clf.partial_fit(X, y).history_) == 2


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_ensemble_beats_its_branches_on_digits(ensemble):
    """Mean over five seeds, on images that were not trained on."""
    X, y = load_digits(return_X_y=True)
    together, alone = [], []
    for seed in range(5):
        A, B, a, b = train_test_split(X / 16, y, train_size=300, stratify=y, random_state=seed)
        branches = {"blocks": (1, 1, 1, 1), "n_branches": 8, "ensemble": ensemble}
        clf = RRRNetClassifier("synth50", **branches, image_size=32, random_state=seed)
        clf.set_params(max_epochs=15, fine_tuning__augmentation="none")
        P = clf.fit(A, a).predict_branches(B)
        together.append((P.mean(1).argmax(1) == b).mean())
        alone.append((P.argmax(2) == b[:, None]).mean())
    assert np.mean(together) > np.mean(alone)


def test_naive_is_the_default(small, digits):
    X, y = digits
    fits = [small(ensemble=e).fit(X, y).predict_proba(X) for e in ("naive", NaiveEnsemble())]
    np.testing.assert_array_equal(*fits)
