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

from sklearn_rrr.images.brightness import dtype_scale, full_scale, settle_scale
from sklearn_rrr.images.decoding import (
    DAMAGE,
    MAX_IMAGE_PIXELS,
    BadImages,
    decode_file,
    decode_pil,
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

DEEP = "uint16 pixels are divided by 65535; if their white level is lower, divide them yourself."


@dataclass(frozen=True)
class ImageFormat:
    """Input format seen in `fit`, so that `predict` reads its input in the same way.

    kind is "rows", "array" or "items"; shape is (h, w) or (h, w, c), or None if it may
    vary; channels_first is True for the layout (c, h, w); scale is the white level of pixels
    whose dtype does not define it, or None if there were none. For rows that are not
    pixels, black is a number, and values are mapped to (x - black) / scale.
    """

    kind: str
    shape: tuple | None = None
    channels_first: bool = False
    scale: float | None = None
    black: float | None = None


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
        else:
            block = _divide(block, dtype_scale(block.dtype) or self.format.scale)
        return resize(torch.from_numpy(np.ascontiguousarray(to_rgb(block))), image_size)

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
                return resize(torch.from_numpy(self._decode(i)[None]), image_size)
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
                pixels, animated = decode_file(item, self.max_pixels)
            elif isinstance(item, Image.Image):
                pixels, animated = decode_pil(item), is_animated(item)
            else:
                pixels, animated = self._decode_array(item), False
            if 0 in pixels.shape:
                raise ValueError(f"has no pixels; its shape is {pixels.shape}")
        except (ValueError, *DAMAGE) as error:
            prefix = "" if self._is_path(i) else f"image {self.numbers[i]}: "
            raise ValueError(f"{prefix}{error}") from None
        if animated:
            self.animated.add(str(item) if self._is_path(i) else f"image {self.numbers[i]}")
        return np.array(pixels)  # writable and contiguous

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
        scale = full_scale(item, "it")
        if dtype_scale(item.dtype) is None:
            # All arrays of a list share one scale; a Dataset's scale is not known in advance.
            usual = self.format.scale or (1 if item.dtype.kind == "f" else 255)
            if scale > usual:
                raise ValueError(f"has values in [0, {scale}], expected [0, {usual}]; divide them")
            scale = usual
        return to_rgb(_divide(item, scale))


def _divide(pixels, scale):
    """Convert integers in [0, 255] to uint8 and other pixels to float32 in [0, 1]."""
    if scale == 255 and pixels.dtype.kind in "iu":
        return pixels.astype(np.uint8, copy=False)
    return pixels.astype(np.float32) / np.float32(scale)


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
        return ItemImages(X, ImageFormat("items", scale=_items_scale(X, fitted)), max_pixels)
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
    if fitted is None and small:
        scale, black = _stretch(X)
    elif fitted is not None and fitted.black is not None:
        scale, black = fitted.scale, fitted.black
    else:
        scale, black = _array_scale(X, fitted), None
    return ArrayImages(X, ImageFormat(kind, shape, first, scale, black))


def _stretch(X):
    """Return the scale and black of rows too small to be pictures; any range is valid."""
    low, high = float(X.min()), float(X.max())
    return (high - low) or 1.0, low


def _array_scale(X, fitted):
    if scale := dtype_scale(X.dtype):
        if scale == 65535:
            warnings.warn(DEEP, stacklevel=2)
        return fitted.scale if fitted is not None else 1 if scale == 1 else None
    return settle_scale(full_scale(X), X.dtype.kind == "f", fitted)


def _items_scale(items, fitted):
    """Resolve one white level for all arrays of a list.

    Files define their own, and the items of a Dataset are checked when they are loaded.
    """
    if isinstance(items, DatasetImages):
        return None if fitted is None else fitted.scale
    scales, deep = set(), False
    for item in items:
        if not isinstance(item, (np.ndarray, torch.Tensor)):
            continue
        array = as_numpy(item)
        deep = deep or dtype_scale(array.dtype) == 65535
        if dtype_scale(array.dtype) is None and array.dtype.kind in "iuf" and array.size:
            try:
                scales.add((array.dtype.kind == "f", full_scale(array)))
            except ValueError:  # reported with all other bad images during decoding
                continue
    if deep:
        warnings.warn(DEEP, stacklevel=2)
    if len({is_float for is_float, _ in scales}) > 1:
        raise ValueError(
            "Some images of X are floats and some are integers, so their scales may differ. "
            "Convert them all to uint8 or to floats in [0, 1]."
        )
    if not scales:
        return None if fitted is None else fitted.scale
    is_float, scale = max(scales)
    return settle_scale(scale, is_float, fitted)


def resize(images, image_size):
    """Resize uint8 or [0, 1] floats (B, h, w, 3) to (B, 3, S, S), bilinear, antialiased."""
    images = images.permute(0, 3, 1, 2)
    if images.shape[2:] == (image_size, image_size):
        return images
    return F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)


def as_unit_float(images):
    """Convert uint8 to float32 in [0, 1]; return floats unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
