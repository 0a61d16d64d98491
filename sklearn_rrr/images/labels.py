"""Check, encode and split labels and weights."""

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, column_or_1d, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from sklearn_rrr._validation import check_choice, check_real
from sklearn_rrr._warnings import warn
from sklearn_rrr.images.array_likes import as_numpy, check_masked, is_tensor
from sklearn_rrr.images.label_types import MISSING, as_labels


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
    y = _check_labels(y, "y")
    check_classification_targets(y)
    if classes is None:
        return np.unique(y, return_inverse=True)
    classes = check_classes(classes)
    if _is_text(classes) == _is_text(y):
        labels = np.searchsorted(classes, y).clip(max=len(classes) - 1)
        unknown = np.unique(y[classes[labels] != y])
    else:
        unknown = np.unique(y)
    if len(unknown):
        raise ValueError(
            f"y has the labels {unknown.tolist()}, which are not in `classes` {classes.tolist()}."
        )
    return classes, labels


def check_classes(classes):
    """Return all possible labels, sorted, after the checks that labels pass.

    Raises
    ------
    ValueError, TypeError
        If there are none, or if they cannot be labels.
    """
    classes = np.unique(_check_labels(classes, "`classes`"))
    if not len(classes):
        raise ValueError("`classes` is empty; it must contain every label that may occur.")
    if classes.dtype.kind == "f" and (classes != np.rint(classes)).any():
        raise ValueError(f"`classes` must be whole numbers or strings; got {classes.tolist()}.")
    return classes


def _check_labels(y, name):
    """Return labels as an array of shape (n,) without missing values."""
    y = column_or_1d(as_labels(y, name), input_name=name, warn=True)
    if y.dtype.kind in "fc":
        check_array(y, ensure_2d=False, dtype=None, input_name=name, ensure_min_samples=0)
        if not np.isfinite(y).all():  # which scikit-learn may be configured not to check
            raise ValueError(MISSING.format(name) if np.isnan(y).any() else f"{name} is infinite.")
    elif y.dtype.kind in "mM" and np.isnat(y).any():
        raise ValueError(MISSING.format(name))
    return y


def _is_text(labels):
    return labels.dtype.kind in "OSU"


def check_sample_weight(sample_weight, n_images):
    """Return sample weights as an array of float64 of shape (n,).

    Raises
    ------
    ValueError, TypeError
        If weights are negative, not finite, masked, or of the wrong length or type.
    """
    name = "sample_weight"
    if is_tensor(sample_weight):
        sample_weight = as_numpy(sample_weight, name)
    check_masked(sample_weight, name)
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name=name)
    if weights.shape != (n_images,):
        raise ValueError(f"`sample_weight` must have the shape ({n_images},); got {weights.shape}.")
    if not np.isfinite(weights).all():  # which scikit-learn may be configured not to check
        raise ValueError("sample_weight contains NaN or infinity; weights must be finite.")
    if (weights < 0).any():
        raise ValueError(
            f"`sample_weight` must not be negative; got {weights.min():g}. Use zero to leave "
            "an image out."
        )
    return weights


def weigh_images(classes, labels, sample_weight=None, class_weight=None):
    """Return the weight of each image, (n,): sample weight times class weight, up to a factor.

    Raises
    ------
    ValueError, TypeError
        If weights are not valid, so unequal that some would be lost in float32, or all zero, or
        if a class has no weight.
    """
    weights, positive = np.ones(len(labels)), np.ones(len(labels), bool)
    factors = []
    if sample_weight is not None:
        factors.append(check_sample_weight(sample_weight, len(labels)))
    if class_weight is not None:
        factors.append(_class_weights(classes, labels, class_weight))
    for factor in factors:
        # A power of 2 prevents overflow, and rounds nothing.
        weights = weights * np.ldexp(factor, -np.frexp(factor.max(initial=0))[1])
        positive &= factor > 0
    if not positive.any():
        raise ValueError("All images have zero weight; give at least one a positive weight.")
    lost = positive & ((weights / weights.mean()).astype(np.float32) == 0)
    if lost.any():
        raise ValueError(
            f"The weights of {lost.sum()} image(s) are positive, but so small in comparison with "
            "others that they are lost in float32. Use zero to leave images out."
        )
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
        warn(
            f"The validation split is not stratified: it takes {n_valid} of {len(labels)} images, "
            f"and the smallest of {n_classes} classes has only {counts[counts > 0].min()}."
        )
        stratify = None
    parts = train_test_split(
        np.arange(len(labels)), test_size=n_valid, stratify=stratify, random_state=seed
    )
    return tuple(np.sort(part) for part in parts)
