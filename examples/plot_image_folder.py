"""
=================================================
From nested folders of images to cross-validation
=================================================

Photographs often lie in folders of folders: splits, then places, then classes. This example reads
such folders, summarises them in one line, and measures whether a classifier works at places that it
has not seen.
"""

# %%
# First, we draw small pictures of four shapes at three places, each with its own background. There
# are two splits, and one training picture is copied to the test split by mistake.

import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw
from sklearn.model_selection import GroupKFold, cross_val_score

from sklearn_rrr import RRRNetClassifier, load_image_folder, report_images

CORNERS = {"triangle": 3, "square": 4, "hexagon": 6, "circle": 60}
PLACES = {"beach": (220, 200, 150), "meadow": (90, 160, 70), "street": (120, 120, 130)}


def draw_picture(n_corners, background, rng):
    """Return a turned polygon of a random size and colour on a noisy background."""
    noise = rng.normal(background, 20, (64, 64, 3)).clip(0, 255)
    picture = Image.fromarray(noise.astype(np.uint8))
    circle = (*rng.uniform(26, 38, 2), rng.uniform(14, 24))
    colour = tuple(rng.integers(0, 256, 3).tolist())
    turn = rng.uniform(0, 360)
    ImageDraw.Draw(picture).regular_polygon(circle, n_corners, rotation=turn, fill=colour)
    return picture


rng = np.random.default_rng(0)
folder = tempfile.TemporaryDirectory()
root = Path(folder.name)
for split, n in {"train": 15, "test": 5}.items():
    for place, background in PLACES.items():
        for shape, n_corners in CORNERS.items():
            parent = root / split / place / shape
            parent.mkdir(parents=True)
            for i in range(n):
                draw_picture(n_corners, background, rng).save(parent / f"{i}.png")
shutil.copy(root / "train/beach/circle/0.png", root / "test/beach/circle/copy.png")

# %%
# The folders at the top are splits. Below them, level 1 has the places, which are the groups of the
# cross-validation, and level 2 has the classes. Labels are the names of the folders.

photos = load_image_folder(
    root, splits=True, level=2, groups=lambda path: path.parts[1], as_frame=True
)
print(photos.frame.drop(columns="path").value_counts().unstack("label"))

# %%
# The report finds the copy, which we leave out of the test images.

report = report_images(photos)
print(report)
copies = [path for group in report.across_splits for path in group]
is_train = photos.split == "train"
is_test = ~is_train & ~np.isin(photos.paths, copies)

# %%
# ``GroupKFold`` leaves out one place after the other, so each score is the accuracy at a new place.

clf = RRRNetClassifier(fine_tuning="one_pass", image_size=64, random_state=0)
X, y, groups = photos.paths[is_train], photos.target[is_train], photos.groups[is_train]
scores = cross_val_score(clf, X, y, groups=groups, cv=GroupKFold(n_splits=3))
print(f"Accuracy at new places: {scores.mean():.2f} (lowest {scores.min():.2f})")

# %%
# Finally, we fit on all places and draw some of the test images with their predictions.

clf.fit(X, y)
paths, labels = photos.paths[is_test], photos.target[is_test]
print(f"Accuracy at known places: {clf.score(paths, labels):.2f}")

chosen = np.sort(rng.choice(len(paths), 18, replace=False))
figure, axes = plt.subplots(3, 6, figsize=(9, 5.5), layout="constrained")
for ax, i, guess in zip(axes.flat, chosen, clf.predict(paths[chosen]), strict=True):
    ax.imshow(Image.open(paths[i]))
    ax.set_title(f"{labels[i]}\nread as {guess}", color="k" if guess == labels[i] else "r")
    ax.axis("off")
folder.cleanup()
