"""The worst errors of a classifier, as pictures."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr._unwrapping import preprocess, unwrap
from sklearn_rrr._validation import check_int
from sklearn_rrr.plotting.display import check_labels, check_probabilities, import_pyplot
from sklearn_rrr.plotting.grid_display import (
    MOST_PANELS,
    GridDisplay,
    load_pictures,
    open_images,
    shorten,
    show_picture,
)

THUMBNAIL = 128  # largest height and width, in pixels, of pictures without a classifier


class ErrorGalleryDisplay(GridDisplay):
    """Plot the misclassified images whose true class has the smallest probability.

    Above each picture stand its true and its predicted label, with their probabilities.

    Parameters
    ----------
    pictures : ndarray of shape (n, S, S, 3)
        Worst errors first, uint8 or in [0, 1].
    indices : ndarray of shape (n,)
        Their positions in X.
    true_labels, predicted_labels : ndarray of shape (n,)
        Their labels.
    true_probabilities, predicted_probabilities : ndarray of shape (n,)
        Predicted probabilities of these labels.
    n_images, n_errors : int
        Number of images and of all misclassified images.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (max(n, 1),)
        Panels with the pictures, drawn by ``Axes.imshow``. Without errors, one panel says so.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    ActivationMapDisplay : Which pixels led to an error.
    sklearn.metrics.ConfusionMatrixDisplay : Number of errors of each kind.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_rrr.plotting import ErrorGalleryDisplay
    >>> X = np.random.default_rng(0).random((4, 16, 16))
    >>> y = ["cat", "cat", "dog", "dog"]
    >>> probabilities = [[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]]
    >>> display = ErrorGalleryDisplay.from_predictions(X, y, probabilities)
    >>> display.indices.tolist(), display.predicted_labels.tolist()
    ([2, 1], ['cat', 'dog'])
    """

    def __init__(
        self,
        pictures,
        indices,
        true_labels,
        predicted_labels,
        true_probabilities,
        predicted_probabilities,
        n_images,
        n_errors,
    ):
        self.pictures = pictures
        self.indices = indices
        self.true_labels = true_labels
        self.predicted_labels = predicted_labels
        self.true_probabilities = true_probabilities
        self.predicted_probabilities = predicted_probabilities
        self.n_images = n_images
        self.n_errors = n_errors

    @classmethod
    def from_estimator(cls, estimator, X, y, *, n=12, axes=None, **kwargs):
        """Plot the worst errors of a fitted classifier.

        Parameters
        ----------
        estimator : classifier
            Fitted, with ``predict_proba``. An image classifier, or a pipeline or search of one,
            also reads the pictures.
        X : images
            As in :meth:`RRRNetClassifier.fit`; use images that were not trained on.
        y : array-like of shape (n_images,)
            True labels, all of them in `classes_` of the classifier.
        n : int, default=12
            Largest number of pictures, in [1, 200].
        axes, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : ErrorGalleryDisplay
            The display, drawn.
        """
        import_pyplot()
        _check_number(n)
        check_is_fitted(estimator)
        if not hasattr(estimator, "predict_proba"):
            raise TypeError(
                "`estimator` must be a classifier with `predict_proba`; got a "
                f"{type(estimator).__name__}. Pass an image classifier of sklearn_rrr, or wrap it "
                "in a CalibratedClassifierCV."
            )
        errors = _find_errors(y, estimator.predict_proba(X), estimator.classes_)
        try:
            reader, steps = unwrap(estimator, "module_", "classes_")
        except TypeError:
            source, size = _open(X)
        else:
            source, size = reader._read(preprocess(steps, X), reset=False), reader.image_size_
        return cls._make(source, size, errors, n).plot(axes, **kwargs)

    @classmethod
    def from_predictions(cls, X, y_true, probabilities, classes=None, *, n=12, axes=None, **kwargs):
        """Plot the worst errors among given predictions, such as those of a cross-validation.

        Parameters
        ----------
        X : images
            As in :meth:`RRRNetClassifier.fit`; rows must be square.
        y_true : array-like of shape (n_images,)
            True labels.
        probabilities : array-like of shape (n_images, K) or (n_images, M, K)
            Probabilities for K classes, and for M branches, which are averaged.
        classes : array-like of shape (K,) or None, default=None
            Labels of the columns; None means the sorted labels of `y_true`.
        n : int, default=12
            Largest number of pictures, in [1, 200].
        axes, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : ErrorGalleryDisplay
            The display, drawn.
        """
        _check_number(n)
        errors = _find_errors(y_true, probabilities, classes)
        return cls._make(*_open(X), errors, n).plot(axes, **kwargs)

    @classmethod
    def _make(cls, source, size, errors, n):
        """Load the pictures of the first `n` errors, the result of :func:`_find_errors`."""
        indices, *columns, n_images = errors
        if len(source) != n_images:
            raise ValueError(
                "`X` must have one image for each label and row of probabilities; got "
                f"{len(source)} images and {n_images} labels."
            )
        shown = indices[:n]
        pictures = (
            load_pictures(source, shown, size) if len(shown) else np.zeros((0, size, size, 3))
        )
        return cls(pictures, shown, *(column[:n] for column in columns), n_images, len(indices))

    def _count(self):
        return max(len(self.indices), 1)

    def _draw(self, axes, kwargs):
        if not len(self.indices):
            text = f"no errors\namong {self.n_images} images"
            axes[0].text(0.5, 0.5, text, ha="center", va="center", transform=axes[0].transAxes)
        for i, picture in enumerate(self.pictures):
            true, predicted = shorten(self.true_labels[i]), shorten(self.predicted_labels[i])
            title = f"true: {true} ({self.true_probabilities[i]:.2f})\n"
            title += f"predicted: {predicted} ({self.predicted_probabilities[i]:.2f})"
            show_picture(axes[i], picture, title, **kwargs)


def _check_number(n):
    check_int("n", n, 1, MOST_PANELS, "It is the number of pictures.")


def _find_errors(y_true, probabilities, classes):
    """Return the errors, worst first: their indices, both labels, both probabilities; and n."""
    probabilities = check_probabilities(probabilities, (2, 3))
    if probabilities.ndim == 3:
        probabilities = probabilities.mean(1)
    labels, columns = check_labels(y_true, probabilities, classes)
    order = np.argsort(columns)
    truth = order[np.searchsorted(columns, labels, sorter=order)]
    guess = probabilities.argmax(1)
    of_truth = np.take_along_axis(probabilities, truth[:, None], 1)[:, 0]
    wrong = np.flatnonzero(truth != guess)
    wrong = wrong[np.argsort(of_truth[wrong], kind="stable")]
    shares = of_truth[wrong], probabilities.max(1)[wrong]
    return wrong, columns[truth[wrong]], columns[guess[wrong]], *shares, len(labels)


def _open(X):
    """Return a source of images without a classifier, and the size to load them at."""
    source = open_images(X)
    shape = source.format.shape
    return source, min(THUMBNAIL, max(shape[:2])) if shape else THUMBNAIL
