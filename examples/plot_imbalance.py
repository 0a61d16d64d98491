"""
============
Rare classes
============

With 100 images of one class and 10 of each of two others, a classifier prefers the frequent class.
Balanced weights correct that. Moving the decision after training does so, too, and keeps the
probabilities of the true frequencies.
"""

# %%
# The digits 3, 5 and 9 look alike, and only the 3 is frequent. Noise makes them harder to read. The
# test images have all three digits equally often.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay, balanced_accuracy_score

from sklearn_rrr import RRRNetClassifier

rng = np.random.default_rng(0)
X, y = load_digits(return_X_y=True)
X = (X / 16 + rng.normal(0, 0.3, X.shape)).clip(0, 1)
COUNTS = {3: 100, 5: 10, 9: 10}
train = np.concatenate([np.flatnonzero(y == digit)[:n] for digit, n in COUNTS.items()])
test = np.concatenate([np.flatnonzero(y == digit)[100:180] for digit in COUNTS])

# %%
# ``class_weight="balanced"`` gives each class the same total weight.

settings = {"fine_tuning": "one_pass", "image_size": 64, "random_state": 0}
plain = RRRNetClassifier(**settings).fit(X[train], y[train])
balanced = RRRNetClassifier(class_weight="balanced", **settings).fit(X[train], y[train])

# %%
# Without weights, probabilities are those of a world in which 3 is frequent. Divided by the
# frequencies of the training images, they are those of a world of equal frequencies.

frequencies = np.array(list(COUNTS.values())) / len(train)
moved = plain.classes_[(plain.predict_proba(X[test]) / frequencies).argmax(1)]

predictions = {
    "no weights": plain.predict(X[test]),
    "balanced weights": balanced.predict(X[test]),
    "no weights, decision moved": moved,
}
figure, axes = plt.subplots(1, 3, figsize=(12, 4.3), layout="constrained")
for ax, (name, guesses) in zip(axes, predictions.items(), strict=True):
    ConfusionMatrixDisplay.from_predictions(y[test], guesses, ax=ax, colorbar=False, cmap="Blues")
    ax.set_title(f"{name}\nbalanced accuracy {balanced_accuracy_score(y[test], guesses):.2f}")
plt.show()
