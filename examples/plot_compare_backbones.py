"""
=======================
Which backbone is best?
=======================

Networks that were trained on photographs, or on images drawn by code, suit different images. One
pass with each of them takes seconds and shows the difference before anything is trained.
"""

# %%
# Two tasks: reading digits, and telling apart the parts of two photographs that come with
# scikit-learn, in grey and with random brightness, so that colours do not give them away.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import cross_val_score

from sklearn_rrr import RRRNetClassifier, cost_report, list_backbones

print("known backbones:", ", ".join(list_backbones()))

BOXES = {  # number of the picture; left, upper, right, lower
    "temple": (0, 90, 90, 330, 340),
    "lake": (0, 350, 220, 560, 290),
    "tree": (0, 330, 300, 640, 427),
    "petals": (1, 190, 90, 430, 220),
    "centre": (1, 250, 160, 370, 280),
    "leaf": (1, 0, 0, 160, 427),
}
pictures, rng = load_sample_images().images, np.random.default_rng(0)
parts, names = [], []
for name, (number, left, upper, right, lower) in BOXES.items():
    for _ in range(20):
        x, z = rng.integers(left, right - 32), rng.integers(upper, lower - 32)
        part = pictures[number][z : z + 32, x : x + 32].mean(2)
        parts.append((part - part.mean()) * rng.uniform(0.5, 1) + 128 + rng.normal(0, 20))
        names.append(name)
digits = load_digits()
tasks = {
    "digits": (digits.images[:200] / 16, digits.target[:200]),
    "parts of photographs": (np.clip(parts, 0, 255).astype(np.uint8), np.array(names)),
}

# %%
# Each network reads images of 64x64 pixels. With random weights, features still tell something.

models = {
    "efficientnet_lite0": RRRNetClassifier("efficientnet_lite0"),
    "synth50": RRRNetClassifier("synth50"),
    "synth50, reduced": RRRNetClassifier("synth50", blocks=(1, 1, 1, 1)),
    "synth50, random weights": RRRNetClassifier("synth50", weights=None),
}
scores = {task: [] for task in tasks}
for name, model in models.items():
    model.set_params(fine_tuning="one_pass", image_size=64, random_state=0)
    for task, (X, y) in tasks.items():
        scores[task].append(cross_val_score(model, X, y, cv=3).mean())
    models[name] = model.fit(*tasks["digits"])
report = cost_report(models, batch_sizes=(1,), repeats=10)
print(report[["n_parameters", "macs", "latency_1_ms"]].round(1).to_string())

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4), layout="constrained", sharey=True, width_ratios=(2, 1)
)
for shift, (task, values) in zip((-0.2, 0.2), scores.items(), strict=True):
    bars = left.barh(np.arange(len(models)) + shift, values, 0.38, label=task)
    left.bar_label(bars, fmt="%.2f", padding=3)
left.set_yticks(range(len(models)), list(models))
left.set(xlabel="accuracy in cross-validation", xlim=(0, 1.15))
left.legend(loc="lower right")
left.invert_yaxis()
right.barh(range(len(models)), report.latency_1_ms, color="gray")
right.set(xlabel="latency of one image in ms")
plt.show()
