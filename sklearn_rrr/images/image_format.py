"""ImageFormat: the format of X seen in `fit`, by which `predict` reads its X in the same way."""

import math
import os
from dataclasses import dataclass

from PIL import Image

from sklearn_rrr.images.brightness import find_span, settle_levels
from sklearn_rrr.images.decoding import (
    DAMAGE,
    MAX_IMAGE_PIXELS,
    find_file_span,
    find_image_span,
)
from sklearn_rrr.images.forms import DatasetImages, as_numpy
from sklearn_rrr.images.layout import ADD_AXIS, SMALLEST_PICTURE, array_shape, infer_row_shape

MEASURED = 256  # items of a Dataset that tell whether its dtypes define the white level


@dataclass(frozen=True)
class ImageFormat:
    """Input format seen in `fit`, so that `predict` reads its input in the same way.

    kind is "rows", "array" or "items"; shape is (h, w) or (h, w, c), or None if it may
    vary; channels_first is True for the layout (c, h, w). scale and deep_scale are WhiteLevels. For
    rows that are not pixels, black is a number, and values are mapped to (x - black) / scale.
    """

    kind: str
    shape: tuple | None = None
    channels_first: bool = False
    scale: float | None = None
    black: float | None = None
    deep_scale: float | None = None


def find_format(kind, X, image_shape=None, fitted=None, max_pixels=MAX_IMAGE_PIXELS):
    """Return the ImageFormat of the result of `sort_input`, checking it without decoding.

    Parameters
    ----------
    kind, X, image_shape, fitted, max_pixels
        As in :func:`~sklearn_rrr.images.readers.make_reader`.

    Raises
    ------
    ValueError
        If X is empty, has unsupported axes, does not match `fitted`, or has an unknown white level.
    """
    if kind == "items":
        return _item_format(X, fitted, max_pixels)
    if kind == "rows":
        shape, first = _row_shape(X, image_shape, fitted)
    else:
        shape, first = array_shape(X, fitted)
    small = kind == "rows" and min(shape[:2]) < SMALLEST_PICTURE and X.dtype != "uint8"
    deep_scale = None
    if fitted is None and small:
        scale, black = _stretch(X)
    elif fitted is not None and fitted.black is not None:
        scale, black = fitted.scale, fitted.black
    else:
        span, black = find_span(X), None
        levels = settle_levels([span] if span else [], fitted)
        scale, deep_scale = levels.scale, levels.deep_scale
    return ImageFormat(kind, shape, first, scale, black, deep_scale)


def _row_shape(X, image_shape, fitted):
    """Return the image shape of rows, and whether channels come first."""
    if fitted is None:
        return infer_row_shape(X.shape[1], image_shape)
    if fitted.kind == "rows":
        return fitted.shape, fitted.channels_first
    cure = ADD_AXIS
    if fitted.shape is not None and X.shape[1] == math.prod(fitted.shape):
        cure = "Reshape the rows to images."
    raise ValueError(
        f"X is 2-D, with shape {X.shape}, but the estimator was fitted on images. {cure}"
    )


def _stretch(X):
    """Return the scale and black of rows too small to be pictures; any range is valid."""
    low, high = float(X.min()), float(X.max())
    return (high - low) or 1.0, low


def _item_format(items, fitted, max_pixels):
    if len(items) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    levels = fitted
    if fitted is None or not isinstance(items, DatasetImages):
        levels = settle_levels(_list_spans(items, max_pixels), fitted)
    return ImageFormat("items", scale=levels.scale, deep_scale=levels.deep_scale)


def _list_spans(items, max_pixels):
    """Return the Spans of the items whose types do not define their white level.

    Items that cannot be used have none: they are reported with all others when they are decoded.
    """
    spans = []
    for i in range(len(items)):
        if isinstance(items, DatasetImages) and i == MEASURED and not spans:
            break
        try:
            item = items[i]
            if isinstance(item, (str, os.PathLike)):
                span = find_file_span(item, max_pixels)
            elif isinstance(item, Image.Image):
                span = find_image_span(item, max_pixels)
            else:
                span = find_span(as_numpy(item))
        except (ValueError, *DAMAGE):
            continue
        if span is not None:
            spans.append(span)
    return spans
