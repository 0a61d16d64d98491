"""What all pruners share: steps, scores, ends, files, searches, and what may go wrong."""

import copy
import json
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, get_scorer, log_loss
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from sklearn_rrr import (
    BasisScalingPruner,
    BlockPruner,
    BlockSelector,
    ChannelPruner,
    ElementPruner,
    FineTuning,
    FineTuningClassifier,
    OnnxClassifier,
    ProgressiveKernelPruner,
    RRRNetClassifier,
    cost_report,
    count_macs,
    count_parameters,
    export_onnx,
    load,
    save,
)
from sklearn_rrr.deployment.model_files import make_metadata, read
from sklearn_rrr.pruning.base import BasePruner
from sklearn_rrr.pruning.channel_groups import find_groups
from sklearn_rrr.pruning.channel_pruner import group_units, rank_units
from sklearn_rrr.pruning.removal import keep_channels
from sklearn_rrr.pruning.run import PruningRun

QUICK = {"n_steps": 2, "epochs_per_step": 1}
PRUNERS = {
    "basis": BasisScalingPruner(target=0.4, **QUICK),
    "channel": ChannelPruner(target=0.4, **QUICK),
    "inner channel": ChannelPruner(target=0.2, streams=False, cost="macs", **QUICK),
    "block": BlockPruner(target=0.05, **QUICK),
    "element": ElementPruner(target=0.6, **QUICK),
    "basis, channel": BasisScalingPruner(
        target=0.2, then=ChannelPruner(target=0.2, **QUICK), **QUICK
    ),
    "channel, basis": ChannelPruner(
        target=0.2, then=BasisScalingPruner(target=0.2, **QUICK), **QUICK
    ),
}
every_pruner = pytest.mark.parametrize("name", PRUNERS)


@pytest.fixture(scope="module")
def fitted(digits):
    clf = RRRNetClassifier(
        "tiny",
        weights=None,
        blocks=None,
        n_branches=2,
        max_epochs=4,
        batch_size=16,
        fine_tuning=FineTuning(augmentation="none"),
        precision="fp32",
        random_state=0,
    )
    return FrozenEstimator(clf.fit(*digits))


@pytest.fixture(scope="module")
def pruned(fitted, digits):
    """Return each pruner, fitted once."""
    return {name: clone(p).set_params(estimator=fitted).fit(*digits) for name, p in PRUNERS.items()}


@every_pruner
def test_network_is_smaller_by_what_is_reported(pruned, fitted, digits, name):
    pruner = pruned[name]
    clf, last = pruner.estimator_, pruner.results_.iloc[-1]
    start = pruner.results_.iloc[0]
    parameters = list(clf.module_.parameters())
    assert start.parameters == count_parameters(fitted)
    assert start.macs == count_macs(fitted)
    assert last.parameters == count_parameters(clf) == clf.n_parameters_
    assert last.macs == count_macs(clf)
    assert last.nonzero == sum(int(p.count_nonzero()) for p in parameters)
    stages = [p for p in (pruner, pruner.then) if p is not None]
    kept = np.prod([1 - stage.target for stage in stages])
    cost = "nonzero" if name == "element" else stages[0].cost
    assert last[cost] <= kept * start[cost]
    if name == "element":
        assert last.parameters == start.parameters
    elif name != "inner channel":
        report = cost_report({"before": fitted, "after": clf}, repeats=1)
        assert report.megabytes["after"] < report.megabytes["before"]
    names = [type(stage).__name__ for stage in stages]
    assert pruner.results_.pruner.drop_duplicates().tolist() == names
    assert pruner.results_.parameters.is_monotonic_decreasing
    assert pruner.predict_proba(digits[0]).shape == (120, 4)
    assert pruner.predict_branches(digits[0]).shape == (120, 2, 4)
    assert pruner.score(*digits) == accuracy_score(digits[1], pruner.predict(digits[0]))
    assert pruner.predict_uncertainty(digits[0]).shape[0] == 120


@every_pruner
def test_file_holds_the_pruned_network(pruned, fitted, digits, name, tmp_path):
    clf = pruned[name].estimator_
    for estimator, path in [(fitted, "a"), (clf, "b")]:
        save(estimator, tmp_path / path)
    sizes = [(tmp_path / path).stat().st_size for path in ("a", "b")]
    gone = fitted.n_parameters_ - clf.n_parameters_
    assert sizes[0] - sizes[1] >= 0.5 * 4 * gone
    expected = clf.predict_proba(digits[0])
    np.testing.assert_array_equal(load(tmp_path / "b").predict_proba(digits[0]), expected)
    joblib.dump(pruned[name], tmp_path / "c")
    np.testing.assert_array_equal(joblib.load(tmp_path / "c").predict_proba(digits[0]), expected)
    assert load(tmp_path / "b").partial_fit(*digits).n_parameters_ == clf.n_parameters_


@pytest.mark.slow
def test_file_loads_in_a_fresh_process(digits, tmp_path):
    clf = RRRNetClassifier(n_branches=2, image_size=16, max_epochs=1, random_state=0)
    then = ChannelPruner(target=0.2, n_steps=1, epochs_per_step=0)
    pruner = BasisScalingPruner(clf, target=0.7, n_steps=1, epochs_per_step=0, then=then)
    pruner.fit(*digits)
    save(pruner.estimator_, tmp_path / "a")
    joblib.dump(pruner, tmp_path / "b")
    np.save(tmp_path / "x.npy", digits[0][:9])
    code = (
        "import sys, joblib, numpy as np; from sklearn_rrr import load; X = np.load(sys.argv[3]);"
        "print(load(sys.argv[1]).predict(X)); print(joblib.load(sys.argv[2]).predict(X))"
    )
    command = [sys.executable, "-c", code, *(tmp_path / p for p in ("a", "b", "x.npy"))]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == 2 * [str(pruner.predict(digits[0][:9]))]


def test_damaged_shapes_are_refused(pruned, tmp_path):
    path = tmp_path / "a"
    save(pruned["channel"].estimator_, path)
    tensors = load_file(path)
    content, _ = read(path)
    tensors["stump.1.weight"] = tensors["stump.1.weight"][:1].clone()
    save_file(tensors, path, make_metadata(json.dumps(content), tensors))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["basis", "channel", "block"])
def test_onnx_file_predicts_the_same(pruned, digits, name, tmp_path):
    export_onnx(pruned[name].estimator_, tmp_path / "a.onnx")
    light = OnnxClassifier(tmp_path / "a.onnx")
    np.testing.assert_allclose(
        light.predict_proba(digits[0]), pruned[name].predict_proba(digits[0]), atol=1e-4
    )


# ---------------------------------------------------------------------------- estimators


def test_frozen_estimator_is_taken_as_it_is_and_left_alone(fitted, digits):
    before = copy.deepcopy(fitted.module_.state_dict())
    expected = fitted.predict_proba(digits[0])
    still = {"target": 0.0, "n_steps": 1, "epochs_per_step": 0}
    for estimator in (fitted, FrozenEstimator(fitted), clone(fitted)):
        pruner = ChannelPruner(estimator, **still).fit(*digits)
        np.testing.assert_array_equal(pruner.predict_proba(digits[0]), expected)
    ChannelPruner(fitted, **QUICK).fit(*digits)
    after = fitted.module_.state_dict()
    assert all((before[name] == value).all() for name, value in after.items())
    np.testing.assert_array_equal(fitted.predict_proba(digits[0]), expected)


def test_unfitted_estimator_learns_from_the_images_not_held_out(small, digits):
    X, y = digits
    still = {"target": 0.0, "n_steps": 1, "epochs_per_step": 0, "random_state": 3}
    clf = small(max_epochs=3)
    pruner = ChannelPruner(clf, **still).fit(X, y)
    run = {}

    def pixels(images):
        return images.__getitems__(range(len(images)))[0].numpy()

    class Spy(ChannelPruner):
        def _prune(self, job):
            run["X"], run["n"] = pixels(job.held_out), len(job.images)
            super()._prune(job)

    Spy(clf, **still).fit(X, y)
    assert (len(run["X"]), run["n"]) == (24, 96)
    held_out = {image.tobytes() for image in run["X"]}
    whole = pixels(clone(clf)._read_set(X, y, None, 16))
    rest = [i for i, image in enumerate(whole) if image.tobytes() not in held_out]
    assert len(rest) == 96
    expected = clone(clf).fit(X[rest], y[rest]).predict_proba(X)
    np.testing.assert_allclose(pruner.predict_proba(X), expected, atol=1e-6)
    everything = ChannelPruner(clf, validation_fraction=None, **still).fit(X, y)
    np.testing.assert_array_equal(
        everything.predict_proba(X), clone(clf).fit(X, y).predict_proba(X)
    )
    assert everything.results_.score.isna().all()


@pytest.mark.slow
def test_a_fitted_estimator_makes_no_difference_unless_it_is_frozen(small, digits):
    X, y = digits
    clf = small(max_epochs=1)

    def more_is_better(estimator, X, y):  # so that there are blocks to remove
        return sum(estimator.blocks_)

    selector = BlockSelector(clf, max_blocks=5, tolerance=None, scoring=more_is_better)
    for kind, inner in ((ChannelPruner, clf), (BlockPruner, selector)):
        pruner = kind(inner, target=0.02, random_state=3, **QUICK)
        fresh = pruner.fit(X, y).predict_proba(X)
        fitted = clone(pruner).set_params(estimator=clone(inner).fit(X[:40], y[:40]))
        np.testing.assert_array_equal(fitted.fit(X, y).predict_proba(X), fresh)


def test_weights_are_routed_through_a_search(small, digits, monkeypatch):
    X, y = digits
    seen, fit = [], RRRNetClassifier._fit_set

    def record(clf, images):
        seen.append(images.sample_weight)
        return fit(clf, images)

    monkeypatch.setattr(RRRNetClassifier, "_fit_set", record)
    with config_context(enable_metadata_routing=True):
        pruner = ChannelPruner(small(max_epochs=1), n_steps=1, epochs_per_step=0)
        pipeline = make_pipeline("passthrough", pruner.set_fit_request(sample_weight=True))
        unweighted = get_scorer("accuracy").set_score_request(sample_weight=False)
        options = {"cv": 2, "scoring": unweighted, "error_score": "raise"}
        search = GridSearchCV(pipeline, {"channelpruner__target": [0.1]}, **options)
        search.fit(X, y, sample_weight=np.arange(120.0) + 1)
    assert [len(weights) for weights in seen] == [48, 48, 96]
    assert all(len(set(weights)) == len(weights) for weights in seen)


def test_selectors_pruners_and_other_classifiers_can_be_inside(small, digits):
    inner = small(n_branches=1, max_epochs=1)
    selector = BlockSelector(inner, max_blocks=5, tolerance=None, epochs_per_step=1)
    unfitted = ChannelPruner(selector, **QUICK).fit(*digits)
    assert isinstance(unfitted.estimator_, RRRNetClassifier)
    of_frozen = ElementPruner(FrozenEstimator(unfitted), **QUICK).fit(*digits)
    assert of_frozen.results_.parameters[0] == unfitted.estimator_.n_parameters_
    whole = FineTuningClassifier(
        "tiny", weights=None, max_epochs=1, fine_tuning=FineTuning(augmentation="none")
    )
    blocks = BlockPruner(whole, target=0.05, **QUICK).fit(*digits)
    assert sum(blocks.estimator_.blocks_) < 6


def test_results_repeat(small, digits):
    pruner = ChannelPruner(small(max_epochs=1), random_state=5, **QUICK)
    first, second = (clone(pruner).fit(*digits) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(digits[0]), second.predict_proba(digits[0]))


@pytest.mark.slow
def test_grid_search_over_targets(small, digits):
    def lean(pruner, X, y):
        return -pruner.estimator_.n_parameters_

    pruner = BasisScalingPruner(small(max_epochs=1), random_state=0, n_steps=1, epochs_per_step=1)
    grid = {"target": [0.2, 0.6]}
    search = GridSearchCV(pruner, grid, cv=2, scoring=lean, error_score="raise").fit(*digits)
    assert search.best_params_ == {"target": 0.6}
    expected = clone(pruner).set_params(target=0.6).fit(*digits)
    found = search.predict_proba(digits[0])
    np.testing.assert_array_equal(found, expected.predict_proba(digits[0]))


# ---------------------------------------------------------------------------------- ends


def test_pruning_ends_where_the_score_falls_too_far(fitted, digits, monkeypatch):
    """The last network within `tolerance` is kept."""
    scores = iter([0.9, 0.88, 0.7, 0.1])
    monkeypatch.setattr(PruningRun, "score", lambda self: next(scores))
    pruner = ChannelPruner(fitted, target=0.6, tolerance=0.05, n_steps=3, epochs_per_step=0)
    results = pruner.fit(*digits).results_
    assert results.kept.tolist() == [True, True, False]
    assert pruner.estimator_.n_parameters_ == results.parameters[1]


def test_a_scorer_that_gives_no_number_is_refused(fitted, digits):
    """A comparison with NaN would let everything pass."""
    pruner = ChannelPruner(fitted, tolerance=0.1, scoring=lambda *_: float("nan"), **QUICK)
    with pytest.raises(ValueError, match="`scoring` returned nan on the 24 images held out"):
        pruner.fit(*digits)


def test_epochs_are_counted_through_both_prunings(fitted, digits):
    then = BasisScalingPruner(target=0.2, **QUICK)
    results = ChannelPruner(fitted, target=0.2, then=then, **QUICK).fit(*digits).results_
    assert results.epochs.tolist() == [0, 1, 2, 2, 4, 5]
    assert results.seconds.is_monotonic_increasing


def test_importance_is_the_same_on_every_machine(fitted, digits):
    """Batches of a prediction are larger with more threads; squares of slopes would follow.

    Noise keeps the inputs of ReLUs from being zero, where rounding decides about the slope.
    """
    images, labels = digits
    images = images // 2 + np.random.default_rng(0).integers(0, 99, images.shape, np.uint8)
    pruner, before = ChannelPruner(fitted, n_steps=1, epochs_per_step=0), torch.get_num_threads()
    parameters = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        try:
            parameters.append(pruner.fit(images, labels).estimator_.module_.state_dict())
        finally:
            torch.set_num_threads(before)
    for key, value in parameters[0].items():
        torch.testing.assert_close(parameters[1][key], value)


def test_a_frozen_estimator_is_not_fitted(fitted, digits):
    with pytest.raises(NotFittedError):
        ChannelPruner(FrozenEstimator(clone(fitted.estimator)), **QUICK).fit(*digits)


def test_weighted_score(fitted, digits):
    X, y = digits
    pruner, weights = ChannelPruner(fitted, **QUICK).fit(X, y), np.arange(120.0)
    expected = accuracy_score(y, pruner.predict(X), sample_weight=weights)
    assert pruner.score(X, y, sample_weight=weights) == pytest.approx(expected)
    assert pruner.score(X, y) != pytest.approx(expected)


def test_start_is_kept_where_the_first_step_fails(fitted, digits, monkeypatch):
    """What a pruner trains before its first removal is not measured, and not kept."""
    for kind in (BasisScalingPruner, ChannelPruner):
        scores = iter([0.9, 0.1])
        with monkeypatch.context() as patch:
            patch.setattr(PruningRun, "score", lambda self, scores=scores: next(scores))
            pruner = kind(fitted, tolerance=0.05, n_steps=2, epochs_per_step=1).fit(*digits)
        assert pruner.results_.kept.tolist() == [True, False]
        np.testing.assert_allclose(
            pruner.predict_proba(digits[0]), fitted.predict_proba(digits[0]), atol=1e-6
        )


def test_the_first_pruner_says_what_is_held_out(fitted, digits):
    nothing = {"validation_fraction": None}
    for then in (ChannelPruner(tolerance=0.1), ProgressiveKernelPruner()):
        with pytest.raises(ValueError, match="needs images to score on"):
            ChannelPruner(fitted, **nothing, then=then).fit(*digits)
    then = ProgressiveKernelPruner(**nothing, epochs_per_step=0)
    results = ChannelPruner(fitted, **QUICK, then=then).fit(*digits).results_
    assert results.score.notna().all()


def test_pruners_that_follow_are_left_as_they_were(fitted, digits):
    then = BasisScalingPruner(target=0.1, **QUICK)
    before = dict(vars(then))
    first = ChannelPruner(fitted, target=0.1, then=then, **QUICK).fit(*digits)
    assert vars(then) == before
    assert set(vars(first)) - set(vars(clone(first))) == {
        "results_",
        "estimator_",
        "skipped_",
        "classes_",
    }


@pytest.mark.parametrize("trainable", ["head", "branches"])
def test_all_of_a_pruned_network_learns_before_and_after_a_file(small, digits, trainable, tmp_path):
    clf = small(trainable=trainable, max_epochs=1).fit(*digits)
    pruned = ChannelPruner(FrozenEstimator(clf), **QUICK).fit(*digits).estimator_
    save(pruned, tmp_path / "a")
    again = load(tmp_path / "a").partial_fit(*digits)
    pruned.partial_fit(*digits)
    assert pruned.module_.frozen_names == again.module_.frozen_names == ()
    np.testing.assert_allclose(
        again.predict_proba(digits[0]), pruned.predict_proba(digits[0]), rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
def test_class_of_one_image_may_be_held_out(small, digits):
    X, y = digits[0][:40], digits[1][:40].copy()
    y[y == 3] = 2
    y[7] = 3
    for inner in (BlockSelector(small(), max_blocks=5, epochs_per_step=1), ElementPruner(small())):
        for seed in (0, 1, 2):
            pruner = ChannelPruner(inner, random_state=seed, n_steps=1, epochs_per_step=1)
            with pytest.warns(UserWarning, match="not stratified"):
                pruner.fit(X, y)
            assert pruner.classes_.tolist() == [0, 1, 2, 3]


def test_images_without_weight_are_not_held_out(small, digits):
    weights = np.zeros(120)
    weights[:20] = 1
    seen = []

    class Spy(ChannelPruner):
        def _prune(self, run):
            seen.append((len(run.images), len(run.held_out)))

    Spy(small(max_epochs=1), random_state=1).fit(*digits, sample_weight=weights)
    assert seen == [(16, 4)]


def test_steps_whose_share_was_reached_before_are_left_out(fitted, digits):
    pruner = BlockPruner(fitted, target=0.07, n_steps=4, epochs_per_step=1).fit(*digits)
    parameters = pruner.results_.parameters
    assert parameters.is_unique
    assert len(parameters) < 5


def test_all_that_may_go_is_less_than_the_target(fitted, digits):
    pruner = ChannelPruner(fitted, target=0.99, streams=False, n_steps=1, epochs_per_step=0)
    with pytest.warns(UserWarning, match=r"removed all that it may, .*% of the parameters"):
        pruner.fit(*digits)
    groups = [m for n, m in pruner.estimator_.module_.named_modules() if n.endswith("conv2")]
    assert all(conv.out_channels == conv.groups for conv in groups)


@pytest.mark.slow
def test_epochs_of_all_steps_are_those_of_the_first_fit(small, digits):
    pruner = ChannelPruner(small(max_epochs=7), n_steps=3).fit(*digits)
    assert pruner.results_.epochs.tolist() == [0, 2, 4, 6]
    pruner = BasisScalingPruner(small(max_epochs=7), n_steps=2).fit(*digits)
    assert pruner.results_.epochs.tolist() == [0, 4, 6]


def test_pruner_of_a_frozen_classifier_runs_inside_a_pruner(small, digits):
    clf = small(max_epochs=1).fit(*digits)
    before = copy.deepcopy(clf.module_.state_dict())
    still = {"n_steps": 1, "epochs_per_step": 0}
    inner = ElementPruner(FrozenEstimator(clf), target=0.5, **still)
    pruner = ChannelPruner(inner, target=0.2, **still).fit(*digits)
    assert pruner.results_.nonzero[0] < 0.51 * clf.n_parameters_
    assert all(torch.equal(v, before[k]) for k, v in clf.module_.state_dict().items())


def test_nothing_is_shared_with_a_frozen_classifier(small, digits):
    clf = small(max_epochs=1).fit(*digits)
    pruner = ChannelPruner(FrozenEstimator(clf), target=0.2, n_steps=1, epochs_per_step=0)
    pruned = pruner.fit(*digits).estimator_
    pruned.set_params(fine_tuning__learning_rate=0.5)
    assert clf.fine_tuning.learning_rate is None
    assert pruned.fine_tuning_.trainable == "all"


def test_selector_with_a_splitter_inside_a_pruner(small, digits):
    for cv in (KFold(3), [(np.arange(60), np.arange(60, 96))]):
        selector = BlockSelector(small(max_epochs=1), max_blocks=4, tolerance=None, cv=cv)
        pruner = ChannelPruner(selector, target=0.05, n_steps=1, epochs_per_step=0)
        assert pruner.fit(*digits).estimator_.blocks_ == (1, 1, 1, 1)


def test_loss_is_that_of_the_images_held_out(fitted, digits):
    seen = []

    class Spy(ChannelPruner):
        def _prune(self, run):
            X, y = run.held_out, run.held_out.y
            branches = run.classifier.predict_branches(X)
            losses = [log_loss(y, branches[:, m], labels=[0, 1, 2, 3]) for m in range(2)]
            seen.append((run.loss(), sum(losses)))

    Spy(fitted).fit(*digits)
    assert seen[0][0] == pytest.approx(seen[0][1], rel=1e-4)


# docs: new pruner
class RandomChannelPruner(BasePruner):
    """Remove channels by lot: what other criteria should beat."""

    def _rank(self, run):
        groups = find_groups(run.network)
        lots = torch.Generator().manual_seed(run.seed)
        return rank_units(groups, [torch.rand(g.size, generator=lots) for g in groups])

    def _without(self, network, units):
        network = copy.deepcopy(network)
        for group, kept in group_units(units):
            keep_channels(network, group, kept)
        return network


# docs: end


def test_a_pruner_of_your_own(fitted, digits):
    pruner = RandomChannelPruner(fitted, target=0.3, **QUICK).fit(*digits)
    assert pruner.estimator_.n_parameters_ <= 0.7 * fitted.n_parameters_
    assert clone(pruner).get_params()["target"] == 0.3
