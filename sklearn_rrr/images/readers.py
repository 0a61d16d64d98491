"""Readers store images unchanged and return batches on request, resized with or without torch.

A resizer knows the library of the batches. It has three methods: ``resize(pixels, image_size)``
resizes uint8, or float32 in [0, 1], of shape (B, h, w, 3) to a batch; ``join(batches)``
concatenates batches, and converts them to floats if some are; ``count_threads()`` returns the
number of threads that may read files.
"""

import copy
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from sklearn_rrr._warnings import warn
from sklearn_rrr.images.array_likes import as_numpy
from sklearn_rrr.images.brightness import ROUNDING, to_unit
from sklearn_rrr.images.decoding import (
    DAMAGE,
    MAX_IMAGE_PIXELS,
    BadImages,
    decode_file,
    decode_pil,
    is_animated,
    to_rgb,
)
from sklearn_rrr.images.forms import DatasetImages
from sklearn_rrr.images.image_format import find_format
from sklearn_rrr.images.label_types import is_missing
from sklearn_rrr.images.layout import is_channels_first
from sklearn_rrr.images.level_watch import LevelWatch


class ArrayImages:
    """Images of one array; only requested batches are converted and resized."""

    def __init__(self, array, fmt, resizer):
        self.array, self.format, self.resizer = array, fmt, resizer

    def __len__(self):
        return len(self.array)

    def load(self, indices, image_size):
        """Return the images at `indices` as a batch: uint8, or float32 in [0, 1]."""
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
            return self.resizer.resize(to_rgb(block), image_size)
        return _resize_pictures(to_rgb(to_unit(block, self.format)), image_size, self.resizer)

    def select(self, indices):
        return ArrayImages(self.array[indices], self.format, self.resizer)


class ItemImages:
    """Separate images: PIL images, arrays, tensors, paths or a Dataset's items."""

    def __init__(self, items, fmt, resizer, max_pixels=MAX_IMAGE_PIXELS, *, watch):
        self.items, self.format, self.resizer = items, fmt, resizer
        self.max_pixels, self.watch = max_pixels, watch
        self.numbers = np.arange(len(items))  # positions in the user's X, for messages
        self.animated, self.warned = set(), set()  # shared with selections

    def __len__(self):
        return len(self.items)

    def load(self, indices, image_size):
        """Return the images at `indices` as a batch: uint8, or float32 in [0, 1].

        Raises
        ------
        BadImages
            If some images of the batch cannot be used; lists them all.
        """

        def read(i):
            try:
                return _resize_pictures(self._decode(i, image_size)[None], image_size, self.resizer)
            except ValueError as error:
                return i, str(error)

        # Pillow releases the GIL while decoding. Only paths are read in parallel: a list may
        # contain the same image twice, and the items of a Dataset may share a file or a random
        # generator.
        paths = [i for i in map(int, indices) if self._is_path(i)]
        with ThreadPoolExecutor(self.resizer.count_threads()) as pool:
            files = pool.map(read, paths)
            images = [next(files) if self._is_path(i) else read(i) for i in map(int, indices)]
        self.watch.see(indices)
        if bad := [image for image in images if isinstance(image, tuple)]:
            raise BadImages(bad)
        self.watch.check()
        if self.animated and not self.warned:
            self.warned.update(self.animated)
            warn(
                f"Some images have several frames, such as {min(self.animated)}; only one is used."
            )
        return self.resizer.join(images)

    def select(self, indices):
        chosen = copy.copy(self)
        if isinstance(self.items, DatasetImages):
            chosen.items = self.items.select(indices)
        else:
            chosen.items = [self.items[i] for i in indices]
        chosen.numbers = self.numbers[indices]
        chosen.watch = self.watch.select(len(chosen.numbers))
        return chosen

    def name(self, i):
        """Return the path or image at i, or its index in a Dataset, whose item may fail."""
        return int(self.numbers[i]) if isinstance(self.items, DatasetImages) else self.items[i]

    def _is_path(self, i):
        # Items of a Dataset are not loaded here: that is slow and may draw random numbers.
        return isinstance(self.items, list) and isinstance(self.items[i], (str, os.PathLike))

    def _decode(self, i, image_size):
        form = self.max_pixels, self.watch.to_unit
        try:
            item = self.items[i]
            if isinstance(item, (str, os.PathLike)):
                pixels, animated = decode_file(item, *form, image_size)
            elif isinstance(item, Image.Image):
                pixels = decode_pil(item, *form)
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
        if is_missing(item):
            raise ValueError(f"is missing ({item}); give every image, or leave out its row")
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
        return to_rgb(self.watch.to_unit(item))


def make_reader(kind, X, resizer, *, image_shape=None, fitted=None, max_pixels=MAX_IMAGE_PIXELS):
    """Create a reader from the result of `sort_input`, checking it without decoding.

    Parameters
    ----------
    kind : {"rows", "array", "items"}
    X : ndarray or sequence
        Rows must already be an ndarray of numbers.
    resizer : object
        See the module's docstring.
    image_shape : tuple of int or None, default=None
        Layout of a row.
    fitted : ImageFormat or None, default=None
        The format seen in `fit`; None during `fit`.
    max_pixels : int, default=MAX_IMAGE_PIXELS
        Maximum number of pixels of a file.

    Returns
    -------
    reader : ArrayImages or ItemImages
    """
    fmt, notes = find_format(kind, X, image_shape, fitted, max_pixels)
    for note in notes:
        warn(note)
    if kind == "items":
        watch = LevelWatch(len(X), fmt, fitted, notes, isinstance(X, DatasetImages))
        return ItemImages(X, fmt, resizer, max_pixels, watch=watch)
    return ArrayImages(X, fmt, resizer)


def read_batches(reader, image_size, size):
    """Yield the images of a reader, `size` at a time.

    After an image that cannot be used, nothing is yielded any more; the rest is only searched for
    others.

    Raises
    ------
    BadImages
        At the end, if some images cannot be used; lists them all.
    """
    bad = []
    for start in range(0, len(reader), size):
        try:
            images = reader.load(np.arange(start, min(start + size, len(reader))), image_size)
        except BadImages as error:
            bad += error.bad
            continue
        if not bad:
            yield images
    if bad:
        raise BadImages(bad, len(reader))


def _resize_pictures(pixels, image_size, resizer):
    """Resize uint8 or [0, 1] floats (B, h, w, 3) to a batch.

    Floats that are 8-bit pixels divided by 255 become uint8, so that rounding is the same in every
    form of a picture.
    """
    if pixels.dtype != np.uint8:
        bytes_of = np.rint(pixels * 255)
        is_eight = np.abs(pixels * 255 - bytes_of).max((1, 2, 3)) <= 255 * ROUNDING
        if is_eight.all():
            pixels = bytes_of.astype(np.uint8)
        elif is_eight.any():
            parts = (pixels[i : i + 1] for i in range(len(pixels)))
            return resizer.join([_resize_pictures(part, image_size, resizer) for part in parts])
    return resizer.resize(pixels, image_size)
