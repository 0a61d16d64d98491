"""Losses and accuracy of a training, epoch by epoch."""

from sklearn_rrr._unwrapping import unwrap
from sklearn_rrr.plotting.display import Display


class TrainingCurveDisplay(Display):
    """Plot the losses of a training and its accuracy on hold-out images.

    Parameters
    ----------
    history : pandas.DataFrame
        `history_` of a classifier, with the columns epoch and train_loss and, after a training
        with validation, valid_loss and valid_acc.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Axes with the losses, drawn by ``Axes.plot``, and their figure.
    accuracy_ax_ : matplotlib Axes or None
        Axes of the accuracy, on the right; None without valid_acc.

    See Also
    --------
    BlockSelectionDisplay : Scores of a search, step by step.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import RRRNetClassifier
    >>> from sklearn_rrr.plotting import TrainingCurveDisplay
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(n_branches=2, image_size=32, max_epochs=3, random_state=0)
    >>> display = TrainingCurveDisplay.from_estimator(clf.fit(X[:64] / 16, y[:64]))
    >>> display.ax_.get_ylabel()
    'loss'
    """

    def __init__(self, history):
        self.history = history

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Plot the training of a fitted classifier.

        Parameters
        ----------
        estimator : image classifier
            Fitted; or a pipeline, search, pruner or selector of one.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : TrainingCurveDisplay
            The display, drawn.
        """
        classifier, _ = unwrap(estimator, "history_")
        return cls(classifier.history_).plot(ax, **kwargs)

    def _draw(self, ax, kwargs):
        epochs, self.accuracy_ax_ = self.history["epoch"], None
        for name, style in [("train_loss", ".-"), ("valid_loss", ".--")]:
            if name in self.history:
                label = name.replace("_", " ")
                ax.plot(epochs, self.history[name], style, **{"label": label} | kwargs)
        handles, upper = ax.get_legend_handles_labels()[0], ax
        if "valid_acc" in self.history:
            self.accuracy_ax_ = upper = ax.twinx()
            accuracies, style = self.history["valid_acc"], {"color": "C2", "label": "valid acc"}
            handles += upper.plot(epochs, accuracies, ".:", **style)
            upper.set_ylabel("accuracy")
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.get_major_locator().set_params(integer=True)
        upper.legend(handles=handles, loc="center right")  # above the lines of both axes
