"""Infer the axes of an array: rows, height, width and channels."""

import math

import numpy as np

from sklearn_rrr._warnings import warn

SMALLEST_PICTURE = 8  # pixels; smaller inputs are not pictures, so not augmented
ADD_AXIS = (
    "A single image needs the batch axis: X[np.newaxis] for an array, else [image] or [path]."
)


def infer_row_shape(n_features, image_shape=None):
    """Return the image shape (h, w) or (h, w, c) of rows, and whether channels come first.

    Raises
    ------
    ValueError
        If `image_shape` is malformed or does not match `n_features`.
    """
    if image_shape is None:
        for channels in (1, 3):
            side = math.isqrt(n_features // channels)
            if side * side * channels == n_features:
                return ((side, side) if channels == 1 else (side, side, 3)), False
        warn(
            f"Rows of {n_features} features do not form a square gray or RGB image; each is read "
            "as an image of 1 x n_features. Set `image_shape`; (1, -1) confirms this."
        )
        return (1, n_features), False
    shape = image_shape.tolist() if isinstance(image_shape, np.ndarray) else image_shape
    if not (
        isinstance(shape, (tuple, list))
        and len(shape) in (2, 3)
        and all(isinstance(s, (int, np.integer)) and (s > 0 or s == -1) for s in shape)
        and sum(s == -1 for s in shape) <= 1
    ):
        raise ValueError(
            "`image_shape` must be (h, w) or (h, w, c), with at most one -1, or None; "
            f"got {image_shape!r}."
        )
    known = math.prod(s for s in shape if s != -1)
    shape = tuple(int(n_features // known if s == -1 else s) for s in shape)
    if math.prod(shape) != n_features:
        raise ValueError(
            f"`image_shape`={tuple(image_shape)} does not match rows of {n_features} features."
        )
    if len(shape) == 2:
        return shape, False
    first = is_channels_first(shape)
    return (shape[1:] + shape[:1] if first else shape), first


def is_channels_first(shape):
    """Tell whether an image's shape is (c, h, w) rather than (h, w, c).

    There are 1, 3 or 4 channels. If both ends could be channels, the interpretation as a
    square image wins.

    Raises
    ------
    ValueError
        If neither end can be channels, or if the position of the channels is ambiguous.
    """
    first, last = shape[0] in (1, 3, 4), shape[2] in (1, 3, 4)
    if first and last and (shape[1] == shape[2]) != (shape[0] == shape[1]):
        return shape[1] == shape[2]
    if first and last:
        raise ValueError(
            f"Images of shape {tuple(shape)} could have their channels first or last. Pass a "
            "list of PIL images."
        )
    if not first and not last:
        raise ValueError(
            f"Images must have 1, 3 or 4 channels, first or last; got the shape {tuple(shape)}. "
            "Merge or select channels."
        )
    return first


def array_shape(X, fitted=None):
    """Return the image shape, (h, w) or (h, w, c), and whether channels come first.

    Raises
    ------
    ValueError
        If X has unsupported axes or, compared with `fit`, may lack the batch axis.
    """
    if X.ndim > 4 or 0 in X.shape:
        raise ValueError(
            "X must have the shape (n, h, w), (n, h, w, c) or (n, c, h, w), with at least 1 "
            f"sample and 1 pixel; got {X.shape}."
        )
    if X.ndim == 3:
        if fitted is not None and _is_single(X.shape, fitted):
            raise ValueError(
                f"X has the shape {X.shape}, which could be one image. {ADD_AXIS} Gray images "
                "need a channel axis here: X[..., np.newaxis]."
            )
        return X.shape[1:], False
    same = fitted is not None and fitted.kind == "array" and len(fitted.shape or ()) == 3
    if same and X.shape[1 if fitted.channels_first else 3] == fitted.shape[2]:
        first = fitted.channels_first
    else:
        first = is_channels_first(X.shape[1:])
    return (X.shape[2:] + X.shape[1:2] if first else X.shape[1:]), first


def _is_single(shape, fitted):
    """Tell whether a 3-D array could be one image rather than a batch of gray images."""
    if fitted.shape is not None and len(fitted.shape) == 2:
        return shape[2] in (1, 3, 4) and shape[2] != fitted.shape[1]
    return shape[2] in (1, 3, 4) or shape[0] in (3, 4)
