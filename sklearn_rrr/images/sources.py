"""Sources hold images as they came, and give batches (B, 3, S, S) when asked."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sklearn_rrr.images.decoding import (
    MAX_IMAGE_PIXELS,
    BadImages,
    decode_file,
    decode_pil,
    full_scale,
    to_rgb,
)
from sklearn_rrr.images.forms import (
    ADD_AXIS,
    DatasetImages,
    as_numpy,
    infer_row_shape,
    is_channels_first,
)


@dataclass(frozen=True)
class ImageFormat:
    """What `fit` saw, so that `predict` reads its input alike.

    kind is "rows", "array" or "items"; shape is (h, w) or (h, w, c), None where it may
    vary; channels_first tells a 4-D array's layout; black and scale map numbers that are
    neither uint8 nor uint16 to (x - black) / scale, None if none were seen.
    """

    kind: str
    shape: tuple | None = None
    channels_first: bool = False
    scale: float | None = None
    black: float = 0.0


class ArrayImages:
    """Images in one array; a batch is copied, brought to RGB and resized when asked for."""

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
        if block.dtype != np.uint8:
            scale = 65535 if block.dtype == np.uint16 else self.format.scale or 1
            block = (block.astype(np.float32) - np.float32(self.format.black)) / np.float32(scale)
        return resize(torch.from_numpy(np.ascontiguousarray(to_rgb(block))), image_size)

    def select(self, indices):
        return ArrayImages(self.array[indices], self.format)


class ItemImages:
    """Images one by one: PIL images, arrays, tensors, paths, or the items of a Dataset."""

    def __init__(self, items, fmt, max_pixels=MAX_IMAGE_PIXELS):
        self.items, self.format, self.max_pixels = items, fmt, max_pixels
        self.animated = set()

    def __len__(self):
        return len(self.items)

    def load(self, indices, image_size):
        """Return the images at `indices`, (B, 3, S, S): uint8, or float32 in [0, 1].

        Raises
        ------
        BadImages
            Listing every image of the batch that cannot be used.
        """

        def read(i):
            try:
                return resize(torch.from_numpy(self._decode(i)[None]), image_size)
            except (ValueError, TypeError) as error:
                return i, str(error)

        # Pillow decodes outside the interpreter's lock; torch's threads are the ones that
        # joblib limits in its workers.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            images = list(pool.map(read, map(int, indices)))
        if bad := [image for image in images if isinstance(image, tuple)]:
            raise BadImages(bad)
        if len({image.dtype for image in images}) > 1:
            images = [as_unit_float(image) for image in images]
        return torch.cat(images)

    def select(self, indices):
        return ItemImages([self.items[i] for i in indices], self.format, self.max_pixels)

    def _decode(self, i):
        item = self.items[i]
        if isinstance(item, (str, os.PathLike)):
            pixels, n_frames = decode_file(item, self.max_pixels)
            if n_frames > 1:
                self.animated.add(i)
        elif isinstance(item, Image.Image):
            pixels = decode_pil(item)
        else:
            pixels = self._decode_array(i, item)
        if 0 in pixels.shape:
            raise ValueError(f"image {i}: has no pixels, shape {pixels.shape}")
        return np.array(pixels)  # writable and contiguous

    def _decode_array(self, i, item):
        item = as_numpy(item)
        if item.ndim not in (2, 3) or item.dtype.kind not in "biuf" or item.size == 0:
            raise ValueError(
                f"image {i}: must be numbers of shape (h, w), (h, w, c) or (c, h, w); got "
                f"{item.dtype} of shape {item.shape}"
            )
        try:
            if item.ndim == 2:
                item = item[..., None]
            elif is_channels_first(item.shape):
                item = np.moveaxis(item, 0, -1)
            scale = full_scale(item, "it")
        except ValueError as error:
            raise ValueError(f"image {i}: {error}") from None
        if item.dtype != np.uint8:
            scale = scale if item.dtype in (bool, np.uint16) else self.format.scale or scale
            item = item.astype(np.float32) / np.float32(scale)
        return to_rgb(item)


def make_source(kind, X, *, image_shape=None, fitted=None, max_pixels=MAX_IMAGE_PIXELS):
    """Wrap the input that `sort_input` sorted, checked as far as that needs no decoding.

    Parameters
    ----------
    kind : {"rows", "array", "items"}
    X : ndarray or sequence
        Rows are an ndarray of numbers by now.
    image_shape : tuple of int or None
        How a row is laid out.
    fitted : ImageFormat or None
        The format at `fit`; None in `fit` itself.
    max_pixels : int
        Largest number of pixels of a file.

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
            raise ValueError(
                f"X is 2-D, {X.shape}, but the estimator was fitted on images. {ADD_AXIS}"
            )
        else:
            shape, first = infer_row_shape(X.shape[1], image_shape)
    else:
        shape, first = _array_shape(X, fitted)
    if kind == "rows" and shape[0] == 1 and X.dtype != np.uint8:
        return ArrayImages(X, _stretch(X, shape, fitted))
    return ArrayImages(X, ImageFormat(kind, shape, first, _array_scale(X, fitted)))


def _stretch(X, shape, fitted):
    """Vectors, taken as images of 1 x n_features, are no pixels: any range will do."""
    if fitted is not None:
        return fitted
    low, high = float(X.min()), float(X.max())
    return ImageFormat("rows", shape, scale=(high - low) or 1.0, black=low)


def _array_shape(X, fitted):
    if X.ndim > 4 or 0 in X.shape:
        raise ValueError(
            "X must have the shape (n, h, w), (n, h, w, c) or (n, c, h, w), with at least 1 "
            f"sample and 1 pixel; got {X.shape}."
        )
    if X.ndim == 3:
        in_colour = fitted is not None and fitted.shape is not None and len(fitted.shape) == 3
        if in_colour and fitted.kind == "array" and X.shape[2] == fitted.shape[2]:
            raise ValueError(f"X has the shape {X.shape}. {ADD_AXIS}")
        return X.shape[1:], False
    same = fitted is not None and fitted.kind == "array" and len(fitted.shape or ()) == 3
    if same and X.shape[1 if fitted.channels_first else 3] == fitted.shape[2]:
        first = fitted.channels_first
    else:
        first = is_channels_first(X.shape[1:])
    return (X.shape[2:] + X.shape[1:2] if first else X.shape[1:]), first


def _array_scale(X, fitted):
    if X.dtype in (np.uint8, np.uint16, bool):
        if X.dtype == np.uint16:
            warnings.warn("uint16 pixels are divided by 65535.", stacklevel=2)
        return None if fitted is None else fitted.scale
    return _number_scale(full_scale(X), X.dtype.kind == "f", fitted)


def _number_scale(scale, is_float, fitted):
    """Settle full brightness for numbers without a range of their own, as in `fit`."""
    if fitted is not None and fitted.scale is not None:
        if scale > fitted.scale:
            raise ValueError(
                f"X has values up to {scale}, but the estimator was fitted on pixels in "
                f"[0, {fitted.scale:g}]. Scale X like the data given to fit."
            )
        return fitted.scale
    if fitted is None and scale != (1 if is_float else 255):
        warnings.warn(
            f"Pixels are taken to lie in [0, {scale}] and are divided by {scale}. Divide them "
            "yourself, or pass uint8, to be sure.",
            stacklevel=2,
        )
    return scale


def _items_scale(items, fitted):
    """One full brightness for all arrays of numbers in a list; files and datasets have theirs."""
    if isinstance(items, DatasetImages):
        return 1
    scales = []
    for i, item in enumerate(items):
        if isinstance(item, (np.ndarray, torch.Tensor)):
            array = as_numpy(item)
            numbers = array.dtype not in (np.uint8, np.uint16, bool) and array.dtype.kind in "iuf"
            if numbers and array.size:
                scales.append((full_scale(array, f"image {i}"), array.dtype.kind == "f"))
    return _number_scale(*max(scales), fitted) if scales else None


def resize(images, image_size):
    """(B, h, w, 3) uint8 or unit float -> (B, 3, S, S), bilinear with antialiasing."""
    images = images.permute(0, 3, 1, 2)
    if images.shape[2:] == (image_size, image_size):
        return images
    return F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)


def as_unit_float(images):
    """uint8 -> float32 in [0, 1]; floats as they are."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
