"""Whether an ensemble is as sure as it is right."""

import numpy as np

from sklearn_rrr._validation import check_int
from sklearn_rrr.images.labels import encode_labels
from sklearn_rrr.plotting.display import Display, check_probabilities, predict_with


class ReliabilityDisplay(Display):
    """Draw how often the most probable class is right, against its probability.

    Parameters
    ----------
    confidence, accuracy : ndarray of shape (n_bins,)
        Mean probability of the most probable class in each bin, and the share of images for
        which it is the label; nan in an empty bin.
    counts : ndarray of shape (n_bins,)
        Images in each bin.
    expected_calibration_error : float
        Mean of abs(accuracy - confidence), weighted by the counts, in [0, 1].
    branch_confidence, branch_accuracy : ndarray of shape (n_bins,) or None, default=None
        The same of single branches: the mean over all, weighted by their counts.
    branch_expected_calibration_error : float or None, default=None
        Mean over the branches of each one's own.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn, by ``Axes.plot``; arguments change the ensemble's curve.

    See Also
    --------
    sklearn.calibration.CalibrationDisplay : The same of one class against another.

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
        """Draw the reliability of a fitted classifier and of its branches.

        Parameters
        ----------
        estimator : classifier
            Fitted; has ``predict_branches``, or ``predict_proba`` only.
        X : images
            As in :meth:`RRRNetClassifier.fit`; not those of the training.
        y : array-like of shape (n,)
            Labels, all of them known to the classifier.
        n_bins : int, default=10
            Bins of equal width in [0, 1].
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            Drawn.
        """
        branched = hasattr(estimator, "predict_branches")
        predict = "predict_branches" if branched else "predict_proba"
        probabilities = predict_with(predict, estimator, X)
        options = {"classes": estimator.classes_, "n_bins": n_bins, "ax": ax}
        return cls.from_predictions(y, probabilities, **options, **kwargs)

    @classmethod
    def from_predictions(cls, y_true, probabilities, *, classes=None, n_bins=10, ax=None, **kwargs):
        """Draw the reliability of probabilities that are given.

        Parameters
        ----------
        y_true : array-like of shape (n,)
            Labels.
        probabilities : array-like of shape (n, M, K) or (n, K)
            Of n images, M branches and K classes, or of the classes only.
        classes : array-like of shape (K,) or None, default=None
            Labels of the columns; None takes those of `y_true`, sorted.
        n_bins : int, default=10
            Bins of equal width in [0, 1].
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
            Drawn.
        """
        check_int("n_bins", n_bins, 1)
        probabilities = check_probabilities(probabilities, (2, 3))
        known, labels = encode_labels(y_true, classes)
        if len(labels) != len(probabilities):
            raise ValueError(
                "`y_true` must have a label for each image of `probabilities`; got "
                f"{len(labels)} labels of {len(probabilities)} images."
            )
        if len(known) != probabilities.shape[-1]:
            raise ValueError(
                f"`classes` must name the {probabilities.shape[-1]} columns of `probabilities`; "
                f"got {known.tolist()}. Pass for example classes=clf.classes_."
            )
        columns = known if classes is None else np.asarray(classes)
        truth = known[labels]

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
        ax.plot([0, 1], [0, 1], "k:", label="as sure as right")
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
        used = np.isfinite(confidence)  # no gap where a bin is empty
        ax.plot(confidence[used], accuracy[used], marker, **style)


def _bin(confidence, correct, n_bins):
    """Return mean confidence, accuracy and count of each bin, and their calibration error."""
    # Guo et al.: bin m holds ((m - 1) / n_bins, m / n_bins].
    bins = np.digitize(confidence, np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
    counts, confident, right = (
        np.bincount(bins, weights, minlength=n_bins) for weights in (None, confidence, correct)
    )
    error = float(abs(right - confident).sum() / len(bins))
    filled = np.where(counts > 0, counts, np.nan)
    return confident / filled, right / filled, counts, error
