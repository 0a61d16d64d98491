"""Batches of labelled images, epoch by epoch."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.utils.data import DataLoader


class EpochBatches:
    """Batch indices of successive epochs, reproducible epoch by epoch.

    Batch sizes differ by at most one, so no batch has a single image, which batch norm
    cannot process. Each iteration yields a list of B indices or, with `n_branches`, M such
    lists, each branch in its own order.
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
    """Return a loader of a LabelledSet's images in `batches`, an iterable of index lists.

    With `ahead`, a thread reads the next batch while the current one is processed, for devices
    that leave the CPU idle. There are no worker processes, so loading is safe inside joblib.
    """
    if ahead:
        return _Ahead(images, batches)
    own = torch.Generator()  # else the loader would draw from the global one
    return DataLoader(images, batch_sampler=batches, collate_fn=_as_they_come, generator=own)


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
