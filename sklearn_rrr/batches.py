"""Labelled images, and the batches of one epoch after another."""

import math
import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sklearn_rrr.images import DatasetImages

MEMORY_BYTES, FILE_BYTES = 2**30, 2**34  # of kept features


class LabelledImages(Dataset):
    """A source with encoded labels (n,) and sample weights, read batch by batch.

    Weights are (n,), or (n, M) where each branch has its own.
    """

    def __init__(self, source, labels, weights, image_size):
        self.source, self.image_size = source, image_size
        self.labels = torch.as_tensor(labels)
        self.weights = torch.as_tensor(weights, dtype=torch.float32)

    def __len__(self):
        return len(self.labels)

    @property
    def reads_dataset(self):
        """Whether images come from a Dataset of the user, perhaps of one thread only."""
        return isinstance(getattr(self.source, "items", None), DatasetImages)

    def subset(self, indices):
        """Return the images at `indices`, with their labels and weights."""
        source = self.source.select(indices)
        return LabelledImages(source, self.labels[indices], self.weights[indices], self.image_size)

    def weigh(self, factors):
        """Return the same images with weights multiplied by factors (n, M)."""
        weights = self.weights[:, None] * torch.as_tensor(factors, dtype=torch.float32)
        return LabelledImages(self.source, self.labels, weights / weights.mean(0), self.image_size)

    def __getitems__(self, indices):
        """Return images (B, 3, S, S) and (labels, weights), each (B,); weights may be (B, M).

        With `indices` (M, B) the images of all branches follow each other, (M·B, 3, S, S),
        and labels and weights are (B, M).
        """
        index = torch.as_tensor(np.asarray(indices))
        images = self.source.load(index.flatten().numpy(), self.image_size)
        return images, _targets(self, index)


class KeptFeatures(Dataset):
    """What frozen parts make of each of the images (n, …), in their place.

    Parameters
    ----------
    images : LabelledImages
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
        """Return features and targets, ordered as those of LabelledImages."""
        index = torch.as_tensor(np.asarray(indices))
        return self.features[index.flatten()].movedim(-1, 1), _targets(self, index)


def _targets(images, index):
    """Return the labels and weights at an index (B,) or (M, B), each (B,) or (B, M)."""
    labels, weights = images.labels[index], images.weights[index]
    if index.ndim == 1:
        return labels, weights
    if weights.ndim == 3:  # (M, B, M): each branch its own weights of its own images
        return labels.T, weights.diagonal(dim1=0, dim2=2)
    return labels.T, weights.T


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
    datasets : list of LabelledImages or None
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


class EpochBatches:
    """Indices of the batches of one epoch after another, reproducible epoch by epoch.

    Batches differ in size by one at most, so that none is left with a single image, which
    batch norm cannot take. Yields lists of B indices; with `n_branches`, M lists of them,
    each branch with its own order.
    """

    def __init__(self, n_images, batch_size, seed, n_branches=None):
        self.n_images, self.seed, self.n_branches = n_images, seed, n_branches
        self.n_batches = max(1, min(math.ceil(n_images / batch_size), n_images // 2))
        self.epoch = 0

    def __len__(self):
        return self.n_batches

    def __iter__(self):
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        orders = np.stack([rng.permutation(self.n_images) for _ in range(self.n_branches or 1)])
        if self.n_images == 1:
            orders = np.repeat(orders, 2, axis=1)
        for batch in np.array_split(orders, self.n_batches, axis=1):
            yield (batch if self.n_branches else batch[0]).tolist()


def load_batches(images, batches, ahead=False):
    """Return a loader of the batches, lists of indices, of LabelledImages.

    `ahead` reads the next batch in a thread while the last one is worked on: for devices that
    leave the processor idle. There are no worker processes, so that it is safe inside those
    of joblib.
    """
    if ahead:
        return _Ahead(images, batches)
    return DataLoader(images, batch_sampler=batches, collate_fn=_as_they_come)


class _Ahead:
    def __init__(self, images, batches):
        self.images, self.batches = images, batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        with ThreadPoolExecutor(1) as pool:
            pending = None
            for indices in self.batches:
                following = pool.submit(self.images.__getitems__, indices)
                if pending is not None:
                    yield pending.result()
                pending = following
            if pending is not None:
                yield pending.result()


def _as_they_come(batch):
    return batch
