"""Classify X: rows, one array, or a sequence of images.

This needs no torch: X contains nothing of torch if torch is not imported.
"""

import os
import sys
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from scipy import sparse

from sklearn_rrr.images.decoding import BadImages
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
    if np.ma.is_masked(X):
        raise ValueError("X has masked values, which images cannot have; fill them: X.filled(0).")
    if sparse.issparse(X):
        return "rows", X
    if is_tensor(X):
        X = as_numpy(X)
    elif isinstance(X, Sequence):  # a tuple, deque …
        X = list(X)
    elif (isinstance(X, Iterable) or is_dataset(X)) and not hasattr(X, "__array__"):
        raise TypeError(f"{FORMS}; got a {type(X).__name__}. Pass list(X) or a loader's Dataset.")
    if (items := _as_items(X)) is not None:
        return "items", items
    array = _as_array(X)
    if array is None or array.ndim <= 2:
        _refuse_paths_in_columns(X)
        return "rows", X
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"Complex data not supported: images must be numbers; got {array.dtype}."
            if array.dtype.kind == "c"
            else f"Images must be numbers; got an array of {array.dtype}."
        )
    return "array", array


def is_tensor(item):
    """Tell whether an object is a torch.Tensor."""
    return isinstance(item, getattr(sys.modules.get("torch"), "Tensor", ()))


def is_dataset(X):
    """Tell whether an object is a torch Dataset."""
    return isinstance(X, getattr(sys.modules.get("torch.utils.data"), "Dataset", ()))


def _refuse_paths_in_columns(X):
    """Raise if one of several columns of a frame contains images or paths."""
    if not hasattr(X, "columns") or not len(X):
        return
    for name in X.columns:
        if _is_image(next(iter(X[name]))):
            raise ValueError(
                f"X has {X.shape[1]} columns, and {name!r} contains images or paths; pass that "
                f"column alone: X[{name!r}]."
            )


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
    if any(map(_is_image, items)) or not items:
        return items
    first = items[0]
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


def _is_picture(item):
    if isinstance(item, np.ndarray) or is_tensor(item):
        return item.ndim >= 2
    return isinstance(item, Image.Image)


def _is_image(item):
    return isinstance(item, (str, os.PathLike)) or _is_picture(item)


def split_item(item, from_dataset):
    """Split an item of a Dataset into (image,) or (image, label, …).

    A search splits a Dataset into lists of its items. In a list, a tuple may also be an image
    given as nested numbers or as its channels, so it is split only if it begins with an image and
    has another part that is no picture.
    """
    if from_dataset:
        return item if isinstance(item, (tuple, list)) and item else (item,)
    if isinstance(item, tuple) and len(item) > 1 and _is_image(item[0]):
        return (item,) if all(map(_is_picture, item)) else item
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


def as_numpy(item):
    """Convert an array-like, or a tensor on any device, to an array."""
    if is_tensor(item):
        item = item.detach().cpu()
        item = (item.float() if item.is_floating_point() else item).numpy()
    return np.asarray(item)


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
        return np.array(labels)

    def _read(self, i):
        """Return (image,) or (image, label, …)."""
        try:
            item = self.dataset[i if self.numbers is None else self.numbers[i]]
        except Exception as error:  # user code may raise anything
            raise ValueError(f"the Dataset raised {type(error).__name__}: {error}") from error
        return split_item(item, from_dataset=True)
