"""Uncertainty of an ensemble, decomposed by cause; does not import torch."""

import numpy as np
from scipy.special import entr


class UncertaintyMixin:
    """Add ``predict_uncertainty`` to classifiers that have ``predict_branches``."""

    def predict_uncertainty(self, X):
        """Predict the uncertainty of the ensemble, decomposed by cause.

        Parameters
        ----------
        X : images
            As in `predict_branches`.

        Returns
        -------
        uncertainty : pandas.DataFrame
            One row per image, with the index of X if X is a frame or Series. Entropies are in
            nats: ``total_entropy`` of the mean probabilities; ``expected_entropy``, the mean
            over branches (aleatoric: the image is ambiguous); ``mutual_information``, their
            difference (epistemic: branches disagree, for example on images unlike the training
            images). ``vote_agreement`` is the fraction of branches, in [1 / n_branches, 1], that
            vote for the most frequent class.

        References
        ----------
        Depeweg et al. (2018), Decomposition of uncertainty in Bayesian deep learning for
        efficient and risk-sensitive learning, arXiv:1710.07283, section 3.
        """
        import pandas as pd  # optional for OnnxClassifier

        table = decompose_uncertainty(self.predict_branches(X))
        return pd.DataFrame(table, index=X.index if hasattr(X, "iloc") else None)


def decompose_uncertainty(probabilities):
    """Return the uncertainties of an ensemble's probabilities (n, M, K): arrays of shape (n,)."""
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
