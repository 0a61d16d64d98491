"""
===============================
Are probabilities trustworthy?
===============================

Of all predictions made with a probability of 0.8, 80 % should be right. The default is calibrated,
because the scale of its logits is chosen with left-out images. A trained network often is not, and
``CalibratedClassifierCV`` corrects it.
"""

# %%
# Digits with strong noise are hard to read, so errors are frequent enough to be counted.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sklearn_rrr import RRRNetClassifier
from sklearn_rrr.plotting import ReliabilityDisplay

X, y = load_digits(return_X_y=True)
X = (X / 16 + np.random.default_rng(0).normal(0, 0.3, X.shape)).clip(0, 1)
X, X_test, y, y_test = train_test_split(
    X, y, train_size=300, test_size=600, stratify=y, random_state=0
)

# %%
# The trained network sees each image ten times, without augmentation, and becomes too confident.
# Cross-validation predicts each training image by a network that did not see it. With these
# predictions, a temperature is fitted, by which all logits are divided.

form = {"backbone": "synth50", "blocks": (1, 1, 1, 1), "image_size": 32, "random_state": 0}
trained = RRRNetClassifier(**form, max_epochs=10).set_params(fine_tuning__augmentation="none")
calibrated = CalibratedClassifierCV(trained, method="temperature", cv=2, ensemble=False)
models = {
    "closed form": RRRNetClassifier(fine_tuning="one_pass", image_size=32, random_state=0),
    "trained": trained,
    "trained, calibrated": calibrated,
}

# %%
# The error is the mean distance between confidence and accuracy; the curve of a calibrated
# classifier is the diagonal.

figure, axes = plt.subplots(1, 3, figsize=(12, 4.5), layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    model.fit(X, y)
    display = ReliabilityDisplay.from_estimator(model, X_test, y_test, n_bins=8, ax=ax)
    loss = log_loss(y_test, model.predict_proba(X_test))
    print(f"{name}: accuracy {model.score(X_test, y_test):.3f}, log loss {loss:.2f}")
    ax.set_title(f"{name}: error {display.expected_calibration_error:.2f}")
plt.show()
