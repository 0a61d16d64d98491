"""
========================================
Quickstart: photographs in a few seconds
========================================

A folder of photographs, one sub-folder per class, is all that you need: read it, fit the default
classifier, and predict. The default trains no network, so this takes seconds on a laptop.
"""

# %%
# The photographs are parts, of 36x36 pixels, of two pictures that come with scikit-learn. With
# photographs of your own, this step is not needed.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.model_selection import train_test_split

from sklearn_rrr import RRRNetClassifier, load_image_folder, report_images

BOXES = {  # number of the picture; left, upper, right, lower
    "temple": (0, 90, 90, 330, 340),
    "sky": (0, 330, 0, 640, 190),
    "tree": (0, 330, 300, 640, 427),
    "flower": (1, 190, 90, 430, 350),
    "leaf": (1, 0, 0, 160, 427),
}
SIZE = 36
pictures = [Image.fromarray(image) for image in load_sample_images().images]


def cut(picture, left, upper, right, lower, step=SIZE):
    """Return parts of a picture, row by row."""
    corners = [
        (x, y)
        for y in range(upper, lower - SIZE + 1, step)
        for x in range(left, right - SIZE + 1, step)
    ]
    return [picture.crop((x, y, x + SIZE, y + SIZE)) for x, y in corners]


folder = tempfile.TemporaryDirectory()
for name, (number, *box) in BOXES.items():
    Path(folder.name, name).mkdir()
    for i, part in enumerate(cut(pictures[number], *box)):
        part.save(Path(folder.name, name, f"{i}.jpg"))

# %%
# :func:`~sklearn_rrr.load_image_folder` lists the files, and the names of their folders as labels.

photos = load_image_folder(folder.name)
print(report_images(photos))
X, X_test, y, y_test = train_test_split(
    photos.paths, photos.target, test_size=0.5, stratify=photos.target, random_state=0
)
clf = RRRNetClassifier(random_state=0).fit(X, y)
print(f"Accuracy on other parts: {clf.score(X_test, y_test):.3f}")
folder.cleanup()

# %%
# To see what the classifier has learned, it predicts overlapping parts of both whole pictures. The
# lake and the bud below the flower were not in any class.

STEP = 24
colours = plt.get_cmap("Set1")(np.arange(len(clf.classes_)))
figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
for row, picture in zip(axes, pictures, strict=True):
    width, height = picture.size
    guesses = clf.predict(cut(picture, 0, 0, width, height, STEP))
    n_columns = (width - SIZE) // STEP + 1
    numbers = np.searchsorted(clf.classes_, guesses).reshape(-1, n_columns)
    for ax in row:
        ax.imshow(picture)
        ax.axis("off")
    extent = (STEP / 2, STEP * n_columns + STEP / 2, STEP * len(numbers) + STEP / 2, STEP / 2)
    row[1].imshow(colours[numbers], extent=extent, alpha=0.55)
handles = [Patch(color=c, label=name) for c, name in zip(colours, clf.classes_, strict=True)]
figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
plt.show()
