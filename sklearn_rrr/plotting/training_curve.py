"""The course of a training."""

from sklearn_rrr.plotting.display import Display, get_fitted


class TrainingCurveDisplay(Display):
    """Draw the losses of a training, and its accuracy on images held out.

    Parameters
    ----------
    history : pandas.DataFrame
        `history_` of a classifier: epoch, train_loss and, with validation, valid_loss and
        valid_acc.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where the losses were drawn, by ``Axes.plot``.
    accuracy_ax_ : matplotlib Axes or None
        The axis on the right; None without valid_acc.

    See Also
    --------
    BlockSelectionDisplay : A search, step by step.

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
        """Draw the training of a fitted classifier.

        Parameters
        ----------
        estimator : image classifier
            Fitted.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : TrainingCurveDisplay
            Drawn.
        """
        history = get_fitted("estimator", estimator, "history_", "an image classifier")
        return cls(history).plot(ax, **kwargs)

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
