"""Labelled images, read batch by batch."""

import numpy as np
import torch
from torch.utils.data import Dataset

from sklearn_rrr.images.forms import DatasetImages


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
        return images, batch_targets(self, index)


def batch_targets(images, index):
    """Return the labels and weights at an index (B,) or (M, B), each (B,) or (B, M)."""
    labels, weights = images.labels[index], images.weights[index]
    if index.ndim == 1:
        return labels, weights
    if weights.ndim == 3:  # (M, B, M): each branch its own weights of its own images
        return labels.T, weights.diagonal(dim1=0, dim2=2)
    return labels.T, weights.T
