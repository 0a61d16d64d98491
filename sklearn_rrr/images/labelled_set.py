"""LabelledSet: images with labels and weights, read once and split into subsets."""

from dataclasses import dataclass, replace
from numbers import Integral

import joblib
import numpy as np
import torch
from torch.utils.data import Dataset

from sklearn_rrr.images.forms import DatasetImages
from sklearn_rrr.images.labels import weigh_images


@dataclass(frozen=True)
class Reading:
    """Record of how the images of a LabelledSet were read.

    Parameters
    ----------
    attributes : dict
        Attributes that reading sets on a fitted estimator, by name.
    kept : ndarray of int
        Positions, among the images given, of those that are readable and whose weight is not 0.
    given : ndarray of int
        Labels of all images given, as indices of classes: those of X or, in a subset, of the
        subset.
    """

    attributes: dict
    kept: np.ndarray
    given: np.ndarray


class LabelledSet(Dataset):
    """Images that were read, decoded and checked, with their labels and weights.

    A meta-estimator reads its images once and passes a :meth:`subset` to each estimator that it
    trains or scores. ``predict`` and its relatives accept a LabelledSet as X.

    Parameters
    ----------
    source : ArrayImages, ItemImages or TensorImages
        Source of the n images.
    labels : array-like of shape (n,)
        Indices of classes.
    classes : ndarray of shape (n_classes,)
        All labels that may occur, of the user's type.
    image_size : int
        Height and width, in pixels, to which images are resized.
    sample_weight : array-like of shape (n,) or None, default=None
        Sample weights given by the user.
    weights : array-like of shape (n,), (n, M) or None, default=None
        Weights in the loss, with mean 1; of shape (n, M) if each of M branches has its own
        weights. None uses the sample weights.
    reading : Reading or None, default=None
        Record of how the images were read; a subset has the same attributes.

    Attributes
    ----------
    labels, weights : torch.Tensor
        Labels, as indices of classes, and weights in the loss.
    """

    def __init__(
        self, source, labels, classes, image_size, sample_weight=None, weights=None, reading=None
    ):
        self.source, self.image_size, self.classes = source, image_size, classes
        self.labels, self.reading = torch.as_tensor(labels), reading
        self.sample_weight = None if sample_weight is None else np.asarray(sample_weight, float)
        if weights is None:
            weights = self._weights(None)
            weights = weights / weights.mean()
        self.weights = torch.as_tensor(weights, dtype=torch.float32)

    def __len__(self):
        return len(self.labels)

    @property
    def y(self):
        """Labels of the user's type: ndarray of shape (n,)."""
        return self.classes[self.labels.numpy()]

    @property
    def reads_dataset(self):
        """Whether images come from a user's Dataset, which may not be thread-safe."""
        source = getattr(self.source, "source", self.source)  # of resized images
        return isinstance(getattr(source, "items", None), DatasetImages)

    def subset(self, indices):
        """Return the images at `indices`, with their labels and weights."""
        indices = np.asarray(indices)
        given = None if self.sample_weight is None else self.sample_weight[indices]
        reading = self.reading
        if reading is not None:  # these images are all that its user is given
            everything = np.arange(len(indices))
            reading = replace(reading, kept=everything, given=self.labels[indices].numpy())
        return LabelledSet(
            self.source.select(indices),
            self.labels[indices],
            self.classes,
            self.image_size,
            given,
            self.weights[indices],
            reading,
        )

    def weigh_classes(self, class_weight):
        """Return the same images, weighted by `class_weight` and their sample weights.

        "balanced" uses the class counts of this set. Images of weight 0 are dropped.
        """
        weights = self._weights(class_weight)
        used = np.flatnonzero(weights)
        part = self if len(used) == len(self) else self.subset(used)
        return part.with_weights(weights[used] / weights[used].mean())

    def weigh_branches(self, factors):
        """Return the same images with weights multiplied by factors of shape (n, M)."""
        weights = self.weights[:, None] * torch.as_tensor(factors, dtype=torch.float32)
        return self.with_weights(weights / weights.mean(0))

    def with_weights(self, weights):
        """Return the same images with other weights in the loss."""
        form = (self.source, self.labels, self.classes, self.image_size, self.sample_weight)
        return LabelledSet(*form, weights, self.reading)

    def resize(self, image_size, function):
        """Return the same images, in another size, as `function` resizes a batch of them."""
        source = ResizedImages(self.source, self.image_size, function)
        form = (source, self.labels, self.classes, image_size, self.sample_weight)
        return LabelledSet(*form, self.weights, self.reading)

    def _weights(self, class_weight):
        """Return sample weights times class weights, (n,)."""
        return weigh_images(self.classes, self.labels.numpy(), self.sample_weight, class_weight)

    def fingerprint(self):
        """Return a hash of pixels, labels and weights, which does not depend on the form of X."""
        return joblib.hash(list(self.fingerprints().values()))

    def fingerprints(self):
        """Return the hashes of pixels, labels and weights, named as arguments of `fit`."""
        chunks = np.array_split(np.arange(len(self)), -(-len(self) // 256))
        pixels = [
            joblib.hash(self.source.load(index, self.image_size).contiguous().numpy())
            for index in chunks
        ]
        labels = [self.classes.tolist(), self.labels.numpy()]
        parts = {"X": pixels, "y": labels, "sample_weight": self.sample_weight}
        return {name: joblib.hash(part) for name, part in parts.items()}

    @property
    def shape(self):
        """Shape of all images in one array, (n, 3, S, S)."""
        return (len(self), 3, self.image_size, self.image_size)

    def __getitem__(self, index):
        """Return one image (3, S, S) and its label, or the subset of a slice, list or mask."""
        if not isinstance(index, Integral):
            return self.subset(np.arange(len(self))[index])
        image = self.source.load([index], self.image_size)[0]
        return image, self.classes[self.labels[index]]

    def __getitems__(self, indices):
        """Return a batch: images and (labels, weights).

        For `indices` of shape (B,), images are (B, 3, S, S), labels (B,) and weights (B,) or
        (B, M). For `indices` of shape (M, B), one row per branch, the images of all branches are
        concatenated, (M·B, 3, S, S), and labels and weights are (B, M).
        """
        index = torch.as_tensor(np.asarray(indices))
        images = self.source.load(index.flatten().numpy(), self.image_size)
        return images, batch_targets(self, index)


class ResizedImages:
    """Source whose images are those of another source, resized by a function."""

    def __init__(self, source, image_size, function):
        self.source, self.image_size, self.function = source, image_size, function

    def __len__(self):
        return len(self.source)

    def select(self, indices):
        return ResizedImages(self.source.select(indices), self.image_size, self.function)

    def load(self, indices, image_size):
        """Return the images at `indices`, in the size that the function produces."""
        return self.function(self.source.load(indices, self.image_size))


def batch_targets(images, index):
    """Return the labels and weights of a batch, as in :meth:`LabelledSet.__getitems__`."""
    labels, weights = images.labels[index], images.weights[index]
    if index.ndim == 1:
        return labels, weights
    if weights.ndim == 3:  # (M, B, M) to (B, M): each branch uses its own weights
        return labels.T, weights.diagonal(dim1=0, dim2=2)
    return labels.T, weights.T
