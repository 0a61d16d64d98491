"""Which form X has: rows, one array, or images one by one."""

import math
import os
import warnings

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy import sparse
from torch.utils.data import Dataset

ADD_AXIS = "A single image needs the batch axis: X[np.newaxis] for an array, [image] else."


def sort_input(X):
    """Return ("rows", X), ("array", ndarray) or ("items", sequence of images).

    Rows are left as they are, for scikit-learn's own validation.
    """
    if isinstance(X, Dataset):
        return "items", DatasetImages(X)
    if isinstance(X, (str, os.PathLike, Image.Image)):
        raise TypeError(f"X must hold a batch of images; got one {type(X).__name__}. {ADD_AXIS}")
    if isinstance(X, pd.DataFrame):
        if X.shape[1] != 1 or not _is_image(X.iloc[0, 0] if len(X) else 0):
            return "rows", X
        X = X.iloc[:, 0]
    if isinstance(X, pd.Series):
        X = X.to_numpy()
    if isinstance(X, torch.Tensor):
        X = as_numpy(X)
    if sparse.issparse(X):
        return "rows", X
    one_by_one = isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.ndim == 1)
    if one_by_one and any(map(_is_image, X)):
        return "items", list(X)
    if hasattr(X, "__array__") or isinstance(X, (list, tuple)):
        array = _as_array(X)
        if array is not None and array.ndim > 2:
            if array.dtype.kind not in "biuf":
                raise ValueError(
                    f"Complex data not supported: images must be numbers; got {array.dtype}."
                    if array.dtype.kind == "c"
                    else f"Images must be numbers; got an array of {array.dtype}."
                )
            return "array", array
    return "rows", X


def _as_array(X):
    try:
        return np.asarray(X)
    except ValueError:  # ragged: scikit-learn says so better
        return None


def _is_image(item):
    if isinstance(item, (str, os.PathLike, Image.Image)):
        return True
    return isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim >= 2


def infer_row_shape(n_features, image_shape=None):
    """Return (h, w) or (h, w, c), and whether channels come first, for rows.

    Raises
    ------
    ValueError
        If `image_shape` is malformed or does not hold `n_features` values.
    """
    if image_shape is None:
        for channels in (1, 3):
            side = math.isqrt(n_features // channels)
            if side * side * channels == n_features:
                return ((side, side) if channels == 1 else (side, side, 3)), False
        warnings.warn(
            f"Rows of {n_features} features are no square image, gray or RGB; each is taken as "
            "an image of 1 x n_features. Give `image_shape`, or (1, -1) if that is right.",
            stacklevel=2,
        )
        return (1, n_features), False
    shape = image_shape
    if not (
        isinstance(shape, (tuple, list))
        and len(shape) in (2, 3)
        and all(isinstance(s, (int, np.integer)) and (s > 0 or s == -1) for s in shape)
        and sum(s == -1 for s in shape) <= 1
    ):
        raise ValueError(
            "`image_shape` must be (h, w) or (h, w, c), at most one of them -1, or None; "
            f"got {image_shape!r}."
        )
    known = math.prod(s for s in shape if s != -1)
    shape = tuple(int(n_features // known if s == -1 else s) for s in shape)
    if math.prod(shape) != n_features:
        raise ValueError(
            f"`image_shape`={tuple(image_shape)} does not hold rows of {n_features} features."
        )
    if len(shape) == 2:
        return shape, False
    first = is_channels_first(shape)
    return (shape[1:] + shape[:1] if first else shape), first


def is_channels_first(shape):
    """Tell whether an image's shape is (c, h, w) rather than (h, w, c).

    Channels are 1, 3 or 4; where both ends could be channels, the reading with a square
    image wins.

    Raises
    ------
    ValueError
        If neither end can be channels, or both can.
    """
    first, last = shape[0] in (1, 3, 4), shape[2] in (1, 3, 4)
    if first and last and (shape[1] == shape[2]) != (shape[0] == shape[1]):
        return shape[1] == shape[2]
    if first and last:
        raise ValueError(
            f"Images of shape {tuple(shape)} could have their channels first or last. Pass "
            "uint8 arrays with the channels repeated to RGB, or a list of PIL images."
        )
    if not first and not last:
        raise ValueError(f"Images must have 1, 3 or 4 channels; got the shape {tuple(shape)}.")
    return first


def as_numpy(item):
    """Turn a tensor, on any device, or array-like into an array."""
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu()
        item = (item.float() if item.is_floating_point() else item).numpy()
    return np.asarray(item)


class DatasetImages:
    """The images of a torch Dataset whose items are images or (image, label)."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        item = self.dataset[i]
        return item[0] if isinstance(item, (tuple, list)) else item

    def labels(self):
        """Return the labels that the dataset holds, or None."""
        if len(self) and not isinstance(self.dataset[0], (tuple, list)):
            return None
        return np.array([self.dataset[i][1] for i in range(len(self))])
