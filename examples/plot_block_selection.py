"""
==============================
Selecting the number of blocks
==============================

Forward selection on digits: starting from one block per phase, pre-trained blocks are added one by
one and training continues. The control, the smallest network trained for as many epochs, shows
whether the blocks or the epochs helped. A second plot shows the last training.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_rrr import BlockSelector, RRRNetClassifier
from sklearn_rrr.plotting import BlockSelectionDisplay, TrainingCurveDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, train_size=400, stratify=y, random_state=0
)

# Scores come from a third of the training images, held out; the test images are not used.

clf = RRRNetClassifier("synth50", n_branches=1, image_size=32, random_state=0)
selector = BlockSelector(
    clf, order="cyclic", tolerance=None, max_blocks=8, epochs_per_step=3, validation_fraction=0.33,
    control=True,
)  # fmt: skip
selector.fit(X_train, y_train)
columns = ["blocks", "score", "parameters", "latency_ms", "epochs", "control"]
print(selector.results_[columns].round(3).to_string())
print(f"{selector.blocks_}: accuracy on the test images {selector.score(X_test, y_test):.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
BlockSelectionDisplay.from_estimator(selector, ax=left)
TrainingCurveDisplay.from_estimator(selector, ax=right)
left.set_title("networks tried")
right.set_title(f"last training of {selector.blocks_}")
plt.show()
