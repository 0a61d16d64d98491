"""
=========================
Many tasks, one backbone
=========================

Is a digit even? Is it round? Is it above 4? For each of such tasks, NetTailor keeps the weights of
the backbone and adds lean proxies. So each task is a small file, and all share one file of the
backbone.
"""

# %%
# ``n_removed`` is a single number, so no sweep and no hold-out images are needed.

import tempfile

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_rrr import MultiTaskStore, NetTailorClassifier

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, train_size=150, stratify=y, random_state=0)
TASKS = {"even": [0, 2, 4, 6, 8], "round": [0, 6, 8, 9], "above-4": [5, 6, 7, 8, 9]}
clf = NetTailorClassifier(
    "synth50", n_removed=8, max_epochs=3, epochs_per_step=2, image_size=24,
    validation_fraction=None, random_state=0,
)  # fmt: skip
clf.set_params(fine_tuning__augmentation="none")

# %%
# The store has the backbone once, and refuses tasks that were trained on other weights.

folder = tempfile.TemporaryDirectory()
store = MultiTaskStore(folder.name, backbone="synth50")
for name, digits in TASKS.items():
    store.add(name, clf.fit(X, np.isin(y, digits)))
accuracy = {
    name: store.load(name).score(X_test, np.isin(y_test, digits)) for name, digits in TASKS.items()
}
sizes = store.sizes()
folder.cleanup()
print(sizes.round(2).to_string())

# %%
# A further task adds only its own part.

figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
left = 0
for name, size in sizes.items():
    label = name if name == "backbone" else f"{name}: accuracy {accuracy[name]:.2f}"
    ax.barh("in one store", size, left=left, label=label)
    left += size
alone = len(TASKS) * sizes["backbone"] + sizes.drop("backbone").sum()
ax.barh("each with a backbone", alone, color="gray")
ax.set(xlabel="megabytes", title="size of the files of three tasks")
ax.legend(loc="lower right")
plt.show()
