"""Labelled images, and the batches of one epoch after another."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch.utils.data import DataLoader

MEMORY_BYTES, FILE_BYTES = 2**30, 2**34  # of kept features


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
    """Return a loader of the batches, lists of indices, of LabelledSet.

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
