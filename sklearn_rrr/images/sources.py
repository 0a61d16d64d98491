"""Sources store images unchanged and return batches (B, 3, S, S) on request."""

import copy
import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sklearn_rrr.images.brightness import ROUNDING, find_span, settle_levels, to_unit
from sklearn_rrr.images.decoding import (
    DAMAGE,
    MAX_IMAGE_PIXELS,
    BadImages,
    decode_file,
    decode_pil,
    find_file_span,
    find_image_span,
    is_animated,
    to_rgb,
)
from sklearn_rrr.images.forms import DatasetImages, as_numpy
from sklearn_rrr.images.layout import (
    ADD_AXIS,
    SMALLEST_PICTURE,
    array_shape,
    infer_row_shape,
    is_channels_first,
)

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


class ArrayImages:
    """Source of images in one array; only requested batches are converted and resized."""

    def __init__(self, array, fmt):
        self.array, self.format = array, fmt

    def __len__(self):
        return len(self.array)

    def load(self, indices, image_size):
        """Return the images at `indices`, (B, 3, S, S): uint8, or float32 in [0, 1]."""
        block = np.asarray(self.array[indices])
        if self.format.kind == "rows":
            shape = self.format.shape
            if self.format.channels_first:
                shape = shape[2:] + shape[:2]
            block = block.reshape(len(block), *shape)
        if block.ndim == 3:
            block = block[..., None]
        elif self.format.channels_first:
            block = np.moveaxis(block, 1, -1)
        if self.format.black is not None:
            block = ((block - self.format.black) / self.format.scale).astype(np.float32)
            return resize(torch.from_numpy(np.ascontiguousarray(to_rgb(block))), image_size)
        return _resize_pictures(to_rgb(to_unit(block, self.format)), image_size)

    def select(self, indices):
        return ArrayImages(self.array[indices], self.format)


class ItemImages:
    """Source of separate images: PIL images, arrays, tensors, paths or a Dataset's items."""

    def __init__(self, items, fmt, max_pixels=MAX_IMAGE_PIXELS):
        self.items, self.format, self.max_pixels = items, fmt, max_pixels
        self.numbers = np.arange(len(items))  # positions in the user's X, for messages
        self.animated, self.warned = set(), set()  # shared with selections

    def __len__(self):
        return len(self.items)

    def load(self, indices, image_size):
        """Return the images at `indices`, (B, 3, S, S): uint8, or float32 in [0, 1].

        Raises
        ------
        BadImages
            If some images of the batch cannot be used; lists them all.
        """

        def read(i):
            try:
                return _resize_pictures(self._decode(i)[None], image_size)
            except ValueError as error:
                return i, str(error)

        # Pillow releases the GIL while decoding. torch's thread count is used because joblib
        # limits it in its workers. Only paths are read in parallel: a list may contain the
        # same image twice, and the items of a Dataset may share a file or a random generator.
        paths = [i for i in map(int, indices) if self._is_path(i)]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            files = pool.map(read, paths)
            images = [next(files) if self._is_path(i) else read(i) for i in map(int, indices)]
        if bad := [image for image in images if isinstance(image, tuple)]:
            raise BadImages(bad)
        if self.animated and not self.warned:
            self.warned.update(self.animated)
            warnings.warn(
                f"Some images have several frames, such as {min(self.animated)}; only one is used.",
                stacklevel=2,
            )
        if len({image.dtype for image in images}) > 1:
            images = [as_unit_float(image) for image in images]
        return torch.cat(images)

    def select(self, indices):
        chosen = copy.copy(self)
        if isinstance(self.items, DatasetImages):
            chosen.items = self.items.select(indices)
        else:
            chosen.items = [self.items[i] for i in indices]
        chosen.numbers = self.numbers[indices]
        return chosen

    def name(self, i):
        """Return the path or image at i, or its index in a Dataset, whose item may fail."""
        return int(self.numbers[i]) if isinstance(self.items, DatasetImages) else self.items[i]

    def _is_path(self, i):
        # Items of a Dataset are not loaded here: that is slow and may draw random numbers.
        return isinstance(self.items, list) and isinstance(self.items[i], (str, os.PathLike))

    def _decode(self, i):
        try:
            item = self.items[i]
            if isinstance(item, (str, os.PathLike)):
                pixels, animated = decode_file(item, self.max_pixels, self.format)
            elif isinstance(item, Image.Image):
                pixels = decode_pil(item, self.max_pixels, self.format)
                animated = is_animated(item)
            else:
                pixels, animated = self._decode_array(item), False
            if 0 in pixels.shape:
                raise ValueError(f"has no pixels; its shape is {pixels.shape}")
        except (ValueError, *DAMAGE) as error:
            prefix = "" if self._is_path(i) else f"image {self.numbers[i]}: "
            raise ValueError(f"{prefix}{error}") from None
        if animated:
            self.animated.add(str(item) if self._is_path(i) else f"image {self.numbers[i]}")
        return pixels

    def _decode_array(self, item):
        kind, item = type(item).__name__, as_numpy(item)
        if item.ndim not in (2, 3) or item.dtype.kind not in "biuf" or item.size == 0:
            raise ValueError(
                "must be a path, a PIL image or numbers of shape (h, w), (h, w, c) or (c, h, w); "
                f"got a {kind} of dtype {item.dtype} and shape {item.shape}"
            )
        if item.ndim == 2:
            item = item[..., None]
        elif is_channels_first(item.shape):
            item = np.moveaxis(item, 0, -1)
        find_span(item, "it")  # raises if there is no white level
        return to_rgb(to_unit(item, self.format))


def make_source(kind, X, *, image_shape=None, fitted=None, max_pixels=MAX_IMAGE_PIXELS):
    """Create a source from the result of `sort_input`, checking it without decoding.

    Parameters
    ----------
    kind : {"rows", "array", "items"}
    X : ndarray or sequence
        Rows must already be an ndarray of numbers.
    image_shape : tuple of int or None, default=None
        Layout of a row.
    fitted : ImageFormat or None, default=None
        The format seen in `fit`; None during `fit`.
    max_pixels : int, default=MAX_IMAGE_PIXELS
        Maximum number of pixels of a file.

    Returns
    -------
    source : ArrayImages or ItemImages
    """
    if kind == "items":
        if len(X) == 0:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        levels = fitted
        if fitted is None or not isinstance(X, DatasetImages):
            levels = settle_levels(_list_spans(X, max_pixels), fitted)
        form = {"scale": levels.scale, "deep_scale": levels.deep_scale}
        return ItemImages(X, ImageFormat("items", **form), max_pixels)
    first = False
    if kind == "rows":
        if fitted is not None and fitted.kind == "rows":
            shape, first = fitted.shape, fitted.channels_first
        elif fitted is not None:
            cure = ADD_AXIS
            if fitted.shape is not None and X.shape[1] == math.prod(fitted.shape):
                cure = "Reshape the rows to images."
            raise ValueError(
                f"X is 2-D, with shape {X.shape}, but the estimator was fitted on images. {cure}"
            )
        else:
            shape, first = infer_row_shape(X.shape[1], image_shape)
    else:
        shape, first = array_shape(X, fitted)
    small = kind == "rows" and min(shape[:2]) < SMALLEST_PICTURE and X.dtype != np.uint8
    deep_scale = None
    if fitted is None and small:
        scale, black = _stretch(X)
    elif fitted is not None and fitted.black is not None:
        scale, black = fitted.scale, fitted.black
    else:
        span, black = find_span(X), None
        levels = settle_levels([span] if span else [], fitted)
        scale, deep_scale = levels.scale, levels.deep_scale
    return ArrayImages(X, ImageFormat(kind, shape, first, scale, black, deep_scale))


def _stretch(X):
    """Return the scale and black of rows too small to be pictures; any range is valid."""
    low, high = float(X.min()), float(X.max())
    return (high - low) or 1.0, low


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


def _resize_pictures(pixels, image_size):
    """Resize uint8 or [0, 1] floats (B, h, w, 3) to (B, 3, S, S).

    Floats that are 8-bit pixels divided by 255 become uint8, so that rounding is the same in every
    form of a picture.
    """
    if pixels.dtype != np.uint8:
        bytes_of = np.rint(pixels * 255)
        is_eight = np.abs(pixels * 255 - bytes_of).max((1, 2, 3)) <= 255 * ROUNDING
        if is_eight.all():
            pixels = bytes_of.astype(np.uint8)
        elif is_eight.any():
            parts = [_resize_pictures(pixels[i : i + 1], image_size) for i in range(len(pixels))]
            return torch.cat([as_unit_float(part) for part in parts])
    pixels = np.ascontiguousarray(pixels)
    if not pixels.flags.writeable:
        pixels = pixels.copy()
    return resize(torch.from_numpy(pixels), image_size)


def resize(images, image_size):
    """Resize uint8 or [0, 1] floats (B, h, w, 3) to (B, 3, S, S), bilinear, antialiased."""
    images = images.permute(0, 3, 1, 2)
    if images.shape[2:] == (image_size, image_size):
        return images
    return F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)


def as_unit_float(images):
    """Convert uint8 to float32 in [0, 1]; return floats unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
