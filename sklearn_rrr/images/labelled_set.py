"""LabelledSet: images with labels and weights, read once and shared as subsets."""

from dataclasses import dataclass

import joblib
import numpy as np
import torch
from torch.utils.data import Dataset

from sklearn_rrr.images.forms import DatasetImages
from sklearn_rrr.images.labels import weigh_images


@dataclass(frozen=True)
class Reading:
    """Record of how images were read.

    Parameters
    ----------
    attributes : dict
        Fitted attributes of the estimator that were set while reading.
    kept : ndarray of int
        Positions in X of the images that are readable and have a non-zero weight.
    given : ndarray of int
        Labels of all images in X, as class indices.
    """

    attributes: dict
    kept: np.ndarray
    given: np.ndarray


class LabelledSet(Dataset):
    """Checked images with their labels and weights.

    An estimator that trains others reads its images once and passes them subsets, see
    :meth:`subset`, for training or scoring. Prediction methods accept it instead of X.

    Parameters
    ----------
    source : ArrayImages, ItemImages or TensorImages
        Source of the n images.
    labels : array-like of shape (n,)
        Class indices.
    classes : ndarray of shape (n_classes,)
        All possible labels, in the user's type.
    image_size : int
        Height and width in pixels of the resized images.
    sample_weight : array-like of shape (n,) or None, default=None
        The user's sample weights.
    weights : array-like of shape (n,), (n, M) or None, default=None
        Weights in the loss, with mean 1; (n, M) gives each of M branches separate weights. None
        uses the sample weights.
    reading : Reading or None, default=None
        How the images were read; subsets share it.

    Attributes
    ----------
    labels : torch.Tensor of shape (n,)
    weights : torch.Tensor of shape (n,) or (n, M)
    """

    def __init__(
        self, source, labels, classes, image_size, sample_weight=None, weights=None, reading=None
    ):
        self.source, self.image_size, self.classes = source, image_size, classes
        self.labels, self.reading = torch.as_tensor(labels), reading
        self.sample_weight = None if sample_weight is None else np.asarray(sample_weight, float)
        if weights is None:
            weights = self._weights(None)
        self.weights = torch.as_tensor(weights, dtype=torch.float32)

    def __len__(self):
        return len(self.labels)

    @property
    def y(self):
        """Labels in the user's type: ndarray of shape (n,)."""
        return self.classes[self.labels.numpy()]

    @property
    def reads_dataset(self):
        """Whether images come from a user's Dataset, which may not be thread-safe."""
        return isinstance(getattr(self.source, "items", None), DatasetImages)

    def subset(self, indices):
        """Return the images at `indices`, with their labels and weights."""
        indices = np.asarray(indices)
        given = None if self.sample_weight is None else self.sample_weight[indices]
        return LabelledSet(
            self.source.select(indices),
            self.labels[indices],
            self.classes,
            self.image_size,
            given,
            self.weights[indices],
            self.reading,
        )

    def weigh_classes(self, class_weight):
        """Return the same images, weighted by `class_weight` times their sample weights.

        "balanced" uses the class counts of this set. Images of weight 0 are left out.
        """
        weights = self._weights(class_weight)
        used = np.flatnonzero(weights)
        part = self if len(used) == len(self) else self.subset(used)
        return part.with_weights(weights[used] / weights[used].mean())

    def weigh_branches(self, factors):
        """Return the same images, weights times `factors` (n, M), with mean 1 per branch."""
        weights = self.weights[:, None] * torch.as_tensor(factors, dtype=torch.float32)
        return self.with_weights(weights / weights.mean(0))

    def with_weights(self, weights):
        """Return the same images with other weights in the loss."""
        form = (self.source, self.labels, self.classes, self.image_size, self.sample_weight)
        return LabelledSet(*form, weights, self.reading)

    def _weights(self, class_weight):
        weights = weigh_images(self.classes, self.labels.numpy(), self.sample_weight, class_weight)
        return weights / weights.mean()

    def fingerprint(self):
        """Return a digest of pixels, labels and sample weights that ignores the form of X."""
        chunks = np.array_split(np.arange(len(self)), -(-len(self) // 256))
        pixels = [
            joblib.hash(self.source.load(index, self.image_size).contiguous().numpy())
            for index in chunks
        ]
        content = [pixels, self.classes.tolist(), self.labels.numpy(), self.sample_weight]
        return joblib.hash(content)

    def __getitem__(self, index):
        """Return one image (3, S, S) and its label in the user's type."""
        image = self.source.load([index], self.image_size)[0]
        return image, self.classes[self.labels[index]]

    def __getitems__(self, indices):
        """Return images (B, 3, S, S) and (labels, weights), each (B,); weights may be (B, M).

        With `indices` (M, B), the images of the M branches are concatenated, (M·B, 3, S, S),
        and labels and weights are (B, M).
        """
        index = torch.as_tensor(np.asarray(indices))
        images = self.source.load(index.flatten().numpy(), self.image_size)
        return images, batch_targets(self, index)


def batch_targets(images, index):
    """Return labels and weights, (B,) or (B, M), for an index (B,) or (M, B)."""
    labels, weights = images.labels[index], images.weights[index]
    if index.ndim == 1:
        return labels, weights
    if weights.ndim == 3:  # (M, B, M): select each branch's weights of its images
        return labels.T, weights.diagonal(dim1=0, dim2=2)
    return labels.T, weights.T
