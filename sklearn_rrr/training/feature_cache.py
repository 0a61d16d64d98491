"""Cache of the features of frozen layers."""

import math
import os
import tempfile
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset

from sklearn_rrr._warnings import warn
from sklearn_rrr.images.labelled_set import batch_targets

MEMORY_BYTES, FILE_BYTES = 2**30, 2**34  # of cached features


class KeptFeatures(Dataset):
    """Cached outputs (n, …) of the frozen layers, used instead of the images.

    Parameters
    ----------
    images : LabelledSet
    compute : callable
        Function from images (B, 3, S, S) to a tuple of features (B, …).
    batch_size : int
        Number of images per call of `compute`.
    folder : path or None
        Folder of the file that stores the features; None stores them in memory.
    """

    reads_dataset = False

    def __init__(self, images, compute, batch_size, folder=None):
        self.labels, self.weights, self.parts = images.labels, images.weights, None
        done = 0
        for batch in np.array_split(np.arange(len(images)), math.ceil(len(images) / batch_size)):
            parts = [p.cpu().movedim(1, -1) for p in compute(images.__getitems__(batch)[0])]
            if self.parts is None:
                shapes = [(len(images), *p.shape[1:]) for p in parts]  # channels last
                self.parts = [
                    _allocate(shape, p.dtype, folder)
                    for shape, p in zip(shapes, parts, strict=True)
                ]
            for stored, part in zip(self.parts, parts, strict=True):
                stored[done : done + len(part)] = part
            done += len(batch)

    def __len__(self):
        return len(self.labels)

    def __getitems__(self, indices):
        """Return a tuple of features, and targets, in the order that LabelledSet uses."""
        index = torch.as_tensor(np.asarray(indices))
        parts = tuple(part[index.flatten()].movedim(-1, 1) for part in self.parts)
        return parts, batch_targets(self, index)


def _allocate(shape, dtype, folder):
    if folder is None or not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    size = math.prod(shape)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
    return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(shape)


@contextmanager
def keep_features(datasets, compute, batch_size, example):
    """Compute the features of data sets once, and cache them inside the block.

    Up to MEMORY_BYTES, they are in memory; above that, up to FILE_BYTES, they are in files of a
    temporary folder, if the disk has enough space and the system can delete mapped files.

    Parameters
    ----------
    datasets : list of LabelledSet or None
    compute : callable
        Function from images (B, 3, S, S) to a tuple of features (B, …).
    batch_size : int
        Number of images per call of `compute`.
    example : tuple of Tensor
        Features of one image.

    Yields
    ------
    kept : list of KeptFeatures or None, or None
        One cache per data set; None if the features do not fit.
    """
    n_images = sum(len(images) for images in datasets if images is not None)
    size = n_images * sum(part.nbytes for part in example)
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
            warn(f"Features are not cached: {error}")
        yield kept
