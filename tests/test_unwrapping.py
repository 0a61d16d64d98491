"""Unwrapping: the classifier inside pipelines, searches, pruners, and its preprocessing."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from sklearn_rrr import (
    BlockSelector,
    ElementPruner,
    FineTuning,
    MultiTaskStore,
    NetTailorClassifier,
    RRRNetClassifier,
    cost_report,
    count_macs,
    count_parameters,
    export_onnx,
    load,
    load_task,
    measure_latency,
    save,
    save_task,
)
from sklearn_rrr._unwrapping import preprocess, unwrap
from sklearn_rrr.plotting import (
    BlockSelectionDisplay,
    BranchAgreementDisplay,
    CostRadarDisplay,
    KernelMosaicDisplay,
    ReliabilityDisplay,
    TrainingCurveDisplay,
)


def invert(X):
    return 255 - X


@pytest.fixture(scope="module")
def fitted(digits):
    clf = RRRNetClassifier(
        "tiny",
        weights=None,
        n_branches=2,
        max_epochs=2,
        fine_tuning=FineTuning(augmentation="none"),
        random_state=0,
    )
    return clf.fit(*digits)


@pytest.fixture(scope="module")
def inverted(fitted):
    """A fitted pipeline, in a search, that inverts images before the classifier."""
    pipeline = make_pipeline("passthrough", FunctionTransformer(invert), fitted)
    return nest(pipeline)


def nest(estimator):
    """Return a frozen estimator in a search that looks fitted."""
    search = GridSearchCV(estimator, {})
    search.best_estimator_ = FrozenEstimator(estimator)
    search.refit, search.multimetric_, search.scorer_ = True, False, None
    return search


@pytest.fixture(scope="module")
def wrapped(fitted, digits):
    """Return the classifier inside and what is around it, fitted."""
    still = {"target": 0.0, "n_steps": 1, "epochs_per_step": 0}
    pruner = ElementPruner(FrozenEstimator(fitted), **still).fit(*digits)
    search = GridSearchCV(clone(fitted), {"max_epochs": [1]}, cv=2).fit(*digits)
    selector = BlockSelector(clone(fitted), max_blocks=4, epochs_per_step=1).fit(*digits)
    return {
        "itself": (fitted, fitted),
        "frozen": (fitted, FrozenEstimator(FrozenEstimator(fitted))),
        "pipeline": (fitted, make_pipeline("passthrough", fitted)),
        "search": (search.best_estimator_, search),
        "selector": (selector.estimator_, selector),
        "pruner": (pruner.estimator_, pruner),
        "all": (selector.estimator_, nest(make_pipeline(FrozenEstimator(selector)))),
    }


NAMES = ("itself", "frozen", "pipeline", "search", "selector", "pruner", "all")


@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_inside_is_costed_and_saved(wrapped, digits, name, tmp_path):
    inside, outside = wrapped[name]
    assert unwrap(outside, "module_") == (inside, [])
    assert count_parameters(outside) == inside.n_parameters_
    assert count_macs(outside) == count_macs(inside)
    assert measure_latency(outside, repeats=1).repeats == 1
    save(outside, tmp_path / "a")
    expected = inside.predict_proba(digits[0])
    np.testing.assert_array_equal(load(tmp_path / "a").predict_proba(digits[0]), expected)
    display = TrainingCurveDisplay.from_estimator(outside)
    assert display.history is inside.history_


def test_a_report_and_a_radar_of_wrapped_classifiers(wrapped):
    models = {name: outside for name, (_, outside) in wrapped.items()}
    report = cost_report(models, batch_sizes=(1,), repeats=1)
    assert report.n_parameters.tolist() == [inside.n_parameters_ for inside, _ in wrapped.values()]
    display = CostRadarDisplay.from_estimators(models, repeats=1)
    assert list(display.shares.index) == list(NAMES)


def test_preprocessing_is_applied_by_displays(inverted, fitted, digits):
    X, y = digits
    found, steps = unwrap(inverted, "module_")
    assert found is fitted
    np.testing.assert_array_equal(preprocess(steps, X), 255 - X)
    ours = ReliabilityDisplay.from_estimator(inverted, X, y)
    expected = ReliabilityDisplay.from_estimator(fitted, 255 - X, y)
    np.testing.assert_array_equal(ours.counts, expected.counts)
    assert ours.branch_expected_calibration_error == expected.branch_expected_calibration_error
    np.testing.assert_array_equal(
        BranchAgreementDisplay.from_estimator(inverted, X).agreement,
        BranchAgreementDisplay.from_estimator(fitted, 255 - X).agreement,
    )
    np.testing.assert_array_equal(
        KernelMosaicDisplay.from_estimator(inverted, X[:3], "stump.0").activations,
        KernelMosaicDisplay.from_estimator(fitted, 255 - X[:3], "stump.0").activations,
    )
    assert count_parameters(inverted) == fitted.n_parameters_


def test_a_file_would_lack_preprocessing(inverted, tmp_path):
    for write in (save, export_onnx, save_task):
        with pytest.raises(ValueError, match=r"steps \['functiontransformer'\] would not be in"):
            write(inverted, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_reliability_of_other_classifiers_in_a_pipeline():
    X, y = np.arange(4.0)[:, None], [0, 0, 1, 1]
    pipeline = make_pipeline(FunctionTransformer(np.negative), LogisticRegression()).fit(X, y)
    display = ReliabilityDisplay.from_estimator(pipeline, X, y)
    expected = ReliabilityDisplay.from_predictions(y, pipeline.predict_proba(X))
    assert display.expected_calibration_error == expected.expected_calibration_error
    assert display.branch_expected_calibration_error is None


def test_a_selector_in_a_search_is_drawn(wrapped):
    selector, (_, search) = wrapped["selector"][1], wrapped["all"]
    display = BlockSelectionDisplay.from_estimator(search)
    assert display.results is selector.results_


def test_a_tailored_classifier_in_a_pipeline(digits, weights, tmp_path):
    X, y = digits
    settings = {"max_epochs": 1, "random_state": 0}
    settings |= {"fine_tuning": FineTuning(augmentation="none")}
    clf = NetTailorClassifier("tiny", weights=weights, n_removed=2, **settings)
    pipeline = make_pipeline("passthrough", clf).fit(X, y)
    expected = clf.predict_proba(X)
    save_task(pipeline, tmp_path / "a")
    np.testing.assert_allclose(load_task(tmp_path / "a", weights).predict_proba(X), expected)
    store = MultiTaskStore(tmp_path / "store", "tiny", weights).add("digits", pipeline)
    np.testing.assert_allclose(store.load("digits").predict_proba(X), expected)


@pytest.mark.parametrize("function", [count_parameters, TrainingCurveDisplay.from_estimator])
def test_wrong_and_unfitted_estimators(function, small):
    for unfitted in (
        small(),
        make_pipeline("passthrough", small()),
        GridSearchCV(small(), {}),
        BlockSelector(small()),
        FrozenEstimator(small()),
        nest(small()),
    ):
        with pytest.raises(NotFittedError):
            function(unfitted)
    other = LinearSVC().fit([[0], [1]], [0, 1])
    for wrong, got in (
        (other, "a LinearSVC."),
        (nest(make_pipeline(other)), "a LinearSVC inside a GridSearchCV."),
        (Pipeline([("a", FrozenEstimator(other)), ("b", "passthrough")]), "a str inside a Pipe"),
        ("model", "a str."),
        (None, "a NoneType."),
    ):
        with pytest.raises(TypeError, match=f"must be .*a fitted image classifier .*; got {got}"):
            function(wrong)
