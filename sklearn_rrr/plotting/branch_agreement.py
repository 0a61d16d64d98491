"""Agreement of the branches of an ensemble."""

import numpy as np

from sklearn_rrr.plotting.display import Display, check_probabilities, predict_with

MOST_NUMBERS = 16  # more branches have no numbers in the cells


class BranchAgreementDisplay(Display):
    """Plot the fraction of images for which two branches predict the same class.

    Parameters
    ----------
    agreement : ndarray of shape (M, M)
        Fractions in [0, 1] for each pair of the M branches.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Axes with the matrix, drawn by ``Axes.imshow``, and their figure.

    See Also
    --------
    ReliabilityDisplay : Calibration of the ensemble and of its branches.

    Examples
    --------
    >>> from sklearn_rrr.plotting import BranchAgreementDisplay
    >>> first, second = [[0.9, 0.1], [0.8, 0.2]], [[0.2, 0.8], [0.3, 0.7]]
    >>> display = BranchAgreementDisplay.from_predictions([first, second, [[0.6, 0.4], [0, 1]]])
    >>> display.agreement.round(2).tolist()
    [[1.0, 0.67], [0.67, 1.0]]
    """

    def __init__(self, agreement):
        self.agreement = agreement

    @classmethod
    def from_estimator(cls, estimator, X, *, ax=None, **kwargs):
        """Plot the agreement of the branches of a fitted classifier.

        Parameters
        ----------
        estimator : image classifier
            Fitted, with ``predict_branches``; or a pipeline, search or FrozenEstimator of one.
        X : images
            As in :meth:`RRRNetClassifier.fit`.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : BranchAgreementDisplay
            The display, drawn.
        """
        return cls.from_predictions(predict_with("predict_branches", estimator, X), ax=ax, **kwargs)

    @classmethod
    def from_predictions(cls, probabilities, *, ax=None, **kwargs):
        """Plot the agreement of branches from their probabilities.

        Parameters
        ----------
        probabilities : array-like of shape (n, M, K)
            Result of ``predict_branches`` for n images, M branches and K classes.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : BranchAgreementDisplay
            The display, drawn.
        """
        votes = check_probabilities(probabilities, (3,)).argmax(2)  # (n, M)
        # Branch by branch: all pairs at once would take n * M * M bytes.
        agreement = [(votes == vote[:, None]).mean(0) for vote in votes.T]
        return cls(np.array(agreement)).plot(ax, **kwargs)

    def _draw(self, ax, kwargs):
        image = ax.imshow(self.agreement, **kwargs)
        self.figure_.colorbar(image, ax=ax, label="fraction of images")
        ax.set(xlabel="branch", ylabel="branch")
        n_branches = len(self.agreement)
        if n_branches > MOST_NUMBERS:
            return
        ax.set(xticks=range(n_branches), yticks=range(n_branches))
        for (i, j), share in np.ndenumerate(self.agreement):
            dark = np.mean(image.cmap(image.norm(share))[:3]) < 0.5
            style = {"color": "w" if dark else "k", "fontsize": 10 if n_branches <= 8 else 6}
            ax.text(j, i, f"{share:.2f}", ha="center", va="center", **style)
