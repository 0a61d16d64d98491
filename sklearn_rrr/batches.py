"""Labelled images, and the batches of one epoch after another."""

import math

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class LabelledImages(Dataset):
    """A source with encoded labels (n,) and sample weights (n,), read batch by batch."""

    def __init__(self, source, labels, weights, image_size):
        self.source, self.image_size = source, image_size
        self.labels = torch.as_tensor(labels)
        self.weights = torch.as_tensor(weights, dtype=torch.float32)

    def __len__(self):
        return len(self.labels)

    def subset(self, indices):
        """Return the images at `indices`, with their labels and weights."""
        source = self.source.select(indices)
        return LabelledImages(source, self.labels[indices], self.weights[indices], self.image_size)

    def __getitems__(self, indices):
        """Return images (B, 3, S, S) and (labels, weights), each (B,).

        With `indices` (M, B) the images of all branches follow each other, (M·B, 3, S, S),
        and labels and weights are (B, M).
        """
        index = torch.as_tensor(np.asarray(indices))
        images = self.source.load(index.flatten().numpy(), self.image_size)
        targets = self.labels[index], self.weights[index]
        return images, tuple(t.movedim(0, -1) for t in targets)


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


def load_batches(images, batches):
    """Return a loader of the batches, lists of indices, of LabelledImages."""
    return DataLoader(images, batch_sampler=batches, collate_fn=_as_they_come)


def _as_they_come(batch):
    return batch
