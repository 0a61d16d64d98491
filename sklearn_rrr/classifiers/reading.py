"""Reading of X, shared by all image classifiers: once, into a LabelledSet."""

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import validate_data

from sklearn_rrr.images.forms import find_labels, sort_input
from sklearn_rrr.images.inspection import inspect_images
from sklearn_rrr.images.labelled_set import LabelledSet, Reading
from sklearn_rrr.images.labels import check_sample_weight, encode_labels, weigh_images
from sklearn_rrr.images.layout import ADD_AXIS
from sklearn_rrr.images.sources import make_source

# Attributes that reading sets. An estimator that is given a LabelledSet copies them from it.
READ = ("_image_format", "image_shape_in_", "skipped_", "n_features_in_", "feature_names_in_")


class ReadingMixin:
    """Read images with the parameters of :class:`ClassifierParameters`."""

    def _read_set(self, X, y, sample_weight, image_size, classes=None, weigh_classes=True):
        """Read, decode and check X, y and the weights, once for all estimators that use them.

        Parameters
        ----------
        X, y, sample_weight : images, labels and weights as passed to `fit`
        image_size : int or None
            Image size of the backbone at the first fit; None afterwards.
        classes : array-like or None, default=None
            All labels that may occur; None uses those of `y`.
        weigh_classes : bool, default=True
            Whether to apply `class_weight`. If False, the estimator that is trained applies it.

        Returns
        -------
        images : LabelledSet
        """
        if image_size is not None:
            self.image_size_ = self.image_size or image_size
        source = self._read(X, reset=image_size is not None)
        y = find_labels(X, y, type(self).__name__)
        self.classes_, labels = encode_labels(y, classes)
        if len(source) != len(labels):
            hint = f" {ADD_AXIS}" if len(labels) == 1 else ""
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"{[len(source), len(labels)]}.{hint}"
            )
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, len(labels))
        class_weight = self.class_weight if weigh_classes else None
        weights = weigh_images(self.classes_, labels, sample_weight, class_weight)
        kept = np.flatnonzero(weights)
        if len(kept) < len(labels):
            source = source.select(kept)
        inspection = inspect_images(source, labels[kept], self.image_size_, self.on_bad_file)
        self.skipped_, kept = inspection.skipped, kept[inspection.kept]
        attributes = {name: getattr(self, name) for name in READ if hasattr(self, name)}
        if sample_weight is not None:
            sample_weight = sample_weight[kept]
        form = (inspection.source, labels[kept], self.classes_, self.image_size_)
        images = LabelledSet(*form, sample_weight, reading=Reading(attributes, kept, labels))
        return images.weigh_classes(class_weight)

    def _make_reader(self):
        """Return an unfitted copy that reads images as this fitted classifier does."""
        reader, names = clone(self), ("image_size_", *READ)
        known = {name: getattr(self, name) for name in names if hasattr(self, name)}
        reader.__dict__.update(known)
        return reader

    def _adopt(self, images, image_size, split_seed):
        """Adopt the attributes of a LabelledSet that another estimator read, and its split seed."""
        self.image_size_ = self.image_size or image_size
        if self.image_size_ != images.image_size:
            raise ValueError(
                f"`image_size` is {self.image_size_}, but the images were read at size "
                f"{images.image_size}. Use image_size={images.image_size}."
            )
        self.__dict__.update(images.reading.attributes)
        self.classes_, self._split_seed = images.classes, split_seed

    def _adopt_weighed(self, images, image_size):
        """Adopt the attributes of a LabelledSet; return it weighted by our `class_weight`."""
        self._adopt(images, image_size, self._split_seed)
        return images.weigh_classes(self.class_weight)

    def _read(self, X, reset):
        """Turn X into a source of images; `reset` is True in fit and False in predict."""
        if isinstance(X, LabelledSet):
            return X.source
        kind, X = sort_input(X)
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        if kind == "rows":
            X = validate_data(self, X, reset=reset)
        source = make_source(
            kind,
            X,
            image_shape=self.image_shape,
            fitted=None if reset else self._image_format,
            max_pixels=self.max_image_pixels,
        )
        if reset:
            self._image_format = source.format
            self.image_shape_in_ = source.format.shape
        return source
