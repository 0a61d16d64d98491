"""Resize images without torch, to the values that torch computes.

torch's antialiased bilinear filter (``torch.nn.functional.interpolate``) resizes the width first
and then the height. For uint8, its weights are integers of 16 bits, and values are rounded after
each axis. Pillow's filter has longer weights, so that its values often differ by 1.
"""

from functools import lru_cache

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_info

CHUNK = 2**18  # values that are filtered at a time, to stay in the processor's cache
MAX_BITS = 22  # of the integer that means a weight of 1


class NumpyResizer:
    """Resizer of images to arrays (B, S, S, 3): uint8, or float32.

    Parameters
    ----------
    n_threads : int or None, default=None
        Number of threads that read files. None uses the number of threads of OpenMP, because
        joblib limits it in its workers.
    """

    def __init__(self, n_threads=None):
        self.n_threads = n_threads

    def resize(self, pixels, image_size):
        """Resize uint8 or floats (B, h, w, 3)."""
        for axis in (2, 1):
            if pixels.shape[axis] != image_size:
                pixels = _resize_axis(pixels, axis, image_size)
        return pixels

    def join(self, batches):
        """Concatenate batches; convert all to floats in [0, 1] if some are."""
        if len({images.dtype for images in batches}) > 1:
            batches = [as_unit_float(images) for images in batches]
        return np.concatenate(batches)

    def count_threads(self):
        """Return the number of threads that read files."""
        libraries = () if self.n_threads else threadpool_info()
        counts = [a["num_threads"] for a in libraries if a["user_api"] == "openmp"]
        return self.n_threads or max(counts, default=1)


def as_unit_float(images):
    """Convert uint8 to float32 in [0, 1]; return floats unchanged."""
    return images / np.float32(255) if images.dtype == np.uint8 else images


def _resize_axis(pixels, axis, size):
    """Resize one axis of (B, h, w, 3) to `size`."""
    shape, n = pixels.shape, pixels.shape[axis]
    lines = pixels.reshape(int(np.prod(shape[:axis])), n, -1)  # (lines, n, values)
    resized = np.empty((len(lines), size, lines.shape[2]), pixels.dtype)
    step = max(1, CHUNK // (n * lines.shape[2]))
    for start in range(0, len(lines), step):
        part = _swap(lines[start : start + step])  # (n, lines, values)
        values = _filter(part.reshape(n, -1), size).reshape(size, *part.shape[1:])
        resized[start : start + step] = _swap(values)
    return resized.reshape(*shape[:axis], size, *shape[axis + 1 :])


def _swap(values):
    """Return a copy of values (a, b, c) as (b, a, c), with rows of c values moved at once."""
    a, b, c = values.shape
    rows = np.ascontiguousarray(values).view(f"V{c * values.itemsize}")[..., 0]
    return np.ascontiguousarray(rows.T).view(values.dtype).reshape(b, a, c)


def _filter(values, size):
    """Resize the first axis of uint8 or float32 values (n, k) to `size`."""
    if values.dtype != np.uint8:
        return _float_filter(len(values), size) @ values
    matrix, bits = _integer_filter(len(values), size)
    sums = matrix @ values.astype(np.int32)
    sums += 1 << (bits - 1)  # to round
    sums >>= bits
    return sums.astype(np.uint8)


@lru_cache(maxsize=64)
def _float_filter(n, size):
    """Return the filter of one axis for floats: a sparse matrix (size, n)."""
    places, weights = _weigh(n, size, np.float32)
    return _as_matrix(places, weights, n)


@lru_cache(maxsize=64)
def _integer_filter(n, size):
    """Return the filter of one axis for uint8, (size, n), as multiples of 2^-bits, and `bits`."""
    places, weights = _weigh(n, size, np.float64)
    highest = weights.max()
    bits = next(
        b for b in range(MAX_BITS + 1) if b == MAX_BITS or highest * 2 ** (b + 1) >= 32767.5
    )
    return _as_matrix(places, np.floor(weights * 2**bits + 0.5).astype(np.int32), n), bits


def _weigh(n, size, dtype):
    """Return the places, among n, of each new pixel's neighbours, and their weights (size, taps).

    The weights of places beyond the filter's support are 0.
    """
    ratio = dtype(n) / dtype(size)
    support = max(ratio, dtype(1))
    centers = ratio * (np.arange(size, dtype=dtype) + dtype(0.5))[:, np.newaxis]
    first = np.maximum((centers - support + dtype(0.5)).astype(int), 0)
    end = np.minimum((centers + support + dtype(0.5)).astype(int), n)
    places = first + np.arange((end - first).max())
    distances = np.abs(places.astype(dtype) - centers + dtype(0.5)) / support
    weights = np.where(places < end, (1 - distances).clip(min=0), dtype(0))
    return np.minimum(places, n - 1), weights / weights.sum(1, keepdims=True)


def _as_matrix(places, weights, n):
    size, taps = weights.shape
    ends = np.arange(size + 1) * taps
    return sparse.csr_array((weights.ravel(), places.ravel(), ends), shape=(size, n))
