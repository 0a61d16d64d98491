"""How sure an ensemble is, and why it is not; imports no torch."""

import numpy as np
from scipy.special import entr


class UncertaintyMixin:
    """Gives classifiers that have ``predict_branches`` the method ``predict_uncertainty``."""

    def predict_uncertainty(self, X):
        """Predict how sure the ensemble is, and why it is not.

        Parameters
        ----------
        X : images
            As `predict_branches` takes them.

        Returns
        -------
        uncertainty : pandas.DataFrame
            A row per image, in nats: ``total_entropy`` of the mean probabilities;
            ``expected_entropy``, the mean over branches (aleatoric: the image is ambiguous);
            ``mutual_information``, their difference (epistemic: branches disagree, as on images
            unlike those of the training). ``vote_agreement`` is the share of branches in
            [1 / n_branches, 1] whose most probable class is the most frequent one. Indexed as a
            frame or Series of images is.

        References
        ----------
        Depeweg et al. (2018), Decomposition of uncertainty in Bayesian deep learning for
        efficient and risk-sensitive learning, arXiv:1710.07283, section 3.
        """
        import pandas as pd  # OnnxClassifier predicts where there is none

        table = decompose_uncertainty(self.predict_branches(X))
        return pd.DataFrame(table, index=X.index if hasattr(X, "iloc") else None)


def decompose_uncertainty(probabilities):
    """Return the entropies of an ensemble's probabilities (n, M, K), in nats: arrays (n,)."""
    probabilities = np.asarray(probabilities, dtype=float)
    total = entr(probabilities.mean(1)).sum(1)
    expected = entr(probabilities).sum(2).mean(1)
    votes = np.eye(probabilities.shape[2])[probabilities.argmax(2)].mean(1)  # (n, K)
    return {
        "total_entropy": total,
        "expected_entropy": expected,
        "mutual_information": (total - expected).clip(min=0),
        "vote_agreement": votes.max(1),
    }
