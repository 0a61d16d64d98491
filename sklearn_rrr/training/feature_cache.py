"""Cache of the features of frozen layers."""

import math
import os
import tempfile
import warnings
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset

from sklearn_rrr.images.labelled_set import batch_targets

MEMORY_BYTES, FILE_BYTES = 2**30, 2**34  # of cached features


class KeptFeatures(Dataset):
    """Cached outputs (n, …) of the frozen layers, used instead of the images.

    Parameters
    ----------
    images : LabelledSet
    compute : callable
        Function from images (B, 3, S, S) to features (B, …).
    batch_size : int
        Number of images per call of `compute`.
    folder : path or None
        Folder of the file that stores the features; None stores them in memory.
    """

    reads_dataset = False

    def __init__(self, images, compute, batch_size, folder=None):
        self.labels, self.weights, self.features = images.labels, images.weights, None
        done = 0
        for batch in np.array_split(np.arange(len(images)), math.ceil(len(images) / batch_size)):
            part = compute(images.__getitems__(batch)[0]).cpu().movedim(1, -1)  # channels last
            if self.features is None:
                self.features = _allocate((len(images), *part.shape[1:]), part.dtype, folder)
            self.features[done : done + len(part)] = part
            done += len(part)

    def __len__(self):
        return len(self.labels)

    def __getitems__(self, indices):
        """Return features and targets, in the order that LabelledSet uses."""
        index = torch.as_tensor(np.asarray(indices))
        return self.features[index.flatten()].movedim(-1, 1), batch_targets(self, index)


def _allocate(shape, dtype, folder):
    if folder is None:
        return torch.empty(shape, dtype=dtype)
    size = math.prod(shape)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
    return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(shape)


@contextmanager
def keep_features(datasets, compute, batch_size, shape, dtype):
    """Compute the features of data sets once, and cache them inside the block.

    Up to MEMORY_BYTES, they are in memory; above that, up to FILE_BYTES, they are in files of a
    temporary folder, if the disk has enough space and the system can delete mapped files.

    Parameters
    ----------
    datasets : list of LabelledSet or None
    compute : callable
        Function from images (B, 3, S, S) to features (B, …).
    batch_size : int
        Number of images per call of `compute`.
    shape : tuple of int
        Shape of the features of one image.
    dtype : torch.dtype

    Yields
    ------
    kept : list of KeptFeatures or None, or None
        One cache per data set; None if the features do not fit.
    """
    n_images = sum(len(images) for images in datasets if images is not None)
    size = n_images * math.prod(shape) * dtype.itemsize
    with ExitStack() as stack:
        folder, kept = None, None
        try:
            if MEMORY_BYTES < size <= FILE_BYTES and hasattr(os, "posix_fallocate"):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sklearn_rrr-"))
            if folder or size <= MEMORY_BYTES:
                kept = [
                    images and KeptFeatures(images, compute, batch_size, folder)
                    for images in datasets
                ]
        except OSError as error:
            if folder is None and size <= MEMORY_BYTES:
                raise  # unrelated to the files of the cache
            warnings.warn(f"Features are not cached: {error}", stacklevel=2)
        yield kept
