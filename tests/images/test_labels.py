"""Bad labels, weights of images and of classes, end to end."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import DataConversionWarning

from sklearn_rrr.images.labels import encode_labels


def assert_refused(estimator, X, y, message, kind=ValueError):
    """Assert that fit refuses, before any epoch."""
    with pytest.raises(kind, match=message):
        estimator.fit(X, y)
    assert not hasattr(estimator, "module_")


def test_labels_of_variable_length_strings():  # fault 72
    y = np.array(["ab", "c", "ab"], dtype=np.dtypes.StringDType())
    classes, labels = encode_labels(y)
    assert classes.tolist() == ["ab", "c"]
    assert classes.dtype.kind == "U"
    assert labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, "a", 1], "labels of several types"),
        (np.array([1, "a", 1], dtype=object), "labels of several types"),
        ([[0], [1, 2], [0]], "lists of different lengths"),
        ([[0, 1], [1, 1], [0, 1]], "1d array"),
        ([0, None, 1], "NaN or None"),
    ],
)
def test_labels_that_cannot_be_used(y, message):  # fault 72
    with pytest.raises(ValueError, match=message):
        encode_labels(y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: None, "requires y to be passed, but the target y is None"),  # fault 15
        (lambda y: y[:-1], r"inconsistent numbers of samples: \[120, 119\]"),  # fault 16
        (lambda y: np.where(y == 1, np.nan, y), "y contains NaN"),  # fault 17
        (lambda y: np.where(y == 1, None, y), "y contains NaN or None; every image needs"),
        (lambda y: pd.Series(np.where(y == 1, None, "a")), "y contains NaN or None"),
        (lambda y: pd.array(y, dtype="Int64") + pd.NA, "NaN|NA"),
        (lambda y: y + 0.5, "Unknown label type"),  # fault 18
        (lambda y: np.stack([y, y], 1), r"y should be a 1d array"),
        (lambda y: 3, r"y should be a 1d array"),
    ],
)
def test_bad_labels(small, digits, change, message):
    X, y = digits
    assert_refused(small(), X, change(y), message)


def test_one_class(small, digits):  # fault 19
    X, _ = digits
    fitted = small().fit(X, ["only"] * 120)
    np.testing.assert_array_equal(fitted.predict(X[:5]), ["only"] * 5)
    np.testing.assert_array_equal(fitted.predict_proba(X[:5]), np.ones((5, 1)))


def test_class_of_one_image(small, digits):  # fault 20
    X, y = digits
    with pytest.warns(UserWarning, match="not stratified: it takes 24 of 120 images.* only 1"):
        fitted = small(validation_fraction=0.2).fit(X, np.where(np.arange(120) == 7, 9, y))
    assert fitted.classes_.tolist() == [0, 1, 2, 3, 9]
    assert len(fitted.history_["valid_loss"]) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["zero", "one", "two", "three"],
        [-7, 100, 3, 2],
        [10**12, -(10**12), 0, 1],
        [False, True, False, True],
        pd.Categorical(["d", "b", "c", "a"]),
        np.array(["a", "b", "c", "d"], dtype=object),
        np.array([4.0, 3.0, 2.0, 1.0]),
    ],
    ids=["str", "gapped", "large", "bool", "category", "object", "float"],
)
def test_labels_round_trip(small, digits, names):  # fault 21
    X, y = digits
    labels = pd.Series(names)[y]
    classes, codes = np.unique(np.asarray(labels), return_inverse=True)
    fitted = small().fit(X, labels)
    assert fitted.classes_.tolist() == classes.tolist() == sorted(set(names))
    predicted = fitted.predict(X)
    assert predicted.dtype == classes.dtype
    assert len(np.unique(predicted)) > 1
    np.testing.assert_array_equal(predicted, classes[small().fit(X, codes).predict(X)])


@pytest.mark.parametrize("make", [list, torch.tensor, pd.Series], ids=["list", "tensor", "Series"])
def test_containers_of_labels(small, digits, make):  # fault 21
    X, y = digits
    expected = small(max_epochs=1).fit(X, y).predict(X)
    np.testing.assert_array_equal(small(max_epochs=1).fit(X, make(y)).predict(X), expected)


def test_column_of_labels(small, digits):  # fault 22
    X, y = digits
    with pytest.warns(DataConversionWarning, match="column-vector"):
        fitted = small(max_epochs=1).fit(X, y[:, None])
    assert fitted.predict(X).shape == (120,)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(120), "All images have zero weight"),  # fault 23
        (np.full(120, -1.0), "must not be negative; got -1. Use zero"),
        (np.full(120, np.nan), "sample_weight contains NaN"),
        (np.full(120, np.inf), "sample_weight contains infinity"),
        (np.ones(119), r"must have the shape \(120,\); got \(119,\)"),
        (np.ones((120, 1)), r"must have the shape \(120,\); got \(120, 1\)"),
        (["heavy"] * 120, "could not convert string to float"),
    ],
)
def test_bad_sample_weight(small, digits, weight, message):
    estimator = small()
    with pytest.raises(ValueError, match=message):
        estimator.fit(*digits, sample_weight=weight)
    assert not hasattr(estimator, "module_")


@pytest.mark.parametrize(
    ("weight", "message", "kind"),
    [
        (
            {0: 1, 1: 1, 3: 1},
            r"lacks the classes \[2\]; give each class a weight",
            ValueError,
        ),  # 24
        ({}, r"lacks the classes \[0, 1, 2, 3\]", ValueError),
        (dict.fromkeys(range(4), -1), r"class_weight\[0\]` must be a number in \[0", ValueError),
        ("balance", "must be one of 'balanced'", ValueError),
        (2, 'must be "balanced", a dict or None; got 2', TypeError),
    ],
)
def test_bad_class_weight(small, digits, weight, message, kind):  # fault 24
    assert_refused(small(class_weight=weight), *digits, message, kind)
