"""What meta-estimators of image classifiers share: their images, and how they predict."""

import math
from difflib import get_close_matches

from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr._validation import resolve_device
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.classifiers.uncertainty import UncertaintyMixin
from sklearn_rrr.images.forms import find_labels
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

    A subclass implements ``_make_estimator`` and ``_fit_set``, and lists the attributes that
    ``_fit_set`` sets in ``_fitted``. It has the parameter `scoring`.
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

    def _fit_set(self, images):
        """Fit on images that were read, and set the attributes in ``_fitted``.

        Parameters
        ----------
        images : LabelledSet
            Its classes are all that may occur.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `_fit_set`.")

    def _forget(self):
        for name in self._fitted:
            self.__dict__.pop(name, None)

    def _read_images(self, reader, X, y, sample_weight):
        """Read X, y and the weights once, as an unfitted classifier reads them."""
        y = find_labels(X, y, type(self).__name__)
        with seeded(0, resolve_device(reader.device)):  # weights are drawn, and are of no use
            size = make_backbone(reader.backbone).image_size
        return reader._read_set(X, y, sample_weight, size, weigh_classes=False)

    def _adopt(self, images):
        """Take on the form of the images; two at least are needed."""
        if len(images.reading.given) < 2:
            raise ValueError("Images to train on and others to score on are needed; got 1 sample.")
        names = ("n_features_in_", "feature_names_in_", "skipped_")
        read = images.reading.attributes
        self.__dict__.update({name: read[name] for name in names if name in read})

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
