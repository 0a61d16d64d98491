"""Reliability diagram of an ensemble and of its branches."""

import numpy as np

from sklearn_rrr._unwrapping import unwrap
from sklearn_rrr._validation import check_int
from sklearn_rrr.plotting.display import (
    Display,
    check_labels,
    check_probabilities,
    predict_with,
)


class ReliabilityDisplay(Display):
    """Plot the accuracy of predictions against their confidence.

    Parameters
    ----------
    confidence, accuracy : ndarray of shape (n_bins,)
        Mean probability of the predicted class in each bin, and fraction of correct
        predictions; nan in an empty bin.
    counts : ndarray of shape (n_bins,)
        Number of images in each bin.
    expected_calibration_error : float
        Mean of abs(accuracy - confidence) over the bins, weighted by the counts, in [0, 1].
    branch_confidence, branch_accuracy : ndarray of shape (n_bins,) or None, default=None
        Confidence and accuracy of single branches, with the predictions of all branches pooled.
    branch_expected_calibration_error : float or None, default=None
        Mean of the calibration errors of the branches.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Axes with the curves, drawn by ``Axes.plot``, and their figure. Arguments of ``plot``
        change the curve of the ensemble.

    See Also
    --------
    sklearn.calibration.CalibrationDisplay : Calibration curve of a binary classifier.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks,
    arXiv:1706.04599, section 2.

    Examples
    --------
    >>> from sklearn_rrr.plotting import ReliabilityDisplay
    >>> probabilities = [[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]]
    >>> display = ReliabilityDisplay.from_predictions([0, 0, 1, 0], probabilities)
    >>> round(display.expected_calibration_error, 3)
    0.15
    """

    def __init__(
        self,
        confidence,
        accuracy,
        counts,
        expected_calibration_error,
        *,
        branch_confidence=None,
        branch_accuracy=None,
        branch_expected_calibration_error=None,
    ):
        self.confidence = confidence
        self.accuracy = accuracy
        self.counts = counts
        self.expected_calibration_error = expected_calibration_error
        self.branch_confidence = branch_confidence
        self.branch_accuracy = branch_accuracy
        self.branch_expected_calibration_error = branch_expected_calibration_error

    @classmethod
    def from_estimator(cls, estimator, X, y, *, n_bins=10, ax=None, **kwargs):
        """Plot the reliability of a fitted classifier and of its branches.

        Parameters
        ----------
        estimator : classifier
            Fitted. Branches are drawn if it is an image classifier with ``predict_branches``, or a
            pipeline, search or FrozenEstimator of one; any other has ``predict_proba``.
        X : images
            As in :meth:`RRRNetClassifier.fit`; use images that were not trained on.
        y : array-like of shape (n,)
            Labels, all of them in `classes_` of the classifier.
        n_bins : int, default=10
            Number of bins of equal width in [0, 1].
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The display, drawn.
        """
        try:
            unwrap(estimator, "predict_branches")
            method = "predict_branches"
        except TypeError:
            method = "predict_proba"
        probabilities = predict_with(method, estimator, X)
        options = {"classes": estimator.classes_, "n_bins": n_bins, "ax": ax}
        return cls.from_predictions(y, probabilities, **options, **kwargs)

    @classmethod
    def from_predictions(cls, y_true, probabilities, *, classes=None, n_bins=10, ax=None, **kwargs):
        """Plot the reliability of given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n,)
            Labels.
        probabilities : array-like of shape (n, M, K) or (n, K)
            Probabilities for n images, M branches and K classes; (n, K) without branches.
        classes : array-like of shape (K,) or None, default=None
            Labels of the columns; None means the sorted labels of `y_true`.
        n_bins : int, default=10
            Number of bins of equal width in [0, 1].
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The display, drawn.
        """
        check_int("n_bins", n_bins, 1)
        probabilities = check_probabilities(probabilities, (2, 3))
        truth, columns = check_labels(y_true, probabilities, classes)

        def judge(p):  # (n, K)
            return p.max(1), columns[p.argmax(1)] == truth

        if probabilities.ndim == 2:
            return cls(*_bin(*judge(probabilities), n_bins)).plot(ax, **kwargs)
        branches = [judge(branch) for branch in probabilities.swapaxes(0, 1)]
        confidence, accuracy, *_ = _bin(*map(np.concatenate, zip(*branches, strict=True)), n_bins)
        errors = [_bin(*branch, n_bins)[3] for branch in branches]
        display = cls(
            *_bin(*judge(probabilities.mean(1)), n_bins),
            branch_confidence=confidence,
            branch_accuracy=accuracy,
            branch_expected_calibration_error=float(np.mean(errors)),
        )
        return display.plot(ax, **kwargs)

    def _draw(self, ax, kwargs):
        ax.plot([0, 1], [0, 1], "k:", label="perfectly calibrated")
        one = self.branch_expected_calibration_error
        name = "classifier" if one is None else "ensemble"
        label = f"{name} (ECE {self.expected_calibration_error:.3f})"
        self._draw_curve(ax, self.confidence, self.accuracy, "o-", {"label": label} | kwargs)
        if one is not None:
            style = {"label": f"single branches (mean ECE {one:.3f})"}
            self._draw_curve(ax, self.branch_confidence, self.branch_accuracy, "s--", style)
        ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        ax.legend()

    @staticmethod
    def _draw_curve(ax, confidence, accuracy, marker, style):
        used = np.isfinite(confidence)  # empty bins do not interrupt the line
        ax.plot(confidence[used], accuracy[used], marker, **style)


def _bin(confidence, correct, n_bins):
    """Return confidence, accuracy and count of each bin, and the calibration error."""
    # Guo et al.: bin m is the interval ((m - 1) / n_bins, m / n_bins].
    bins = np.digitize(confidence, np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
    counts, confident, right = (
        np.bincount(bins, weights, minlength=n_bins) for weights in (None, confidence, correct)
    )
    error = float(abs(right - confident).sum() / len(bins))
    filled = np.where(counts > 0, counts, np.nan)
    return confident / filled, right / filled, counts, error
