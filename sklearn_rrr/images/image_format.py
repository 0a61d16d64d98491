"""ImageFormat: the format of X seen in `fit`, by which `predict` reads its X in the same way."""

import math
import os
from dataclasses import dataclass

from PIL import Image

from sklearn_rrr.images.array_likes import as_numpy
from sklearn_rrr.images.brightness import (
    DEFINED,
    DIGITS,
    WhiteLevels,
    check_finite,
    find_span,
)
from sklearn_rrr.images.decoding import (
    DAMAGE,
    MAX_IMAGE_PIXELS,
    find_file_span,
    find_image_span,
)
from sklearn_rrr.images.forms import DatasetImages
from sklearn_rrr.images.layout import ADD_AXIS, SMALLEST_PICTURE, array_shape, infer_row_shape
from sklearn_rrr.images.white_levels import follow_bytes, settle_levels

MEASURED = 256  # items of a Dataset that tell whether its dtypes define the white level


@dataclass(frozen=True)
class ImageFormat:
    """Input format seen in `fit`, so that `predict` reads its input in the same way.

    kind is "rows", "array" or "items"; shape is (h, w) or (h, w, c), or None if it may
    vary; channels_first is True for the layout (c, h, w). scale, deep_scale and byte_scale are
    WhiteLevels. For rows that are not pixels, black is a number, and values are mapped to
    (x - black) / scale.
    """

    kind: str
    shape: tuple | None = None
    channels_first: bool = False
    scale: float | None = None
    black: float | None = None
    deep_scale: float | None = None
    byte_scale: float | None = None


def find_format(kind, X, image_shape=None, fitted=None, max_pixels=MAX_IMAGE_PIXELS):
    """Return the ImageFormat of the result of `sort_input`, and notes to warn of.

    X is checked without decoding.

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
    if small if fitted is None else fitted.black is not None:
        black, high = check_finite(X)
        scale = (high - black) or 1.0
        if fitted is not None:
            black, scale = fitted.black, fitted.scale
        return ImageFormat(kind, shape, first, scale, black), []
    span = find_span(X)
    levels, notes = settle_levels([span] if span else [], fitted)
    return ImageFormat(kind, shape, first, **vars(levels)), notes


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


def _item_format(items, fitted, max_pixels):
    if len(items) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    if fitted is not None and isinstance(items, DatasetImages):
        high = _peek_bytes(items, fitted, max_pixels)
        levels = WhiteLevels(fitted.scale, fitted.deep_scale, follow_bytes(high, fitted.scale))
        notes = []
    else:
        levels, notes = settle_levels(_item_spans(items, fitted, max_pixels), fitted)
    return ImageFormat("items", **vars(levels)), notes


def _follows(fitted):
    """Tell whether `fit` found a white level that uint8 may have, too."""
    return fitted is not None and fitted.scale in (1, DIGITS)


def _peek_bytes(dataset, fitted, max_pixels):
    """Return the largest uint8 value of a Dataset, or one that is brighter than `fit` saw.

    Usually, one item is read; the others are measured while they are decoded.
    """
    high = 0
    for i in range(len(dataset) if _follows(fitted) else 0):
        span = _find_item_span(dataset, i, max_pixels, True)
        is_byte = span is not None and span.kind == "uint8"
        high = max(high, span.high) if is_byte else high
        if high > fitted.scale or (high == 0 and span is not None and not is_byte):
            break
    return high


def _item_spans(items, fitted, max_pixels):
    """Return the Spans of items, of which 8-bit images are decoded only if their scale matters.

    Items that cannot be used have none: they are reported with all others when they are decoded.
    """
    spans, decode = [], _follows(fitted)
    stop = MEASURED if isinstance(items, DatasetImages) else None
    for i in range(len(items)):
        if i == stop and all(span.kind in DEFINED for span in spans):
            break
        span = _find_item_span(items, i, max_pixels, decode)
        if span is not None:
            spans.append(span)
            decode = decode and not (span.kind == "uint8" and span.high > fitted.scale)
    return spans


def _find_item_span(items, i, max_pixels, decode):
    try:
        item = items[i]
        if isinstance(item, (str, os.PathLike)):
            return find_file_span(item, max_pixels, decode)
        if isinstance(item, Image.Image):
            return find_image_span(item, max_pixels, decode)
        return find_span(as_numpy(item))
    except (ValueError, *DAMAGE):
        return None
