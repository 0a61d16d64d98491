"""
===============================
Which pixels speak for a class?
===============================

A class activation map colours the pixels of an image by their contribution to the score of a class.
Here, the maps are no approximation: together with a constant, the contributions of all pixels add
up to the logit, the score before the softmax.
"""

# %%
# The training images are patches of scikit-learn's two sample photographs, a temple in China and a
# flower. Each patch has the name of its photograph as label.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit
from sklearn.datasets import load_sample_images

from sklearn_rrr import RRRNetClassifier
from sklearn_rrr.plotting import ActivationMapDisplay, AugmentationDisplay

photos = dict(zip(["china", "flower"], load_sample_images().images, strict=True))
rng = np.random.default_rng(0)
X, y = [], []
for label, photo in photos.items():
    for _ in range(60):
        size = rng.integers(60, 160)
        row, column = (rng.integers(0, n - size) for n in photo.shape[:2])
        X.append(photo[row : row + size, column : column + size])
        y.append(label)
clf = RRRNetClassifier(fine_tuning="one_pass", random_state=0).fit(X, y)

# %%
# We explain the predictions for both photographs and for a collage of their halves. Red pixels
# speak for the class, blue ones against it. In the collage, each half speaks for its own class.

collage = np.concatenate([photos["china"][:, :320], photos["flower"][:, 320:]], axis=1)
images = [*photos.values(), collage]
display = ActivationMapDisplay.from_estimator(clf, images, classes=["china", "flower"])

# %%
# By default, maps show what speaks for one class rather than for the others: they explain the logit
# of a class minus the mean logit of all classes. With two classes, the difference of these sums is
# the logarithm of the odds, so the probability can be computed from the pixels.

scores = display.maps.sum((2, 3)) + display.constants  # (images, classes)
print("from the pixels:", expit(scores[:, 0] - scores[:, 1]).round(3))
print("predicted:      ", clf.predict_proba(images)[:, 0].round(3))

# %%
# Without ``classes``, each image has one map, that of its predicted class.

patches = [X[i] for i in rng.choice(len(X), 10, replace=False)]
ActivationMapDisplay.from_estimator(clf, patches)

# %%
# Another look into a classifier is at the images that its training would see. This one was fitted
# in one pass, without augmentation; others may use geometric transformations.

AugmentationDisplay.from_augmentation("geometric", images, n=5)
plt.show()
