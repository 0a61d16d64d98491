"""ProgressiveKernelPruner: retraining up to the next layer, removals, selectors."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from sklearn_rrr import FineTuning, ProgressiveKernelPruner, RRRNetClassifier
from sklearn_rrr.pruning.channel_groups import find_groups
from sklearn_rrr.pruning.leave_one_out import score_without
from sklearn_rrr.pruning.progressive_pruner import count_share, list_later
from sklearn_rrr.pruning.run import PruningRun

FITTED = {}


@pytest.fixture
def fitted(small, digits):
    """Return a maker of fitted classifiers, good enough for scores to differ, each fitted once."""

    def make(backbone="tiny", n_branches=2):
        if (backbone, n_branches) not in FITTED:
            settings = {"max_epochs": 6, "learning_rate": 0.01, "trainable": "all"}
            clf = small(backbone=backbone, n_branches=n_branches, **settings)
            FITTED[backbone, n_branches] = clf.fit(*digits)
        return copy.deepcopy(FITTED[backbone, n_branches])

    return make


@pytest.fixture
def run_of(digits):
    """Return a maker of runs whose images held out are the last 48 digits."""

    def make(clf):
        images = clf._read_set(*digits, None, None, clf.classes_)
        everything = np.arange(120)
        return PruningRun(clf, images, everything[:72], everything[72:], seed=0)

    return make


# ---------------------------------------------------------------------------- retraining


class Watch(ProgressiveKernelPruner):
    """Keeps the network of each layer before and after its retraining."""

    def _retrain(self, run, epochs):
        before = copy.deepcopy(run.network.state_dict())
        super()._retrain(run, epochs)
        self.seen.append((before, copy.deepcopy(run.network.state_dict())))


def moved(before, after):
    """Return the names of the layers of which a number changed."""
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    return {key.rpartition(".")[0] for key in changed}


def layers_of(network):
    """Return the names of convolutions, norms and the head, a list for each layer, in order."""
    kinds = [type(module).__name__ for module in network.stump]
    found = [[f"stump.{kinds.index(kind)}" for kind in ("Conv2d", "BatchNorm2d")]]
    for part, phase, block in [(p, i, j) for p in ("stump", "branches") for i in range(8)
                               for j in range(8)]:  # fmt: skip
        try:
            module = network.get_submodule(f"{part}.{phase}.{block}")
        except AttributeError:
            continue
        names = [
            f"{part}.{phase}.{block}.{{}}{i}" for i in (1, 2, 3) if hasattr(module, f"conv{i}")
        ]
        found += [[name.format("conv"), name.format("bn")] for name in names]
        if module.downsample is not None:
            found[-1] += [f"{part}.{phase}.{block}.downsample.{i}" for i in (0, 1)]
    return [*found, ["head"]]


@pytest.mark.parametrize(
    ("backbone", "ema_epochs", "n_layers"),
    [("tiny", 0, 2), ("tiny_basic", 3, 2), ("tiny_mobile", 0, 3)],
)
def test_layers_after_the_next_keep_every_bit(small, digits, backbone, ema_epochs, n_layers):
    """A depthwise convolution is between the layer and the next that reads its channels."""
    X, y = digits[0][:40], digits[1][:40]
    clf = small(backbone=backbone, ema_epochs=ema_epochs, max_epochs=1, trainable="all")
    pruner = Watch(clf, criterion="l1", amount=0.3, epochs_per_step=max(1, ema_epochs))
    pruner.seen = []
    pruner.fit(X, y)
    layers = layers_of(pruner.estimator_.module_)
    names = [names[0] for names in layers]
    pruned = pruner.results_.layer[1:]
    assert len(pruned) == len(pruner.seen) > 3
    for layer, (before, after) in zip(pruned, pruner.seen, strict=True):
        end = names.index(layer) + n_layers
        assert moved(before, after) == {name for layer in layers[:end] for name in layer}


@pytest.mark.slow
def test_the_usual_control_retrains_everything_for_as_long(small, digits):
    tables = {}
    for retrain in ("progressive", "usual"):
        pruner = Watch(small(max_epochs=9), criterion="norm", amount=0.3, retrain=retrain)
        pruner.seen = []
        tables[retrain] = pruner.fit(*digits).results_
        if retrain == "usual":
            layers = layers_of(pruner.estimator_.module_)
            everything = {name for layer in layers for name in layer}
            assert all(moved(*pair) == everything for pair in pruner.seen)
    same = ["layer", "channels_before", "channels", "parameters", "macs", "epochs"]
    assert tables["usual"][same].equals(tables["progressive"][same])
    assert tables["usual"].epochs.tolist() == list(range(9))  # 8 layers


def test_nothing_stays_held(small, digits):
    pruner = ProgressiveKernelPruner(small(), criterion="l1", amount=0.5).fit(*digits)
    network = pruner.estimator_.module_
    assert network.frozen_names == ()
    assert all(p.requires_grad for p in network.parameters())
    assert not network.training


def test_the_next_layer_of_a_stream_is_its_last_reader(fitted):
    network = fitted().module_
    later = {group.name: list_later(network, group) for group in find_groups(network)}
    assert later["branches.1.0.conv3"] == []  # the head reads it
    assert later["branches.1.0.conv2"] == ["head"]
    end = ["branches.1.0.conv2", "branches.1.0.bn2", "branches.1.0.conv3", "branches.1.0.bn3"]
    end += ["branches.1.0.downsample", "head"]
    assert later["branches.0.0.conv3"] == ["head"]  # its shortcut reads it, too
    assert later["branches.0.0.conv2"] == ["branches.1.0.conv1", "branches.1.0.bn1", *end]


# ------------------------------------------------------------------------------ removing


def test_only_kernels_that_can_be_spared_are_removed(fitted, digits):
    clf = fitted(n_branches=1)
    frozen = FrozenEstimator(clf)
    pruner = ProgressiveKernelPruner(frozen, epochs_per_step=0, validation_fraction=0.4).fit(
        *digits
    )
    table = pruner.results_[1:]
    assert (table.channels < table.channels_before).any()
    assert (table.channels >= 1).all()
    for row in table.itertuples():
        gone = np.setdiff1d(np.arange(row.channels_before), row.remaining)
        assert (row.relevance[gone] <= 1e-6).all()
        assert len(row.remaining) == row.channels
        assert row.relevance[row.remaining].max(initial=-1) >= row.relevance[gone].max(initial=-1)


@pytest.mark.parametrize(
    ("criterion", "layer_tolerance"), [("leave_one_out", 0.0), ("taylor", 0.1)]
)
def test_layer_tolerance_limits_the_drop_of_a_layer(fitted, run_of, layer_tolerance, criterion):
    clf = fitted()
    run = run_of(clf)
    pruner = ProgressiveKernelPruner(criterion=criterion, layer_tolerance=layer_tolerance)
    for group in find_groups(clf.module_, streams=False)[::3]:
        relevance_, remaining = pruner._judge(run, group, None)
        gone = np.setdiff1d(np.arange(group.size), remaining)
        full, cut = score_without(clf.module_, group, [[], gone], run.scored_images)
        assert full - cut <= layer_tolerance + 1e-6
        parts = np.bincount(gone // (group.size // group.parts), minlength=group.parts)
        assert len(set(parts)) == 1
        assert len(relevance_) == group.size


def test_equal_relevance_goes_by_taylor(fitted, run_of, monkeypatch):
    run = run_of(fitted(n_branches=1))
    group = find_groups(run.network, streams=False)[0]
    taylor = torch.tensor([3.0, 1.0, 2.0, 0.0])
    monkeypatch.setattr("sklearn_rrr.pruning.progressive_pruner.score_taylor", lambda *_: [taylor])
    relevance = torch.tensor([0.0, 0.0, 0.0, 0.5])
    units = ProgressiveKernelPruner()._rank_kernels(run, group, relevance)
    assert [unit.tolist() for unit in units] == [[1], [2], [0]]  # the last one stays


@pytest.mark.parametrize("backbone", ["tiny", "tiny_basic"])
@pytest.mark.parametrize("amount", [0.0, 0.25, 0.999])
def test_an_amount_of_each_layer(fitted, digits, backbone, amount):
    clf = fitted(backbone)
    frozen = FrozenEstimator(clf)
    pruner = ProgressiveKernelPruner(frozen, criterion="norm", amount=amount, epochs_per_step=0)
    table = pruner.fit(*digits).results_[1:]
    for group, row in zip(find_groups(clf.module_, False), table.itertuples(), strict=True):
        width = group.size // group.parts
        gone = min(round(amount * width), width - 1)
        assert (row.layer, row.channels) == (group.name, group.size - gone * group.parts)
        assert gone == count_share(amount, group)
        norms = np.abs(clf.module_.get_submodule(group.norms[0]).weight.detach().numpy())
        if gone:
            np.testing.assert_allclose(row.relevance, norms)
            parts = norms.reshape(group.parts, -1)
            least = (
                parts.argsort(1, kind="stable")[:, gone:] + width * np.arange(group.parts)[:, None]
            )
            assert row.remaining.tolist() == sorted(least.flatten().tolist())
    same = np.array_equal(pruner.predict_proba(digits[0]), clf.predict_proba(digits[0]))
    assert same == (amount == 0)


@pytest.mark.parametrize(
    ("cost", "streams", "target"), [("parameters", True, 0.3), ("macs", False, 0.15)]
)
def test_a_target_for_the_whole_network(fitted, digits, cost, streams, target):
    settings = {"criterion": "l1", "cost": cost, "epochs_per_step": 0}
    frozen = FrozenEstimator(fitted())
    pruner = ProgressiveKernelPruner(frozen, **settings, target=target, streams=streams)
    table = pruner.fit(*digits).results_
    share = table[cost].iloc[-1] / table[cost].iloc[0]
    assert 0.85 - target < share <= 1 - target
    removed = 1 - table.channels[1:] / table.channels_before[1:]
    assert removed.max() - removed.min() < 0.25  # rounded to channels
    assert table.channels.iloc[0] == table.channels_before[1:].sum()
    assert any(table.layer == "stump.0") == streams


def test_a_target_of_nothing_leaves_the_network_as_it_is(fitted, digits):
    pruner = ProgressiveKernelPruner(FrozenEstimator(fitted()), target=0).fit(*digits)
    assert pruner.results_.layer.tolist() == [""]
    state = fitted().module_.state_dict()
    for key, value in pruner.estimator_.module_.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_target_out_of_reach(fitted, digits):
    frozen = FrozenEstimator(fitted())
    pruner = ProgressiveKernelPruner(frozen, criterion="l1", target=0.999, epochs_per_step=0)
    with pytest.warns(UserWarning, match=r"cannot remove 99\.9% of the parameters"):
        pruner.fit(*digits)
    groups = find_groups(pruner.estimator_.module_, streams=False)
    assert all(group.size == group.parts for group in groups)


def test_a_layer_that_costs_too_much_is_put_back(fitted, digits):
    class Scorer:
        """Knows networks by the width of their second layer to be pruned."""

        def __call__(self, estimator, X, y):
            return (
                1.0 if estimator.module_.get_submodule("stump.4.0.conv2").out_channels > 3 else 0.5
            )

    clf = FrozenEstimator(fitted())
    pruner = ProgressiveKernelPruner(
        clf, criterion="l1", amount=0.5, tolerance=0.1, scoring=Scorer(), epochs_per_step=0
    ).fit(*digits)
    table = pruner.results_
    assert table.layer[2] == "stump.4.0.conv2"
    assert table.kept.tolist() == [True, True, False, *[True] * (len(table) - 3)]
    network = pruner.estimator_.module_
    assert network.get_submodule("stump.4.0.conv2").out_channels == table.channels_before[2] == 4
    assert network.get_submodule("stump.5.0.conv1").out_channels == table.channels[3] == 4
    assert pruner.estimator_.n_parameters_ == sum(p.numel() for p in network.parameters())


# ----------------------------------------------------------------------------- selectors


class Selector:
    """Keeps the channels that it was told to, and what it was shown."""

    def __init__(self, keep):
        self.keep, self.shown = keep, []

    def __call__(self, layer, activation_mosaics, scores):
        self.shown.append((layer, activation_mosaics, scores))
        return self.keep(activation_mosaics)


@pytest.mark.parametrize("validation_fraction", [None, 0.2])
def test_a_selector_is_shown_activations_and_decides(fitted, digits, validation_fraction):
    selector = Selector(lambda maps: np.arange(len(maps)) % 4 != 1)
    clf = fitted(n_branches=1)
    pruner = ProgressiveKernelPruner(
        FrozenEstimator(clf),
        criterion="norm",
        selector=selector,
        mosaic_images=6,
        epochs_per_step=0,
        validation_fraction=validation_fraction,
    ).fit(*digits)
    groups = find_groups(clf.module_, streams=False)
    table = pruner.results_[1:]
    for group, row, shown in zip(groups, table.itertuples(), selector.shown, strict=True):
        layer, maps, scores = shown
        assert layer == row.layer == group.name
        assert maps.shape[:2] == (group.size, 6)
        assert maps.ndim == 4
        norms = clf.module_.get_submodule(group.norms[0]).weight.detach().abs().numpy()
        np.testing.assert_allclose(scores, norms)
        assert row.remaining.tolist() == [i for i in range(group.size) if i % 4 != 1]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda maps: np.ones(3, bool), r"boolean array of shape \(4,\) for 'stump.4.0.conv1'"),
        (lambda maps: np.ones(len(maps)), r"got an array of float64 of shape \(4,\)"),
        (lambda maps: np.zeros(len(maps), bool), r"keep at least one channel.*got \[0\]"),
        (
            lambda maps: np.arange(len(maps)) > (len(maps) > 8),
            r"each of the 2 equal parts .*got \[",
        ),
    ],
)
def test_wrong_selectors(fitted, digits, keep, message):
    pruner = ProgressiveKernelPruner(
        FrozenEstimator(fitted()), criterion="l1", selector=Selector(keep), epochs_per_step=0
    )
    with pytest.raises(ValueError, match=message):
        pruner.fit(*digits)


# ------------------------------------------------------------------- as scikit-learn's


def quick(**parameters):
    clf = RRRNetClassifier(
        weights=None,
        n_branches=2,
        image_size=16,
        fine_tuning=FineTuning(augmentation="none"),
        max_epochs=1,
        random_state=0,
    )
    return ProgressiveKernelPruner(clf, **{"criterion": "l1", "epochs_per_step": 0} | parameters)


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_targets(digits, n_jobs):
    X, y = digits[0][:40], digits[1][:40]
    grid = {"target": [0.1, 0.4]}
    search = GridSearchCV(quick(), grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(X, y)
    best = search.best_estimator_
    assert best.target == search.best_params_["target"]
    table = best.results_
    assert table.parameters.iloc[-1] <= (1 - best.target) * table.parameters.iloc[0]
    assert search.predict(X).shape == (40,)


def test_the_same_again_and_the_classifier_given_is_left_alone(fitted, digits):
    clf = fitted()
    before = copy.deepcopy(clf.module_.state_dict())
    frozen = FrozenEstimator(clf)
    pruner = ProgressiveKernelPruner(frozen, amount=0.3, epochs_per_step=1, random_state=3)
    first = pruner.fit(*digits).predict_proba(digits[0])
    np.testing.assert_array_equal(clone(pruner).set_params(estimator=frozen).fit(*digits)
                                  .predict_proba(digits[0]), first)  # fmt: skip
    assert all(torch.equal(before[k], v) for k, v in clf.module_.state_dict().items())


def test_another_pruner_goes_on(fitted, digits):
    second = ProgressiveKernelPruner(criterion="norm", amount=0.5, epochs_per_step=0)
    first = ProgressiveKernelPruner(
        FrozenEstimator(fitted()), criterion="l1", amount=0.5, epochs_per_step=0, then=second
    )
    table = first.fit(*digits).results_
    half = len(table) // 2
    assert table.channels_before[half + 1 :].tolist() == table.channels[1:half].tolist()
    assert not hasattr(second, "estimator_")


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        (
            {"criterion": "l2"},
            ValueError,
            r"`criterion` must be one of 'leave_one_out', .*callable",
        ),
        ({"retrain": "never"}, ValueError, r"`retrain` must be one of 'progressive', 'usual'"),
        (
            {"layer_tolerance": -0.1},
            ValueError,
            r"`layer_tolerance` must be a number in \[0, 1\]; got -0\.1",
        ),
        ({"amount": 1.0}, ValueError, r"`amount` must be a number in \[0, 0\.999\]"),
        ({"target": 1.0}, ValueError, r"`target` must be a number in \[0, 0\.999\]"),
        (
            {"amount": 0.1, "target": 0.1},
            ValueError,
            "`amount` and `target` both determine",
        ),
        ({"selector": "mine"}, TypeError, "`selector` must be a callable or None; got 'mine'"),
        ({"streams": 1}, TypeError, "`streams` must be True or False"),
        ({"mosaic_images": 0}, ValueError, "`mosaic_images` must be an int of at least 1"),
        ({"epochs_per_step": -1}, ValueError, "`epochs_per_step` must be an int of at least 0"),
        (
            {"validation_fraction": None},
            ValueError,
            "`layer_tolerance`=0.0 needs images to score on",
        ),
        (
            {"validation_fraction": None, "criterion": "leave_one_out", "amount": 0.1},
            ValueError,
            "`criterion`='leave_one_out' needs images to score on",
        ),
    ],
)
def test_wrong_parameters(parameters, kind, message, digits):
    with pytest.raises(kind, match=message):
        quick(**parameters).fit(*digits)
