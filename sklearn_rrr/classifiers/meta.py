"""Base class of meta-estimators of image classifiers."""

import math
from difflib import get_close_matches

from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, TransformerMixin
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr._surroundings import drawing
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.classifiers.uncertainty import UncertaintyMixin
from sklearn_rrr.images.forms import find_labels


def check_scoring_parameter(scoring):
    """Raise unless `scoring` is a scorer, the name of a scorer or None."""
    if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
        raise TypeError(f"`scoring` must be one scorer, its name or None; got {scoring!r}.")
    if isinstance(scoring, str) and scoring not in (names := get_scorer_names()):
        near = get_close_matches(scoring, names, 3, 0.3) or ["accuracy"]
        raise ValueError(
            f"`scoring` must name one of sklearn.metrics.get_scorer_names(); got {scoring!r}. "
            f"Similar names: {', '.join(near)}."
        )


def finite_score(scorer, estimator, X, y, where):
    """Return the score of an estimator; if it is not finite, raise an error that cites `where`."""
    score = float(scorer(estimator, X, y))
    if not math.isfinite(score):
        raise ValueError(f"`scoring` returned {score} {where}.")
    return score


class ImageMetaClassifier(
    UncertaintyMixin, MetaEstimatorMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """Base class of estimators that fit classifiers and predict with one, ``estimator_``.

    A subclass implements ``_make_estimator`` and ``_fit_set``, and lists the attributes that
    ``_fit_set`` sets in ``_fitted``. It has the parameter `scoring`.
    """

    _fitted = ("estimator_", "results_", "classes_", "skipped_")
    _fitted += ("n_features_in_", "feature_names_in_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            inner = get_tags(self._make_estimator())
        except Exception:  # an invalid `estimator`, which `fit` reports
            return tags
        for name in ("input_tags", "classifier_tags", "transformer_tags"):
            setattr(tags, name, getattr(inner, name))
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")  # a failed fit may have set others

    def _make_estimator(self):
        """Return the classifier to start from: `estimator`, copied or frozen, or the default.

        Raises
        ------
        TypeError
            If `estimator` is of an unsupported type.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `_make_estimator`.")

    def _fit_set(self, images):
        """Fit to a LabelledSet, and set the attributes in ``_fitted``.

        Parameters
        ----------
        images : LabelledSet
            Images; its classes are all labels that may occur.

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
        with drawing(0):  # draws weights, which are discarded
            size = make_backbone(reader.backbone).image_size
        return reader._read_set(X, y, sample_weight, size, weigh_classes=False)

    def _adopt(self, images):
        """Copy the attributes that describe the rows from a LabelledSet of at least 2 images."""
        if len(images.reading.given) < 2:
            raise ValueError(
                "At least 2 images are needed, to train on and to score on; got 1 sample."
            )
        names = ("n_features_in_", "feature_names_in_", "skipped_")
        read = images.reading.attributes
        self.__dict__.update({name: read[name] for name in names if name in read})

    def predict(self, X):
        """Predict the label of each image with the network of `estimator_`.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        y : ndarray of shape (n,)
            Predicted labels.
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    def predict_proba(self, X):
        """Predict the probability of each class with the network of `estimator_`.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            Columns are in the order of `classes_`.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def predict_branches(self, X):
        """Predict the probabilities of each branch of the network of `estimator_`.

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

    def transform(self, X):
        """Compute the features of each image with the network of `estimator_`.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        features : ndarray of shape (n, n_features_out)
            See :meth:`RRRNetClassifier.transform`.
        """
        check_is_fitted(self)
        return self.estimator_.transform(X)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the features of the network of `estimator_`.

        Parameters
        ----------
        input_features : object, default=None
            Ignored.

        Returns
        -------
        names : ndarray of str of shape (n_features_out,)
            See :meth:`RRRNetClassifier.get_feature_names_out`.
        """
        check_is_fitted(self)
        return self.estimator_.get_feature_names_out(input_features)

    def score(self, X, y, sample_weight=None):
        """Return the score of `estimator_` by `scoring`.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.
        y : array-like of shape (n,)
            Labels.
        sample_weight : array-like of shape (n,), default=None
            Weights of the images; passed to the scorer if given.

        Returns
        -------
        score : float
            Score; larger is better.
        """
        check_is_fitted(self)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return check_scoring(self.estimator_, self.scoring)(self.estimator_, X, y, **weights)
