"""Features of frozen layers, computed once."""

import math
import os
import tempfile
import warnings
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset

from sklearn_rrr.images.labelled_set import batch_targets

MEMORY_BYTES, FILE_BYTES = 2**30, 2**34  # of kept features


class KeptFeatures(Dataset):
    """What frozen parts make of each of the images (n, …), in their place.

    Parameters
    ----------
    images : LabelledSet
    compute : callable
        From images (B, 3, S, S) to features (B, …).
    batch_size : int
        Images that are computed at a time.
    folder : path or None
        Where the features lie in a file; None keeps them in memory.
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
        """Return features and targets, ordered as those of LabelledSet."""
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
    """Compute the features of data sets once, and keep them inside the block.

    In memory up to MEMORY_BYTES, above that in files of a temporary folder up to FILE_BYTES,
    if the disk has the space, and the system deletes files that are mapped.

    Parameters
    ----------
    datasets : list of LabelledSet or None
    compute : callable
        From images (B, 3, S, S) to features (B, …).
    batch_size : int
        Images that are computed at a time.
    shape : tuple of int
        Of one image's features.
    dtype : torch.dtype

    Yields
    ------
    kept : list of KeptFeatures or None, or None
        None where they do not fit.
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
                raise  # not of the files made here
            warnings.warn(f"Features are not kept: {error}", stacklevel=2)
        yield kept
