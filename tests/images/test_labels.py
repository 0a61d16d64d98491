"""Bad labels, weights of images and of classes, end to end."""

import datetime
import decimal
import enum
import re

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.exceptions import DataConversionWarning

from sklearn_rrr.images.labels import encode_labels, weigh_images


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


def test_members_of_an_enum_of_strings():
    kinds = enum.Enum("Kind", {"CAT": "a", "DOG": "bc"}, type=str)
    classes, labels = encode_labels([kinds.DOG, kinds.CAT, "bc"])
    assert classes.tolist() == ["a", "bc"]
    assert labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, "a", 1], "labels of several types"),
        (np.array([1, "a", 1], dtype=object), "labels of several types"),
        (["a", b"a", "b"], "labels of several types"),
        ([[0], [1, 2], [0]], "lists of different lengths"),
        ([[0, 1], [1, 1], [0, 1]], "1d array"),
        ([0, None, 1], "NaN or None"),
        (np.array(["a", np.nan], np.dtypes.StringDType(na_object=np.nan)), "NaN or None"),
        (np.ma.masked_array([0, 1], mask=[0, 1]), "masked values; every image"),
        ([np.ma.masked, 1], "masked values; every image"),
        (np.array([(1, 2)], [("a", int), ("b", int)]), r"got records of \('a', 'b'\)"),
        (list(enum.Enum("Kind", "a b")), "labels of the type Kind, .*; use strings"),
        ([datetime.date(2026, 1, 1)], "labels of the type date, .*; use strings"),
        ([decimal.Decimal(1)], "labels of the type Decimal, .*; use strings"),
        (pd.Series(pd.to_datetime(["2026-01-01"], utc=True)), "type Timestamp.*; use strings"),
        ([2**70, 1], "type int beyond 64 bits.*; use strings"),
        ([2**53 + 1, 0.0], "too large to be exact"),  # else 2**53
        ([-1, 2**63], "too large to be exact"),
        (["a", "a\0"], "end in a null character"),
        (np.array([np.datetime64("NaT")]), "NaN or None"),
        (pd.array([1, None], dtype="Int64"), "NaN or None"),
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
        pd.array([4, 3, 2, 1], dtype="Int64"),
        pd.array([False, True, False, True], dtype="boolean"),
        np.array([4, 3, 2, 1], dtype=object),
        [2**53 + 1, 2**53, 0, 1],
    ],
    ids=[
        *("str", "gapped", "large", "bool", "category", "object", "float"),
        *("nullable", "nullable bool", "int objects", "near 2**53"),
    ],
)
def test_labels_round_trip(small, digits, names):  # fault 21
    X, y = digits
    labels = pd.Series(names)[y]
    classes, codes = np.unique(np.array(labels.tolist()), return_inverse=True)
    fitted = small().fit(X, labels)
    assert fitted.classes_.tolist() == classes.tolist() == sorted(set(names))
    predicted = fitted.predict(X)
    assert predicted.dtype.kind in ("OU" if classes.dtype.kind == "U" else classes.dtype.kind)
    assert len(np.unique(predicted)) > 1
    np.testing.assert_array_equal(predicted, classes[small().fit(X, codes).predict(X)])


@pytest.mark.parametrize(
    "make",
    [
        list,
        torch.tensor,
        pd.Series,
        lambda y: torch.tensor(y * 1.0, requires_grad=True),
        lambda y: torch.tensor(y).bfloat16(),
        lambda y: list(torch.tensor(y * 1.0, requires_grad=True)),
    ],
    ids=["list", "tensor", "Series", "with gradient", "bfloat16", "list of tensors"],
)
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


def test_labels_on_no_device(small, digits):
    X, y = digits
    with pytest.raises(TypeError, match="y is a tensor of the kind 'meta'"):
        small().fit(X, torch.tensor(y).to("meta"))
    with pytest.raises(TypeError, match="sample_weight is a tensor of the kind 'meta'"):
        small().fit(X, y, sample_weight=torch.ones(120, device="meta"))


def test_labels_of_a_dataset_are_not_converted(small, digits, picture_dataset):
    X, y = digits[0][:40], digits[1][:40]
    with pytest.raises(ValueError, match="labels of several types"):
        small().fit(picture_dataset(X, [0, "a"] * 20))
    labels = list(torch.tensor(y * 1.0, requires_grad=True))
    assert small(max_epochs=1).fit(picture_dataset(X, labels)).classes_.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("classes", "message", "kind"),
    [
        ([], "`classes` is empty", ValueError),
        ([0, None, 2], "`classes` contains NaN or None", ValueError),
        ([0, 1, 2, np.nan], "`classes` contains NaN or None", ValueError),
        ({0, 1, 2, 3}, "`classes` must be a list or an array; got a set", TypeError),
        ([0, "a", 2], "`classes` contains labels of several types", ValueError),
        ([0, 1, 2.5, 3], "`classes` must be whole numbers or strings", ValueError),
        (["0", "1", "2", "3"], "which are not in `classes` ['0', '1', '2', '3']", ValueError),
        ([0, 1, 2], "y has the labels [3], which are not in `classes`", ValueError),
    ],
)
def test_bad_classes(small, digits, classes, message, kind):
    with pytest.raises(kind, match=re.escape(message)):
        small().partial_fit(*digits, classes=classes)


def test_bad_classes_of_a_later_call(small, digits):
    fitted = small().partial_fit(*digits, classes=torch.arange(4))
    with pytest.raises(TypeError, match="got a set"):
        fitted.partial_fit(*digits, classes={0, 1, 2, 3})
    assert fitted.partial_fit(*digits, classes=[3, 2, 1, 0]).classes_.tolist() == [0, 1, 2, 3]


# ------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("factor", [1e308, 1e-320, 2.0**-1000])
def test_only_ratios_of_weights_matter(small, digits, factor):
    expected = small(max_epochs=1).fit(*digits).predict_proba(digits[0])
    fitted = small(max_epochs=1).fit(*digits, sample_weight=np.full(120, factor))
    np.testing.assert_array_equal(fitted.predict_proba(digits[0]), expected)
    fitted = small(max_epochs=1, class_weight=dict.fromkeys(range(4), factor)).fit(*digits)
    np.testing.assert_array_equal(fitted.predict_proba(digits[0]), expected)


def test_huge_weights_of_images_and_classes_together():
    classes, labels = np.arange(2), np.array([0, 1, 1])
    weights = weigh_images(classes, labels, [1e308, 1e307, 0], {0: 1e308, 1: 1e308})
    np.testing.assert_allclose(weights / weights.max(), [1, 0.1, 0])


@pytest.mark.parametrize("weight", [[1e300, 1, 1], [1, 1e-50, 1e-50]])
def test_weights_that_float32_would_lose(small, digits, weight):
    X, y = digits
    message = r"weights of \d+ image\(s\) are positive, but .* lost in float32"
    with pytest.raises(ValueError, match=message):
        small().fit(X, y, sample_weight=np.resize(weight, 120))
    with pytest.raises(ValueError, match=message):
        small(class_weight=dict(enumerate([*weight, 1]))).fit(X, y)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_are_finite_whatever_scikit_learn_assumes(small, digits, value):
    weight = np.where(digits[1] == 1, value, 1)
    with sklearn.config_context(assume_finite=True):
        with pytest.raises(ValueError, match="sample_weight contains NaN or infinity"):
            small().fit(*digits, sample_weight=weight)
        with pytest.raises(ValueError, match=r"NaN or None|infinite"):
            small().fit(digits[0], weight)


def test_masked_weights(small, digits):
    weight = np.ma.masked_array(np.ones(120), mask=np.arange(120) > 99)
    with pytest.raises(ValueError, match="sample_weight has masked values"):
        small().fit(*digits, sample_weight=weight)


def test_weights_with_gradient(small, digits):
    expected = small(max_epochs=1).fit(*digits).predict_proba(digits[0])
    weight = torch.full((120,), 2.0, requires_grad=True)
    fitted = small(max_epochs=1).fit(*digits, sample_weight=weight)
    np.testing.assert_array_equal(fitted.predict_proba(digits[0]), expected)
