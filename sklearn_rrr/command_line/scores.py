"""Scores of predictions for images that were not trained on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import binomtest
from sklearn import metrics

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass
class Scores:
    """Predictions beside the true labels, and what they are worth.

    Parameters
    ----------
    paths : ndarray of shape (n,)
    target : ndarray of shape (n,)
        True labels.
    probabilities : ndarray of shape (n, K)
    classes : ndarray of shape (K,)
        Labels of the columns, sorted.
    method : str
        How the predictions were made, as a sentence.
    """

    paths: np.ndarray
    target: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray
    method: str

    @cached_property
    def predicted(self):
        """Labels with the largest probability, (n,)."""
        return self.classes[self.probabilities.argmax(1)]

    @property
    def is_right(self):
        """Whether each prediction is right, (n,)."""
        return self.predicted == self.target

    @property
    def balanced_accuracy(self):
        """Mean over the classes of the share of their images that are recognised."""
        return metrics.balanced_accuracy_score(self.target, self.predicted)

    @property
    def chance(self):
        """Accuracy of always predicting the most frequent class."""
        return np.unique(self.target, return_counts=True)[1].max() / len(self.target)

    @cached_property
    def confusion(self):
        """Numbers of images, (K, K): rows are true classes, columns predicted ones."""
        return metrics.confusion_matrix(self.target, self.predicted, labels=self.classes)

    def by_class(self):
        """Return (label, n_images, precision, recall, f1) of each class."""
        parts = metrics.precision_recall_fscore_support(
            self.target, self.predicted, labels=self.classes, zero_division=0
        )
        columns = zip(self.classes, parts[3], *parts[:3], strict=True)
        return [tuple(column) for column in columns]

    def by_threshold(self):
        """Return (threshold, share of images at least as sure, accuracy among them or None)."""
        best, rows = self.probabilities.max(1), []
        for threshold in THRESHOLDS:
            is_sure = best >= threshold
            accuracy = self.is_right[is_sure].mean() if is_sure.any() else None
            rows.append((threshold, is_sure.mean(), accuracy))
        return rows

    def confused_pairs(self):
        """Return (true label, predicted label, number of images) of the errors, most first."""
        wrong = self.confusion * (1 - np.eye(len(self.classes), dtype=int))
        order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [(self.classes[i], self.classes[j], wrong[i, j]) for i, j in pairs]

    def worst_errors(self):
        """Return the positions of the errors, those with the least probable true class first."""
        truth = np.searchsorted(self.classes, self.target)
        of_truth = self.probabilities[np.arange(len(truth)), truth]
        wrong = np.flatnonzero(~self.is_right)
        return wrong[np.argsort(of_truth[wrong], kind="stable")]

    def probability_of(self, i, label):
        """Return the predicted probability of a label for the image at position i."""
        return self.probabilities[i, np.searchsorted(self.classes, label)]


def find_interval(n_right, n):
    """Return Wilson's 95% interval of an accuracy."""
    interval = binomtest(int(n_right), int(n)).proportion_ci(method="wilson")
    return interval.low, interval.high


def describe_accuracy(n_right, n):
    """Return an accuracy and its interval as text."""
    low, high = find_interval(n_right, n)
    return f"{n_right / n:.3f} ({n_right} of {n}; 95% interval {low:.3f} to {high:.3f})"
