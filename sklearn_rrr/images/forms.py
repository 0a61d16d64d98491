"""Classify X: rows, one array, or a sequence of images.

This needs no torch: X contains nothing of torch if torch is not imported.
"""

import os
import sys
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from scipy import sparse

from sklearn_rrr.images.array_likes import (
    as_numpy,
    check_columns,
    check_masked,
    is_image,
    is_picture,
    is_tensor,
    open_column,
)
from sklearn_rrr.images.decoding import BadImages
from sklearn_rrr.images.label_types import as_labels
from sklearn_rrr.images.layout import ADD_AXIS

FORMS = (
    "X must be rows, an array of images, a list of PIL images, arrays or paths, a Series of "
    "those, or a torch Dataset"
)


def sort_input(X):
    """Return ("rows", X), ("array", ndarray) or ("items", sequence of images).

    Rows are returned unchanged; scikit-learn validates them later.
    """
    if isinstance(X, (str, bytes, os.PathLike, Image.Image)):
        raise TypeError(
            f"X must hold a batch of images; got one {type(X).__name__}. {ADD_AXIS} "
            "Use load_image_folder to list the images of a folder."
        )
    if is_dataset(X) and hasattr(X, "__len__"):
        return "items", DatasetImages(X)
    if sparse.issparse(X):
        return "rows", X
    X = _open_container(X)
    if (items := _as_items(X)) is not None:
        return "items", items
    if isinstance(X, list):
        X = [as_numpy(item) if is_tensor(item) else item for item in X]
    array = _as_array(X)
    if array is None or array.ndim <= 2:
        check_columns(X)
        return "rows", X
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"Complex data not supported: images must be numbers; got {array.dtype}."
            if array.dtype.kind == "c"
            else f"Images must be numbers; got an array of {array.dtype}."
        )
    return "array", array


def _open_container(X):
    """Return X as a list, array, frame or column; raise if it holds no batch."""
    if is_tensor(X) or isinstance(X, (memoryview, np.ma.MaskedArray)):
        return as_numpy(X, "X")
    if hasattr(X, "collect") and not hasattr(X, "__len__"):
        raise TypeError(f"{FORMS}; got a {type(X).__name__}. Pass X.collect().")
    if hasattr(X, "get_level_values") and hasattr(X, "levels"):  # a MultiIndex
        raise TypeError(f"{FORMS}; got a {type(X).__name__}. Pass X.get_level_values(0).")
    if isinstance(X, Sequence):  # a tuple, deque …
        return list(X)
    if (isinstance(X, Iterable) or is_dataset(X)) and not hasattr(X, "__array__"):
        raise TypeError(f"{FORMS}; got a {type(X).__name__}. Pass list(X) or a loader's Dataset.")
    return open_column(X)


def is_dataset(X):
    """Tell whether an object is a torch Dataset."""
    return isinstance(X, getattr(sys.modules.get("torch.utils.data"), "Dataset", ()))


def _as_items(X):
    """Return a list if X is a sequence or column of images; else None."""
    if not isinstance(X, list):
        shape = getattr(X, "shape", ())
        if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
            return None
        column = np.asarray(X)
        if column.ndim == 2 and column.dtype.kind in "OUT":
            column = column[:, 0]
        if column.ndim != 1:
            return None
        X = column
    items = [split_item(item, from_dataset=False)[0] for item in X]
    if any(map(is_image, items)) or not items:
        return items
    first = items[0]
    for i, item in enumerate(items):
        check_masked(item, f"item {i} of X")
    if isinstance(first, (list, tuple)):
        return _as_mixed_arrays(items)
    if not (hasattr(first, "__float__") or hasattr(first, "__array__")):
        raise TypeError(f"{FORMS}; got items of type {type(first).__name__}.")
    return None


def _as_mixed_arrays(items):
    """Return arrays if `items` are nested lists of images of mixed sizes; else None."""
    if _as_array(items) is not None:
        return None
    arrays = [_as_array(item) for item in items]
    return arrays if all(a is not None and a.ndim > 1 for a in arrays) else None


def _as_array(X):
    try:
        array = np.asarray(X)
        # Slicing a list of mixed sizes may leave an object array of equal sizes.
        return np.array(array.tolist()) if array.dtype == object and array.ndim > 2 else array
    except ValueError:  # ragged: scikit-learn raises a clearer error
        return None


def split_item(item, from_dataset):
    """Split an item of a Dataset into (image,) or (image, label, …).

    A search splits a Dataset into lists of its items. In a list, a tuple may also be an image
    given as nested numbers or as its channels, so it is split only if it begins with an image and
    has another part that is no picture.
    """
    if from_dataset:
        return item if isinstance(item, (tuple, list)) and item else (item,)
    if isinstance(item, tuple) and len(item) > 1 and is_image(item[0]):
        return (item,) if all(map(is_picture, item)) else item
    return (item,)


def find_labels(X, y, name):
    """Return y, or the labels of the Dataset X; `name` is the estimator's, for errors.

    Raises
    ------
    ValueError
        If there are no labels, or the Dataset fails to return an item.
    """
    if y is None and is_dataset(X):
        y = DatasetImages(X).labels()
    if y is None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    return y


class DatasetImages:
    """Images of a torch Dataset whose items are images or (image, label).

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
    numbers : sequence of int or None, default=None
        Which items are used; None uses all.
    """

    def __init__(self, dataset, numbers=None):
        self.dataset, self.numbers = dataset, numbers

    def __len__(self):
        return len(self.dataset if self.numbers is None else self.numbers)

    def __getitem__(self, i):
        return self._read(i)[0]

    def select(self, indices):
        """Return the images at `indices`, which are not read yet."""
        numbers = range(len(self)) if self.numbers is None else self.numbers
        return DatasetImages(self.dataset, [numbers[int(i)] for i in indices])

    def labels(self):
        """Return the labels of the dataset, or None if its items have none.

        Raises
        ------
        BadImages
            If the dataset fails to return some items; lists them all.
        """
        labels, bad = [], []
        for i in range(len(self)):
            try:
                item = self._read(i)
            except ValueError as error:
                bad.append((i, f"image {i}: {error}; pass y so that `on_bad_file` can skip it"))
                continue
            if len(item) < 2:
                return None
            labels.append(item[1])
        if bad:
            raise BadImages(bad, len(self))
        return as_labels(labels)

    def _read(self, i):
        """Return (image,) or (image, label, …)."""
        try:
            item = self.dataset[i if self.numbers is None else self.numbers[i]]
        except Exception as error:  # user code may raise anything
            raise ValueError(f"the Dataset raised {type(error).__name__}: {error}") from error
        return split_item(item, from_dataset=True)
