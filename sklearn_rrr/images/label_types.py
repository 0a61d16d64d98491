"""Convert labels to an array without changing any: no label becomes another in silence."""

from collections.abc import Iterator
from numbers import Integral, Real

import numpy as np
from scipy import sparse

from sklearn_rrr.images.array_likes import as_numpy, is_masked, is_tensor

MIXED = "{} contains labels of several types that cannot be ordered; use strings or numbers only."
MISSING = "Input {} contains NaN or None; every image needs a label."
EXACT = 2**53  # integers up to which floats are exact


def is_missing(value):
    """Tell whether a value is None, NaN, or the NA or NaT of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def as_labels(y, name="y"):
    """Return labels as an array of numbers, strings, or objects that are strings.

    Parameters
    ----------
    y : array-like
    name : str, default="y"
        Name for errors.

    Raises
    ------
    ValueError
        If labels are missing, of several types, of a type that cannot be stored, or not exact.
    TypeError
        If `y` is not an array-like.
    """
    if isinstance(y, (set, frozenset, dict, Iterator)):
        raise TypeError(f"{name} must be a list or an array; got a {type(y).__name__}.")
    if is_masked(y):
        raise ValueError(f"{name} has masked values; every image needs a label.")
    if sparse.issparse(y):  # scikit-learn raises a clear error
        return y
    if isinstance(y, (list, tuple)):
        return _from_list(y, name)
    dtype = _find_dtype(y)
    if getattr(getattr(dtype, "numpy_dtype", None), "kind", "O") in "biuf":
        return _from_nullable(y, dtype.numpy_dtype, name)
    labels = as_numpy(y, name)
    if labels.dtype.names:
        raise ValueError(
            f"{name} must be one label for each image; got records of {labels.dtype.names}."
        )
    if isinstance(labels.dtype, np.dtypes.StringDType):
        labels = _from_objects(np.array(labels.tolist(), object), name)
        return labels.astype(str) if labels.size else labels
    return _from_objects(labels, name) if labels.dtype == object else labels


def _find_dtype(y):
    """Return the dtype of an array, a column or a frame of one column."""
    dtypes = getattr(y, "dtypes", None)
    is_column = hasattr(y, "iloc") and len(getattr(y, "columns", ())) == 1
    return dtypes.iloc[0] if is_column else getattr(y, "dtype", None)


def _from_nullable(y, dtype, name):
    """Convert a nullable pandas array or Series, or a frame of one, to NumPy's dtype."""
    if y.isna().to_numpy().any() if hasattr(y, "columns") else y.isna().any():
        raise ValueError(MISSING.format(name))
    return y.to_numpy(dtype=dtype)


def _from_list(y, name):
    y = [_simplify(label, name) for label in y]
    single = [x for x in y if not isinstance(x, (list, tuple)) and np.ndim(x) == 0]
    if any(label is np.ma.masked for label in single):
        raise ValueError(f"{name} has masked values; every image needs a label.")
    if any(map(is_missing, single)):
        raise ValueError(MISSING.format(name))
    if len({(isinstance(label, str), isinstance(label, bytes)) for label in single}) > 1:
        raise ValueError(MIXED.format(name))
    if any(isinstance(label, str) and label.endswith("\0") for label in single):
        raise ValueError(f"{name} has labels that end in a null character, which NumPy drops.")
    try:
        labels = np.asarray(y)
    except ValueError as error:
        raise ValueError(
            f"{name} must contain one label for each image; got lists of different lengths."
        ) from error
    if labels.dtype.kind == "f":
        _check_exact(single, name)
    return _from_objects(labels, name) if labels.dtype == object else labels


def _simplify(label, name):
    """Convert tensors to arrays, and members of an Enum of strings, which NumPy cuts, to str."""
    if is_tensor(label):
        return as_numpy(label, name)
    return str.__str__(label) if isinstance(label, str) else label


def _check_exact(values, name):
    """Raise if integers would be rounded to floats."""
    if any(isinstance(value, Integral) and abs(int(value)) > EXACT for value in values):
        raise ValueError(
            f"{name} has integers that are too large to be exact together; use strings: "
            "[str(label) for label in y]."
        )


def _from_objects(labels, name):
    """Convert an array of objects to numbers, or return it if they are strings."""
    values = labels.ravel().tolist()
    if any(map(is_missing, values)):
        raise ValueError(MISSING.format(name))
    if all(isinstance(value, (str, bytes)) for value in values):
        return labels
    if any(isinstance(value, (str, bytes)) for value in values):
        raise ValueError(MIXED.format(name))
    if any(isinstance(value, (list, tuple, np.ndarray)) for value in values):
        raise ValueError(f"{name} must contain one label for each image; got lists.")
    if all(isinstance(value, (bool, np.bool_, Integral, float, np.floating)) for value in values):
        numbers = np.array(values)
        if numbers.dtype.kind in "biuf":
            if numbers.dtype.kind == "f":
                _check_exact(values, name)
            return numbers.reshape(labels.shape)
    kinds = sorted({type(value).__name__ for value in values})
    size = " beyond 64 bits" if all(isinstance(value, Real) for value in values) else ""
    raise ValueError(
        f"{name} contains labels of the type {', '.join(kinds)}{size}, which cannot be stored; use "
        "strings: [str(label) for label in y]."
    )
