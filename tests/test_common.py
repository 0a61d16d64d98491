"""scikit-learn's common checks, their twins on pictures, and the tools users combine."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate, learning_curve
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from sklearn_rrr import (
    BackboneFeatures,
    BasisScalingPruner,
    BlockPruner,
    BlockSelector,
    ChannelPruner,
    ElementPruner,
    FineTuning,
    FineTuningClassifier,
    LastLayerClassifier,
    NetTailorClassifier,
    ProgressiveKernelPruner,
    RRRNetClassifier,
    SnapshotEnsemble,
)

REASON = "Mini-batches: a repeated image and one of weight 2 are not seen in the same batches."
EXPECTED = {"check_sample_weight_equivalence_on_dense_data": REASON}
SMALL = {"weights": None, "n_branches": 2, "image_size": 16}
VECTORS = "ignore:Rows of .* features do not form a square"


@pytest.mark.filterwarnings(VECTORS, "ignore:The validation split", "ignore:.*with another label")
@parametrize_with_checks(
    [
        RRRNetClassifier(
            "tiny",
            **SMALL,
            max_epochs=10,
            fine_tuning=FineTuning(learning_rate=0.01, augmentation="none", head_init="ridge"),
            precision="fp32",
        ),
        BackboneFeatures("tiny", weights=None, image_size=16),
    ],
    expected_failed_checks=lambda estimator: EXPECTED,
)
def test_common_checks(estimator, check):
    check(estimator)


TINY = {**SMALL, "max_epochs": 20, "precision": "fp32"}
TINY |= {"fine_tuning": FineTuning(learning_rate=0.01, augmentation="none")}
del TINY["n_branches"]
OTHERS = {
    "default": RRRNetClassifier(),
    "snapshot": RRRNetClassifier("tiny", **TINY, n_branches=2, ensemble="snapshot"),
    "last layer": LastLayerClassifier("tiny", **TINY),
    "fine-tuning": FineTuningClassifier("tiny", **TINY),
    "tailor": NetTailorClassifier("tiny", **TINY, n_removed=2, tolerance=1.0),
    "selector": BlockSelector(RRRNetClassifier("tiny", **TINY), max_blocks=5, tolerance=None),
    "channels": ChannelPruner(RRRNetClassifier("tiny", **TINY), target=0.2, n_steps=2),
    "basis": BasisScalingPruner(RRRNetClassifier("tiny", **TINY), target=0.1, n_steps=2),
    "blocks": BlockPruner(RRRNetClassifier("tiny", blocks=None, **TINY), target=0.05, n_steps=1),
    "elements": ElementPruner(RRRNetClassifier("tiny", **TINY), target=0.2, n_steps=2),
    "progressive": ProgressiveKernelPruner(
        RRRNetClassifier("tiny", **TINY, n_branches=1), amount=0.2, epochs_per_step=1
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_common_checks_of_others(name):
    results = check_estimator(OTHERS[name], expected_failed_checks=EXPECTED, on_skip=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []


# ------------------------------------------------------------- twins on 4-D arrays


@pytest.fixture
def pictures():
    """Pictures (n, 12, 12, 3) whose bright side is the class, and the classes."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = rng.uniform(0, 0.4, (60, 12, 12, 3)).astype(np.float32)
    for i, label in enumerate(y):
        X[i, :, 4 * label : 4 * label + 4] += 0.5
    return X, y


@pytest.fixture
def clf(small):
    return small(max_epochs=12, learning_rate=0.01)


def test_twin_of_classifiers_train(clf, pictures):
    X, y = pictures
    assert clf.fit(X, y).score(X, y) > 0.83
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.fit(X, y[:-1])


def test_twin_of_sample_order_invariance(clf, pictures):
    X, y = pictures
    order = np.random.default_rng(1).permutation(len(X))
    proba = clf.fit(X, y).predict_proba
    np.testing.assert_allclose(proba(X)[order], proba(X[order]), atol=1e-9)


def test_twin_of_subset_invariance(clf, pictures):
    X, y = pictures
    proba = clf.fit(X, y).predict_proba
    singly = np.concatenate([proba(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(proba(X), singly, atol=1e-7)


def test_twin_of_fit_idempotent(clf, pictures):
    X, y = pictures
    first, second = (clf.fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_twin_of_dict_unchanged(clf, pictures):
    X, y = pictures
    clf.fit(X, y)
    before = dict(vars(clf))
    clf.predict(X)
    clf.predict_proba(X)
    assert vars(clf) == before


def test_twin_of_overwrite_params(clf, pictures):
    parameters = clone(clf).get_params()
    assert clf.fit(*pictures).get_params() == parameters


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int64])
def test_twin_of_dtypes(clf, pictures, dtype):
    X, y = pictures
    X = (X * 255).round().clip(0, 255).astype(np.uint8)
    expected = clf.fit(X, y).predict(X)
    other = (X / 255).astype(dtype) if dtype in (np.float64, np.float16) else X.astype(dtype)
    agreement = clone(clf).fit(other, y).predict(other) == expected
    assert agreement.mean() > 0.95


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_twin_of_nan_inf(clf, pictures, bad):
    X, y = pictures
    X = X.copy()
    X[3, 2, 1, 0] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        clf.fit(X, y)
    clf.fit(*pictures)
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        clf.predict(X)


def test_twin_of_one_label(clf, pictures):  # fault 19
    X, _ = pictures
    clf.fit(X, np.full(len(X), "only"))
    assert set(clf.predict(X)) == {"only"}
    np.testing.assert_array_equal(clf.predict_proba(X), np.ones((len(X), 1)))


def test_twin_of_one_sample(clf, pictures):
    X, y = pictures
    assert clf.fit(X[:1], y[:1]).predict(X[:1]).tolist() == [0]


@pytest.mark.parametrize("kind", [list, pd.Series, np.asarray])
def test_twin_of_sample_weight_types(clf, pictures, kind):
    X, y = pictures
    weighted = clf.fit(X, y, sample_weight=kind([1.0] * len(y))).predict_proba(X)
    np.testing.assert_array_equal(weighted, clf.fit(X, y).predict_proba(X))


def test_twin_of_class_weight(clf, pictures):
    X, y = pictures
    clf.set_params(class_weight={0: 1000, 1: 0.0001, 2: 0.0001})
    assert (clf.fit(X, y).predict(X) == 0).mean() > 0.87


def test_twin_of_unfitted(clf, pictures):
    for method in ("predict", "predict_proba", "score"):
        with pytest.raises(NotFittedError):
            getattr(clf, method)(*(pictures if method == "score" else pictures[:1]))


def test_twin_of_pickle(clf, pictures):
    X, y = pictures
    expected = clf.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(X), expected)


def test_dataframe_column_names_consistency(small, digits):
    X, y = digits
    frame = pd.DataFrame(X.reshape(len(X), -1), columns=[f"pixel{i}" for i in range(64)])
    clf = small().fit(frame, y)
    assert clf.feature_names_in_.tolist() == frame.columns.tolist()
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame[frame.columns[::-1]])
    clf.fit(X, y)
    assert not hasattr(clf, "feature_names_in_")


# ------------------------------------------------------------------ what users combine


FORMS = ["array", *(pytest.param(form, marks=pytest.mark.slow) for form in ("rows", "paths"))]


@pytest.fixture(params=FORMS)
def data(request, digits, digit_paths):
    """The same 40 digits in three forms."""
    X, y = digits[0][:40], digits[1][:40]
    if request.param == "rows":
        X = X.reshape(40, 64)
    return {"array": X[..., None], "rows": X, "paths": digit_paths[0]}[request.param], y


def quick():
    """A small estimator of the registry that worker processes know, too."""
    tuning = FineTuning(augmentation="none")
    return RRRNetClassifier(**SMALL, fine_tuning=tuning, max_epochs=2, random_state=0)


@pytest.mark.slow
def test_grid_search_in_two_processes(data):
    grid = {
        "blocks": [(1, 1, 1, 1), (2, 1, 1, 1)],
        "n_branches": [1, 2],
        "fine_tuning__split": ["paper", "aligned"],
    }
    search = GridSearchCV(quick(), grid, cv=2, n_jobs=2, error_score="raise").fit(*data)
    assert len(search.cv_results_["params"]) == 8
    assert search.best_estimator_.blocks_ == search.best_params_["blocks"]
    assert search.predict(data[0]).shape == (40,)


@pytest.mark.slow
def test_grid_over_settings_of_the_training_and_the_ensemble(small, digits):
    clf = small(ensemble=SnapshotEnsemble(), max_epochs=1)
    grid = {
        "fine_tuning__learning_rate": [0.01, 0.001],
        "blocks": [(1, 1, 1, 1), (2, 1, 1, 1)],
        "n_branches": [1, 2],
        "ensemble__n_cycles": [2, 3],
    }
    search = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(*digits)
    assert len(search.cv_results_["params"]) == 16
    best, asked = search.best_estimator_, search.best_params_
    assert best.fine_tuning_.learning_rate == asked["fine_tuning__learning_rate"]
    assert best.ensemble.n_cycles == asked["ensemble__n_cycles"]


def test_cross_validate(data):
    scores = cross_validate(
        quick(), *data, cv=2, scoring=["accuracy", "neg_log_loss", "roc_auc_ovr"]
    )
    assert (scores["test_neg_log_loss"] < 0).all()
    assert ((scores["test_roc_auc_ovr"] >= 0) & (scores["test_roc_auc_ovr"] <= 1)).all()


def test_learning_curve(data):
    sizes, train_scores, _ = learning_curve(quick(), *data, cv=2, train_sizes=[10, 20])
    assert sizes.tolist() == [10, 20]
    assert train_scores.shape == (2, 2)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda clf: make_pipeline(FunctionTransformer(), clf),
        lambda clf: CalibratedClassifierCV(clf, cv=2),
        lambda clf: VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft"),
        lambda clf: StackingClassifier([("a", clf)], LogisticRegression(), cv=2),
        lambda clf: OneVsRestClassifier(clf),
    ],
    ids=["pipeline", "calibrated", "voting", "stacking", "one_vs_rest"],
)
def test_meta_estimators(data, wrap):
    X, y = data
    probabilities = wrap(quick()).fit(X, y).predict_proba(X)
    assert probabilities.shape == (40, 4)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_frozen_estimator_calibrates(data):
    X, y = data
    frozen = FrozenEstimator(quick().fit(X, y))
    calibrated = CalibratedClassifierCV(frozen, cv=2).fit(X, y)
    assert calibrated.predict_proba(X).shape == (40, 4)
