"""What meta-estimators of image classifiers share: their images, and how they predict."""

import hashlib
import math
from difflib import get_close_matches

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils import check_consistent_length, column_or_1d, get_tags
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_rrr._validation import resolve_device
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.classifiers.uncertainty import UncertaintyMixin
from sklearn_rrr.images.forms import DatasetImages, sort_input, take_images
from sklearn_rrr.images.inspection import inspect_images
from sklearn_rrr.images.labels import encode_labels, weigh_images
from sklearn_rrr.training.devices import seeded


def check_scoring_parameter(scoring):
    """Raise unless `scoring` is one scorer, its name or None."""
    if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
        raise TypeError(f"`scoring` must be one scorer, its name or None; got {scoring!r}.")
    if isinstance(scoring, str) and scoring not in (names := get_scorer_names()):
        near = get_close_matches(scoring, names, 3, 0.3) or ["accuracy"]
        raise ValueError(
            f"`scoring` must name one of sklearn.metrics.get_scorer_names(); got {scoring!r}. "
            f"Near to it: {', '.join(near)}."
        )


def finite_score(scorer, estimator, X, y, where):
    """Return the score of an estimator; raise, with a word on where, if it is NaN or infinite."""
    score = float(scorer(estimator, X, y))
    if not math.isfinite(score):
        raise ValueError(f"`scoring` gave {score} {where}.")
    return score


class ImageMetaClassifier(UncertaintyMixin, MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Base of estimators that fit classifiers and predict with the last one, ``estimator_``.

    A subclass implements ``_make_estimator`` and ``_fit``, and lists the attributes that ``_fit``
    sets in ``_fitted``.
    """

    _fitted = ("estimator_", "results_", "classes_", "skipped_")
    _fitted += ("n_features_in_", "feature_names_in_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            inner = get_tags(self._make_estimator())
        except Exception:  # tags of an invalid estimator are asked for, too; `fit` reports it
            return tags
        tags.input_tags, tags.classifier_tags = inner.input_tags, inner.classifier_tags
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")  # a fit that failed may have left the form of the rows

    def _make_estimator(self):
        """Return the classifier to start from: a copy of `estimator`, or the default.

        Raises
        ------
        TypeError
            If `estimator` is of the wrong kind.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `_make_estimator`.")

    def _fit(self, X, y, sample_weight, classes=None):
        """Fit, and set the attributes in ``_fitted``.

        Parameters
        ----------
        X, y, sample_weight : images, array-like, array-like or None
            As in ``fit``.
        classes : ndarray or None, default=None
            All labels that may occur; None means those of `y`.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `_fit`.")

    def _check_input(self, X, y):
        """Forget an earlier fit; return X in a form that can be taken apart, and y.

        Of rows, their length and the names of their columns are kept.
        """
        for name in self._fitted:
            self.__dict__.pop(name, None)
        if y is None and isinstance(X, torch.utils.data.Dataset):
            y = DatasetImages(X).labels()
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        kind, form = sort_input(X)
        if kind == "rows":
            form = validate_data(self, X)
        whole = hasattr(X, "iloc") or isinstance(X, torch.utils.data.Dataset)
        return (X if whole else form), y

    def predict(self, X):
        """Predict the label of each image with the network that was found.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        y : ndarray of shape (n,)
            Labels.
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    def predict_proba(self, X):
        """Predict the probability of each class with the network that was found.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            Columns in the order of `classes_`.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def predict_branches(self, X):
        """Predict the probabilities of each branch of the network that was found.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of shape (n, n_branches, n_classes)
            Their mean over branches is :meth:`predict_proba`.
        """
        check_is_fitted(self)
        return self.estimator_.predict_branches(X)

    def score(self, X, y, sample_weight=None):
        """Return the score of the network that was found, by `scoring`.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.
        y : array-like of shape (n,)
            Labels.
        sample_weight : array-like of shape (n,), default=None
            Weights of the images, for a scorer that takes such.

        Returns
        -------
        score : float
            Larger is better.
        """
        check_is_fitted(self)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return check_scoring(self.estimator_, self.scoring)(self.estimator_, X, y, **weights)


class ImageData:
    """Images, labels and weights, and parts of them.

    Parameters
    ----------
    reader : RRRNetClassifier
        Reads the images, as it will when it is fitted; it is used for nothing else.
    X : images
    y : array-like of shape (n,)
    sample_weight : array-like of shape (n,) or None
    classes : ndarray or None, default=None
        All labels that may occur; None takes those of `y`.

    Attributes
    ----------
    y, labels, weights : ndarray
        Of the images that are used: those that can be read and whose weight is not 0.
    kept, given : ndarray of int
        Positions of those among the images given, and the labels of all of these.
    """

    def __init__(self, reader, X, y, sample_weight, classes=None):
        self.y = column_or_1d(y, warn=True)
        self.classes, labels = encode_labels(self.y, classes)
        source = reader._read(X, reset=True)
        check_consistent_length(source, labels)
        if len(source) < 2:
            raise ValueError("Images to train on and others to score on are needed; got 1 sample.")
        weights = None
        if sample_weight is not None:
            weights = weigh_images(self.classes, labels, sample_weight)
        with seeded(0, resolve_device(reader.device)):  # weights are drawn, and are of no use
            self.backbone = make_backbone(reader.backbone)
        size = reader.image_size or self.backbone.image_size
        inspection = inspect_images(source, labels, size, reader.on_bad_file)
        kept, self.skipped = inspection.kept, inspection.skipped
        if weights is not None:
            kept = kept[weights[kept] > 0]
        self.kept, self.given = kept, labels
        self.X, self.y, self.labels = take_images(X, kept), self.y[kept], labels[kept]
        self.weights = None if weights is None else weights[kept]
        self.pixels, self.size = inspection.source, size

    def part(self, indices):
        weights = None if self.weights is None else self.weights[indices]
        return take_images(self.X, indices), self.y[indices], weights

    def fingerprint(self):
        """Return a digest of pixels, labels and weights, whatever form the images have."""
        digest = hashlib.blake2b(digest_size=16)
        for index in np.array_split(np.arange(len(self.y)), math.ceil(len(self.y) / 256)):
            digest.update(self.pixels.load(index, self.size).contiguous().numpy().tobytes())
        classes = repr(self.classes.tolist())
        return joblib.hash([digest.hexdigest(), classes, self.labels, self.weights])
