"""Sources of training: readers whose batches are torch tensors (B, 3, S, S)."""

import numpy as np
import torch
import torch.nn.functional as F

from sklearn_rrr.images.decoding import MAX_IMAGE_PIXELS
from sklearn_rrr.images.readers import make_reader


class TorchResizer:
    """Resizer of images to tensors (B, 3, S, S): uint8, or float32."""

    @staticmethod
    def resize(pixels, image_size):
        """Resize uint8 or floats (B, h, w, 3)."""
        pixels = np.ascontiguousarray(pixels)
        if not pixels.flags.writeable or min(pixels.strides) < 0:  # which torch refuses
            pixels = pixels.copy()
        return resize(torch.from_numpy(pixels), image_size)

    @staticmethod
    def join(batches):
        """Concatenate batches; convert all to floats in [0, 1] if some are."""
        if len({images.dtype for images in batches}) > 1:
            batches = [as_unit_float(images) for images in batches]
        return torch.cat(batches)

    @staticmethod
    def count_threads():
        """Return torch's number of threads, because joblib limits it in its workers."""
        return torch.get_num_threads()


def make_source(kind, X, *, image_shape=None, fitted=None, max_pixels=MAX_IMAGE_PIXELS):
    """Create a reader of tensors; see :func:`~sklearn_rrr.images.readers.make_reader`."""
    form = {"image_shape": image_shape, "fitted": fitted, "max_pixels": max_pixels}
    return make_reader(kind, X, TorchResizer, **form)


def resize(images, image_size):
    """Resize uint8 or [0, 1] floats (B, h, w, 3) to (B, 3, S, S), bilinear, antialiased."""
    images = images.permute(0, 3, 1, 2)
    if images.shape[2:] == (image_size, image_size):
        return images
    return F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)


def as_unit_float(images):
    """Convert uint8 to float32 in [0, 1]; return floats unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
