"""
========================================
Resuming a training that was interrupted
========================================

A training that is killed after hours need not start again. With ``checkpoint_dir``, a fit that is
repeated goes on after the last complete epoch, and ends in the same model.
"""

# %%
# This function receives each image of each epoch, and could change it at random. Here, it presses
# Ctrl-C at the 1,300th of 2,400 images.

import tempfile

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits

from sklearn_rrr import FineTuning, RRRNetClassifier

n_images = 0


def press_ctrl_c(image):
    """Return an image as it is, or interrupt the training."""
    global n_images
    n_images += 1
    if n_images == 1300:
        raise KeyboardInterrupt
    return image


# %%
# With 240 digits, the interruption happens in the 6th of ten epochs. The classifier keeps what it
# has learned, and could be used.

X, y = load_digits(return_X_y=True)
X, y = X[:480] / 16, y[:480]
tuning = FineTuning(augmentation=press_ctrl_c)
form = {"backbone": "synth50", "blocks": (1, 1, 1, 1), "image_size": 32, "max_epochs": 10}
folder = tempfile.TemporaryDirectory()
clf = RRRNetClassifier(**form, fine_tuning=tuning, checkpoint_dir=folder.name, random_state=0)
try:
    clf.fit(X[:240], y[:240])
except KeyboardInterrupt:
    before = clf.history_
    accuracy = clf.score(X[240:], y[240:])
    print(f"interrupted in epoch {len(before) + 1}; accuracy so far {accuracy:.3f}")

# %%
# The same line again trains only the epochs that are missing.

clf.fit(X[:240], y[:240])
folder.cleanup()
print(f"accuracy {clf.score(X[240:], y[240:]):.3f}; images in both fits: {n_images} of 2400")

# %%
# A fit without an interruption ends in the same probabilities, bit for bit.

straight = clone(clf).set_params(checkpoint_dir=None).fit(X[:240], y[:240])
print("equal:", np.array_equal(clf.predict_proba(X), straight.predict_proba(X)))

figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
ax.plot(straight.history_.epoch, straight.history_.train_loss, "k:", label="without interruption")
ax.plot(before.epoch, before.train_loss, "o-", label="before the interruption")
after = clf.history_[len(before) :]
ax.plot(after.epoch, after.train_loss, "s-", label="after the interruption")
ax.axvline(len(before) + 0.75, color="gray", linestyle="--", label="Ctrl-C")
ax.set(xlabel="epoch", ylabel="training loss")
ax.legend()
plt.show()
