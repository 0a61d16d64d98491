"""
====================================================
Rejecting uncertain images to reach a given accuracy
====================================================

A classifier may leave difficult images to a person. This example chooses the confidence above which
predictions are accepted, so that, with a probability of 95 %, at least 95 % of the accepted
predictions are right. It needs no extra images: the choice uses cross-validated predictions.
"""

# %%
# The images are digits with strong noise, on which many predictions are wrong. 800 of them have
# labels that we may use; the others play the part of new images.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict, train_test_split

from sklearn_rrr import RRRNetClassifier

WANTED = 0.95  # accuracy of the accepted predictions
RISK = 0.05  # probability that it is not reached

X, y = load_digits(return_X_y=True)
X = (X / 16 + np.random.default_rng(0).normal(0, 0.25, X.shape)).clip(0, 1)
X, X_new, y, y_new = train_test_split(
    X, y, train_size=800, test_size=800, stratify=y, random_state=0
)

# %%
# The confidence is the probability of the predicted class. Cross-validation predicts each image by
# a network that was not trained on it, so the confidences are like those of new images.

clf = RRRNetClassifier(fine_tuning="one_pass", image_size=48, random_state=0)
probabilities = cross_val_predict(clf, X, y, cv=4, method="predict_proba")
confidence, correct = probabilities.max(1), probabilities.argmax(1) == y
print(f"Accuracy without rejection: {correct.mean():.3f}")

# %%
# The accuracy measured above a threshold is an estimate from a limited number of images. So we use
# its lower confidence bound (Clopper and Pearson 1934) instead. As we choose among ten thresholds,
# each gets a tenth of the risk (Bonferroni). The lowest threshold whose bound reaches the wanted
# accuracy rejects the fewest images.

thresholds = np.linspace(0.5, 0.95, 10)
level = 1 - RISK / len(thresholds)


def bound_accuracy(correct):
    """Return the lower bound of an accuracy, or 0 without images."""
    if not len(correct):
        return 0.0
    test = binomtest(int(correct.sum()), len(correct), alternative="greater")
    return test.proportion_ci(level).low


bounds = np.array([bound_accuracy(correct[confidence >= t]) for t in thresholds])
if bounds.max() < WANTED:
    raise ValueError("No threshold reaches the wanted accuracy; label more images.")
threshold = thresholds[bounds >= WANTED].min()
print(f"Threshold: {threshold:.2f}")

# %%
# The classifier is now fitted on all labelled images and applied to new ones. The threshold stays
# valid if the new images come from the same source, and if the classifier is at least as good as
# those of the cross-validation, which were trained on fewer images.

probabilities = clf.fit(X, y).predict_proba(X_new)
confidence_new, correct_new = probabilities.max(1), probabilities.argmax(1) == y_new
accepted = confidence_new >= threshold
print(f"Accepted: {accepted.mean():.0%} of the new images")
print(f"Accuracy on these: {correct_new[accepted].mean():.3f}")
print(f"Accuracy on the rejected ones: {correct_new[~accepted].mean():.3f}")

# %%
# The curve of accuracy against coverage, the accepted fraction, shows the price of other demands.


def trace(confidence, correct):
    """Return coverage and accuracy for all thresholds, from the highest."""
    counts = np.arange(1, len(correct) + 1)
    return counts / len(correct), correct[np.argsort(-confidence)].cumsum() / counts


figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
ax.plot(*trace(confidence, correct), label="cross-validation")
ax.plot(*trace(confidence_new, correct_new), label="new images")
coverages = [(confidence >= t).mean() for t in thresholds]
ax.plot(coverages, bounds, "k_", markersize=12, label="lower bound at ten thresholds")
ax.axhline(WANTED, color="gray", linestyle="--", label="wanted accuracy")
ax.plot(accepted.mean(), correct_new[accepted].mean(), "o", color="C1", label="chosen threshold")
ax.set(xlabel="coverage: fraction of accepted images", ylabel="accuracy on accepted images")
ax.set(xlim=(0.1, 1), ylim=(0.75, 1.01))
ax.legend(loc="lower left")
plt.show()
