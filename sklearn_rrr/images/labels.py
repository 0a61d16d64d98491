"""Check, encode and split labels and weights."""

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, column_or_1d, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from sklearn_rrr._validation import check_choice, check_real

MIXED = "y contains labels of several types that cannot be ordered; use strings or numbers only."


def encode_labels(y, classes=None):
    """Encode labels as 0 … K - 1.

    Parameters
    ----------
    y : array-like of shape (n,)
    classes : array-like or None, default=None
        All possible labels; None uses the labels in `y`.

    Returns
    -------
    classes : ndarray of shape (K,)
        Sorted labels.
    labels : ndarray of shape (n,)
        Indices into `classes`.

    Raises
    ------
    ValueError
        If labels are missing, continuous or not in `classes`.
    """
    y = column_or_1d(_as_labels(y), warn=True)
    if y.dtype.kind in "fc":
        check_array(y, ensure_2d=False, dtype=None, input_name="y")
    if pd.isna(y).any():
        raise ValueError("Input y contains NaN or None; every image needs a label.")
    try:
        found = np.unique(y, return_inverse=True)
    except TypeError as error:
        raise ValueError(MIXED) from error
    check_classification_targets(y)
    if classes is None:
        return found
    classes = np.unique(classes)
    labels = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    if len(unknown := np.unique(y[classes[labels] != y])):
        raise ValueError(
            f"y has the labels {unknown.tolist()}, which are not in `classes` {classes.tolist()}."
        )
    return classes, labels


def _as_labels(y):
    """Return labels as an array, but refuse what NumPy would silently make strings of."""
    if isinstance(y, (list, tuple)):
        single = [label for label in y if not pd.api.types.is_list_like(label)]
        kinds = {isinstance(label, (str, bytes)) for label in single}
        if len(kinds) > 1 and not any(label is None for label in y):
            raise ValueError(MIXED)
        try:
            y = np.asarray(y)
        except ValueError as error:
            raise ValueError(
                "y must contain one label for each image; got lists of different lengths."
            ) from error
    is_variable = isinstance(getattr(y, "dtype", None), np.dtypes.StringDType)
    return np.array(y.tolist()) if is_variable else y


def weigh_images(classes, labels, sample_weight=None, class_weight=None):
    """Return the weight of each image, (n,): sample weight times class weight.

    Raises
    ------
    ValueError, TypeError
        If weights are negative, not finite, of the wrong length or type, or all zero, or if
        a class has no weight.
    """
    weights = np.ones(len(labels))
    if sample_weight is not None:
        weights = check_array(
            sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
        )
        if weights.shape != (len(labels),):
            raise ValueError(
                f"`sample_weight` must have the shape ({len(labels)},); got {weights.shape}."
            )
        if (weights < 0).any():
            raise ValueError(
                f"`sample_weight` must not be negative; got {weights.min():g}. Use zero to leave "
                "an image out."
            )
    if class_weight is not None:
        weights = weights * _class_weights(classes, labels, class_weight)
    if not weights.any():
        raise ValueError("All images have zero weight; give at least one a positive weight.")
    return weights


def _class_weights(classes, labels, class_weight):
    if isinstance(class_weight, str):
        check_choice("class_weight", class_weight, ("balanced",), "Or use a dict or None.")
        return compute_sample_weight("balanced", classes[labels])
    if not isinstance(class_weight, dict):
        raise TypeError(f'`class_weight` must be "balanced", a dict or None; got {class_weight!r}.')
    if missing := [c for c in classes.tolist() if c not in class_weight]:
        raise ValueError(f"`class_weight` lacks the classes {missing}; give each class a weight.")
    factors = [check_real(f"class_weight[{c!r}]", class_weight[c], 0) for c in classes.tolist()]
    return np.array(factors)[labels]


def hold_out(labels, fraction, seed):
    """Split 0 … n - 1 into training and validation, stratified if class sizes allow.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Encoded labels.
    fraction : float
        Fraction of images for validation; the number of images is rounded up.
    seed : int

    Returns
    -------
    training, validation : ndarray of int
        Sorted indices.

    Raises
    ------
    ValueError
        If no images would be left for training.
    """
    n_valid = int(np.ceil(fraction * len(labels)))
    if n_valid >= len(labels):
        raise ValueError(
            f"`validation_fraction`={fraction:g} leaves none of {len(labels)} sample(s) for "
            "training; use a smaller fraction or None."
        )
    counts = np.bincount(labels)
    n_classes = np.count_nonzero(counts)
    stratify = labels
    if counts[counts > 0].min() < 2 or min(n_valid, len(labels) - n_valid) < n_classes:
        warnings.warn(
            f"The validation split is not stratified: it takes {n_valid} of {len(labels)} images, "
            f"and the smallest of {n_classes} classes has only {counts[counts > 0].min()}.",
            stacklevel=2,
        )
        stratify = None
    parts = train_test_split(
        np.arange(len(labels)), test_size=n_valid, stratify=stratify, random_state=seed
    )
    return tuple(np.sort(part) for part in parts)
