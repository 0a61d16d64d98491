"""Probabilities of single branches, and the entropies made of them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from sklearn_rrr import FineTuning, OnnxClassifier, RRRNetClassifier, export_onnx
from sklearn_rrr.classifiers.uncertainty import decompose_uncertainty

COLUMNS = ["total_entropy", "expected_entropy", "mutual_information", "vote_agreement"]


def test_entropies_by_hand():
    sure, other, unsure = [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]
    P = np.array([[sure, sure], [sure, other], [unsure, unsure]])
    table = decompose_uncertainty(P)
    assert list(table) == COLUMNS
    ln2 = np.log(2)
    np.testing.assert_allclose(table["total_entropy"], [0, ln2, ln2], atol=1e-12)
    np.testing.assert_allclose(table["expected_entropy"], [0, 0, ln2], atol=1e-12)
    np.testing.assert_allclose(table["mutual_information"], [0, ln2, 0], atol=1e-12)
    np.testing.assert_allclose(table["vote_agreement"], [1, 0.5, 1])


def test_the_parts_add_up():
    P = np.random.default_rng(0).dirichlet(np.ones(5), (30, 7))  # (n, M, K)
    table = decompose_uncertainty(P)
    np.testing.assert_allclose(table["total_entropy"], entropy(P.mean(1), axis=1))
    np.testing.assert_allclose(table["expected_entropy"], entropy(P, axis=2).mean(1))
    total = table["expected_entropy"] + table["mutual_information"]
    np.testing.assert_allclose(table["total_entropy"], total)
    modal = [np.bincount(votes).max() / 7 for votes in P.argmax(2)]
    np.testing.assert_allclose(table["vote_agreement"], modal)


def test_of_a_fitted_classifier(small, digits):
    X, y = digits
    clf = small(n_branches=4).fit(X, y)
    P = clf.predict_branches(X)
    assert P.shape == (len(X), 4, 4)
    np.testing.assert_allclose(P.sum(2), 1)
    np.testing.assert_allclose(P.mean(1), clf.predict_proba(X), atol=1e-12)
    table = clf.predict_uncertainty(X)
    assert list(table) == COLUMNS
    assert table.mutual_information.ge(0).all()
    assert table.vote_agreement.between(1 / 4, 1).all()


@pytest.mark.slow
def test_of_an_exported_classifier(small, digits, tmp_path):
    X, y = digits
    clf = small(n_branches=3).fit(X, y)
    export_onnx(clf, tmp_path / "a.onnx")
    table = OnnxClassifier(tmp_path / "a.onnx").predict_uncertainty(X)
    pd.testing.assert_frame_equal(table, clf.predict_uncertainty(X), atol=1e-4)


def test_one_branch_cannot_disagree(small, digits):
    table = small(n_branches=1).fit(*digits).predict_uncertainty(digits[0])
    np.testing.assert_allclose(table.mutual_information, 0, atol=1e-12)
    assert (table.vote_agreement == 1).all()


def test_the_index_of_a_series_is_kept(small, digit_paths):
    paths, y = digit_paths
    clf = small().fit(paths, y)
    series = pd.Series(paths, index=[f"image {i}" for i in range(len(paths))])
    assert clf.predict_uncertainty(series).index.equals(series.index)
    assert clf.predict_uncertainty(paths).index.equals(pd.RangeIndex(len(paths)))


def test_unfitted(small, digits):
    for method in ("predict_branches", "predict_uncertainty"):
        with pytest.raises(NotFittedError):
            getattr(small(), method)(digits[0])


@pytest.mark.slow
def test_branches_disagree_about_a_class_never_seen():
    """Digits with a class left out: AUROC of the mutual information, mean over five seeds."""
    X, y = load_digits(return_X_y=True)
    scores = []
    for seed, left_out in enumerate((8, 1, 4, 6, 3)):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        train = order[y[order] != left_out][:300]
        test = np.setdiff1d(order, train)
        clf = RRRNetClassifier(
            "synth50",
            blocks=(1, 1, 1, 1),
            n_branches=8,
            image_size=32,
            max_epochs=15,
            fine_tuning=FineTuning(augmentation="none"),
            random_state=seed,
        )
        clf.fit(X[train] / 16, y[train])
        unknown = clf.predict_uncertainty(X[test] / 16).mutual_information
        scores.append(roc_auc_score(y[test] == left_out, unknown))
    assert np.mean(scores) > 0.75
