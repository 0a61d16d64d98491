"""Predictions and features, shared by all image classifiers."""

import torch
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr._surroundings import shielded
from sklearn_rrr.classifiers.running import RunningMixin, compute_features, compute_logits
from sklearn_rrr.classifiers.uncertainty import UncertaintyMixin
from sklearn_rrr.networks.image_network import average_probabilities


class FeaturesMixin(RunningMixin, TransformerMixin):
    """Return the features that the heads of ``module_`` read."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags

    @shielded()
    def transform(self, X):
        """Compute the features of each image.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; images of any size are resized in the same way.

        Returns
        -------
        features : ndarray of shape (n, n_features_out)
            Pooled outputs of the network, branch by branch, before any standardisation; of type
            float32. :meth:`get_feature_names_out` names them.
        """
        check_is_fitted(self)
        return torch.cat([*self._run_on(X, compute_features)]).numpy()

    def get_feature_names_out(self, input_features=None):
        """Return the names of the features.

        Parameters
        ----------
        input_features : object, default=None
            Ignored.

        Returns
        -------
        names : ndarray of str of shape (n_features_out,)
            Such as "conv4_x_2_mean_17": phase, number of the block, statistic over the pixels and
            number of the channel.
        """
        check_is_fitted(self)
        return self.module_.name_features()


class PredictingMixin(UncertaintyMixin, FeaturesMixin):
    """Predict with ``module_``."""

    @shielded()
    def predict_proba(self, X):
        """Predict the probability of each class: the mean of the branches' softmax.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; images of any size are resized in the same way.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            Columns are in the order of `classes_`; rows sum to 1; of type float64.
        """
        check_is_fitted(self)
        return torch.cat([*map(average_probabilities, self._run_on(X, compute_logits))]).numpy()

    @shielded()
    def predict_branches(self, X):
        """Predict the probabilities of each branch.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; images of any size are resized in the same way.

        Returns
        -------
        probabilities : ndarray of shape (n, n_branches, n_classes)
            Their mean over branches is :meth:`predict_proba`; of type float64.
        """
        check_is_fitted(self)
        chunks = [logits.softmax(2) for logits in self._run_on(X, compute_logits)]
        return torch.cat(chunks).numpy()

    def predict(self, X):
        """Predict the label of each image.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        y : ndarray of shape (n,)
            Labels of the most probable classes, of the same type as those given to `fit`.
        """
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]
